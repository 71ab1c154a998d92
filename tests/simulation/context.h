// SPDX-License-Identifier: MIT
//
// What all parts of a simulation share: chance, time, the trace, what went
// wrong first, and what was counted.
//
// Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_CONTEXT_H_
#define FERRYBUS_TESTS_SIMULATION_CONTEXT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/crc32c.h"
#include "ferrybus/tests/simulation/fault_plan.h"
#include "ferrybus/tests/simulation/random_source.h"

namespace ferrybus::simulation {

// Time passes only here.  Nothing that is simulated may ask the system's.
class VirtualClock {
 public:
  absl::Time now() const { return now_; }
  void Advance(absl::Duration by) { now_ += by; }

 private:
  absl::Time now_ = absl::UnixEpoch();
};

// All that happened, as one number: two runs of a seed must agree.
class Trace {
 public:
  void Add(uint64_t value) { hash_ = Mix(hash_, value); }
  void Add(absl::string_view bytes) {
    Add(bytes.size());
    Add(savestate::Crc32c(
        {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}));
  }
  uint64_t hash() const { return hash_; }

 private:
  uint64_t hash_ = 0;
};

struct Totals {
  uint64_t steps = 0;
  uint64_t requests = 0;  // answered, of both sides
  uint64_t disk_requests = 0;
  uint64_t commands = 0;  // of the accelerator
  uint64_t restores = 0;  // on the same host
  uint64_t checkpoints = 0;
  uint64_t thaws = 0;
  uint64_t moves = 0;  // to the other host
  uint64_t moves_failed = 0;
  uint64_t updates = 0;  // of the devices' process
  uint64_t updates_failed = 0;
  uint64_t boots = 0;
  uint64_t openings = 0;
  uint64_t channel_faults = 0;
  std::array<uint64_t, kFaultCount> faults = {};

  void Add(const Totals& other);
};

struct Failure {
  std::string kind;  // what shrinking keeps
  std::string text;
  uint64_t step = 0;
};

struct Context {
  Random random;
  VirtualClock clock;
  Trace trace;
  Totals totals;
  uint64_t step = 0;
  // Requests of storage that were made to fail.
  uint64_t image_errors = 0;
  std::optional<Failure> failure;

  absl::Time now() const { return clock.now(); }
  void Happened(Fault fault) {
    ++totals.faults[static_cast<size_t>(fault)];
    trace.Add(0xfa017 + static_cast<uint64_t>(fault));
  }
  // The first is kept.
  void Fail(absl::string_view kind, std::string text) {
    if (failure.has_value()) return;
    failure = Failure{std::string(kind), std::move(text), step};
  }
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_CONTEXT_H_
