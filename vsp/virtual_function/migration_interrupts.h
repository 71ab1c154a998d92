// SPDX-License-Identifier: MIT
//
// Interrupts of a virtual function that moves, under their documented names:
// for C11 and C++.
//
// The structures, the callback and its status values are the documented ones.
// The callback writes one whole entry to the device's MSI-X table; the address
// in it is this host's already.  InterruptTableIndex is signed: negative ones,
// and those beyond the table, are STATUS_INVALID_PARAMETER.
//
// documented_interrupt.h goes between these and MsixDevice.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_MIGRATION_INTERRUPTS_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_MIGRATION_INTERRUPTS_H_

#include "ferrybus/vsp/virtual_function/documented_types.h"

#ifdef __cplusplus
extern "C" {
#endif

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGK_INTERRUPT_TABLE_ENTRY {
  UINT64 MessageAddress;
  UINT32 MessageData;
  UINT32 VectorControl;
} DXGK_INTERRUPT_TABLE_ENTRY;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGKARG_GPUP_WRITE_VIRTUALIZED_MSIX {
  UINT vfIndex;
  INT16 InterruptTableIndex;
  DXGK_INTERRUPT_TABLE_ENTRY WriteValue;
} DXGKARG_GPUP_WRITE_VIRTUALIZED_MSIX;

typedef NTSTATUS DXGKDDI_WRITEVIRTUALIZEDINTERRUPT(
    PVOID hAdapter, const DXGKARG_GPUP_WRITE_VIRTUALIZED_MSIX* pArgs);

static_assert(sizeof(DXGK_INTERRUPT_TABLE_ENTRY) == 16, "layout");
static_assert(offsetof(DXGK_INTERRUPT_TABLE_ENTRY, MessageData) == 8, "layout");
static_assert(offsetof(DXGK_INTERRUPT_TABLE_ENTRY, VectorControl) == 12,
              "layout");
static_assert(sizeof(DXGKARG_GPUP_WRITE_VIRTUALIZED_MSIX) == 24, "layout");
static_assert(offsetof(DXGKARG_GPUP_WRITE_VIRTUALIZED_MSIX,
                       InterruptTableIndex) == 4,
              "layout");
static_assert(offsetof(DXGKARG_GPUP_WRITE_VIRTUALIZED_MSIX, WriteValue) == 8,
              "layout");

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_MIGRATION_INTERRUPTS_H_
