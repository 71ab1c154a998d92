// SPDX-License-Identifier: MIT
//
// Makes a failing run smaller: kinds of faults are turned off, channels and
// steps left out, as long as it fails in the same way.
//
// It runs the simulation again and again; a step that is left out does not
// change what the others draw (random_source.h).  So that a run that ends the
// process can shrink as well, the caller says how one is run.
//
// Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_SHRINK_H_
#define FERRYBUS_TESTS_SIMULATION_SHRINK_H_

#include <cstdint>
#include <functional>
#include <string>

#include "ferrybus/tests/simulation/fault_plan.h"

namespace ferrybus::simulation {

// What of a run matters here.
struct Outcome {
  std::string kind;   // of the failure; empty: it did not fail
  uint64_t step = 0;  // at which
};

using Runner = std::function<Outcome(const RunOptions&)>;

// REQUIRES: `options` fail.
RunOptions Shrink(const RunOptions& options, const Runner& run,
                  int runs_max = 1500);

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_SHRINK_H_
