// SPDX-License-Identifier: MIT
//
// A driver's table of documented callbacks for live migration.
//
// Ownership: borrows what `context` points to.
// Thread safety: a value.  The callbacks are documented as re-entrant: those
// of different functions, and those for memory, run on several threads at once.
// Trust: the driver is trusted code of this process; what it answers is
// checked, what its pointers point to is not.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_MIGRATION_FUNCTIONS_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_MIGRATION_FUNCTIONS_H_

#include "ferrybus/vsp/virtual_function/driver_migration.h"

namespace ferrybus::vsp {

struct DocumentedMigrationFunctions {
  PVOID context = nullptr;
  DXGKDDI_QUERYADAPTERINFO* query_adapter_info = nullptr;

  // All of these with the capability LiveMigration.
  DXGKDDI_PREPARELIVEMIGRATION* prepare = nullptr;
  DXGKDDI_SAVEIMMUTABLEMIGRATIONDATA* save_immutable = nullptr;
  DXGKDDI_SAVEMUTABLEMIGRATIONDATA* save_mutable = nullptr;
  DXGKDDI_RESTOREIMMUTABLEMIGRATIONDATA* restore_immutable = nullptr;
  DXGKDDI_RESTOREMUTABLEMIGRATIONDATA* restore_mutable = nullptr;
  DXGKDDI_ENDLIVEMIGRATION* end = nullptr;
  DXGKDDI_SETVIRTUALFUNCTIONPAUSESTATE* set_pause_state = nullptr;
  FERRYBUS_VIRTUAL_TRANSFER* transfer = nullptr;

  // All of these with dirty tracking.
  DXGKDDI_CREATEMEMORYBASIS* create_memory_basis = nullptr;
  DXGKDDI_DESTROYMEMORYBASIS* destroy_memory_basis = nullptr;
  DXGKDDI_STARTDIRTYTRACKING* start_dirty_tracking = nullptr;
  DXGKDDI_STOPDIRTYTRACKING* stop_dirty_tracking = nullptr;
  DXGKDDI_QUERYDIRTYBITDATA* query_dirty_bit_data = nullptr;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_MIGRATION_FUNCTIONS_H_
