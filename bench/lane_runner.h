// SPDX-License-Identifier: MIT
//
// Runs lanes as benchmarks: two threads, or two processes, on two processors.

#ifndef FERRYBUS_BENCH_LANE_RUNNER_H_
#define FERRYBUS_BENCH_LANE_RUNNER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "ferrybus/bench/lane.h"

namespace ferrybus::bench {

struct LaneRun {
  std::string name;
  uint32_t length = 0;  // of a message, or kMixed
  // A packet costs much, whatever its length: fewer of them.
  bool slow = false;
  // The consumer runs in a process of its own.  Only for lanes whose whole
  // state lies in shared memory.
  bool two_processes = false;
};

using MakeLane = std::function<std::unique_ptr<Lane>()>;

// Reports messages a second, and how far apart the processors were.
void RegisterLane(const LaneRun& run, const MakeLane& make);

}  // namespace ferrybus::bench

#endif  // FERRYBUS_BENCH_LANE_RUNNER_H_
