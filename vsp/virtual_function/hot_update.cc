// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/hot_update.h"

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/savestate/fault_points.h"

namespace ferrybus::vsp {

using savestate::FaultPoint;
using savestate::PassFaultPoint;

HotUpdate::HotUpdate(absl::Span<std::byte> memory,
                     std::unique_ptr<HotUpdateDriver>* driver,
                     std::unique_ptr<HotUpdateDriver> successor,
                     const HotUpdateLimits& limits)
    : driver_(driver),
      successor_(std::move(successor)),
      blocks_(memory, limits) {
  FERRYBUS_CHECK(*driver_ != nullptr && successor_ != nullptr,
                 "a hot update needs two drivers");
}

absl::Status HotUpdate::Run() {
  if (absl::Status status = Save(); !status.ok()) return status;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (absl::Status status = Restore(i); !status.ok()) return status;
  }
  return Start();
}

absl::Status HotUpdate::CheckPhase(Phase wanted, absl::string_view step) const {
  if (phase_ == wanted && !is_in_step_) return absl::OkStatus();
  constexpr absl::string_view kNames[] = {"is new", "has saved", "is done",
                                          "has rolled back"};
  return absl::FailedPreconditionError(absl::StrCat(
      step, "() of a hot update that ", kNames[static_cast<int>(phase_)],
      is_in_step_ ? ", within another step" : "",
      reason_.ok() ? "" : absl::StrCat(": ", reason_.ToString())));
}

absl::Status HotUpdate::AfterCall(absl::Status status) const {
  if (!status.ok() || !is_cancel_requested_.load()) return status;
  return absl::CancelledError("cancelled");
}

absl::Status HotUpdate::Save() {
  if (absl::Status s = CheckPhase(Phase::kNew, "Save"); !s.ok()) return s;
  is_in_step_ = true;
  absl::Cleanup end = [this] { is_in_step_ = false; };
  absl::Status status = AfterCall(absl::OkStatus());
  if (!(*driver_)->CanHotUpdate() || !successor_->CanHotUpdate()) {
    status = absl::UnimplementedError(
        "one of the drivers does not support hot update");
  }
  if (status.ok()) {
    has_asked_to_save_ = true;
    blocks_.Open();
    status = PassFaultPoint(FaultPoint::kUpdateSave);
    if (status.ok()) status = AfterCall((*driver_)->Save(blocks_));
    blocks_.Close();
  }
  if (!status.ok()) {
    return RollBack(status,
                    absl::StrCat("saving, after ", blocks_.size(), " blocks"));
  }
  phase_ = Phase::kSaved;
  return absl::OkStatus();
}

absl::Status HotUpdate::Restore(size_t index) {
  if (absl::Status s = CheckPhase(Phase::kSaved, "Restore"); !s.ok()) return s;
  is_in_step_ = true;
  absl::Cleanup end = [this] { is_in_step_ = false; };
  absl::Status status = AfterCall(absl::OkStatus());
  if (status.ok() && (index != restored_ || index >= blocks_.size())) {
    status = absl::InvalidArgumentError(
        absl::StrCat("out of order: ", restored_, " blocks were restored"));
  }
  if (status.ok()) status = PassFaultPoint(FaultPoint::kUpdateRestore);
  if (status.ok()) {
    status = AfterCall(successor_->Restore(blocks_.Take(index)));
  }
  if (!status.ok()) {
    return RollBack(status, absl::StrCat("restoring block ", index, " of ",
                                         blocks_.size()));
  }
  ++restored_;
  return absl::OkStatus();
}

absl::Status HotUpdate::Start() {
  if (absl::Status s = CheckPhase(Phase::kSaved, "Start"); !s.ok()) return s;
  is_in_step_ = true;
  absl::Cleanup end = [this] { is_in_step_ = false; };
  absl::Status status = AfterCall(absl::OkStatus());
  if (status.ok() && restored_ != blocks_.size()) {
    status = absl::FailedPreconditionError(absl::StrCat(
        restored_, " of ", blocks_.size(), " blocks were restored"));
  }
  if (status.ok()) status = PassFaultPoint(FaultPoint::kUpdateStart);
  if (status.ok()) status = successor_->Start();
  if (!status.ok()) return RollBack(status, "starting the successor");
  // It may have served clients: from here on there is no way back.
  std::swap(*driver_, successor_);
  phase_ = Phase::kDone;
  blocks_.Clear();
  (*driver_)->RestoreComplete();
  savestate::MarkFaultPoint(FaultPoint::kUpdateStarted);
  successor_.reset();
  return absl::OkStatus();
}

void HotUpdate::Cancel() {
  if (phase_ == Phase::kDone || phase_ == Phase::kRolledBack) return;
  RequestCancel();
  if (is_in_step_) return;
  is_in_step_ = true;
  absl::Cleanup end = [this] { is_in_step_ = false; };
  RollBack(absl::CancelledError("cancelled"), "waiting for its next step")
      .IgnoreError();
}

absl::Status HotUpdate::RollBack(const absl::Status& why,
                                 absl::string_view during) {
  phase_ = Phase::kRolledBack;
  reason_ = absl::Status(
      why.code(), absl::StrCat("hot update, ", during, ": ", why.message(),
                               "; the old driver runs on"));
  savestate::MarkFaultPoint(FaultPoint::kUpdateRollBack);
  // First: two never work on one device.
  successor_.reset();
  blocks_.Clear();
  if (has_asked_to_save_) (*driver_)->CancelUpdate();
  return reason_;
}

}  // namespace ferrybus::vsp
