// SPDX-License-Identifier: MIT
//
// Simulations in a process of their own each, so that one that ends it, or
// never ends, is an outcome like others.
//
// Thread safety: none; the process must have no other threads.

#ifndef FERRYBUS_TESTS_SIMULATION_RUN_APART_H_
#define FERRYBUS_TESTS_SIMULATION_RUN_APART_H_

#include <cstdint>
#include <optional>
#include <string>

#include "ferrybus/tests/simulation/context.h"
#include "ferrybus/tests/simulation/fault_plan.h"
#include "ferrybus/tests/simulation/shrink.h"

namespace ferrybus::simulation {

// The kind is "ended by signal N" if it was: SIGALRM after a minute.
Outcome RunApart(const RunOptions& options);

// `count` seeds from options.seed on, together in one process, until one fails.
struct BatchOutcome {
  uint64_t done = 0;  // the one that failed included
  std::optional<uint64_t> failed_seed;
  std::string text;
};
BatchOutcome RunBatchApart(const RunOptions& options, uint64_t count,
                           Totals* totals);

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_RUN_APART_H_
