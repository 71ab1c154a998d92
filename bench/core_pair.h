// SPDX-License-Identifier: MIT
//
// Two threads on two processors, and how far apart these are just now.
//
// A virtual machine's processors wander between cores of the real one: the
// same program then runs several times faster or slower.  Every timed run is
// therefore bracketed by a short calibration, the time a cache line takes to
// go to the other core and back, and reported under what it says.

#ifndef FERRYBUS_BENCH_CORE_PAIR_H_
#define FERRYBUS_BENCH_CORE_PAIR_H_

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "benchmark/benchmark.h"

namespace ferrybus::bench {

// Binds the calling thread to a processor (modulo their number).
void PinTo(unsigned cpu);

// A second thread on another processor, kept from run to run.
class CorePair {
 public:
  static CorePair& Get();

  CorePair(const CorePair&) = delete;
  CorePair& operator=(const CorePair&) = delete;
  ~CorePair();

  // Runs both at the same time, `here` on the calling thread; returns the
  // seconds until the later one has ended.
  double Run(const std::function<void()>& here,
             const std::function<void()>& there);

  // Nanoseconds of one cache line's round trip, the median of some.
  double PingPongNanoseconds();

 private:
  CorePair();
  void Serve();

  std::atomic<uint64_t> started_{0};
  std::atomic<uint64_t> finished_{0};
  const std::function<void()>* job_ = nullptr;
  std::atomic<bool> stop_{false};
  std::thread partner_;
};

// Calibrates around the runs of one benchmark and reports the worst and the
// best as counters: `line_ns` is what tells near cores from far ones.
class Calibrated {
 public:
  explicit Calibrated(benchmark::State& state) : state_(state) { Sample(); }
  ~Calibrated() {
    Sample();
    state_.counters["line_ns"] = least_;
    state_.counters["line_ns_max"] = most_;
  }

  void Sample() {
    const double now = CorePair::Get().PingPongNanoseconds();
    least_ = std::min(least_, now);
    most_ = std::max(most_, now);
  }

 private:
  benchmark::State& state_;
  double least_ = 1e9;
  double most_ = 0;
};

}  // namespace ferrybus::bench

#endif  // FERRYBUS_BENCH_CORE_PAIR_H_
