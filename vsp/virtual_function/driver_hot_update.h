// SPDX-License-Identifier: MIT
//
// Hot update of a driver, under its documented names: for C11 and C++.
//
// The structures, flags, callbacks and status values are the documented ones;
// what a kernel has and a process has not is translated, as in kmcl.h:
//   MDL         a chain of byte ranges in this process: all elements but the
//               first begin on a page, all but the last end on one
//   page        4096 bytes of the device's memory, counted from its start
//   hAdapter    DocumentedHotUpdateDriver::adapter()
//
// A driver owns the MDL of a restore call that it answers with success, and
// frees it by ferrybus_free_mdl(); it is mapped already.  An MDL that it saves
// stays its own: the bytes are what is saved.
//
// documented_hot_update.h goes between these and HotUpdate.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_DRIVER_HOT_UPDATE_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_DRIVER_HOT_UPDATE_H_

#include "ferrybus/vsp/virtual_function/documented_types.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef FERRYBUS_MDL_DEFINED  // in kmcl.h, too
#define FERRYBUS_MDL_DEFINED
// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _MDL {
  struct _MDL* Next;
  PVOID MappedSystemVa;
  ULONG ByteCount;
} MDL, *PMDL;
#endif

// The page number in the low 40 bits, how many in the high 24.
// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGK_KSR_MEMORY_RANGE {
  ULONGLONG MemoryRangeDesc;
} DXGK_KSR_MEMORY_RANGE;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGK_SAVEMEMORYFORHOTUPDATEFLAGS {
  union {
    struct {
      UINT CancelHotUpdate : 1;
      UINT Reserved : 31;
    };
    UINT Value;
  };
} DXGK_SAVEMEMORYFORHOTUPDATEFLAGS;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGKARG_SAVEMEMORYFORHOTUPDATE {
  DXGK_SAVEMEMORYFORHOTUPDATEFLAGS Flags;
} DXGKARG_SAVEMEMORYFORHOTUPDATE;

// Exactly one of pDataMemoryRanges, pDataMdl and pData is not null.
// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGKARGCB_SAVEMEMORYFORHOTUPDATE {
  UINT NumDataMemoryRanges;
  DXGK_KSR_MEMORY_RANGE* pDataMemoryRanges;
  PMDL pDataMdl;
  UINT DataSize;
  PVOID pData;
  UINT MetaDataSize;
  BYTE* pMetaData;
} DXGKARGCB_SAVEMEMORYFORHOTUPDATE;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGK_RESTOREMEMORYFORHOTUPDATEFLAGS {
  union {
    struct {
      UINT RestoreComplete : 1;
      UINT Reserved : 31;
    };
    UINT Value;
  };
} DXGK_RESTOREMEMORYFORHOTUPDATEFLAGS;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGKARG_RESTOREMEMORYFORHOTUPDATE {
  DXGK_RESTOREMEMORYFORHOTUPDATEFLAGS Flags;
  PMDL pDataMdl;
  UINT MetaDataSize;
  PVOID pMetaData;
} DXGKARG_RESTOREMEMORYFORHOTUPDATE;

// To the old driver.
typedef NTSTATUS DXGKDDI_SAVEMEMORYFORHOTUPDATE(
    PVOID hContext, const DXGKARG_SAVEMEMORYFORHOTUPDATE* pArgs);
// From the old driver, within the call above.
typedef NTSTATUS DXGKCB_SAVEMEMORYFORHOTUPDATE(
    PVOID hAdapter, const DXGKARGCB_SAVEMEMORYFORHOTUPDATE* pArgs);
// To the new driver.
typedef NTSTATUS DXGKDDI_RESTOREMEMORYFORHOTUPDATE(
    PVOID hContext, const DXGKARG_RESTOREMEMORYFORHOTUPDATE* pArgs);

NTSTATUS DxgkCbSaveMemoryForHotUpdate(
    PVOID hAdapter, const DXGKARGCB_SAVEMEMORYFORHOTUPDATE* pArgs);
// Frees a restored MDL, and its pages if they are a copy.
void ferrybus_free_mdl(PMDL Mdl);

static_assert(sizeof(DXGK_KSR_MEMORY_RANGE) == 8, "layout");
static_assert(sizeof(DXGKARG_SAVEMEMORYFORHOTUPDATE) == 4, "layout");
static_assert(sizeof(DXGKARGCB_SAVEMEMORYFORHOTUPDATE) == 56, "layout");
static_assert(offsetof(DXGKARGCB_SAVEMEMORYFORHOTUPDATE, pDataMemoryRanges) ==
                  8,
              "layout");
static_assert(offsetof(DXGKARGCB_SAVEMEMORYFORHOTUPDATE, pDataMdl) == 16,
              "layout");
static_assert(offsetof(DXGKARGCB_SAVEMEMORYFORHOTUPDATE, DataSize) == 24,
              "layout");
static_assert(offsetof(DXGKARGCB_SAVEMEMORYFORHOTUPDATE, pData) == 32,
              "layout");
static_assert(offsetof(DXGKARGCB_SAVEMEMORYFORHOTUPDATE, MetaDataSize) == 40,
              "layout");
static_assert(offsetof(DXGKARGCB_SAVEMEMORYFORHOTUPDATE, pMetaData) == 48,
              "layout");
static_assert(sizeof(DXGKARG_RESTOREMEMORYFORHOTUPDATE) == 32, "layout");
static_assert(offsetof(DXGKARG_RESTOREMEMORYFORHOTUPDATE, pDataMdl) == 8,
              "layout");
static_assert(offsetof(DXGKARG_RESTOREMEMORYFORHOTUPDATE, MetaDataSize) == 16,
              "layout");
static_assert(offsetof(DXGKARG_RESTOREMEMORYFORHOTUPDATE, pMetaData) == 24,
              "layout");

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_DRIVER_HOT_UPDATE_H_
