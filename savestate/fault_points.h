// SPDX-License-Identifier: MIT
//
// Named places at which a test may end, stop, hold up or starve a save, a
// checkpoint, a restore, a migration or a hot update.
//
// Whoever embeds the library proves with them that its own recovery works: a
// hook that kills the process at "checkpoint.rename" shows what is left then.
// The registry lists all points; a test of this tree fails for a point that it
// never reaches.
//
// Ownership: a hook outlives its installation.
// Thread safety: any thread passes points, and a hook is called in each of
// them, some with locks held: it calls nothing of the library.  A hook is
// installed and taken away while nobody passes a point.
// Trust: only code of this process can install one.
// Cost: without a hook one load and one jump, at steps that allocate anyway;
// no point is on the way of a packet.
//
//   class Killer : public FaultHook {
//     absl::Status OnFaultPoint(FaultPoint point) override {
//       if (point == FaultPoint::kCheckpointRename) raise(SIGKILL);
//       return absl::OkStatus();
//     }
//   };
//   Killer killer;
//   ScopedFaultHook installed(&killer);

#ifndef FERRYBUS_SAVESTATE_FAULT_POINTS_H_
#define FERRYBUS_SAVESTATE_FAULT_POINTS_H_

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace ferrybus::savestate {

// Each is passed right before what its comment says.
enum class FaultPoint : uint8_t {
  // -- A bus is saved
  kSaveConnection,  // the connection's section
  kSavePacket,      // a device is asked for a packet in flight
  kSaveAwaiting,    // ... for a request of its own
  kSaveDevice,      // ... for its state
  kSaveChannel,     // a channel's section is added
  kSaveFrame,       // the sections become one frame
  // -- A checkpoint
  kCheckpointCreate,
  kCheckpointWrite,
  kCheckpointSync,
  kCheckpointRename,
  kCheckpointSyncFolder,
  kCheckpointRemoveOld,
  kCheckpointLoad,
  // -- A bus is restored
  kRestorePlan,        // anything of the saved bytes is looked at
  kRestoreConnection,  // all is checked; the connection is made
  kRestoreOffer,       // a device is offered
  kRestoreRings,       // a channel's rings are mapped
  kRestoreDevice,      // a device gets its state
  kRestoreAwaiting,    // ... a request of its own
  kRestorePacket,      // ... a packet in flight
  kRestoreStart,       // the first packet is read
  // -- A machine leaves
  kLeavePrepare,        // a device is prepared
  kLeaveSaveImmutable,  // a device's immutable data is saved
  kLeaveTrack,          // dirty tracking begins
  kLeavePass,           // a pass over the memory begins
  kLeaveBlock,          // a block of pages is read
  kLeavePause,          // a device is paused
  kLeaveSaveMutable,    // a device's mutable data is saved
  kLeaveConfirm,        // a device is asked whether its save still holds
  kLeaveDecide,         // the decision is stored
  kLeaveDecided,        // the target is told; it is the owner
  kLeaveRetire,         // the devices end
  // -- A machine comes
  kArriveCreate,            // its devices are made
  kArriveRestoreImmutable,  // a device gets its immutable data
  kArriveBlock,             // a block of pages is written
  kArriveRestoreMutable,    // a device gets its mutable data
  kArriveInterrupts,        // a device's interrupts are rewritten
  kArriveStorePrepared,     // it is stored that only the decision is due
  kArrivePrepared,          // the source is told
  kArriveStoreOwner,        // the decision is known; the ownership is stored
  kArriveResume,            // the devices run
  // -- A driver is updated
  kUpdateSave,      // the old driver saves
  kUpdateRestore,   // the successor gets a block
  kUpdateStart,     // the successor starts
  kUpdateStarted,   // the old driver is destroyed
  kUpdateRollBack,  // the successor is destroyed
  // -- ... and the successor is in another process
  kTakeOverCreate,   // it is made
  kTakeOverRestore,  // it gets a block
  kTakeOverStart,    // it starts
  kTakeOverStarted,  // it has; the old process is told
};

struct FaultPointInfo {
  FaultPoint point;
  absl::string_view name;
  // A status of the hook is the step's failure; elsewhere it has no effect: the
  // step has no way back, and a kill or a delay is all that can happen.
  bool can_fail;
};

// In the order of the points.
absl::Span<const FaultPointInfo> FaultPoints();
absl::string_view FaultPointName(FaultPoint point);

class FaultHook {
 public:
  virtual ~FaultHook() = default;
  virtual absl::Status OnFaultPoint(FaultPoint point) = 0;
};

namespace fault_points_internal {
inline std::atomic<FaultHook*> installed = nullptr;
}  // namespace fault_points_internal

// For the library's steps.
inline absl::Status PassFaultPoint(FaultPoint point) {
  FaultHook* const hook =
      fault_points_internal::installed.load(std::memory_order_acquire);
  return hook == nullptr ? absl::OkStatus() : hook->OnFaultPoint(point);
}

// For those that have no way back.
inline void MarkFaultPoint(FaultPoint point) {
  PassFaultPoint(point).IgnoreError();
}

// For its life.
class ScopedFaultHook {
 public:
  explicit ScopedFaultHook(FaultHook* hook)
      : before_(fault_points_internal::installed.exchange(hook)) {}
  ScopedFaultHook(const ScopedFaultHook&) = delete;
  ScopedFaultHook& operator=(const ScopedFaultHook&) = delete;
  ~ScopedFaultHook() { fault_points_internal::installed.store(before_); }

 private:
  FaultHook* const before_;
};

}  // namespace ferrybus::savestate

#endif  // FERRYBUS_SAVESTATE_FAULT_POINTS_H_
