// SPDX-License-Identifier: MIT

// The header is C11, and stands beside the other one.

#include "ferrybus/vsp/virtual_function/driver_hot_update.h"
#include "ferrybus/vsp/virtual_function/migration_interrupts.h"

static int cancelled;
static UINT saved_bytes;

static NTSTATUS Save(PVOID hContext,
                     const DXGKARG_SAVEMEMORYFORHOTUPDATE* pArgs) {
  DXGKCB_SAVEMEMORYFORHOTUPDATE* callback = DxgkCbSaveMemoryForHotUpdate;
  if (callback == NULL) return STATUS_UNSUCCESSFUL;
  (void)hContext;
  cancelled = pArgs->Flags.CancelHotUpdate;
  return STATUS_SUCCESS;
}

static NTSTATUS Restore(PVOID hContext,
                        const DXGKARG_RESTOREMEMORYFORHOTUPDATE* pArgs) {
  (void)hContext;
  if (pArgs->Flags.RestoreComplete) return STATUS_SUCCESS;
  saved_bytes += pArgs->pDataMdl->ByteCount;
  return STATUS_SUCCESS;
}

int main(void) {
  DXGKDDI_SAVEMEMORYFORHOTUPDATE* save = Save;
  DXGKDDI_RESTOREMEMORYFORHOTUPDATE* restore = Restore;
  DXGKARG_SAVEMEMORYFORHOTUPDATE save_args = {{{{1, 0}}}};
  MDL mdl = {NULL, NULL, 42};
  DXGKARG_RESTOREMEMORYFORHOTUPDATE restore_args = {{{{0, 0}}}, &mdl, 0, NULL};
  if (save_args.Flags.Value != 1) return 1;
  if (save(NULL, &save_args) != STATUS_SUCCESS || !cancelled) return 2;
  if (!NT_SUCCESS(restore(NULL, &restore_args)) || saved_bytes != 42) return 3;
  if (NT_SUCCESS(STATUS_CANCELLED) || NT_SUCCESS(STATUS_NOT_SUPPORTED) ||
      NT_SUCCESS(STATUS_INVALID_DEVICE_STATE)) {
    return 4;
  }
  ferrybus_free_mdl(NULL);
  return 0;
}
