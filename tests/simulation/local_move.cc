// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/local_move.h"

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/checkpoint.h"

namespace ferrybus::simulation {
namespace {

constexpr char kFolder[] = "/checkpoints";

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace

bool LocalMove::Draws(Fault fault) {
  const uint64_t one_in = plan_->one_in(fault);
  return !is_healed_ && one_in != 0 && context_->random.OneIn(one_in);
}

void LocalMove::Begin(SimulatedHost* host) {
  host_ = host;
  host_->Enter();
  host_->Suspend();
  state_ = State::kSuspended;
}

void LocalMove::Step() {
  switch (state_) {
    case State::kNone:
      return;
    case State::kSuspended:
      if (host_->IsQuiescent()) {
        saved_ = host_->Freeze();
        state_ = State::kFrozen;
      } else if (context_->random.OneIn(20)) {
        host_->Thaw();
        state_ = State::kNone;
      }
      return;
    case State::kFrozen:
      return Decide();
    case State::kEnded:
      return Restore(/*is_at_once=*/false);
  }
}

void LocalMove::Decide() {
  if (context_->random.OneIn(4)) {
    ++context_->totals.thaws;
    host_->Thaw();
    state_ = State::kNone;
    return;
  }
  if (context_->random.OneIn(3) && host_->SavesTheSame()) {
    // The guest has no time to do anything.
    saved_ = host_->SaveAgain(saved_);
    is_on_disk_ = false;
    host_->EndBus(/*kill=*/false);
    state_ = State::kEnded;
    return Restore(/*is_at_once=*/true);
  }
  const bool is_killed = Draws(Fault::kCheckpointKill);
  is_on_disk_ = is_killed || context_->random.OneIn(3);
  if (is_on_disk_ && !WriteCheckpoint()) {
    host_->Thaw();
    state_ = State::kNone;
    return;
  }
  if (is_killed) context_->Happened(Fault::kCheckpointKill);
  host_->EndBus(is_killed);
  state_ = State::kEnded;
}

bool LocalMove::WriteCheckpoint() {
  auto folder = savestate::CheckpointFolder::Open(
      kFolder, {}, host_->files().checkpoints.file_system());
  if (!folder.ok() || !folder->Write(AsBytes(saved_)).ok()) return false;
  ++context_->totals.checkpoints;
  return true;
}

void LocalMove::Restore(bool is_at_once) {
  if (is_on_disk_) {
    auto folder = savestate::CheckpointFolder::Open(
        kFolder, {}, host_->files().checkpoints.file_system());
    if (!folder.ok()) return;  // again, later
    const auto loaded = folder->LoadNewest();
    if (!loaded.ok()) return;
    if (loaded->bytes != saved_ && loaded->refused.empty()) {
      context_->Fail("checkpoint", "another one came back than was written");
    }
  }
  host_->refuses_restore = Draws(Fault::kRestoreRefused);
  const bool may_fail = host_->refuses_restore;
  const absl::Status status = host_->Restore(saved_);
  host_->refuses_restore = false;
  if (!status.ok()) {
    if (!may_fail) {
      context_->Fail("restore", std::string(status.message()));
    }
    return;
  }
  if (is_at_once && host_->SaveAgain(saved_) != saved_) {
    context_->Fail("save", "saved, restored and saved: not the same");
  }
  host_->StartRestored();
  ++context_->totals.restores;
  state_ = State::kNone;
}

}  // namespace ferrybus::simulation
