// SPDX-License-Identifier: MIT
//
// Live migration of a virtual function, under its documented names: for C11
// and C++.
//
// The structures, enumerations, flags, callbacks and status values are the
// documented ones.  What the documents leave open, or a process has not:
//   hAdapter          DocumentedMigrationFunctions::context in calls to the
//                     driver; DocumentedMigratable::adapter() in its events
//   input of a query  of DXGKQAITYPE_DIRTYBITTRACKINGSEGMENTCAPS: UINT, the
//                     segment
//   VIRTUAL_TRANSFER  the paging engine's operation is one call,
//                     FERRYBUS_VIRTUAL_TRANSFER, with the documented directions
//   UMED state        FERRYBUS_UMED_STATE is the user-mode DLL's Save and
//                     Restore of what changes
//   dirty bits        bit i is page i of the ranges one after the other, the
//                     lowest bit of a byte first, zeros after the last
//
// documented_migration.h goes between these and Migratable.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_DRIVER_MIGRATION_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_DRIVER_MIGRATION_H_

#include "ferrybus/vsp/virtual_function/documented_types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef uint8_t UCHAR;
typedef uint16_t USHORT;
typedef uint16_t WCHAR;  // UTF-16
typedef int32_t HRESULT;
typedef size_t SIZE_T;

#define S_OK ((HRESULT)0x00000000)
#define E_NOINTERFACE ((HRESULT)0x80004002)
#define E_OUTOFMEMORY ((HRESULT)0x8007000E)
#define E_INVALIDARG ((HRESULT)0x80070057)

#ifndef FERRYBUS_GUID_DEFINED  // in kmcl.h, too
#define FERRYBUS_GUID_DEFINED
// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _GUID {
  uint32_t Data1;
  uint16_t Data2;
  uint16_t Data3;
  uint8_t Data4[8];
} GUID;
#endif

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _LUID {
  uint32_t LowPart;
  int32_t HighPart;
} LUID, *PLUID;

// -- Capabilities -------------------------------------------------------------

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef enum _DXGK_QUERYADAPTERINFOTYPE {
  DXGKQAITYPE_GPUPCAPS = 30,
  DXGKQAITYPE_DIRTYBITTRACKINGCAPS = 39,
  DXGKQAITYPE_DIRTYBITTRACKINGSEGMENTCAPS = 40,
  DXGKQAITYPE_SCATTER_RESERVE = 41
} DXGK_QUERYADAPTERINFOTYPE;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGKARG_QUERYADAPTERINFO {
  DXGK_QUERYADAPTERINFOTYPE Type;
  PVOID pInputData;
  UINT InputDataSize;
  PVOID pOutputData;
  UINT OutputDataSize;
} DXGKARG_QUERYADAPTERINFO;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGK_GPUPCAPS {
  union {
    struct {
      UINT VirtualMachineHibernation : 1;
      UINT HotDriverUpdate : 1;
      UINT LiveMigration : 1;
      UINT ScatterMapReserve : 1;
      UINT Reserved : 28;
    };
    UINT Caps;
  };
} DXGK_GPUPCAPS;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGK_DIRTY_BIT_TRACKING_CAPS {
  union {
    struct {
      UINT32 DirtyBitTrackingSupported : 1;
      UINT32 DirtyBitTrackingPerformant : 1;
      UINT32 Reserved : 30;
    };
    UINT32 Value;
  };
} DXGK_DIRTY_BIT_TRACKING_CAPS;

// A power of two, at least 4096.
// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGK_DIRTY_BIT_TRACKING_SEGMENT_CAPS {
  UINT32 PageSize;
} DXGK_DIRTY_BIT_TRACKING_SEGMENT_CAPS;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGK_QUERYSCATTERRESERVEIN {
  UINT SegmentId;
} DXGK_QUERYSCATTERRESERVEIN;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGK_QUERYSCATTERRESERVEOUT {
  UINT64 SetVGPUResourcesPageSize;
} DXGK_QUERYSCATTERRESERVEOUT;

typedef NTSTATUS DXGKDDI_QUERYADAPTERINFO(
    PVOID hAdapter, const DXGKARG_QUERYADAPTERINFO* pQueryAdapterInfo);

// -- Migration ----------------------------------------------------------------

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef enum _DXGK_GPUP_MIGRATIONTYPE {
  DXGK_GPUP_MIGRATIONTYPE_SOURCE = 0,
  DXGK_GPUP_MIGRATIONTYPE_TARGET = 1
} DXGK_GPUP_MIGRATIONTYPE;
typedef DXGK_GPUP_MIGRATIONTYPE DXGK_GPUP_MIGRATION_TYPE;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGKARG_GPUP_PREPARE_LIVE_MIGRATION {
  UINT vfIndex;
  DXGK_GPUP_MIGRATIONTYPE MigrationType;
} DXGKARG_GPUP_PREPARE_LIVE_MIGRATION;

// Asked for the size: *DataSize is 0 and Data is null.  To be filled: *DataSize
// is the size of Data.
// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGKARG_GPUP_SAVE_IMMUTABLE_MIGRATION_DATA {
  UINT vfIndex;
  UINT64* DataSize;
  BYTE* Data;
} DXGKARG_GPUP_SAVE_IMMUTABLE_MIGRATION_DATA;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGKARG_GPUP_SAVE_MUTABLE_MIGRATION_DATA {
  UINT vfIndex;
  UINT64* DataSize;
  BYTE* Data;
} DXGKARG_GPUP_SAVE_MUTABLE_MIGRATION_DATA;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGKARG_GPUP_RESTORE_IMMUTABLE_MIGRATION_DATA {
  UINT vfIndex;
  UINT64 DataSize;
  BYTE* Data;
} DXGKARG_GPUP_RESTORE_IMMUTABLE_MIGRATION_DATA;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGKARG_GPUP_RESTORE_MUTABLE_MIGRATION_DATA {
  UINT vfIndex;
  UINT64 DataSize;
  BYTE* Data;
} DXGKARG_GPUP_RESTORE_MUTABLE_MIGRATION_DATA;

typedef NTSTATUS DXGKDDI_PREPARELIVEMIGRATION(
    PVOID hAdapter, const DXGKARG_GPUP_PREPARE_LIVE_MIGRATION* pArgs);
typedef NTSTATUS DXGKDDI_SAVEIMMUTABLEMIGRATIONDATA(
    PVOID hAdapter, DXGKARG_GPUP_SAVE_IMMUTABLE_MIGRATION_DATA* pArgs);
typedef NTSTATUS DXGKDDI_SAVEMUTABLEMIGRATIONDATA(
    PVOID hAdapter, DXGKARG_GPUP_SAVE_MUTABLE_MIGRATION_DATA* pArgs);
// STATUS_OBJECT_TYPE_MISMATCH, after an event: not on this host.
typedef NTSTATUS DXGKDDI_RESTOREIMMUTABLEMIGRATIONDATA(
    PVOID hAdapter, const DXGKARG_GPUP_RESTORE_IMMUTABLE_MIGRATION_DATA* pArgs);
typedef NTSTATUS DXGKDDI_RESTOREMUTABLEMIGRATIONDATA(
    PVOID hAdapter, const DXGKARG_GPUP_RESTORE_MUTABLE_MIGRATION_DATA* pArgs);
typedef NTSTATUS DXGKDDI_ENDLIVEMIGRATION(PVOID hAdapter, UINT vfIndex);

// Not zero: out of scheduling.  Zero: as without this call.
// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGKARG_SETVIRTUALFUNCTIONPAUSESTATE {
  ULONG vfIndex;
  BOOLEAN Pause;
} DXGKARG_SETVIRTUALFUNCTIONPAUSESTATE;

typedef NTSTATUS DXGKDDI_SETVIRTUALFUNCTIONPAUSESTATE(
    PVOID hAdapter, const DXGKARG_SETVIRTUALFUNCTIONPAUSESTATE* pArgs);

// -- Memory -------------------------------------------------------------------

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGK_MEMORYRANGE {
  UINT64 SegmentOffset;
  UINT64 SizeInBytes;
} DXGK_MEMORYRANGE;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGKARG_CREATEMEMORYBASIS {
  UINT SegmentId;
  UINT64 RangeCount;
  DXGK_MEMORYRANGE Ranges[];
} DXGKARG_CREATEMEMORYBASIS;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGK_GPU_PHYSICAL_RESERVE_DESCRIPTOR {
  PVOID DriverAllocationHandle;
  PVOID MemoryBasis;
} DXGK_GPU_PHYSICAL_RESERVE_DESCRIPTOR;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGKARG_SETVIRTUALGPURESOURCES2 {
  ULONG vfIndex;
  ULONG SegmentCount;
  DXGK_GPU_PHYSICAL_RESERVE_DESCRIPTOR SegmentDescriptors[];
} DXGKARG_SETVIRTUALGPURESOURCES2;

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef enum _DXGKARG_QUERYDIRTYBITDATAFLAGS {
  DXGKARG_QUERYDIRTYBITDATAFLAGS_CLEARDATA = 1
} DXGKARG_QUERYDIRTYBITDATAFLAGS;

// SubrangeSize 0 asks for the whole basis.  BufferSize is what Buffer can
// take; the driver writes a bit for each page asked for, not beyond.
// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGKARG_QUERYDIRTYBITDATA {
  PVOID MemoryBasis;
  UINT64 SubrangeIndex;
  UINT64 SubrangeOffset;
  UINT64 SubrangeSize;
  PVOID Buffer;
  SIZE_T BufferSize;
  UINT Flags;
} DXGKARG_QUERYDIRTYBITDATA;

// A null handle is a failure.
typedef PVOID DXGKDDI_CREATEMEMORYBASIS(PVOID hAdapter,
                                        const DXGKARG_CREATEMEMORYBASIS* pArgs);
typedef NTSTATUS DXGKDDI_DESTROYMEMORYBASIS(PVOID hAdapter, PVOID hMemoryBasis);
typedef NTSTATUS DXGKDDI_STARTDIRTYTRACKING(PVOID hAdapter, PVOID hMemoryBasis);
typedef NTSTATUS DXGKDDI_STOPDIRTYTRACKING(PVOID hAdapter, PVOID hMemoryBasis);
typedef NTSTATUS DXGKDDI_QUERYDIRTYBITDATA(PVOID hAdapter,
                                           DXGKARG_QUERYDIRTYBITDATA* pArgs);
typedef NTSTATUS DXGKDDI_SETVIRTUALGPURESOURCES2(
    PVOID hAdapter, const DXGKARG_SETVIRTUALGPURESOURCES2* pArgs);

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef enum _DXGK_MEMORY_TRANSFER_DIRECTION {
  DXGK_MEMORY_TRANSFER_LOCAL_TO_SYSTEM = 0,
  DXGK_MEMORY_TRANSFER_SYSTEM_TO_LOCAL = 1,
  DXGK_MEMORY_TRANSFER_LOCAL_TO_LOCAL = 2
} DXGK_MEMORY_TRANSFER_DIRECTION;

// Returns when the bytes are there.  From several threads at once.
typedef NTSTATUS FERRYBUS_VIRTUAL_TRANSFER(
    PVOID hAdapter, UINT vfIndex, UINT SegmentId, UINT64 SegmentOffset,
    PVOID SystemMemory, UINT64 TransferSizeInBytes,
    DXGK_MEMORY_TRANSFER_DIRECTION TransferDirection);

// -- The user-mode emulation DLL ----------------------------------------------

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef enum _GPUP_SAVE_RESTORE_PAUSE_STATE {
  GpupSaveInvalid,
  GpupSavePartitionPersist,
  GpupSaveMaximum,
  GpupPauseResumeGuestRunning
} GPUP_SAVE_RESTORE_PAUSE_STATE;

typedef struct IGPUPMigration IGPUPMigration;

// The interface as C sees it.  *Length is the size of the buffer, then how much
// was written; without a buffer, how much is needed.
typedef struct IGPUPMigrationVtbl {
  HRESULT(*QueryInterface)
  (IGPUPMigration* This, const GUID* Interface, PVOID* Object);
  ULONG (*AddRef)(IGPUPMigration* This);
  ULONG (*Release)(IGPUPMigration* This);
  HRESULT(*SaveImmutableGpup)
  (IGPUPMigration* This, PLUID DeviceLuid, UINT64* Length, BYTE SaveBuffer[]);
  HRESULT(*RestoreImmutableGpup)
  (IGPUPMigration* This, PLUID DeviceLuid, UINT64 Length, BYTE RestoreBuffer[]);
} IGPUPMigrationVtbl;

struct IGPUPMigration {
  const IGPUPMigrationVtbl* lpVtbl;
};

// In the manner of the above, for what changes.
typedef struct FERRYBUS_UMED_STATE {
  PVOID Context;
  HRESULT(*Save)
  (PVOID Context, PLUID DeviceLuid, UINT64* Length, BYTE SaveBuffer[]);
  HRESULT(*Restore)
  (PVOID Context, PLUID DeviceLuid, UINT64 Length, BYTE RestoreBuffer[]);
} FERRYBUS_UMED_STATE;

// -- Triage event -------------------------------------------------------------

// {45125F6F-6132-4082-AD17-ED27F8DD02F9}; it has two names.
static const GUID GUID_DXGKDDI_AZURE_TRIAGE_EVENT = {
    0x45125F6F,
    0x6132,
    0x4082,
    {0xAD, 0x17, 0xED, 0x27, 0xF8, 0xDD, 0x02, 0xF9}};
#define GUID_DxgkAzureTriageEvent GUID_DXGKDDI_AZURE_TRIAGE_EVENT

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef enum _DXGKDDICB_PARTITIONING_EVENT_TYPE {
  DXGKDDICB_PARTITIONING_EVENT_FUNCTION_LEVEL_RESET = 0,
  DXGKDDICB_PARTITIONING_EVENT_FUNDAMENTAL_WARM_RESET = 1,
  DXGKDDICB_PARTITIONING_EVENT_DRIVER_INTERNAL = 2
} DXGKDDICB_PARTITIONING_EVENT_TYPE;

#define FERRYBUS_TRIAGE_PHYSICAL_FUNCTION ((ULONG)0xFFFFFFFE)
#define FERRYBUS_TRIAGE_WHOLE_GPU ((ULONG)0xFFFFFFFF)
// The documents do not say how long; this makes the event as long as one from
// any context may be.
#define FERRYBUS_TRIAGE_DESCRIPTION_MAX 100
#define FERRYBUS_TRIAGE_ANY_CONTEXT_BYTES_MAX 256

// NOLINTNEXTLINE(bugprone-reserved-identifier): the documented name.
typedef struct _DXGKDDICB_PARTITIONING_EVENT_NOTIFICATION {
  PVOID hAdapter;
  DXGKDDICB_PARTITIONING_EVENT_TYPE EventType;
  ULONG PartitionId;
  WCHAR EventDescription[FERRYBUS_TRIAGE_DESCRIPTION_MAX];
  UINT64 EventData1;
  UINT64 EventData2;
  UINT64 EventData3;
  UINT64 EventData4;
  UINT64 EventData5;
} DXGKDDICB_PARTITIONING_EVENT_NOTIFICATION;

// From the driver.  Up to FERRYBUS_TRIAGE_ANY_CONTEXT_BYTES_MAX from any
// thread; more only from within a call to the driver, else it is dropped.
void DxgkCbLogEtwEvent(const GUID* EventGuid, UCHAR Type,
                       USHORT EventBufferSize, PVOID EventBuffer);

// -- Layout -------------------------------------------------------------------

#define FERRYBUS_OFFSET(type, member, bytes) \
  static_assert(offsetof(type, member) == (bytes), "layout")

static_assert(sizeof(LUID) == 8, "layout");
FERRYBUS_OFFSET(LUID, HighPart, 4);
static_assert(sizeof(GUID) == 16, "layout");
static_assert(sizeof(DXGKARG_QUERYADAPTERINFO) == 40, "layout");
FERRYBUS_OFFSET(DXGKARG_QUERYADAPTERINFO, pInputData, 8);
FERRYBUS_OFFSET(DXGKARG_QUERYADAPTERINFO, InputDataSize, 16);
FERRYBUS_OFFSET(DXGKARG_QUERYADAPTERINFO, pOutputData, 24);
FERRYBUS_OFFSET(DXGKARG_QUERYADAPTERINFO, OutputDataSize, 32);
static_assert(sizeof(DXGK_GPUPCAPS) == 4, "layout");
static_assert(sizeof(DXGK_DIRTY_BIT_TRACKING_CAPS) == 4, "layout");
static_assert(sizeof(DXGK_DIRTY_BIT_TRACKING_SEGMENT_CAPS) == 4, "layout");
static_assert(sizeof(DXGK_QUERYSCATTERRESERVEIN) == 4, "layout");
static_assert(sizeof(DXGK_QUERYSCATTERRESERVEOUT) == 8, "layout");
static_assert(sizeof(DXGK_GPUP_MIGRATIONTYPE) == 4, "layout");
static_assert(sizeof(DXGKARG_GPUP_PREPARE_LIVE_MIGRATION) == 8, "layout");
FERRYBUS_OFFSET(DXGKARG_GPUP_PREPARE_LIVE_MIGRATION, MigrationType, 4);
static_assert(sizeof(DXGKARG_GPUP_SAVE_IMMUTABLE_MIGRATION_DATA) == 24,
              "layout");
FERRYBUS_OFFSET(DXGKARG_GPUP_SAVE_IMMUTABLE_MIGRATION_DATA, DataSize, 8);
FERRYBUS_OFFSET(DXGKARG_GPUP_SAVE_IMMUTABLE_MIGRATION_DATA, Data, 16);
static_assert(sizeof(DXGKARG_GPUP_SAVE_MUTABLE_MIGRATION_DATA) == 24, "layout");
FERRYBUS_OFFSET(DXGKARG_GPUP_SAVE_MUTABLE_MIGRATION_DATA, DataSize, 8);
FERRYBUS_OFFSET(DXGKARG_GPUP_SAVE_MUTABLE_MIGRATION_DATA, Data, 16);
static_assert(sizeof(DXGKARG_GPUP_RESTORE_IMMUTABLE_MIGRATION_DATA) == 24,
              "layout");
FERRYBUS_OFFSET(DXGKARG_GPUP_RESTORE_IMMUTABLE_MIGRATION_DATA, DataSize, 8);
FERRYBUS_OFFSET(DXGKARG_GPUP_RESTORE_IMMUTABLE_MIGRATION_DATA, Data, 16);
static_assert(sizeof(DXGKARG_GPUP_RESTORE_MUTABLE_MIGRATION_DATA) == 24,
              "layout");
FERRYBUS_OFFSET(DXGKARG_GPUP_RESTORE_MUTABLE_MIGRATION_DATA, DataSize, 8);
FERRYBUS_OFFSET(DXGKARG_GPUP_RESTORE_MUTABLE_MIGRATION_DATA, Data, 16);
static_assert(sizeof(DXGKARG_SETVIRTUALFUNCTIONPAUSESTATE) == 8, "layout");
FERRYBUS_OFFSET(DXGKARG_SETVIRTUALFUNCTIONPAUSESTATE, Pause, 4);
static_assert(sizeof(DXGK_MEMORYRANGE) == 16, "layout");
FERRYBUS_OFFSET(DXGK_MEMORYRANGE, SizeInBytes, 8);
static_assert(sizeof(DXGKARG_CREATEMEMORYBASIS) == 16, "layout");
FERRYBUS_OFFSET(DXGKARG_CREATEMEMORYBASIS, RangeCount, 8);
FERRYBUS_OFFSET(DXGKARG_CREATEMEMORYBASIS, Ranges, 16);
static_assert(sizeof(DXGK_GPU_PHYSICAL_RESERVE_DESCRIPTOR) == 16, "layout");
static_assert(sizeof(DXGKARG_SETVIRTUALGPURESOURCES2) == 8, "layout");
FERRYBUS_OFFSET(DXGKARG_SETVIRTUALGPURESOURCES2, SegmentCount, 4);
FERRYBUS_OFFSET(DXGKARG_SETVIRTUALGPURESOURCES2, SegmentDescriptors, 8);
static_assert(sizeof(DXGKARG_QUERYDIRTYBITDATA) == 56, "layout");
FERRYBUS_OFFSET(DXGKARG_QUERYDIRTYBITDATA, SubrangeIndex, 8);
FERRYBUS_OFFSET(DXGKARG_QUERYDIRTYBITDATA, SubrangeOffset, 16);
FERRYBUS_OFFSET(DXGKARG_QUERYDIRTYBITDATA, SubrangeSize, 24);
FERRYBUS_OFFSET(DXGKARG_QUERYDIRTYBITDATA, Buffer, 32);
FERRYBUS_OFFSET(DXGKARG_QUERYDIRTYBITDATA, BufferSize, 40);
FERRYBUS_OFFSET(DXGKARG_QUERYDIRTYBITDATA, Flags, 48);
static_assert(sizeof(IGPUPMigrationVtbl) == 40, "layout");
FERRYBUS_OFFSET(IGPUPMigrationVtbl, AddRef, 8);
FERRYBUS_OFFSET(IGPUPMigrationVtbl, Release, 16);
FERRYBUS_OFFSET(IGPUPMigrationVtbl, SaveImmutableGpup, 24);
FERRYBUS_OFFSET(IGPUPMigrationVtbl, RestoreImmutableGpup, 32);
static_assert(sizeof(DXGKDDICB_PARTITIONING_EVENT_NOTIFICATION) ==
                  FERRYBUS_TRIAGE_ANY_CONTEXT_BYTES_MAX,
              "layout");
FERRYBUS_OFFSET(DXGKDDICB_PARTITIONING_EVENT_NOTIFICATION, EventType, 8);
FERRYBUS_OFFSET(DXGKDDICB_PARTITIONING_EVENT_NOTIFICATION, PartitionId, 12);
FERRYBUS_OFFSET(DXGKDDICB_PARTITIONING_EVENT_NOTIFICATION, EventDescription,
                16);
FERRYBUS_OFFSET(DXGKDDICB_PARTITIONING_EVENT_NOTIFICATION, EventData1, 216);
FERRYBUS_OFFSET(DXGKDDICB_PARTITIONING_EVENT_NOTIFICATION, EventData5, 248);

#undef FERRYBUS_OFFSET

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_DRIVER_MIGRATION_H_
