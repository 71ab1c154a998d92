// SPDX-License-Identifier: MIT
//
// What a run is, in full: a seed and a few limits, and the command that
// repeats it.  And what can go wrong in it, how often.
//
// Swarm testing: each run turns some kinds of faults off and draws weights for
// the others, so that what a frequent fault would hide happens in some runs.
//
// Thread safety: plain values.

#ifndef FERRYBUS_TESTS_SIMULATION_FAULT_PLAN_H_
#define FERRYBUS_TESTS_SIMULATION_FAULT_PLAN_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace ferrybus::simulation {

enum class Fault : uint8_t {
  kDelay,           // a queue between the hosts stands still for a while
  kCorrupt,         // a bit of a message or block between the hosts
  kCut,             // the connection between the hosts
  kClockJump,       // seconds pass at once
  kPowerLoss,       // a host, its memory, and what its disk had not synced
  kProcessKill,     // all processes of a host; the machine's memory stays
  kCheckpointKill,  // the devices' process, right after a checkpoint
  kFileError,       // a call for ledger or checkpoint
  kImageError,      // the disk's I/O fails, perhaps half done
  kSlowDisk,        // nothing completes for a while
  kGuestReset,      // the guest starts anew, without a word
  kGuestUnload,     // it says goodbye, then starts anew
  kChannelClose,    // the guest closes a channel, and opens it again
  kRescind,         // the host takes a channel back, and offers it again
  kDeafGuest,       // the guest does not hear of a channel: its ring fills
  kDeafHost,        // the same for the host
  kHostileRing,     // a guest writes anything into its spare channel's rings
  kCancel,          // of a migration
  kForcedPause,     // a migration that may not take long
  kRestoreRefused,  // the new owner's device says no
  kHotUpdate,       // the devices' process is replaced by its successor
  kUpdateFails,     // that does not start, or the update is cancelled
};
inline constexpr size_t kFaultCount = 22;

absl::string_view FaultName(Fault fault);
std::optional<Fault> FaultByName(absl::string_view name);

inline constexpr size_t kChannelCount = 6;  // the first: storage
inline constexpr size_t kSpareChannel = 4;
inline constexpr size_t kAcceleratorChannel = 5;

struct RunOptions {
  uint64_t seed = 1;
  uint64_t steps = 2000;
  uint32_t faults_off = 0;  // bit: Fault
  uint32_t channels = (1u << kChannelCount) - 1;
  // Steps that are left out, first and one behind the last.
  std::vector<std::pair<uint64_t, uint64_t>> skipped = {};

  bool HasFault(Fault fault) const {
    return (faults_off >> static_cast<int>(fault) & 1) == 0;
  }
  bool HasChannel(size_t channel) const { return channels >> channel & 1; }
  bool Skips(uint64_t step) const;
  // "--seed=7 --steps=300 --without=cut,delay --channels=3 --skip=2-5,9-12".
  std::string Flags() const;
  // A flag of Flags().  False: it is none, or makes no sense.
  bool TakeFlag(absl::string_view flag);
};

// How often each fault comes, and how eager each part is, in one run.
class FaultPlan {
 public:
  explicit FaultPlan(const RunOptions& options);

  // A fault happens at a step with 1 in this; 0: never.
  uint64_t one_in(Fault fault) const {
    return one_in_[static_cast<size_t>(fault)];
  }
  // 1 to 16.
  uint64_t eagerness(size_t part) const { return eagerness_[part]; }

  static constexpr size_t kParts = 13;

 private:
  std::array<uint64_t, kFaultCount> one_in_ = {};
  std::array<uint64_t, kParts> eagerness_ = {};
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_FAULT_PLAN_H_
