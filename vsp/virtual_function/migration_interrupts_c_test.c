// SPDX-License-Identifier: MIT

// The header is C11, and its values are the documented ones.

#include "ferrybus/vsp/virtual_function/migration_interrupts.h"

static DXGK_INTERRUPT_TABLE_ENTRY table[4];

static NTSTATUS WriteEntry(PVOID hAdapter,
                           const DXGKARG_GPUP_WRITE_VIRTUALIZED_MSIX* pArgs) {
  (void)hAdapter;
  if (pArgs->InterruptTableIndex < 0 || pArgs->InterruptTableIndex > 3) {
    return STATUS_INVALID_PARAMETER;
  }
  table[pArgs->InterruptTableIndex] = pArgs->WriteValue;
  return STATUS_SUCCESS;
}

int main(void) {
  DXGKDDI_WRITEVIRTUALIZEDINTERRUPT* callback = WriteEntry;
  DXGKARG_GPUP_WRITE_VIRTUALIZED_MSIX args = {
      0, 3, {0x12345678fee00000u, 0x41, 1}};
  if (!NT_SUCCESS(callback(NULL, &args))) return 1;
  if (table[3].MessageAddress != 0x12345678fee00000u) return 2;
  if (table[3].MessageData != 0x41 || table[3].VectorControl != 1) return 3;
  args.InterruptTableIndex = -1;
  if (callback(NULL, &args) != (NTSTATUS)0xC000000D) return 4;
  return NT_SUCCESS(STATUS_UNSUCCESSFUL) ? 5 : 0;
}
