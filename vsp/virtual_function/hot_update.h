// SPDX-License-Identifier: MIT
//
// Replaces a device's driver by its successor, while the memory of the device
// stays where it is: for a fix in a driver whose clients go on.
//
//   Save       the old driver stops, and saves blocks of memory
//   Restore    the successor gets each block once, in the order of saving
//   Start      the successor runs; only now the old one is destroyed
//
// Until the successor has started, every failure and every cancellation rolls
// back: the successor is destroyed, what was copied is freed, and the old
// driver runs on from what it still has.  So a device has its old driver or the
// new one, never neither, and never both at work.
//
// A successor that cannot read what the old driver saved, such as a later
// version of it, refuses that block: the metadata is for this.
//
// Ownership: the memory, and the place where the device's driver is kept,
// outlive the update; nobody else changes that place meanwhile.  The successor
// belongs to the update until it is in that place.
// Thread safety: one thread at a time, which is the one that calls the drivers;
// RequestCancel() from any.  Of whoever calls the driver for its clients, the
// update knows nothing: such calls wait until it has ended.
// Trust: drivers may fail, and may be wrong about what they save.
// Cost: what the drivers do, and a copy of what they save as buffers.
//
//   HotUpdate update(memory, &driver, std::make_unique<NewDriver>());
//   absl::Status status = update.Run();   // `driver` is the one that runs
//
// Source: DxgkDdiSaveMemoryForHotUpdate, DxgkDdiRestoreMemoryForHotUpdate.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_HOT_UPDATE_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_HOT_UPDATE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "ferrybus/vsp/virtual_function/hot_update_blocks.h"

namespace ferrybus::vsp {

// A driver is an old one in one update, and was the successor in the one
// before.
class HotUpdateDriver {
 public:
  // Destroyed after Save() it leaves alone what it saved; destroyed without
  // having been started, what was restored to it.
  virtual ~HotUpdateDriver() = default;

  virtual bool CanHotUpdate() const { return true; }

  // -- The old driver.

  // Stops the device, and saves what is needed to go on: the state of each
  // active virtual function.  A block that is refused may be saved in another
  // way.  `blocks` takes none after the return.
  virtual absl::Status Save(HotUpdateBlocks& blocks) = 0;
  // The update does not take place, perhaps because Save() failed: runs on.
  virtual void CancelUpdate() = 0;

  // -- The successor.

  // Takes a block over; does not use it yet, nor starts anything.
  virtual absl::Status Restore(HotUpdateBlock block) = 0;
  // After the last block: runs.  On a failure all memory is as it was.
  virtual absl::Status Start() = 0;
  // After Start(): what was needed only for restoring may be freed.
  virtual void RestoreComplete() = 0;
};

class HotUpdate {
 public:
  enum class Phase : uint8_t { kNew, kSaved, kDone, kRolledBack };

  // REQUIRES: neither driver is null.
  HotUpdate(absl::Span<std::byte> memory,
            std::unique_ptr<HotUpdateDriver>* driver,
            std::unique_ptr<HotUpdateDriver> successor,
            const HotUpdateLimits& limits = {});
  HotUpdate(const HotUpdate&) = delete;
  HotUpdate& operator=(const HotUpdate&) = delete;
  // Cancels.  Not from a driver.
  ~HotUpdate() { Cancel(); }

  // All steps.
  absl::Status Run();

  // -- The steps.  Each that fails has rolled back, and gives the driver's
  // status, or Cancelled; but FailedPrecondition without an effect for a step
  // at the wrong time: out of order, from a driver, or after the end.

  // Unimplemented: a driver cannot be updated; neither was called.
  absl::Status Save();
  // REQUIRES for success: index is the number of blocks restored before; else
  // InvalidArgument, and rolled back.
  absl::Status Restore(size_t index);
  // FailedPrecondition, and rolled back: not all blocks were restored.
  absl::Status Start();

  // Rolls back now, or, from a driver, when that returns.  Nothing after the
  // end.
  void Cancel();
  // From any thread.  Rolls back before the next call of a driver, in the step
  // that would make it.  Too late for a successor that is being started.
  void RequestCancel() { is_cancel_requested_.store(true); }

  Phase phase() const { return phase_; }
  // Why it rolled back.
  const absl::Status& reason() const { return reason_; }
  const HotUpdateBlocks& blocks() const { return blocks_; }

 private:
  absl::Status CheckPhase(Phase wanted, absl::string_view step) const;
  // What became of a call of a driver, or of none so far.
  absl::Status AfterCall(absl::Status status) const;
  // Returns `why`, with what it was about.
  absl::Status RollBack(const absl::Status& why, absl::string_view during);

  std::unique_ptr<HotUpdateDriver>* const driver_;
  std::unique_ptr<HotUpdateDriver> successor_;
  HotUpdateBlocks blocks_;
  Phase phase_ = Phase::kNew;
  absl::Status reason_;
  size_t restored_ = 0;
  bool has_asked_to_save_ = false;
  bool is_in_step_ = false;
  std::atomic<bool> is_cancel_requested_ = false;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_HOT_UPDATE_H_
