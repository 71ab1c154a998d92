// SPDX-License-Identifier: MIT

// The header is C11, stands beside the others, and its values are the
// documented ones.

#include "ferrybus/vsp/virtual_function/driver_hot_update.h"
#include "ferrybus/vsp/virtual_function/driver_migration.h"
#include "ferrybus/vsp/virtual_function/migration_interrupts.h"

static UINT ended = 99;

static NTSTATUS Save(PVOID hAdapter,
                     DXGKARG_GPUP_SAVE_MUTABLE_MIGRATION_DATA* pArgs) {
  (void)hAdapter;
  if (*pArgs->DataSize == 0) {
    *pArgs->DataSize = 2;
  } else {
    pArgs->Data[0] = 4;
    pArgs->Data[1] = 2;
  }
  return STATUS_SUCCESS;
}

static NTSTATUS End(PVOID hAdapter, UINT vfIndex) {
  (void)hAdapter;
  ended = vfIndex;
  return STATUS_SUCCESS;
}

static HRESULT Restore(IGPUPMigration* This, PLUID DeviceLuid, UINT64 Length,
                       BYTE RestoreBuffer[]) {
  (void)This;
  if (DeviceLuid->LowPart != 7 || Length != 2) return E_INVALIDARG;
  return RestoreBuffer[1] == 2 ? S_OK : E_OUTOFMEMORY;
}

static int CheckValues(void) {
  DXGK_GPUPCAPS caps = {{{0, 0, 0, 0, 0}}};
  DXGK_DIRTY_BIT_TRACKING_CAPS tracking = {{{0, 1, 0}}};
  const GUID* guid = &GUID_DxgkAzureTriageEvent;
  caps.LiveMigration = 1;
  if (caps.Caps != 4 || tracking.Value != 2) return 1;
  if (DXGKQAITYPE_GPUPCAPS != 30 || DXGKQAITYPE_SCATTER_RESERVE != 41) return 2;
  if (DXGK_GPUP_MIGRATIONTYPE_TARGET != 1) return 3;
  if (DXGK_MEMORY_TRANSFER_LOCAL_TO_LOCAL != 2) return 4;
  if (GpupSaveInvalid != 0 || GpupPauseResumeGuestRunning != 3) return 5;
  if (guid->Data1 != 0x45125F6F || guid->Data4[7] != 0xF9) return 6;
  if (NT_SUCCESS(STATUS_OBJECT_TYPE_MISMATCH) || E_INVALIDARG >= 0) return 7;
  return DXGKARG_QUERYDIRTYBITDATAFLAGS_CLEARDATA == 1 ? 0 : 8;
}

int main(void) {
  DXGKDDI_SAVEMUTABLEMIGRATIONDATA* save = Save;
  DXGKDDI_ENDLIVEMIGRATION* end = End;
  const IGPUPMigrationVtbl table = {NULL, NULL, NULL, NULL, Restore};
  IGPUPMigration umed = {&table};
  LUID luid = {7, -1};
  UINT64 size = 0;
  BYTE data[2] = {0, 0};
  DXGKARG_GPUP_SAVE_MUTABLE_MIGRATION_DATA args = {3, &size, NULL};
  if (CheckValues() != 0) return CheckValues();
  if (!NT_SUCCESS(save(NULL, &args)) || size != 2) return 11;
  args.Data = data;
  if (!NT_SUCCESS(save(NULL, &args)) || data[0] != 4) return 12;
  if (!NT_SUCCESS(end(NULL, 3)) || ended != 3) return 13;
  if (umed.lpVtbl->RestoreImmutableGpup(&umed, &luid, 2, data) != S_OK) {
    return 14;
  }
  return 0;
}
