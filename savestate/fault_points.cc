// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/fault_points.h"

#include <cstddef>

namespace ferrybus::savestate {
namespace {

using F = FaultPoint;

constexpr FaultPointInfo kPoints[] = {
    {F::kSaveConnection, "save.connection", true},
    {F::kSavePacket, "save.packet", true},
    {F::kSaveAwaiting, "save.awaiting", true},
    {F::kSaveDevice, "save.device", true},
    {F::kSaveChannel, "save.channel", true},
    {F::kSaveFrame, "save.frame", true},
    {F::kCheckpointCreate, "checkpoint.create", true},
    {F::kCheckpointWrite, "checkpoint.write", true},
    {F::kCheckpointSync, "checkpoint.sync", true},
    {F::kCheckpointRename, "checkpoint.rename", true},
    {F::kCheckpointSyncFolder, "checkpoint.sync_folder", true},
    {F::kCheckpointRemoveOld, "checkpoint.remove_old", false},
    {F::kCheckpointLoad, "checkpoint.load", true},
    {F::kRestorePlan, "restore.plan", true},
    {F::kRestoreConnection, "restore.connection", true},
    {F::kRestoreOffer, "restore.offer", true},
    {F::kRestoreRings, "restore.rings", true},
    {F::kRestoreDevice, "restore.device", true},
    {F::kRestoreAwaiting, "restore.awaiting", true},
    {F::kRestorePacket, "restore.packet", true},
    {F::kRestoreStart, "restore.start", false},
    {F::kLeavePrepare, "leave.prepare", true},
    {F::kLeaveSaveImmutable, "leave.save_immutable", true},
    {F::kLeaveTrack, "leave.track", true},
    {F::kLeavePass, "leave.pass", true},
    {F::kLeaveBlock, "leave.block", true},
    {F::kLeavePause, "leave.pause", true},
    {F::kLeaveSaveMutable, "leave.save_mutable", true},
    {F::kLeaveConfirm, "leave.confirm", true},
    {F::kLeaveDecide, "leave.decide", true},
    {F::kLeaveDecided, "leave.decided", false},
    {F::kLeaveRetire, "leave.retire", false},
    {F::kArriveCreate, "arrive.create", true},
    {F::kArriveRestoreImmutable, "arrive.restore_immutable", true},
    {F::kArriveBlock, "arrive.block", true},
    {F::kArriveRestoreMutable, "arrive.restore_mutable", true},
    {F::kArriveInterrupts, "arrive.interrupts", true},
    {F::kArriveStorePrepared, "arrive.store_prepared", true},
    {F::kArrivePrepared, "arrive.prepared", false},
    {F::kArriveStoreOwner, "arrive.store_owner", true},
    {F::kArriveResume, "arrive.resume", false},
    {F::kUpdateSave, "update.save", true},
    {F::kUpdateRestore, "update.restore", true},
    {F::kUpdateStart, "update.start", true},
    {F::kUpdateStarted, "update.started", false},
    {F::kUpdateRollBack, "update.roll_back", false},
    {F::kTakeOverCreate, "take_over.create", true},
    {F::kTakeOverRestore, "take_over.restore", true},
    {F::kTakeOverStart, "take_over.start", true},
    {F::kTakeOverStarted, "take_over.started", false},
};

constexpr bool AreInOrder() {
  size_t next = 0;
  for (const FaultPointInfo& info : kPoints) {
    if (static_cast<size_t>(info.point) != next++) return false;
  }
  return next == static_cast<size_t>(FaultPoint::kTakeOverStarted) + 1;
}
static_assert(AreInOrder());

}  // namespace

absl::Span<const FaultPointInfo> FaultPoints() { return kPoints; }

absl::string_view FaultPointName(FaultPoint point) {
  return kPoints[static_cast<size_t>(point)].name;
}

}  // namespace ferrybus::savestate
