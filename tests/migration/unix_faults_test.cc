// SPDX-License-Identifier: MIT
//
// Machines that are handed over to another process, over a socket that fails at
// any frame, in any way: one owner afterwards, its memory is whole, and no
// descriptor is left open.

#include <cstdio>
#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "ferrybus/tests/migration/unix_relay.h"
#include "ferrybus/tests/migration/unix_world.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {
namespace {

struct Outcome {
  MigrationProgress result;
  bool is_moved = false;
  bool was_faulty = false;
  int frames[2] = {0, 0};  // to the target, to the source
};

// One move through a relay; everything is checked afterwards.
Outcome MoveThrough(FramePlan plan, UnixWorldOptions options) {
  const int open_before = OpenDescriptors();
  Outcome outcome;
  {
    UnixWorld world(options);
    const bool is_cancel =
        plan.fault == FrameFault::kCall && plan.act == nullptr;
    std::unique_ptr<OutgoingMigration> migration;
    if (is_cancel) plan.act = [&] { migration->RequestCancel(); };
    UnixRelay relay(world.folder() + "/relay.sock", world.target().path(),
                    plan);
    migration = world.Begin(world.Outgoing(relay.address()));
    outcome.result = migration->Run();
    outcome.was_faulty = relay.is_fault_done();
    EXPECT_EQ(world.CheckEnd(), "")
        << "frame " << plan.frame
        << (plan.to_target ? " to the target" : " to the source");
    outcome.is_moved = world.is_moved();
    for (bool to_target : {true, false}) {
      outcome.frames[to_target ? 0 : 1] = relay.frames(to_target);
    }
    const bool is_done = outcome.result.phase == SourcePhase::kDone;
    EXPECT_EQ(outcome.is_moved, is_done) << outcome.result.status;
    EXPECT_TRUE(is_done || !outcome.result.status.ok());
  }
  EXPECT_EQ(OpenDescriptors(), open_before);
  return outcome;
}

struct Kind {
  const char* name;
  FrameFault fault;
  absl::Duration silence_max;
};

class UnixFaultsTest : public testing::TestWithParam<Kind> {};

// bad:T1 bad:T3 bad:T4 bad:T5 bad:T12 promise:P7
TEST_P(UnixFaultsTest, AtAnyFrame) {
  int cases = 0;
  int moved = 0;
  for (bool share_memory : {true, false}) {
    const UnixWorldOptions options = {.silence_max = GetParam().silence_max,
                                      .share_memory = share_memory};
    // With more patience: this one has to arrive.
    const Outcome clean = MoveThrough({}, {.share_memory = share_memory});
    ASSERT_EQ(clean.result.phase, SourcePhase::kDone) << clean.result.status;
    for (bool to_target : {true, false}) {
      const int frames = clean.frames[to_target ? 0 : 1];
      for (int frame = 0; frame < frames; ++frame) {
        const Outcome outcome = MoveThrough(
            {.fault = GetParam().fault, .to_target = to_target, .frame = frame},
            options);
        ++cases;
        moved += outcome.is_moved ? 1 : 0;
      }
    }
  }
  EXPECT_LT(moved, cases);
  std::printf("%s: %d cases, %d of them moved, each with one owner\n",
              GetParam().name, cases, moved);
}

INSTANTIATE_TEST_SUITE_P(
    Faults, UnixFaultsTest,
    testing::Values(Kind{"Cut", FrameFault::kCut, absl::Seconds(5)},
                    Kind{"Torn", FrameFault::kTear, absl::Seconds(5)},
                    Kind{"Stall", FrameFault::kStall, absl::Milliseconds(200)},
                    Kind{"Corrupt", FrameFault::kCorrupt, absl::Seconds(1)},
                    Kind{"Swapped", FrameFault::kSwap, absl::Seconds(1)},
                    Kind{"Twice", FrameFault::kTwice, absl::Seconds(1)},
                    Kind{"Cancel", FrameFault::kCall, absl::Seconds(5)}),
    [](const auto& info) { return info.param.name; });

// Nobody answers at the source's socket when the target asks, and then somebody
// does.
// bad:T5 bad:T12 promise:P7
TEST(UnixUndecidedTest, AsksUntilTheSourceIsBack) {
  const Outcome clean = MoveThrough({}, {});
  const FramePlan plans[] = {
      // Prepared, and Commit.
      {.fault = FrameFault::kCut,
       .to_target = false,
       .frame = clean.frames[1] - 2},
      {.fault = FrameFault::kCut, .frame = clean.frames[0] - 1}};
  for (const FramePlan& plan : plans) {
    UnixWorld world;
    UnixRelay relay(world.folder() + "/relay.sock", world.target().path(),
                    plan);
    world.source().StopServer();
    (void)world.Move(world.Outgoing(relay.address()));
    ASSERT_TRUE(relay.is_fault_done());
    absl::SleepFor(absl::Milliseconds(300));
    EXPECT_EQ(world.target().record().state, Ownership::kPrepared);
    EXPECT_FALSE(world.target().is_running());
    world.source().StartServer();
    EXPECT_EQ(world.CheckEnd(), "");
    EXPECT_EQ(world.is_moved(), plan.to_target);
  }
}

// A disk that fails, with and without having stored.
// bad:T12
TEST(UnixUndecidedTest, AnyStoreFails) {
  int cases = 0;
  for (bool at_source : {true, false}) {
    for (FakeLedger::Failure failure :
         {FakeLedger::Failure::kNotStored, FakeLedger::Failure::kStored}) {
      for (int call = 0; call < 3; ++call) {
        UnixWorld world;
        (at_source ? world.source() : world.target())
            .disk()
            ->FailAfter(call, failure);
        (void)world.Move(world.Outgoing(world.target().address()));
        EXPECT_EQ(world.CheckEnd(), "")
            << (at_source ? "source" : "target") << " store " << call;
        ++cases;
      }
    }
  }
  std::printf("stores that fail: %d cases, each with one owner\n", cases);
}

}  // namespace
}  // namespace ferrybus::migration
