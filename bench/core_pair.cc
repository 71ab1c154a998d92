// SPDX-License-Identifier: MIT

#include "ferrybus/bench/core_pair.h"

#include <pthread.h>
#include <sched.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace ferrybus::bench {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

}  // namespace

void PinTo(unsigned cpu) {
  const unsigned cpus = std::max(1u, std::thread::hardware_concurrency());
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu % cpus, &set);
  pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

CorePair& CorePair::Get() {
  static CorePair pair;
  return pair;
}

CorePair::CorePair() {
  PinTo(0);
  partner_ = std::thread([this] {
    PinTo(1);
    Serve();
  });
}

CorePair::~CorePair() {
  stop_.store(true);
  partner_.join();
}

void CorePair::Serve() {
  uint64_t served = 0;
  while (!stop_.load()) {
    if (started_.load() == served) {
      std::this_thread::yield();
      continue;
    }
    ++served;
    (*job_)();
    finished_.store(served);
  }
}

double CorePair::Run(const std::function<void()>& here,
                     const std::function<void()>& there) {
  std::atomic<bool> other_ready{false};
  const std::function<void()> job = [&] {
    other_ready.store(true);
    there();
  };
  job_ = &job;
  const uint64_t run = started_.fetch_add(1) + 1;
  while (!other_ready.load()) {
  }
  const Clock::time_point begin = Clock::now();
  here();
  while (finished_.load() != run) {
  }
  return SecondsSince(begin);
}

double CorePair::PingPongNanoseconds() {
  constexpr int kSamples = 9;
  constexpr uint32_t kTrips = 200;
  alignas(64) std::atomic<uint32_t> line{0};
  std::array<double, kSamples> samples;
  const auto here = [&] {
    uint32_t turn = 0;
    for (double& sample : samples) {
      const Clock::time_point begin = Clock::now();
      for (uint32_t i = 0; i < kTrips; ++i, turn += 2) {
        line.store(turn + 1, std::memory_order_release);
        while (line.load(std::memory_order_acquire) != turn + 2) {
        }
      }
      sample = SecondsSince(begin) * 1e9 / kTrips;
    }
  };
  const auto there = [&] {
    for (uint32_t turn = 0; turn < 2 * kSamples * kTrips; turn += 2) {
      while (line.load(std::memory_order_acquire) != turn + 1) {
      }
      line.store(turn + 2, std::memory_order_release);
    }
  };
  Run(here, there);
  std::nth_element(samples.begin(), samples.begin() + kSamples / 2,
                   samples.end());
  return samples[kSamples / 2];
}

}  // namespace ferrybus::bench
