// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/shrink.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace ferrybus::simulation {
namespace {

class Shrinker {
 public:
  Shrinker(const RunOptions& options, const Runner& run, int runs_max)
      : best_(options), run_(run), runs_left_(runs_max) {
    const Outcome outcome = run_(best_);
    kind_ = outcome.kind;
    Cut(outcome);
  }

  RunOptions Go() {
    uint64_t before = 0;
    do {
      before = Size();
      DropFaults();
      DropChannels();
      DropSteps();
    } while (Size() < before && runs_left_ > 0);
    return best_;
  }

 private:
  uint64_t Size() const {
    uint64_t steps = best_.steps;
    for (const auto& [first, end] : best_.skipped) {
      steps -= std::min(end, best_.steps) - std::min(first, best_.steps);
    }
    return steps;
  }

  // What comes behind the failure is not needed.
  void Cut(const Outcome& outcome) {
    if (outcome.step + 1 < best_.steps) best_.steps = outcome.step + 1;
  }

  bool Try(RunOptions options) {
    if (runs_left_-- <= 0) return false;
    const Outcome outcome = run_(options);
    if (outcome.kind != kind_) return false;
    best_ = std::move(options);
    Cut(outcome);
    return true;
  }

  void DropFaults() {
    for (size_t i = 0; i < kFaultCount; ++i) {
      RunOptions options = best_;
      options.faults_off |= 1u << i;
      if (options.faults_off != best_.faults_off) (void)Try(options);
    }
  }

  void DropChannels() {
    for (size_t i = 0; i < kChannelCount; ++i) {
      RunOptions options = best_;
      options.channels &= ~(1u << i);
      if (options.channels != best_.channels) (void)Try(options);
    }
  }

  // Larger parts first, then smaller ones.
  void DropSteps() {
    for (uint64_t part = std::max<uint64_t>(best_.steps / 2, 1); part > 0;
         part /= 2) {
      for (uint64_t first = 0; first < best_.steps && runs_left_ > 0;
           first += part) {
        if (AreSkipped(first, first + part)) continue;
        RunOptions options = best_;
        Skip(first, std::min(first + part, best_.steps), &options);
        (void)Try(options);
      }
    }
  }

  bool AreSkipped(uint64_t first, uint64_t end) const {
    for (uint64_t step = first; step < end; ++step) {
      if (!best_.Skips(step)) return false;
    }
    return true;
  }

  // Ranges stay sorted and apart.
  static void Skip(uint64_t first, uint64_t end, RunOptions* options) {
    std::vector<std::pair<uint64_t, uint64_t>> ranges = options->skipped;
    ranges.emplace_back(first, end);
    std::sort(ranges.begin(), ranges.end());
    options->skipped.clear();
    for (const auto& range : ranges) {
      if (!options->skipped.empty() &&
          range.first <= options->skipped.back().second) {
        options->skipped.back().second =
            std::max(options->skipped.back().second, range.second);
      } else {
        options->skipped.push_back(range);
      }
    }
  }

  RunOptions best_;
  const Runner& run_;
  int runs_left_;
  std::string kind_;
};

}  // namespace

RunOptions Shrink(const RunOptions& options, const Runner& run, int runs_max) {
  return Shrinker(options, run, runs_max).Go();
}

}  // namespace ferrybus::simulation
