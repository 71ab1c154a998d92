// SPDX-License-Identifier: MIT
//
// Every fault point of a migration, on either host, x {kill, error, delay, no
// memory}: afterwards one host owns the machine, no request is lost or done
// twice, and the machine can move again.
//
// Both hosts are in one process.  To be killed at a point is, for a host, never
// to come back from there: its thread stops, and what it has in memory is not
// touched again.  A host without memory is stopped so at its next allocation.

#include <pthread.h>
#include <unistd.h>

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "ferrybus/savestate/migration/migration_world.h"
#include "ferrybus/tests/faults/planned_fault.h"
#include "ferrybus/tests/faults/starved_allocation.h"
#include "gtest/gtest.h"

namespace ferrybus::testing {
namespace {

using migration::MigrationWorld;
using migration::WorldOptions;

// How the thread that steps the world goes on.
struct Stepper {
  absl::Mutex mutex;
  bool is_over ABSL_GUARDED_BY(mutex) = false;  // or abandoned
};
Stepper* stepper = nullptr;

void StopForEver() {
  {
    absl::MutexLock lock(&stepper->mutex);
    stepper->is_over = true;
  }
  while (true) pause();
}

bool IsOfSource(FaultPoint point) { return point <= FaultPoint::kLeaveRetire; }

// Until the move is over, or the fault has stopped a host.
void RunUntilFault(MigrationWorld& world, const PlannedFault& planned) {
  world.Start();
  // A host without memory that allocates nothing in the step ends after it.
  while (!world.is_over() && !planned.has_happened()) world.Step();
  absl::MutexLock lock(&stepper->mutex);
  stepper->is_over = true;
}

void MoveWithFault(const WorldOptions& options, const Fault& fault) {
  // Parts of these are in use for ever.
  auto& world = *new MigrationWorld(options);
  stepper = new Stepper;
  auto& planned = *new PlannedFault(
      fault, {.kill = StopForEver,
              .during_delay = [&] { world.Pass(absl::Seconds(7)); },
              .starve = [] { StarveThread(StopForEver); }});
  std::thread([&] { RunUntilFault(world, planned); }).detach();
  {
    absl::MutexLock lock(&stepper->mutex);
    stepper->mutex.Await(absl::Condition(&stepper->is_over));
  }
  if (!planned.has_happened()) return;
  if (fault.kind == FaultKind::kKill || fault.kind == FaultKind::kNoMemory) {
    world.Abandon(IsOfSource(fault.point));
  }
  ASSERT_TRUE(world.Settle());
  ASSERT_EQ(world.CheckEnd(), "");
  world.Start();
  ASSERT_TRUE(world.Settle());
  EXPECT_TRUE(world.is_moved()) << world.here().source->progress().status;
  EXPECT_EQ(world.CheckEnd(), "");
}

struct Kind {
  const char* name;
  migration::Capabilities capabilities;
  bool quick;
};

class MigrationFaultsTest : public ::testing::TestWithParam<Kind> {};

// promise:P1 promise:P2 bad:T5 bad:T12
TEST_P(MigrationFaultsTest, EveryPointEveryKind) {
  WorldOptions options;
  options.capabilities = GetParam().capabilities;
  options.source.quick = GetParam().quick;
  ForEachFault(
      FaultPoint::kLeavePrepare, FaultPoint::kArriveResume, 3,
      [&](const Fault& fault) {
        const uint64_t before = TimesHappened(fault.point, fault.kind);
        EXPECT_FALSE(EndsInChild([&] { MoveWithFault(options, fault); }));
        return TimesHappened(fault.point, fault.kind) > before;
      });
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, MigrationFaultsTest,
    ::testing::Values(Kind{"Live", {.live_migration = true}, false},
                      Kind{
                          "Performant",
                          {.live_migration = true, .performant_tracking = true},
                          false},
                      Kind{"Quick", {}, true}),
    [](const ::testing::TestParamInfo<Kind>& info) { return info.param.name; });

}  // namespace
}  // namespace ferrybus::testing
