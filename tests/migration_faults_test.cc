// SPDX-License-Identifier: MIT
//
// Every step of a move x every fault: afterwards exactly one host owns the
// machine, and no request of its client is lost or done twice.

#include <gtest/gtest.h>

#include <random>

#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "ferrybus/savestate/migration/migration_world.h"

namespace ferrybus::migration {
namespace {

struct Kind {
  const char* name;
  Capabilities capabilities;
  bool quick;
};

class FaultsTest : public testing::TestWithParam<Kind> {
 protected:
  FaultsTest() {
    options_.capabilities = GetParam().capabilities;
    options_.source.quick = GetParam().quick;
    MigrationWorld world(options_);
    world.Start();
    EXPECT_TRUE(world.Settle());
    EXPECT_TRUE(world.is_moved());
    steps_ = world.steps();
    calls_here_ = static_cast<int>(world.here().fault.calls.size());
    calls_there_ = static_cast<int>(world.there().fault.calls.size());
  }

  // Settles, checks, then moves once more without a fault.
  void FinishAndMoveAgain(MigrationWorld& world) {
    ASSERT_TRUE(world.Settle());
    ASSERT_EQ(world.CheckEnd(), "");
    world.Start();
    ASSERT_TRUE(world.Settle());
    ASSERT_TRUE(world.is_moved()) << world.here().source->progress().status;
    ASSERT_EQ(world.CheckEnd(), "");
  }

  WorldOptions options_;
  uint64_t steps_ = 0;
  int calls_here_ = 0;
  int calls_there_ = 0;
};

// bad:T1 bad:T4 bad:T5 bad:T12 doc:MG26 doc:MG27 doc:MG28 promise:P1
TEST_P(FaultsTest, AnyFaultAtAnyStep) {
  static constexpr LinkFault kFaults[] = {
      LinkFault::kKillSource, LinkFault::kKillTarget, LinkFault::kCut,
      LinkFault::kStall,      LinkFault::kCorrupt,    LinkFault::kCancel};
  int cases = 0;
  int moved = 0;
  for (LinkFault fault : kFaults) {
    for (uint64_t step = 0; step <= steps_; ++step) {
      MigrationWorld world(options_);
      world.Start();
      while (world.steps() < step) world.Step();
      world.Step(fault);
      ASSERT_TRUE(world.Settle());
      moved += world.is_moved() ? 1 : 0;
      FinishAndMoveAgain(world);
      ASSERT_FALSE(HasFatalFailure())
          << "fault " << static_cast<int>(fault) << " at step " << step;
      ++cases;
    }
  }
  std::cout << cases << " cases, " << moved << " of them moved\n";
  EXPECT_GT(moved, 0);
  EXPECT_LT(moved, cases);
}

// Each call of a device fails in turn.
TEST_P(FaultsTest, AnyDeviceCallFails) {
  int cases = 0;
  for (bool at_source : {true, false}) {
    const int calls = at_source ? calls_here_ : calls_there_;
    for (int call = 0; call < calls; ++call) {
      MigrationWorld world(options_);
      // Those of before the move are not counted.
      FakeFault& fault = at_source ? world.here().fault : world.there().fault;
      fault.calls_until = call;
      if (at_source && options_.capabilities.performant_tracking) {
        if (call == 0) continue;  // StartTracking, at the beginning
        --fault.calls_until;
      }
      world.Start();
      ASSERT_TRUE(world.Settle())
          << (at_source ? "source" : "target") << " call " << call;
      fault.calls_until = -1;
      FinishAndMoveAgain(world);
      ASSERT_FALSE(HasFatalFailure())
          << (at_source ? "source" : "target") << " call " << call;
      ++cases;
    }
  }
  std::cout << cases << " cases\n";
}

// A disk that fails, with and without having stored.
TEST_P(FaultsTest, AnyStoreFails) {
  for (bool at_source : {true, false}) {
    for (FakeLedger::Failure failure :
         {FakeLedger::Failure::kNotStored, FakeLedger::Failure::kStored}) {
      for (int call = 0; call < 3; ++call) {
        MigrationWorld world(options_);
        (at_source ? world.here() : world.there())
            .ledger.FailAfter(call, failure);
        world.Start();
        ASSERT_TRUE(world.Settle());
        for (MigrationWorld::Host* host : {&world.here(), &world.there()}) {
          host->ledger.FailAfter(-1, failure);
        }
        FinishAndMoveAgain(world);
        ASSERT_FALSE(HasFatalFailure())
            << (at_source ? "source" : "target") << " store " << call;
      }
    }
  }
}

// Many faults in many moves.
TEST_P(FaultsTest, RandomFaults) {
  const uint64_t seed = ringbuffer::testing::TestSeed(
      "//tests:migration_faults_test", "*RandomFaults*");
  std::mt19937_64 random(seed);
  int moved = 0;
  for (int i = 0; i < 300; ++i) {
    MigrationWorld world(options_);
    for (int move = 0; move < 4; ++move) {
      if (random() % 4 == 0) {
        // A disk that fails at the decision, having stored it or not.
        (random() % 2 == 0 ? world.here() : world.there())
            .ledger.FailAfter(static_cast<int>(random() % 2),
                              random() % 2 == 0
                                  ? FakeLedger::Failure::kStored
                                  : FakeLedger::Failure::kNotStored);
      }
      world.Start();
      const uint64_t faults = random() % 4;
      for (uint64_t f = 0; f < faults && !world.is_over(); ++f) {
        const uint64_t steps = random() % steps_;
        for (uint64_t s = 0; s < steps && !world.is_over(); ++s) world.Step();
        world.Step(static_cast<LinkFault>(random() % 7));
        ASSERT_EQ(world.Check(), "") << "world " << i << " seed " << seed;
      }
      ASSERT_TRUE(world.Settle()) << "world " << i << " seed " << seed;
      moved += world.is_moved() ? 1 : 0;
      ASSERT_EQ(world.CheckEnd(), "") << "world " << i << " seed " << seed;
    }
  }
  std::cout << "1200 moves, " << moved << " of them came through\n";
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, FaultsTest,
    testing::Values(Kind{"Live", {.live_migration = true}, false},
                    Kind{"Performant",
                         {.live_migration = true, .performant_tracking = true},
                         false},
                    Kind{"Quick", {}, true}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace ferrybus::migration
