// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/accelerator_migratable.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/vsp/virtual_function/accelerator_state_persist.h"

namespace ferrybus::vsp {
namespace {

using migration::Role;
using savestate::SizeAnswer;

template <typename T>
absl::Status Compare(absl::string_view field, const T& saved, const T& here) {
  if (saved == here) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "accelerator: ", field, " is ", saved, " where it comes from and ", here,
      " here: move it to a host that has the same"));
}

absl::Status CompareSegments(const AcceleratorSegmentShape& saved,
                             const AcceleratorSegmentShape& here) {
  const std::string segment = absl::StrCat("segment ", here.id);
  for (const absl::Status& status :
       {Compare("segment id", saved.id, here.id),
        Compare(segment + " size in bytes", saved.size_bytes, here.size_bytes),
        Compare(segment + " page size in bytes", saved.page_size_bytes,
                here.page_size_bytes)}) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

SizeAnswer Give(const std::string& blob, absl::Span<std::byte> out) {
  if (out.empty()) return SizeAnswer::Ok(blob.size());
  if (out.size() < blob.size()) return SizeAnswer::TooSmall(blob.size());
  std::memcpy(out.data(), blob.data(), blob.size());
  return SizeAnswer::Ok(blob.size());
}

}  // namespace

absl::Status CheckIdentity(const AcceleratorIdentity& saved,
                           const AcceleratorIdentity& here) {
  for (const absl::Status& status :
       {Compare("hardware model", saved.hardware_model, here.hardware_model),
        Compare("firmware", saved.firmware, here.firmware),
        Compare("driver major version", saved.driver_major, here.driver_major),
        Compare("architecture", saved.architecture, here.architecture),
        Compare("number of interrupt vectors", saved.vectors, here.vectors),
        Compare("number of segments", saved.segments.size(),
                here.segments.size())}) {
    if (!status.ok()) return status;
  }
  // What a later driver left, an earlier one may not know.
  if (saved.driver_minor > here.driver_minor) {
    return Compare("driver minor version", saved.driver_minor,
                   here.driver_minor);
  }
  for (size_t i = 0; i < here.segments.size(); ++i) {
    absl::Status status = CompareSegments(saved.segments[i], here.segments[i]);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

AcceleratorMigratable::AcceleratorMigratable(
    const AcceleratorMigratableOptions& options,
    const VirtualFunctionParts& parts)
    : options_(options), parts_(parts) {
  FERRYBUS_CHECK(parts_.accelerator != nullptr, "there is nothing to move");
  FERRYBUS_CHECK(!options_.live_migration || parts_.dirty != nullptr,
                 "live migration without dirty tracking");
}

migration::Capabilities AcceleratorMigratable::capabilities() const {
  return {.live_migration = options_.live_migration,
          .performant_tracking = options_.performant_tracking};
}

std::vector<migration::Segment> AcceleratorMigratable::segments() const {
  std::vector<migration::Segment> segments;
  for (const AcceleratorSegment& segment : parts_.accelerator->segments()) {
    segments.push_back({.id = segment.id,
                        .page_size_bytes = segment.page_size_bytes,
                        .ranges = {{0, segment.memory.size()}}});
  }
  return segments;
}

int AcceleratorMigratable::SharedMemory(uint32_t segment) {
  const AcceleratorSegment* const found =
      FindSegment(parts_.accelerator->segments(), segment);
  return found == nullptr ? -1 : found->file;
}

AcceleratorIdentity AcceleratorMigratable::Identity() const {
  AcceleratorIdentity identity = options_.identity;
  identity.vectors =
      parts_.interrupts == nullptr ? 0 : parts_.interrupts->vectors();
  identity.segments.clear();
  for (const AcceleratorSegment& segment : parts_.accelerator->segments()) {
    identity.segments.push_back(
        {segment.id, segment.memory.size(), segment.page_size_bytes});
  }
  return identity;
}

absl::Status AcceleratorMigratable::CheckPhase(
    std::initializer_list<Phase> allowed, absl::string_view call) const {
  if (std::find(allowed.begin(), allowed.end(), phase_) != allowed.end()) {
    return absl::OkStatus();
  }
  constexpr const char* kNames[] = {"is not being moved",
                                    "is a source that runs",
                                    "is a source, paused",
                                    "is a target",
                                    "is a target that may take over",
                                    "has been taken over",
                                    "is another owner's"};
  return absl::FailedPreconditionError(
      absl::StrCat("accelerator ", options_.name, ": ", call, ", but it ",
                   kNames[static_cast<size_t>(phase_)]));
}

// -- Both roles ---------------------------------------------------------------

absl::Status AcceleratorMigratable::Prepare(Role role) {
  absl::MutexLock lock(&mu_);
  if (absl::Status status = CheckPhase({Phase::kIdle}, "Prepare");
      !status.ok()) {
    return status;
  }
  const bool is_target = role == Role::kTarget;
  if (is_target && !parts_.accelerator->is_new()) {
    return absl::FailedPreconditionError(
        absl::StrCat("accelerator ", options_.name,
                     ": Prepare as a target, but it was used already"));
  }
  if (parts_.budget != nullptr) {
    if (absl::Status status = parts_.budget->BeginPaging(); !status.ok()) {
      return status;
    }
  }
  if (is_target) {
    parts_.accelerator->SetHold(Accelerator::kMigration, true);
  }
  phase_ = is_target ? Phase::kTarget : Phase::kSource;
  is_prepared_ = true;
  return absl::OkStatus();
}

void AcceleratorMigratable::End() {
  absl::MutexLock lock(&mu_);
  if (!std::exchange(is_prepared_, false)) return;
  if (parts_.budget != nullptr) parts_.budget->EndPaging();
  if (phase_ == Phase::kSource) phase_ = Phase::kIdle;
  // Neither here nor there: good for nothing.
  if (phase_ == Phase::kTarget || phase_ == Phase::kTargetChecked) {
    phase_ = Phase::kRetired;
  }
}

void AcceleratorMigratable::Resume() {
  absl::MutexLock lock(&mu_);
  if (phase_ != Phase::kPaused && phase_ != Phase::kTargetTaken) return;
  phase_ =
      phase_ == Phase::kPaused && is_prepared_ ? Phase::kSource : Phase::kIdle;
  // What a guest's message cannot be mapped to stays pending.
  if (parts_.interrupts != nullptr) (void)parts_.interrupts->Resume();
  parts_.accelerator->SetHold(Accelerator::kMigration, false);
}

// -- The source ---------------------------------------------------------------

SizeAnswer AcceleratorMigratable::SaveImmutable(absl::Span<std::byte> out) {
  absl::MutexLock lock(&mu_);
  if (absl::Status status =
          CheckPhase({Phase::kSource, Phase::kPaused}, "SaveImmutable");
      !status.ok()) {
    return SizeAnswer::Failed(status);
  }
  return Give(SerializeAcceleratorIdentity(Identity()), out);
}

absl::Status AcceleratorMigratable::ReadMemory(uint32_t segment,
                                               uint64_t offset_bytes,
                                               absl::Span<std::byte> out) {
  {
    absl::MutexLock lock(&mu_);
    if (absl::Status status =
            CheckPhase({Phase::kSource, Phase::kPaused}, "ReadMemory");
        !status.ok()) {
      return status;
    }
  }
  if (parts_.budget != nullptr) parts_.budget->ChargePaging(out.size());
  return parts_.accelerator->ReadMemory(segment, offset_bytes, out);
}

absl::StatusOr<bool> AcceleratorMigratable::Pause() {
  absl::MutexLock lock(&mu_);
  if (absl::Status status =
          CheckPhase({Phase::kSource, Phase::kPaused}, "Pause");
      !status.ok()) {
    return status;
  }
  // The accelerator first: an interrupt of its last step is sent, or pending.
  parts_.accelerator->SetHold(Accelerator::kMigration, true);
  if (parts_.interrupts != nullptr) parts_.interrupts->Pause();
  saved_changes_.reset();
  phase_ = Phase::kPaused;
  return true;
}

absl::StatusOr<VirtualFunctionState> AcceleratorMigratable::SaveState() {
  VirtualFunctionState state;
  saved_changes_ = parts_.accelerator->changes();
  absl::StatusOr<AcceleratorState> saved = parts_.accelerator->Save();
  if (!saved.ok()) return saved.status();
  state.accelerator = *std::move(saved);
  if (parts_.interrupts != nullptr) {
    absl::StatusOr<MsixTableState> interrupts = parts_.interrupts->Save();
    if (!interrupts.ok()) return interrupts.status();
    state.interrupts = *std::move(interrupts);
  }
  if (parts_.config != nullptr) state.config = parts_.config->Save();
  saved_config_ = state.config;
  return state;
}

SizeAnswer AcceleratorMigratable::SaveMutable(absl::Span<std::byte> out) {
  absl::MutexLock lock(&mu_);
  if (absl::Status status = CheckPhase({Phase::kPaused}, "SaveMutable");
      !status.ok()) {
    return SizeAnswer::Failed(status);
  }
  const absl::StatusOr<VirtualFunctionState> state = SaveState();
  if (!state.ok()) return SizeAnswer::Failed(state.status());
  return Give(SerializeVirtualFunctionState(*state), out);
}

absl::Status AcceleratorMigratable::Confirm() {
  absl::MutexLock lock(&mu_);
  if (absl::Status status = CheckPhase({Phase::kPaused}, "Confirm");
      !status.ok()) {
    return status;
  }
  const bool is_as_saved =
      saved_changes_ == parts_.accelerator->changes() &&
      (parts_.interrupts == nullptr || parts_.interrupts->IsAsSaved()) &&
      (parts_.config == nullptr || parts_.config->Save() == saved_config_);
  if (is_as_saved) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "accelerator ", options_.name,
      ": Confirm, but its guest changed it after it was saved, or it was not: "
      "pause the guest first"));
}

void AcceleratorMigratable::Retire() {
  absl::MutexLock lock(&mu_);
  parts_.accelerator->Retire();
  // Refused if its guest still ran after Confirm(): paused it stays anyway.
  if (parts_.interrupts != nullptr) (void)parts_.interrupts->Retire();
  phase_ = Phase::kRetired;
}

// -- The target ---------------------------------------------------------------

absl::Status AcceleratorMigratable::RestoreImmutable(
    absl::Span<const std::byte> data) {
  absl::MutexLock lock(&mu_);
  if (absl::Status status = CheckPhase({Phase::kTarget}, "RestoreImmutable");
      !status.ok()) {
    return status;
  }
  const absl::StatusOr<AcceleratorIdentity> saved =
      ParseAcceleratorIdentity(data);
  if (!saved.ok()) return saved.status();
  if (absl::Status status = CheckIdentity(*saved, Identity()); !status.ok()) {
    return status;
  }
  phase_ = Phase::kTargetChecked;
  return absl::OkStatus();
}

absl::Status AcceleratorMigratable::WriteMemory(
    uint32_t segment, uint64_t offset_bytes, absl::Span<const std::byte> data) {
  {
    absl::MutexLock lock(&mu_);
    if (absl::Status status =
            CheckPhase({Phase::kTargetChecked}, "WriteMemory");
        !status.ok()) {
      return status;
    }
  }
  if (parts_.budget != nullptr) parts_.budget->ChargePaging(data.size());
  return parts_.accelerator->WriteMemory(segment, offset_bytes, data);
}

absl::Status AcceleratorMigratable::CheckState(
    const VirtualFunctionState& state) const {
  if (absl::Status status = parts_.accelerator->CheckState(state.accelerator);
      !status.ok()) {
    return status;
  }
  if (state.interrupts.has_value() != (parts_.interrupts != nullptr)) {
    return absl::DataLossError(
        "virtual function: only one of the two has an interrupt table");
  }
  if (parts_.config != nullptr) return parts_.config->Check(state.config);
  if (state.config.empty()) return absl::OkStatus();
  return absl::DataLossError(
      "virtual function: a configuration space was saved, and it has none");
}

absl::Status AcceleratorMigratable::RestoreMutable(
    absl::Span<const std::byte> data) {
  absl::MutexLock lock(&mu_);
  if (absl::Status status =
          CheckPhase({Phase::kTargetChecked}, "RestoreMutable");
      !status.ok()) {
    return status;
  }
  const absl::StatusOr<VirtualFunctionState> state =
      ParseVirtualFunctionState(data);
  if (!state.ok()) return state.status();
  if (absl::Status status = CheckState(*state); !status.ok()) return status;
  // The table is the last that can refuse.
  if (parts_.interrupts != nullptr) {
    if (absl::Status status = parts_.interrupts->Restore(*state->interrupts);
        !status.ok()) {
      return status;
    }
  }
  if (absl::Status status = parts_.accelerator->Restore(state->accelerator);
      !status.ok()) {
    return status;
  }
  if (parts_.config != nullptr) (void)parts_.config->Restore(state->config);
  phase_ = Phase::kTargetTaken;
  return absl::OkStatus();
}

absl::Status AcceleratorMigratable::RewriteInterrupts() {
  absl::MutexLock lock(&mu_);
  if (absl::Status status =
          CheckPhase({Phase::kTargetTaken}, "RewriteInterrupts");
      !status.ok()) {
    return status;
  }
  if (parts_.interrupts == nullptr) return absl::OkStatus();
  const absl::Status status = parts_.interrupts->Rewrite();
  if (!absl::IsNotFound(status)) return status;
  // A guest that writes an address of nothing must not hinder its own move.
  ++unmapped_tables_;
  return absl::OkStatus();
}

}  // namespace ferrybus::vsp
