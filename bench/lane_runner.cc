// SPDX-License-Identifier: MIT

#include "ferrybus/bench/lane_runner.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>

#include "benchmark/benchmark.h"
#include "ferrybus/bench/core_pair.h"

namespace ferrybus::bench {
namespace {

// Enough work for some milliseconds.
uint64_t PacketsFor(const LaneRun& run) {
  const uint32_t length = run.length == kMixed ? 384 : run.length;
  const uint64_t bytes = run.slow ? 8 << 20 : 64 << 20;
  return std::min<uint64_t>(bytes / (length + 24),
                            run.slow ? 40'000 : 1'000'000);
}

double RunThreads(Lane& lane, uint64_t packets) {
  return CorePair::Get().Run([&] { lane.Produce(packets); },
                             [&] { lane.Consume(packets); });
}

// What the two processes say to each other.
struct Meeting {
  std::atomic<bool> ready{false};
  std::atomic<bool> done{false};
};

// Memory that a child shares.
class SharedMeeting {
 public:
  SharedMeeting() {
    void* const memory = mmap(nullptr, sizeof(Meeting), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    meeting_ = new (memory) Meeting;
  }
  ~SharedMeeting() { munmap(meeting_, sizeof(Meeting)); }
  SharedMeeting(const SharedMeeting&) = delete;
  SharedMeeting& operator=(const SharedMeeting&) = delete;

  Meeting* operator->() const { return meeting_; }

 private:
  Meeting* meeting_;
};

double RunProcesses(Lane& lane, uint64_t packets) {
  const SharedMeeting meeting;
  const pid_t child = fork();
  if (child < 0) std::abort();
  if (child == 0) {
    PinTo(1);
    meeting->ready.store(true);
    lane.Consume(packets);
    meeting->done.store(true);
    _exit(0);
  }
  while (!meeting->ready.load()) {
  }
  const auto begin = std::chrono::steady_clock::now();
  lane.Produce(packets);
  while (!meeting->done.load()) {
    // A consumer that found something wrong ends without having said so.
    if (waitpid(child, nullptr, WNOHANG) != 0 && !meeting->done.load()) {
      std::abort();
    }
  }
  const std::chrono::duration<double> time =
      std::chrono::steady_clock::now() - begin;
  waitpid(child, nullptr, 0);
  return time.count();
}

}  // namespace

void RegisterLane(const LaneRun& run, const MakeLane& make) {
  const auto body = [run, make](benchmark::State& state) {
    const uint64_t packets = PacketsFor(run);
    const std::unique_ptr<Lane> lane = make();
    const auto once = [&] {
      return run.two_processes ? RunProcesses(*lane, packets)
                               : RunThreads(*lane, packets);
    };
    once();  // caches, page tables, branch predictors
    const Calibrated calibrated(state);
    for (auto iteration : state) state.SetIterationTime(once());
    state.SetItemsProcessed(static_cast<int64_t>(packets) * state.iterations());
  };
  benchmark::RegisterBenchmark(run.name.c_str(), body)->UseManualTime();
}

}  // namespace ferrybus::bench
