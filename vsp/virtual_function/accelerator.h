// SPDX-License-Identifier: MIT
//
// A software accelerator: memory, registers and a queue of commands that it
// executes on them (channel/protocols/accelerator.h).
//
// It is a device to move: whatever a save forgets, a later answer shows.
// Commands are executed in steps of bounded work, within Run(), so that it can
// stop in the middle of a long one; how far that is, is part of its state.
//
//   AcceleratorDevice -> Submit -> Run -> AcceleratorPort::OnDone
//                                      -> MsixTable::Raise
//                                      -> DirtyBitmap::MarkWritten
//
// Ownership: borrows the memory, the interrupt table and the dirty bitmap; both
// of the latter may be null.  A port is borrowed until it is replaced.
// Thread safety: all methods, from any thread.  One lock, held for a step, and
// while the port is called.
// Memory: its writes are marked as dirty after they were made, before the lock
// is free; ReadMemory() sees no half of a step.
// Trust: commands and data are the guest's: checked, and answered with a status
// if they are wrong.  States to restore are anybody's.
// Cost: at most kCommandsMax commands of 104 bytes; a step is at most 4 KiB of
// memory, or 4,096 multiplications.
//
//   Accelerator accelerator({.segments = {{.id = 1, .memory = vram}}}, &table,
//                           &dirty);
//   while (accelerator.Run(1000) > 0) {}

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "ferrybus/channel/protocols/accelerator.h"
#include "ferrybus/savestate/migration/dirty_bitmap.h"
#include "ferrybus/vsp/virtual_function/accelerator_memory.h"
#include "ferrybus/vsp/virtual_function/accelerator_state.h"
#include "ferrybus/vsp/virtual_function/msix_table.h"

namespace ferrybus::vsp {

// A step of work.
inline constexpr uint64_t kAcceleratorStepBytes = 4096;
inline constexpr uint64_t kAcceleratorStepProducts = 4096;

// Where commands come from and answers go.  A ticket is the number of a
// command since the accelerator's beginning.  Must not call the accelerator.
class AcceleratorPort {
 public:
  virtual ~AcceleratorPort() = default;
  // The command's own bytes; false: they cannot be had any more.
  virtual bool ReadData(uint64_t ticket, uint64_t offset_bytes,
                        absl::Span<std::byte> out) = 0;
  virtual bool WriteData(uint64_t ticket, uint64_t offset_bytes,
                         absl::Span<const std::byte> data) = 0;
  // Once for each command.
  virtual void OnDone(uint64_t ticket, const accelerator::Reply& reply,
                      absl::Span<const std::byte> data) = 0;
};

struct AcceleratorOptions {
  std::vector<AcceleratorSegment> segments = {};
  bool is_powered = true;  // at first
  // There may be work.  With the lock held: must not call the accelerator.
  std::function<void()> on_work = {};
};

// What a command counts: bytes, or elements of a matrix; and how much of it is
// done in one step.  REQUIRES: it fits (CheckCommand()).
uint64_t AcceleratorWork(const accelerator::Command& command);
uint64_t AcceleratorStepWork(const accelerator::Command& command);

class Accelerator {
 public:
  // Why it does not run; each is taken back on its own.
  enum Hold : uint8_t { kMigration = 1, kOverlay = 2 };

  // REQUIRES: 1 to kAcceleratorSegmentsMax segments, ids from 1 and different,
  // page sizes powers of two, memory whole pages and not empty.
  Accelerator(const AcceleratorOptions& options, MsixTable* interrupts,
              migration::DirtyBitmap* dirty);
  Accelerator(const Accelerator&) = delete;
  Accelerator& operator=(const Accelerator&) = delete;

  absl::Span<const AcceleratorSegment> segments() const {
    return options_.segments;
  }

  // Instead of another one.  Without, it does not run: answers wait for whoever
  // takes them.
  void SetPort(AcceleratorPort* port);
  // Nothing if it is not the port.
  void RemovePort(const AcceleratorPort* port);
  // Takes a command with `data_bytes` of its own; wrong ones, too: they are
  // answered in their turn.  `accepted` learns the ticket before anything else
  // happens to it.  False, and not called: the queue is full, or retired.
  bool Submit(const accelerator::Command& command, uint64_t data_bytes,
              absl::FunctionRef<void(uint64_t ticket)> accepted);
  // Executes at most `steps`; returns how many it did.
  uint32_t Run(uint32_t steps);
  bool has_work() const;
  // The command with this ticket waits or runs.
  bool IsQueued(uint64_t ticket) const;

  void SetHold(Hold hold, bool is_held);
  bool is_held(Hold hold) const;
  // Off: does not run, all is kept.
  void SetPower(bool is_on);
  // Answers all commands with kReset; registers as in the beginning, memory
  // stays.
  void Reset();
  // For good: no command is taken or executed any more.
  void Retire();

  // -- Whoever moves it.

  // FailedPrecondition unless held for migration.
  absl::StatusOr<AcceleratorState> Save() const;
  // DataLoss: a state that cannot be, for a device like this.
  absl::Status CheckState(const AcceleratorState& state) const;
  // All or nothing.  As CheckState(); FailedPrecondition unless it is held for
  // migration, and new: nothing was submitted or set.
  absl::Status Restore(const AcceleratorState& state);
  // Differs from an earlier value if the state may have changed otherwise than
  // by Run().
  uint64_t changes() const;
  bool is_new() const;

  // OutOfRange; WriteMemory() marks pages as dirty, and is for a target.
  absl::Status ReadMemory(uint32_t segment, uint64_t offset_bytes,
                          absl::Span<std::byte> out) const;
  absl::Status WriteMemory(uint32_t segment, uint64_t offset_bytes,
                           absl::Span<const std::byte> data);

 private:
  uint32_t vectors() const {
    return interrupts_ == nullptr ? 0 : interrupts_->vectors();
  }
  absl::Status CheckRange(uint32_t segment, uint64_t offset_bytes,
                          size_t size_bytes) const;

  bool CanRun() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void NotifyWork() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // All of these are about the first command.
  accelerator::Status CheckFirst() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void DoStep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Finish(accelerator::Status status, absl::Span<const std::byte> data)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // accelerator_execute.cc
  accelerator::Status ExecuteStep(const accelerator::Command& command,
                                  uint64_t work)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FillStep(const accelerator::Command& command, size_t bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RandomFillStep(const accelerator::Command& command, size_t bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void HashStep(const accelerator::Command& command, size_t bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CopyStep(const accelerator::Command& command, size_t bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool TransferStep(const accelerator::Command& command, size_t bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MultiplyStep(const accelerator::Command& command, uint64_t elements)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // `bytes` of `place`, from the progress on.
  std::byte* At(const accelerator::Place& place, size_t bytes)
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void Written(const accelerator::Place& place, uint64_t begin_bytes,
               size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const AcceleratorOptions options_;
  MsixTable* const interrupts_;
  migration::DirtyBitmap* const dirty_;

  mutable absl::Mutex mu_;
  AcceleratorPort* port_ ABSL_GUARDED_BY(mu_) = nullptr;
  AcceleratorState state_ ABSL_GUARDED_BY(mu_);
  uint8_t holds_ ABSL_GUARDED_BY(mu_) = 0;
  bool is_retired_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t changes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_H_
