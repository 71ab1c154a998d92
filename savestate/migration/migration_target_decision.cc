// SPDX-License-Identifier: MIT
//
// MigrationTarget: from prepared to running, or back, also after a restart.

#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/fault_points.h"
#include "ferrybus/savestate/migration/migration_target.h"

namespace ferrybus::migration {
namespace {

using savestate::FaultPoint;
using savestate::MarkFaultPoint;
using savestate::PassFaultPoint;

constexpr absl::Duration kStoreAgainAfter = absl::Milliseconds(100);

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace

absl::Status MigrationTarget::StorePrepared() {
  absl::Status passed = PassFaultPoint(FaultPoint::kArriveStorePrepared);
  if (!passed.ok()) return passed;
  return ledger_->Store({.state = Ownership::kPrepared,
                         .epoch = hello_.epoch + 1,
                         .migration_id = hello_.migration_id,
                         .peer = options_.peer,
                         .messages = messages_});
}

void MigrationTarget::Handle(const Commit& commit) {
  if (!CheckPhase(TargetPhase::kPrepared, commit)) return;
  if (commit.session != options_.session || commit.epoch != hello_.epoch + 1) {
    // Not this target's decision: that is still to be heard.
    SetPhase(TargetPhase::kUndecided,
             absl::InvalidArgumentError("a decision for another session"));
    return;
  }
  OnDecision(Decision::kCommitted, now_);
}

void MigrationTarget::OnDecision(Decision decision, absl::Time now) {
  now_ = now;
  const bool is_asked =
      phase() == TargetPhase::kPrepared || phase() == TargetPhase::kUndecided;
  if (!is_asked || decision == Decision::kUndecided) return;
  if (decision == Decision::kAborted) {
    return DiscardPrepared(
        absl::AbortedError("the source's host decided against it"));
  }
  SetPhase(TargetPhase::kStarting);
  stored_ = absl::InfinitePast();
  PollStarting();
}

void MigrationTarget::PollStarting() {
  if (now_ - stored_ < kStoreAgainAfter) return;
  stored_ = now_;
  // It is ours already; but a restart must find it so, or it would ask again,
  // and nobody may remember.
  absl::Status status = PassFaultPoint(FaultPoint::kArriveStoreOwner);
  if (status.ok()) {
    status =
        ledger_->Store({.state = Ownership::kOwner, .epoch = hello_.epoch + 1});
  }
  if (!status.ok()) {
    return SetPhase(
        TargetPhase::kStarting,
        absl::Status(status.code(), absl::StrCat("storing the ownership: ",
                                                 status.message())));
  }
  MarkFaultPoint(FaultPoint::kArriveResume);
  for (const Device& device : devices_) device.device->End();
  // What was paused first runs last: processors after their devices.
  for (size_t i = devices_.size(); i-- > 0;) devices_[i].device->Resume();
  prepared_devices_ = 0;
  SetPhase(TargetPhase::kRunning);
  Send(Running());
}

absl::Status MigrationTarget::Recover(const OwnershipRecord& record,
                                      absl::Time now) {
  now_ = last_heard_ = now;
  if (phase() != TargetPhase::kNew || record.state != Ownership::kPrepared) {
    return absl::FailedPreconditionError("nothing to recover");
  }
  is_recovery_ = true;
  for (const std::string& bytes : record.messages) {
    absl::StatusOr<Message> message =
        ParseMessage(AsBytes(bytes), options_.limits);
    if (!message.ok()) return message.status();
    if (auto* hello = std::get_if<Hello>(&*message)) {
      Handle(std::move(*hello));
    } else if (auto* fixed = std::get_if<ImmutableData>(&*message)) {
      Handle(std::move(*fixed));
    } else if (auto* state = std::get_if<MutableData>(&*message)) {
      Handle(std::move(*state));
    }
    if (phase() == TargetPhase::kFailed) return status();
  }
  if (phase() == TargetPhase::kRestoring) Handle(Prepare());
  if (phase() == TargetPhase::kFailed) return status();
  if (phase() != TargetPhase::kRestoring || mutable_ != devices_.size() ||
      hello_.epoch + 1 != record.epoch ||
      hello_.migration_id != record.migration_id) {
    const absl::Status why =
        absl::DataLossError("the record of the prepared machine is incomplete");
    Fail(why, false);
    return why;
  }
  before_ = {.state = Ownership::kNone, .epoch = hello_.epoch};
  outgoing_.clear();
  SetPhase(TargetPhase::kUndecided,
           absl::UnavailableError("restarted before the decision was known"));
  return absl::OkStatus();
}

// The source decided against it.
void MigrationTarget::DiscardPrepared(const absl::Status& why) {
  const absl::Status stored = ledger_->Store(before_);
  // Whoever asks gets the same answer again.
  if (!stored.ok()) return SetPhase(TargetPhase::kUndecided, stored);
  Discard(why, false);
}

}  // namespace ferrybus::migration
