// SPDX-License-Identifier: MIT
//
// Two hosts, a guest, its disk and accelerator, and the link between the hosts,
// in one thread, from one seed.
//
// A run: the hosts start, the machine boots; then steps, in each of which one
// part does a little and perhaps a fault happens; then all faults end, and
// everything that is owed must be done within a number of steps; then the
// machine moves once more, and all of its disk and accelerator is read.  After
// each step what must always hold is checked.
//
// Everything follows from RunOptions: the same options give the same trace.
//
// Thread safety: runs are independent of each other.
//
//   const RunResult result = Simulate({.seed = 7});
//   if (result.failure.has_value()) std::cerr << result.Report();

#ifndef FERRYBUS_TESTS_SIMULATION_SIMULATION_H_
#define FERRYBUS_TESTS_SIMULATION_SIMULATION_H_

#include <cstdint>
#include <optional>
#include <string>

#include "ferrybus/tests/simulation/context.h"
#include "ferrybus/tests/simulation/fault_plan.h"

namespace ferrybus::simulation {

struct RunResult {
  RunOptions options;
  uint64_t trace = 0;
  Totals totals;
  std::optional<Failure> failure;
  std::string state;  // at the failure

  // For people, with the command that repeats it.
  std::string Report() const;
};

RunResult Simulate(const RunOptions& options);

// The one command that repeats a run.
std::string RepeatCommand(const RunOptions& options);

// What happened over many runs, a line for each kind.
std::string DescribeTotals(const Totals& totals);

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_SIMULATION_H_
