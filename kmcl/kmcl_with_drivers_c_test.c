// SPDX-License-Identifier: MIT

// The headers with documented names share types: they stand in one program.

#include "ferrybus/kmcl/kmcl.h"
#include "ferrybus/vsp/virtual_function/driver_hot_update.h"
#include "ferrybus/vsp/virtual_function/driver_migration.h"
#include "ferrybus/vsp/virtual_function/migration_interrupts.h"

int main(void) {
  MDL mdl = {NULL, NULL, 5};
  DXGKARGCB_SAVEMEMORYFORHOTUPDATE args = {0};
  DXGK_INTERRUPT_TABLE_ENTRY entry = {0, 0, 1};
  args.pDataMdl = &mdl;
  if (args.pDataMdl->ByteCount != 5 || entry.VectorControl != 1) return 1;
  return NT_SUCCESS(STATUS_INVALID_DEVICE_STATE) ? 2 : 0;
}
