// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/documented_migration.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "ferrybus/vsp/virtual_function/documented_status.h"

namespace ferrybus::vsp {
namespace {

using migration::MemoryRange;
using migration::Role;
using migration::Segment;
using savestate::SizeAnswer;

// Calls to a driver that may block, on this thread.
thread_local int blocking_calls = 0;

class BlockingCall {
 public:
  BlockingCall() { ++blocking_calls; }
  ~BlockingCall() { --blocking_calls; }
  BlockingCall(const BlockingCall&) = delete;
  BlockingCall& operator=(const BlockingCall&) = delete;
};

absl::Status UmedStatus(HRESULT result, absl::string_view call) {
  if (result == S_OK) return absl::OkStatus();
  absl::StatusCode code = absl::StatusCode::kInternal;
  if (result == E_INVALIDARG) code = absl::StatusCode::kInvalidArgument;
  if (result == E_OUTOFMEMORY) code = absl::StatusCode::kResourceExhausted;
  return absl::Status(code, absl::StrCat(call, " of the UMED gave 0x",
                                         absl::Hex(result, absl::kZeroPad8)));
}

SizeAnswer DriverAnswer(NTSTATUS status, UINT64 size, absl::string_view call) {
  if (status == STATUS_SUCCESS) return SizeAnswer::Ok(size);
  if (status == STATUS_BUFFER_TOO_SMALL) return SizeAnswer::TooSmall(size);
  if (NT_SUCCESS(status)) return {SizeAnswer::Code::kPending, size, {}};
  return SizeAnswer::Failed(ToStatus(status, call), size);
}

SizeAnswer UmedAnswer(HRESULT result, UINT64 length, absl::string_view call) {
  if (result == S_OK) return SizeAnswer::Ok(length);
  if (result >= 0) return {SizeAnswer::Code::kPending, length, {}};
  return SizeAnswer::Failed(UmedStatus(result, call), length);
}

BYTE* Bytes(absl::Span<std::byte> out) {
  return out.empty() ? nullptr : reinterpret_cast<BYTE*>(out.data());
}

std::vector<BYTE> Copy(absl::Span<const std::byte> data) {
  const auto* begin = reinterpret_cast<const BYTE*>(data.data());
  return {begin, begin + data.size()};
}

std::string Printable(absl::Span<const WCHAR> text) {
  std::string printable;
  for (const WCHAR character : text) {
    if (character == 0) break;
    const bool is_ascii = character >= 0x20 && character < 0x7F;
    printable += is_ascii ? static_cast<char>(character) : '?';
  }
  return printable;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DocumentedMigratable>>
DocumentedMigratable::Create(const DocumentedMigrationFunctions& functions,
                             DocumentedMigrationOptions options) {
  DocumentedCapabilities caps;
  if (options.is_partitioned) {
    auto found = QueryDocumentedCapabilities(functions, options.segments);
    if (!found.ok()) return found.status();
    caps = std::move(*found);
  }
  if (options.needs_hibernation && !caps.virtual_machine_hibernation) {
    return absl::FailedPreconditionError(
        "the machine may hibernate, and the driver lacks "
        "VirtualMachineHibernation");
  }
  return std::unique_ptr<DocumentedMigratable>(
      new DocumentedMigratable(functions, std::move(options), std::move(caps)));
}

DocumentedMigratable::DocumentedMigratable(
    const DocumentedMigrationFunctions& functions,
    DocumentedMigrationOptions options, DocumentedCapabilities caps)
    : functions_(functions),
      options_(std::move(options)),
      caps_(std::move(caps)),
      tracking_(functions_, caps_.segments),
      is_running_(options_.is_running) {
  if (options_.umed != nullptr) options_.umed->lpVtbl->AddRef(options_.umed);
}

DocumentedMigratable::~DocumentedMigratable() {
  if (options_.umed != nullptr) options_.umed->lpVtbl->Release(options_.umed);
}

migration::Capabilities DocumentedMigratable::capabilities() const {
  return {caps_.live_migration, caps_.performant_tracking};
}

absl::Status DocumentedMigratable::CheckRole(Role role,
                                             bool must_be_paused) const {
  if (role_ != role) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the function is not the ", role == Role::kSource ? "source" : "target",
        " of a migration"));
  }
  if (must_be_paused && is_running_) {
    return absl::FailedPreconditionError("the function is not paused");
  }
  return absl::OkStatus();
}

absl::Status DocumentedMigratable::Prepare(Role role) {
  if (!caps_.live_migration) {
    return absl::FailedPreconditionError("the driver lacks LiveMigration");
  }
  if (role_.has_value() || is_retired_) {
    return absl::FailedPreconditionError("the function is moving already");
  }
  if (role == Role::kTarget && is_running_) {
    return absl::FailedPreconditionError("the function runs: it is no target");
  }
  const BlockingCall call;
  const DXGKARG_GPUP_PREPARE_LIVE_MIGRATION args = {
      options_.vf_index, role == Role::kSource
                             ? DXGK_GPUP_MIGRATIONTYPE_SOURCE
                             : DXGK_GPUP_MIGRATIONTYPE_TARGET};
  absl::Status status =
      ToFinalStatus(functions_.prepare(functions_.context, &args),
                    "DxgkDdiPrepareLiveMigration");
  if (status.ok()) role_ = role;
  return status;
}

void DocumentedMigratable::End() {
  if (!role_.has_value()) return;
  role_.reset();
  restored_ = Restored::kNothing;
  immutable_.reset();
  mutable_.reset();
  const BlockingCall call;
  // There is nothing to do about a failure: the migration is over.
  (void)functions_.end(functions_.context, options_.vf_index);
}

SizeAnswer DocumentedMigratable::SaveImmutable(absl::Span<std::byte> out) {
  if (auto status = CheckRole(Role::kSource, false); !status.ok()) {
    return SizeAnswer::Failed(status);
  }
  return Answer(out, &immutable_, true);
}

SizeAnswer DocumentedMigratable::SaveMutable(absl::Span<std::byte> out) {
  if (auto status = CheckRole(Role::kSource, true); !status.ok()) {
    return SizeAnswer::Failed(status);
  }
  if (out.empty()) mutable_.reset();
  return Answer(out, &mutable_, false);
}

SizeAnswer DocumentedMigratable::Answer(absl::Span<std::byte> out,
                                        std::optional<std::string>* blob,
                                        bool is_immutable) {
  if (!blob->has_value()) {
    auto saved = Save(is_immutable);
    if (!saved.ok()) return SizeAnswer::Failed(saved.status());
    *blob = *std::move(saved);
  }
  const std::string& bytes = **blob;
  if (out.empty()) return SizeAnswer::Ok(bytes.size());
  if (out.size() < bytes.size()) return SizeAnswer::TooSmall(bytes.size());
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return SizeAnswer::Ok(bytes.size());
}

absl::StatusOr<std::string> DocumentedMigratable::Save(bool is_immutable) {
  const BlockingCall call;
  MigrationParts parts;
  auto driver = SaveDriverPart(is_immutable);
  if (!driver.ok()) return driver.status();
  parts.driver = *std::move(driver);
  if (HasUmed(is_immutable)) {
    auto umed = SaveUmedPart(is_immutable);
    if (!umed.ok()) return umed.status();
    parts.umed = *std::move(umed);
  }
  return WriteMigrationParts(is_immutable ? MigrationPartsKind::kImmutable
                                          : MigrationPartsKind::kMutable,
                             std::move(parts), options_.part_bytes_max);
}

absl::StatusOr<std::string> DocumentedMigratable::SaveDriverPart(
    bool is_immutable) {
  const absl::string_view call = is_immutable
                                     ? "DxgkDdiSaveImmutableMigrationData"
                                     : "DxgkDdiSaveMutableMigrationData";
  return savestate::NegotiateSize(
      {.dialect = savestate::SizingDialect::kGpuP,
       .bytes_max = options_.part_bytes_max,
       .immutable = is_immutable},
      {call.data(), call.size()}, [&](absl::Span<std::byte> out) {
        UINT64 size = out.size();
        NTSTATUS status = STATUS_SUCCESS;
        if (is_immutable) {
          DXGKARG_GPUP_SAVE_IMMUTABLE_MIGRATION_DATA args = {options_.vf_index,
                                                             &size, Bytes(out)};
          status = functions_.save_immutable(functions_.context, &args);
        } else {
          DXGKARG_GPUP_SAVE_MUTABLE_MIGRATION_DATA args = {options_.vf_index,
                                                           &size, Bytes(out)};
          status = functions_.save_mutable(functions_.context, &args);
        }
        return DriverAnswer(status, size, call);
      });
}

absl::StatusOr<std::string> DocumentedMigratable::SaveUmedPart(
    bool is_immutable) {
  const absl::string_view call =
      is_immutable ? "SaveImmutableGpup" : "Save of the mutable state";
  return savestate::NegotiateSize(
      {.dialect = savestate::SizingDialect::kUserMode,
       .bytes_max = options_.part_bytes_max},
      {call.data(), call.size()}, [&](absl::Span<std::byte> out) {
        UINT64 length = out.size();
        LUID luid = options_.device_luid;
        const HRESULT result =
            is_immutable
                ? options_.umed->lpVtbl->SaveImmutableGpup(options_.umed, &luid,
                                                           &length, Bytes(out))
                : options_.umed_state->Save(options_.umed_state->Context, &luid,
                                            &length, Bytes(out));
        return UmedAnswer(result, length, call);
      });
}

bool DocumentedMigratable::HasUmed(bool is_immutable) const {
  return is_immutable ? options_.umed != nullptr
                      : options_.umed_state != nullptr;
}

absl::Status DocumentedMigratable::RestoreImmutable(
    absl::Span<const std::byte> data) {
  if (auto status = CheckRole(Role::kTarget, true); !status.ok()) return status;
  if (restored_ != Restored::kNothing) {
    return absl::FailedPreconditionError("the immutable data come once");
  }
  const uint64_t events = EventCount();
  absl::Status status = RestoreParts(true, data);
  restored_ = status.ok() ? Restored::kImmutable : Restored::kFailed;
  return status.ok() ? status : WithEvent(events, std::move(status));
}

absl::Status DocumentedMigratable::RestoreMutable(
    absl::Span<const std::byte> data) {
  if (auto status = CheckRole(Role::kTarget, true); !status.ok()) return status;
  if (restored_ != Restored::kImmutable) {
    return absl::FailedPreconditionError(
        "the mutable data come once, after the immutable data");
  }
  absl::Status status = RestoreParts(false, data);
  restored_ = status.ok() ? Restored::kMutable : Restored::kFailed;
  return status;
}

absl::Status DocumentedMigratable::RestoreParts(
    bool is_immutable, absl::Span<const std::byte> data) {
  const auto parts =
      ReadMigrationParts(is_immutable ? MigrationPartsKind::kImmutable
                                      : MigrationPartsKind::kMutable,
                         data, options_.part_bytes_max);
  if (!parts.ok()) return parts.status();
  const bool has_umed = HasUmed(is_immutable);
  if (parts->umed.has_value() != has_umed) {
    return absl::FailedPreconditionError(
        absl::StrCat("UMED: the source has ", has_umed ? "none" : "one",
                     ", this host has ", has_umed ? "one" : "none"));
  }
  const BlockingCall call;
  if (auto status = RestoreDriverPart(is_immutable, Copy(parts->driver));
      !status.ok() || !has_umed) {
    return status;
  }
  return RestoreUmedPart(is_immutable, Copy(*parts->umed));
}

absl::Status DocumentedMigratable::RestoreDriverPart(bool is_immutable,
                                                     std::vector<BYTE> data) {
  BYTE* bytes = data.empty() ? nullptr : data.data();
  if (is_immutable) {
    const DXGKARG_GPUP_RESTORE_IMMUTABLE_MIGRATION_DATA args = {
        options_.vf_index, data.size(), bytes};
    return ToFinalStatus(
        functions_.restore_immutable(functions_.context, &args),
        "DxgkDdiRestoreImmutableMigrationData");
  }
  const DXGKARG_GPUP_RESTORE_MUTABLE_MIGRATION_DATA args = {options_.vf_index,
                                                            data.size(), bytes};
  return ToFinalStatus(functions_.restore_mutable(functions_.context, &args),
                       "DxgkDdiRestoreMutableMigrationData");
}

absl::Status DocumentedMigratable::RestoreUmedPart(bool is_immutable,
                                                   std::vector<BYTE> data) {
  BYTE* bytes = data.empty() ? nullptr : data.data();
  LUID luid = options_.device_luid;
  if (is_immutable) {
    return UmedStatus(options_.umed->lpVtbl->RestoreImmutableGpup(
                          options_.umed, &luid, data.size(), bytes),
                      "RestoreImmutableGpup");
  }
  return UmedStatus(options_.umed_state->Restore(options_.umed_state->Context,
                                                 &luid, data.size(), bytes),
                    "Restore of the mutable state");
}

absl::Status DocumentedMigratable::ReadMemory(uint32_t segment,
                                              uint64_t offset_bytes,
                                              absl::Span<std::byte> out) {
  return Transfer(segment, offset_bytes, out.data(), out.size(),
                  DXGK_MEMORY_TRANSFER_LOCAL_TO_SYSTEM);
}

absl::Status DocumentedMigratable::WriteMemory(
    uint32_t segment, uint64_t offset_bytes, absl::Span<const std::byte> data) {
  // SAFETY: in this direction the driver reads.
  return Transfer(segment, offset_bytes, const_cast<std::byte*>(data.data()),
                  data.size(), DXGK_MEMORY_TRANSFER_SYSTEM_TO_LOCAL);
}

absl::Status DocumentedMigratable::Transfer(
    uint32_t segment, uint64_t offset_bytes, std::byte* memory,
    uint64_t size_bytes, DXGK_MEMORY_TRANSFER_DIRECTION direction) {
  const auto found =
      std::find_if(caps_.segments.begin(), caps_.segments.end(),
                   [&](const Segment& s) { return s.id == segment; });
  const uint64_t all_bytes =
      found == caps_.segments.end() ? 0 : SegmentSizeBytes(*found);
  if (offset_bytes > all_bytes || size_bytes > all_bytes - offset_bytes) {
    return absl::OutOfRangeError(
        absl::StrCat(size_bytes, " bytes at ", offset_bytes, " of segment ",
                     segment, ", which has ", all_bytes));
  }
  if (!caps_.live_migration) {
    return absl::FailedPreconditionError("the driver lacks LiveMigration");
  }
  const BlockingCall call;
  for (const MemoryRange& range : found->ranges) {
    if (size_bytes == 0) break;
    if (offset_bytes >= range.size_bytes) {
      offset_bytes -= range.size_bytes;
      continue;
    }
    const uint64_t part = std::min(size_bytes, range.size_bytes - offset_bytes);
    if (auto status = ToFinalStatus(
            functions_.transfer(functions_.context, options_.vf_index, segment,
                                range.offset_bytes + offset_bytes, memory, part,
                                direction),
            "a transfer");
        !status.ok()) {
      return status;
    }
    memory += part;
    size_bytes -= part;
    offset_bytes = 0;
  }
  return absl::OkStatus();
}

absl::Status DocumentedMigratable::SetPauseState(bool pause) {
  const BlockingCall call;
  DXGKARG_SETVIRTUALFUNCTIONPAUSESTATE args = {};
  args.vfIndex = options_.vf_index;
  args.Pause = pause ? 1 : 0;
  return ToFinalStatus(functions_.set_pause_state(functions_.context, &args),
                       "DxgkDdiSetVirtualFunctionPauseState");
}

absl::StatusOr<bool> DocumentedMigratable::Pause() {
  if (is_pause_set_ || !is_running_) return true;
  if (!caps_.live_migration) {
    return absl::FailedPreconditionError("the driver lacks LiveMigration");
  }
  if (auto status = SetPauseState(true); !status.ok()) return status;
  is_pause_set_ = true;
  is_running_ = false;
  return true;
}

void DocumentedMigratable::Resume() {
  if (is_retired_) return;
  mutable_.reset();
  is_running_ = true;
  // There is nothing to do about a failure: a client's commands will show it.
  if (std::exchange(is_pause_set_, false)) (void)SetPauseState(false);
}

absl::Status DocumentedMigratable::RewriteInterrupts() {
  return options_.rewrite_interrupts == nullptr ? absl::OkStatus()
                                                : options_.rewrite_interrupts();
}

void DocumentedMigratable::LogEvent(const GUID& guid, size_t size_bytes,
                                    const void* buffer) {
  if (std::memcmp(&guid, &GUID_DXGKDDI_AZURE_TRIAGE_EVENT, sizeof(guid)) != 0) {
    return;
  }
  DXGKDDICB_PARTITIONING_EVENT_NOTIFICATION from;
  const bool may_be_large = blocking_calls > 0;
  if (size_bytes < sizeof(from) ||
      (size_bytes > FERRYBUS_TRIAGE_ANY_CONTEXT_BYTES_MAX && !may_be_large)) {
    return;
  }
  std::memcpy(&from, buffer, sizeof(from));
  TriageEvent event;
  event.type = from.EventType;
  event.partition_id = from.PartitionId;
  event.description = Printable(from.EventDescription);
  event.data = {from.EventData1, from.EventData2, from.EventData3,
                from.EventData4, from.EventData5};
  Emit(event);
}

void DocumentedMigratable::Emit(const TriageEvent& event) {
  {
    absl::MutexLock lock(&event_mutex_);
    ++event_count_;
    last_event_ = event.description;
  }
  if (options_.on_triage_event != nullptr) options_.on_triage_event(event);
}

uint64_t DocumentedMigratable::EventCount() const {
  absl::MutexLock lock(&event_mutex_);
  return event_count_;
}

absl::Status DocumentedMigratable::WithEvent(uint64_t events_before,
                                             absl::Status status) {
  std::string reason;
  {
    absl::MutexLock lock(&event_mutex_);
    if (event_count_ != events_before) reason = last_event_;
  }
  if (reason.empty()) {
    TriageEvent event;
    event.partition_id = options_.vf_index;
    event.description = std::string(status.message());
    Emit(event);
    return status;
  }
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), ": ", reason));
}

}  // namespace ferrybus::vsp

extern "C" void DxgkCbLogEtwEvent(const GUID* EventGuid, UCHAR Type,
                                  USHORT EventBufferSize, PVOID EventBuffer) {
  (void)Type;
  // hAdapter is the first member.
  PVOID adapter = nullptr;
  if (EventBufferSize < sizeof(adapter)) return;
  std::memcpy(&adapter, EventBuffer, sizeof(adapter));
  if (adapter == nullptr) return;
  static_cast<ferrybus::vsp::DocumentedMigratable*>(adapter)->LogEvent(
      *EventGuid, EventBufferSize, EventBuffer);
}
