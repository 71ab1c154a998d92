// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/documented_driver.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ferrybus::vsp {
namespace {

DocumentedDriver* Driver(PVOID context) {
  return static_cast<DocumentedDriver*>(context);
}

// Two calls, as documented: the size; then the bytes.
int32_t SaveBytes(UINT64* size, BYTE* data, const std::string& state,
                  SaveScript* script) {
  if (!script->answers.empty()) {
    const SaveScript::Answer answer = script->answers[script->next];
    if (script->next + 1 < script->answers.size()) ++script->next;
    if (data != nullptr) std::memset(data, 'x', *size / 2);
    if (answer.size >= 0) *size = answer.size;
    return answer.status;
  }
  if (data == nullptr) {
    *size = state.size();
    return STATUS_SUCCESS;
  }
  if (*size < state.size()) return STATUS_BUFFER_TOO_SMALL;
  // Bytes, not text: without an end.  NOLINTNEXTLINE
  std::memcpy(data, state.data(), state.size());
  *size = state.size();
  return STATUS_SUCCESS;
}

NTSTATUS QueryAdapterInfo(PVOID context, const DXGKARG_QUERYADAPTERINFO* args) {
  return Driver(context)->Query(*args);
}

NTSTATUS Prepare(PVOID context,
                 const DXGKARG_GPUP_PREPARE_LIVE_MIGRATION* args) {
  const bool is_source = args->MigrationType == DXGK_GPUP_MIGRATIONTYPE_SOURCE;
  Driver(context)->calls.push_back(absl::StrCat(
      "prepare ", is_source ? "source " : "target ", args->vfIndex));
  return Driver(context)->prepare_status;
}

NTSTATUS SaveImmutable(PVOID context,
                       DXGKARG_GPUP_SAVE_IMMUTABLE_MIGRATION_DATA* args) {
  DocumentedDriver* driver = Driver(context);
  driver->calls.push_back(
      absl::StrCat("save immutable ", args->vfIndex, " ", *args->DataSize));
  return driver->SaveData(args->DataSize, args->Data, driver->immutable,
                          &driver->immutable_script);
}

NTSTATUS SaveMutable(PVOID context,
                     DXGKARG_GPUP_SAVE_MUTABLE_MIGRATION_DATA* args) {
  DocumentedDriver* driver = Driver(context);
  driver->calls.push_back(
      absl::StrCat("save mutable ", args->vfIndex, " ", *args->DataSize));
  return driver->SaveData(args->DataSize, args->Data, driver->mutable_state,
                          &driver->mutable_script);
}

NTSTATUS RestoreImmutable(
    PVOID context, const DXGKARG_GPUP_RESTORE_IMMUTABLE_MIGRATION_DATA* args) {
  Driver(context)->calls.push_back(
      absl::StrCat("restore immutable ", args->vfIndex, " ", args->DataSize,
                   args->Data == nullptr ? " null" : ""));
  return Driver(context)->RestoreImmutable(args->DataSize, args->Data);
}

NTSTATUS RestoreMutable(
    PVOID context, const DXGKARG_GPUP_RESTORE_MUTABLE_MIGRATION_DATA* args) {
  Driver(context)->calls.push_back(
      absl::StrCat("restore mutable ", args->vfIndex, " ", args->DataSize,
                   args->Data == nullptr ? " null" : ""));
  Driver(context)->restored_mutable.assign(
      reinterpret_cast<const char*>(args->Data), args->DataSize);
  return Driver(context)->restore_mutable_status;
}

NTSTATUS End(PVOID context, UINT index) {
  Driver(context)->calls.push_back(absl::StrCat("end ", index));
  return STATUS_UNSUCCESSFUL;  // nobody can do anything about it
}

NTSTATUS SetPauseState(PVOID context,
                       const DXGKARG_SETVIRTUALFUNCTIONPAUSESTATE* args) {
  DocumentedDriver* driver = Driver(context);
  driver->calls.push_back(
      absl::StrCat(args->Pause != 0 ? "pause " : "go on ", args->vfIndex));
  if (NT_SUCCESS(driver->pause_status)) driver->is_paused = args->Pause != 0;
  return driver->pause_status;
}

NTSTATUS Transfer(PVOID context, UINT index, UINT segment, UINT64 offset,
                  PVOID system, UINT64 size,
                  DXGK_MEMORY_TRANSFER_DIRECTION direction) {
  DocumentedDriver* driver = Driver(context);
  driver->calls.push_back(absl::StrCat(
      direction == DXGK_MEMORY_TRANSFER_LOCAL_TO_SYSTEM ? "out " : "in ", index,
      " ", segment, " ", offset, " ", size));
  std::vector<uint8_t>& memory = driver->memory[segment];
  if (memory.size() < offset + size) memory.resize(offset + size);
  if (direction == DXGK_MEMORY_TRANSFER_LOCAL_TO_SYSTEM) {
    std::memcpy(system, memory.data() + offset, size);
  } else {
    std::memcpy(memory.data() + offset, system, size);
  }
  return driver->transfer_status;
}

PVOID CreateMemoryBasis(PVOID context, const DXGKARG_CREATEMEMORYBASIS* args) {
  DocumentedDriver* driver = Driver(context);
  driver->calls.push_back(
      absl::StrCat("create ", args->SegmentId, " ", args->RangeCount));
  if (!driver->gives_handles) return nullptr;
  auto basis = std::make_unique<DocumentedDriver::Basis>();
  basis->segment = args->SegmentId;
  basis->ranges.assign(args->Ranges, args->Ranges + args->RangeCount);
  void* const handle = basis.get();
  driver->bases[handle] = std::move(basis);
  return handle;
}

NTSTATUS DestroyMemoryBasis(PVOID context, PVOID handle) {
  Driver(context)->calls.push_back("destroy");
  return Driver(context)->bases.erase(handle) == 1
             ? Driver(context)->destroy_status
             : STATUS_INVALID_PARAMETER;
}

NTSTATUS SetTracked(PVOID context, PVOID handle, bool is_tracked) {
  DocumentedDriver* driver = Driver(context);
  driver->calls.push_back(is_tracked ? "start" : "stop");
  DocumentedDriver::Basis& basis = *driver->bases.at(handle);
  if (basis.is_tracked == is_tracked) return STATUS_INVALID_PARAMETER;
  if (!NT_SUCCESS(driver->tracking_status)) return driver->tracking_status;
  basis.is_tracked = is_tracked;
  basis.dirty.clear();
  return driver->tracking_status;
}

NTSTATUS StartDirtyTracking(PVOID context, PVOID handle) {
  return SetTracked(context, handle, true);
}

NTSTATUS StopDirtyTracking(PVOID context, PVOID handle) {
  return SetTracked(context, handle, false);
}

NTSTATUS QueryDirtyBitData(PVOID context, DXGKARG_QUERYDIRTYBITDATA* args) {
  return Driver(context)->QueryDirty(*args);
}

DocumentedUmed* Umed(void* self) { return static_cast<DocumentedUmed*>(self); }

void Note(DocumentedUmed* umed, const std::string& call) {
  if (umed->calls != nullptr) umed->calls->push_back(call);
}

HRESULT UmedResult(int32_t status) {
  return status == STATUS_BUFFER_TOO_SMALL ? E_INVALIDARG : status;
}

const IGPUPMigrationVtbl kUmedTable = {
    [](IGPUPMigration*, const GUID*, PVOID*) -> HRESULT {
      return E_NOINTERFACE;
    },
    [](IGPUPMigration* self) -> ULONG {
      return ++static_cast<DocumentedUmed*>(self)->references;
    },
    [](IGPUPMigration* self) -> ULONG {
      return --static_cast<DocumentedUmed*>(self)->references;
    },
    [](IGPUPMigration* self, PLUID luid, UINT64* length,
       BYTE data[]) -> HRESULT {
      auto* umed = static_cast<DocumentedUmed*>(self);
      Note(umed, absl::StrCat("umed save ", luid->LowPart, " ", *length));
      return UmedResult(
          SaveBytes(length, data, umed->immutable, &umed->immutable_script));
    },
    [](IGPUPMigration* self, PLUID luid, UINT64 length,
       BYTE data[]) -> HRESULT {
      auto* umed = static_cast<DocumentedUmed*>(self);
      Note(umed, absl::StrCat("umed restore ", luid->LowPart, " ", length));
      umed->restored.assign(reinterpret_cast<const char*>(data), length);
      return umed->restore_result;
    }};

}  // namespace

DocumentedMigrationFunctions DocumentedDriver::functions() {
  DocumentedMigrationFunctions functions;
  functions.context = this;
  functions.query_adapter_info = QueryAdapterInfo;
  functions.prepare = Prepare;
  functions.save_immutable = SaveImmutable;
  functions.save_mutable = SaveMutable;
  functions.restore_immutable = vsp::RestoreImmutable;
  functions.restore_mutable = RestoreMutable;
  functions.end = End;
  functions.set_pause_state = SetPauseState;
  functions.transfer = Transfer;
  functions.create_memory_basis = CreateMemoryBasis;
  functions.destroy_memory_basis = DestroyMemoryBasis;
  functions.start_dirty_tracking = StartDirtyTracking;
  functions.stop_dirty_tracking = StopDirtyTracking;
  functions.query_dirty_bit_data = QueryDirtyBitData;
  return functions;
}

void DocumentedDriver::Write(uint32_t segment, uint64_t offset, uint8_t value) {
  std::vector<uint8_t>& bytes = memory[segment];
  if (bytes.size() <= offset) bytes.resize(offset + 1);
  bytes[offset] = value;
  for (auto& [handle, basis] : bases) {
    if (basis->is_tracked && basis->segment == segment) {
      basis->dirty.insert(offset / page_sizes[segment]);
    }
  }
}

NTSTATUS DocumentedDriver::Query(const DXGKARG_QUERYADAPTERINFO& args) {
  const UINT segment =
      args.pInputData == nullptr ? 0 : *static_cast<UINT*>(args.pInputData);
  calls.push_back(
      absl::StrCat("query ", static_cast<int>(args.Type), " ", segment));
  switch (args.Type) {
    case DXGKQAITYPE_GPUPCAPS:
      static_cast<DXGK_GPUPCAPS*>(args.pOutputData)->Caps = caps;
      return STATUS_SUCCESS;
    case DXGKQAITYPE_DIRTYBITTRACKINGCAPS:
      static_cast<DXGK_DIRTY_BIT_TRACKING_CAPS*>(args.pOutputData)->Value =
          tracking_caps;
      return STATUS_SUCCESS;
    case DXGKQAITYPE_DIRTYBITTRACKINGSEGMENTCAPS:
      // Also when it is not implemented: this is to be ignored then.
      static_cast<DXGK_DIRTY_BIT_TRACKING_SEGMENT_CAPS*>(args.pOutputData)
          ->PageSize = page_sizes.contains(segment) ? page_sizes[segment] : 3;
      return page_sizes.contains(segment) ? STATUS_SUCCESS
                                          : STATUS_NOT_IMPLEMENTED;
    case DXGKQAITYPE_SCATTER_RESERVE:
      static_cast<DXGK_QUERYSCATTERRESERVEOUT*>(args.pOutputData)
          ->SetVGPUResourcesPageSize = scatter_page;
      return STATUS_SUCCESS;
  }
  return STATUS_NOT_SUPPORTED;
}

NTSTATUS DocumentedDriver::SaveData(UINT64* size, BYTE* data,
                                    const std::string& state,
                                    SaveScript* script) {
  return size == nullptr ? STATUS_INVALID_PARAMETER
                         : SaveBytes(size, data, state, script);
}

NTSTATUS DocumentedDriver::RestoreImmutable(uint64_t size, const BYTE* data) {
  if (size == 0 && immutable.empty()) return STATUS_SUCCESS;
  std::string problem;
  if (size != 2) {
    problem = absl::StrCat("data: ", size, " bytes, not 2");
  } else if (data[0] != kDriverVersion && data[0] != kDriverVersionOld) {
    problem =
        absl::StrCat("version: source ", data[0], ", here ", kDriverVersion);
  } else if (data[1] != firmware) {
    problem = absl::StrCat("firmware: source ", data[1], ", here ", firmware);
  }
  if (problem.empty()) return STATUS_SUCCESS;
  if (sends_event) SendEvent(problem);
  return STATUS_OBJECT_TYPE_MISMATCH;
}

void DocumentedDriver::SendEvent(const std::string& text) {
  std::vector<std::byte> buffer(std::max<size_t>(
      event_bytes, sizeof(DXGKDDICB_PARTITIONING_EVENT_NOTIFICATION)));
  DXGKDDICB_PARTITIONING_EVENT_NOTIFICATION event = {};
  event.hAdapter = adapter;
  event.EventType = DXGKDDICB_PARTITIONING_EVENT_DRIVER_INTERNAL;
  event.PartitionId = 5;
  for (size_t i = 0; i < FERRYBUS_TRIAGE_DESCRIPTION_MAX && i < text.size();
       ++i) {
    event.EventDescription[i] = static_cast<unsigned char>(text[i]);
  }
  event.EventData1 = 11;
  event.EventData5 = 55;
  std::memcpy(buffer.data(), &event, sizeof(event));
  DxgkCbLogEtwEvent(&GUID_DxgkAzureTriageEvent, 0,
                    static_cast<USHORT>(event_bytes), buffer.data());
}

NTSTATUS DocumentedDriver::QueryDirty(const DXGKARG_QUERYDIRTYBITDATA& args) {
  calls.push_back(absl::StrCat("dirty ", args.Flags));
  last_query = args;
  if (tracking_status != STATUS_SUCCESS) return tracking_status;
  if ((args.Flags & ~UINT{DXGKARG_QUERYDIRTYBITDATAFLAGS_CLEARDATA}) != 0) {
    return STATUS_INVALID_PARAMETER;
  }
  if (!answers_queries) return STATUS_SUCCESS;
  Basis& basis = *bases.at(args.MemoryBasis);
  const uint64_t page_size = page_sizes[basis.segment];
  std::vector<DXGK_MEMORYRANGE> ranges = basis.ranges;
  if (args.SubrangeSize != 0) {
    ranges = {{basis.ranges.at(args.SubrangeIndex).SegmentOffset +
                   args.SubrangeOffset,
               args.SubrangeSize}};
  }
  std::vector<bool> bits;
  for (const DXGK_MEMORYRANGE& range : ranges) {
    for (uint64_t at = 0; at < range.SizeInBytes; at += page_size) {
      const uint64_t page = (range.SegmentOffset + at) / page_size;
      bits.push_back(basis.dirty.contains(page));
      if (args.Flags != 0) basis.dirty.erase(page);
    }
  }
  auto* out = static_cast<uint8_t*>(args.Buffer);
  const size_t bytes = (bits.size() + 7) / 8;
  if (args.BufferSize < bytes) return STATUS_INVALID_PARAMETER;
  std::memset(out, 0, bytes);
  for (size_t i = 0; i < bits.size(); ++i) {
    if (bits[i]) out[i / 8] |= static_cast<uint8_t>(1 << i % 8);
  }
  if (leaves_trailing_bits) {
    for (size_t i = bits.size(); i < bytes * 8; ++i) {
      out[i / 8] |= static_cast<uint8_t>(1 << i % 8);
    }
  }
  if (writes_beyond) out[bytes] = 0;
  return STATUS_SUCCESS;
}

DocumentedUmed::DocumentedUmed() : IGPUPMigration{&kUmedTable} {
  state.Context = this;
  state.Save = [](PVOID context, PLUID luid, UINT64* length,
                  BYTE data[]) -> HRESULT {
    Note(Umed(context),
         absl::StrCat("umed save mutable ", luid->LowPart, " ", *length));
    SaveScript none;
    return SaveBytes(length, data, Umed(context)->mutable_state, &none);
  };
  state.Restore = [](PVOID context, PLUID luid, UINT64 length,
                     BYTE data[]) -> HRESULT {
    Note(Umed(context),
         absl::StrCat("umed restore mutable ", luid->LowPart, " ", length));
    Umed(context)->restored_mutable.assign(reinterpret_cast<const char*>(data),
                                           length);
    return Umed(context)->restore_result;
  };
}

}  // namespace ferrybus::vsp
