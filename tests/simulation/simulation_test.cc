// SPDX-License-Identifier: MIT
//
// A thousand seeds of the simulation, each in 2,000 steps, and what they must
// have in common: every kind of fault happened, nothing was lost or doubled.
//
// A seed that fails prints the command that repeats it, and a shorter one.

#include "ferrybus/tests/simulation/simulation.h"

#include <algorithm>
#include <iostream>
#include <memory>
#include <vector>

#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "ferrybus/tests/simulation/run_apart.h"
#include "ferrybus/tests/simulation/shrink.h"
#include "gtest/gtest.h"

namespace ferrybus::simulation {
namespace {

constexpr uint64_t kSeeds = 1000;
constexpr int kShrinkRunsMax = 400;

// promise:P1 promise:P2 promise:P3 promise:P4 promise:P7 promise:P8
// bad:S20 bad:S23 bad:T1 bad:T4 bad:T5 bad:T12 bad:M6 bad:H4
TEST(SimulationTest, AThousandSeeds) {
  RunOptions options;
  options.seed = ringbuffer::testing::TestSeed(
      "//tests/simulation:simulation_test", "*AThousandSeeds*");
  Totals totals;
  const BatchOutcome outcome = RunBatchApart(options, kSeeds, &totals);
  std::cout << DescribeTotals(totals);
  if (outcome.failed_seed.has_value()) {
    options.seed = *outcome.failed_seed;
    FAIL() << outcome.text << "\nrepeat: " << RepeatCommand(options)
           << "\nshrunk: "
           << RepeatCommand(Shrink(options, RunApart, kShrinkRunsMax));
  }
  EXPECT_EQ(outcome.done, kSeeds);
  for (size_t i = 0; i < kFaultCount; ++i) {
    EXPECT_GT(totals.faults[i], 0u)
        << FaultName(static_cast<Fault>(i)) << " never happened";
  }
  EXPECT_GT(totals.moves, kSeeds / 2);
  EXPECT_GT(totals.moves_failed, kSeeds / 4);
  EXPECT_GT(totals.restores, kSeeds);
  EXPECT_GT(totals.checkpoints, kSeeds / 4);
  EXPECT_GT(totals.requests, 100 * kSeeds);
  EXPECT_GT(totals.disk_requests, 10 * kSeeds);
  EXPECT_GT(totals.commands, 25 * kSeeds);
  EXPECT_GT(totals.updates, kSeeds / 2);
  EXPECT_GT(totals.updates_failed, kSeeds / 10);
}

// Nothing but the seed decides: not the heap's addresses, nor what ran before.
TEST(SimulationTest, TheSameSeedTakesTheSameWay) {
  std::vector<std::unique_ptr<char[]>> heap;
  std::vector<uint64_t> traces;
  for (uint64_t seed = 1; seed <= 25; ++seed) {
    const RunResult first = Simulate({.seed = seed});
    for (size_t i = 0; i < 37; ++i) {
      heap.push_back(std::make_unique<char[]>(16 + 977 * i % 5000));
    }
    const RunResult second = Simulate({.seed = seed});
    EXPECT_EQ(first.trace, second.trace) << "seed " << seed;
    EXPECT_EQ(first.totals.requests, second.totals.requests);
    traces.push_back(first.trace);
  }
  std::sort(traces.begin(), traces.end());
  EXPECT_EQ(std::unique(traces.begin(), traces.end()), traces.end());
}

TEST(SimulationTest, TheCommandRepeatsTheRun) {
  RunOptions options;
  options.seed = 7;
  options.steps = 300;
  options.faults_off = 1u << static_cast<int>(Fault::kCut) |
                       1u << static_cast<int>(Fault::kDelay);
  options.channels = 5;
  options.skipped = {{2, 5}, {100, 200}};
  RunOptions parsed;
  const std::string flags = options.Flags();
  EXPECT_EQ(flags,
            "--seed=7 --steps=300 --without=delay,cut --channels=5 "
            "--skip=2-5,100-200");
  for (size_t at = 0; at < flags.size();) {
    const size_t end = std::min(flags.find(' ', at), flags.size());
    EXPECT_TRUE(parsed.TakeFlag(flags.substr(at, end - at)));
    at = end + 1;
  }
  EXPECT_EQ(parsed.Flags(), flags);
  EXPECT_EQ(Simulate(parsed).trace, Simulate(options).trace);
  EXPECT_FALSE(parsed.TakeFlag("--skip=7-3"));
  EXPECT_FALSE(parsed.TakeFlag("--without=rain"));
  EXPECT_FALSE(parsed.TakeFlag("--runs=3"));
}

// A run that fails whenever the link is cut and steps 170 and 1201 happen.
TEST(ShrinkTest, LeavesOnlyWhatIsNeeded) {
  const Runner run = [](const RunOptions& options) -> Outcome {
    const bool fails = options.HasFault(Fault::kCut) && options.HasChannel(2) &&
                       options.steps > 1201 && !options.Skips(170) &&
                       !options.Skips(1201);
    return fails ? Outcome{.kind = "it", .step = 1201} : Outcome();
  };
  const RunOptions shrunk = Shrink(RunOptions(), run);
  EXPECT_EQ(run(shrunk).kind, "it");
  EXPECT_EQ(shrunk.faults_off | 1u << static_cast<int>(Fault::kCut),
            (1u << kFaultCount) - 1);
  EXPECT_EQ(shrunk.channels, 4u);
  EXPECT_EQ(shrunk.steps, 1202u);
  uint64_t left = 0;
  for (uint64_t step = 0; step < shrunk.steps; ++step) {
    left += shrunk.Skips(step) ? 0 : 1;
  }
  EXPECT_EQ(left, 2u);
}

// It does not take another failure for the one that it shrinks.
TEST(ShrinkTest, KeepsToItsFailure) {
  const Runner run = [](const RunOptions& options) -> Outcome {
    if (options.HasFault(Fault::kCut)) return {.kind = "one", .step = 5};
    return {.kind = "another", .step = 2};
  };
  EXPECT_TRUE(Shrink(RunOptions(), run).HasFault(Fault::kCut));
}

}  // namespace
}  // namespace ferrybus::simulation
