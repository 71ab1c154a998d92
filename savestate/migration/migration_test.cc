// SPDX-License-Identifier: MIT
//
// Source and target together: moves without faults.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include "ferrybus/savestate/migration/migration_world.h"

namespace ferrybus::migration {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// The calls of a device, without repetitions and memory.
std::vector<std::string> Calls(const FakeFault& fault) {
  std::vector<std::string> calls;
  for (const std::string& call : fault.calls) {
    if (call == "ReadMemory" || call == "WriteMemory") continue;
    if (calls.empty() || calls.back() != call) calls.push_back(call);
  }
  return calls;
}

struct Kind {
  const char* name;
  Capabilities capabilities;
  bool quick;
};

class MoveTest : public testing::TestWithParam<Kind> {};

// doc:MG4 doc:MG5 doc:MG9 doc:MG15 doc:MG18 doc:MG23 doc:MG25 doc:MG29
// promise:P1
// There and back, again and again; each host is source and target in turn.
TEST_P(MoveTest, ThereAndBack) {
  WorldOptions options;
  options.capabilities = GetParam().capabilities;
  options.source.quick = GetParam().quick;
  MigrationWorld world(options);
  for (int move = 0; move < 6; ++move) {
    world.Start();
    ASSERT_TRUE(world.Settle());
    ASSERT_TRUE(world.is_moved()) << world.here().source->progress().status;
    EXPECT_EQ(world.here().ledger.record().state, Ownership::kHandedOver);
    EXPECT_EQ(world.there().ledger.record().epoch,
              static_cast<uint64_t>(move + 2));
    ASSERT_EQ(world.CheckEnd(), "") << "move " << move;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, MoveTest,
    testing::Values(Kind{"Live", {.live_migration = true}, false},
                    Kind{"Performant",
                         {.live_migration = true, .performant_tracking = true},
                         false},
                    Kind{"Quick", {}, true},
                    Kind{"QuickOfLive", {.live_migration = true}, true},
                    Kind{"QuickOfPerformant",
                         {.live_migration = true, .performant_tracking = true},
                         true}),
    [](const auto& info) { return info.param.name; });

// doc:MG10 doc:MG14 doc:MG16 doc:MG17 doc:MG20 doc:MG24: the order of calls.
TEST(MigrationTest, CallsInOrder) {
  WorldOptions options;
  options.requests_during = 0;
  MigrationWorld world(options);
  world.Start();
  ASSERT_TRUE(world.Settle());
  EXPECT_THAT(Calls(world.here().fault),
              ElementsAre("PrepareSource", "SaveImmutable", "StartTracking",
                          "Query", "Pause", "Query", "SaveMutable", "Confirm"));
  EXPECT_THAT(Calls(world.there().fault),
              ElementsAre("PrepareTarget", "RestoreImmutable", "RestoreMutable",
                          "RewriteInterrupts"));
}

// doc:MG7 doc:MG19: the target makes its device from the source's parameters,
// which are in none of the blobs.
TEST(MigrationTest, CreationParametersTravelWithTheHello) {
  WorldOptions options;
  MigrationWorld world(options);
  world.here().device->set_creation_parameters("size=5");
  world.Start();
  ASSERT_TRUE(world.Settle());
  ASSERT_TRUE(world.is_moved());
  EXPECT_EQ(world.creation_parameters(), "size=5");
}

// doc:MG30: the pause, part by part.
TEST(MigrationTest, ThePauseIsMeasured) {
  WorldOptions options;
  options.pauses_late = 3;
  MigrationWorld world(options);
  world.Start();
  ASSERT_TRUE(world.Settle());
  const MigrationProgress progress = world.here().source->progress();
  EXPECT_GT(progress.pause.stop, absl::ZeroDuration());
  EXPECT_GT(progress.pause.state, absl::ZeroDuration());
  EXPECT_GT(progress.pause.decide + progress.pause.start, absl::ZeroDuration());
  EXPECT_LT(progress.pause.total(), world.now() - absl::UnixEpoch());
}

// Memory that the target maps is not sent.
TEST(MigrationTest, SharedMemoryIsHandedOver) {
  WorldOptions options;
  options.source.share_memory = true;
  options.requests_during = 0;  // the world copies what is shared at the hello
  MigrationWorld world(options);
  for (int move = 0; move < 4; ++move) {
    world.Start();
    ASSERT_TRUE(world.Settle());
    ASSERT_TRUE(world.is_moved()) << world.here().source->progress().status;
    EXPECT_EQ(world.here().source->progress().pages_sent, 0);
    ASSERT_EQ(world.CheckEnd(), "");
  }
}

bool IsOpen(int descriptor) { return fcntl(descriptor, F_GETFD) >= 0; }

// bad:T8: descriptors that nobody asked for are closed, and end it.
TEST(MigrationTest, SurplusDescriptorsAreRefused) {
  WorldOptions options;
  MigrationWorld world(options);
  world.Start();
  ASSERT_TRUE(world.Settle());
  const std::vector<std::string> messages = world.sent_to_target();
  for (size_t at = 0; at < 2; ++at) {
    MigrationWorld other(options);
    MigrationTarget target({.machine = "machine",
                            .session = std::string(kIdSizeBytes, 's'),
                            .peer = "x"},
                           &other, &other.there().ledger);
    std::vector<int> descriptors;
    for (size_t i = 0; i <= at; ++i) {
      descriptors.clear();
      if (i == at) {
        descriptors = {memfd_create("a", 0), memfd_create("b", 0)};
      }
      target.OnMessage({reinterpret_cast<const std::byte*>(messages[i].data()),
                        messages[i].size()},
                       descriptors, other.now());
    }
    EXPECT_EQ(target.phase(), TargetPhase::kFailed) << "message " << at;
    EXPECT_FALSE(IsOpen(descriptors[0]) || IsOpen(descriptors[1]));
  }
}

// doc:MG11: what was never written is not sent.
TEST(MigrationTest, PerformantTrackingSendsOnlyWhatWasWritten) {
  WorldOptions options;
  options.capabilities = {.live_migration = true, .performant_tracking = true};
  options.requests_before = 10;
  options.requests_during = 0;
  MigrationWorld world(options);
  world.Start();
  ASSERT_TRUE(world.Settle());
  EXPECT_EQ(world.here().source->progress().pages_sent, 10);
  EXPECT_THAT(world.here().fault.calls, Contains("StartTracking").Times(1));
  EXPECT_EQ(world.CheckEnd(), "");
}

TEST(MigrationTest, LiveTrackingSendsAllOnceAndThenWhatWasWritten) {
  WorldOptions options;
  options.requests_during = 0;
  MigrationWorld world(options);
  world.Start();
  ASSERT_TRUE(world.Settle());
  EXPECT_EQ(world.here().source->progress().pages_sent, options.pages);
}

// doc:MG26: after a cancelled move what was cleared is sent to the next target.
TEST(MigrationTest, CancelledPerformantMoveLosesNoBits) {
  WorldOptions options;
  options.capabilities = {.live_migration = true, .performant_tracking = true};
  options.requests_before = 30;
  MigrationWorld world(options);
  world.Start();
  while (world.here().source->progress().pages_sent < 16) world.Step();
  world.Step(LinkFault::kCancel);
  ASSERT_TRUE(world.Settle());
  EXPECT_FALSE(world.is_moved());
  ASSERT_EQ(world.CheckEnd(), "");
  world.Start();
  ASSERT_TRUE(world.Settle());
  EXPECT_TRUE(world.is_moved());
  EXPECT_EQ(world.CheckEnd(), "");
}

// A page that is written and not marked must be noticed by these tests.
TEST(MigrationTest, AnUnmarkedPageIsNoticed) {
  WorldOptions options;
  options.requests_during = 30;
  MigrationWorld world(options);
  world.here().device->set_forgets_to_mark(true);
  world.Start();
  ASSERT_TRUE(world.Settle());
  EXPECT_THAT(world.CheckEnd(), HasSubstr("memory"));
}

TEST(MigrationTest, DevicesThatOnlyPauseMoveQuicklyOrNotAtAll) {
  WorldOptions options;
  options.capabilities = {};
  MigrationWorld world(options);
  world.Start();
  ASSERT_TRUE(world.Settle());
  EXPECT_FALSE(world.is_moved());
  EXPECT_THAT(std::string(world.here().source->progress().status.message()),
              HasSubstr("moves only while it is paused"));
  EXPECT_EQ(world.CheckEnd(), "");
}

// ---- When it stops copying

class Converging : public testing::Test {
 protected:
  // Steps while a client writes `per_step` requests a step, without end.
  void Run(MigrationWorld& world, int per_step) {
    uint64_t request = 1000000;
    for (int i = 0; i < 50000 && !world.is_over(); ++i) {
      world.Step();
      FakeDevice* device = world.here().device.get();
      for (int n = 0; n < per_step && device->is_running(); ++n) {
        device->Do(request++);
      }
    }
  }
};

// bad:T11: without a time-out it gives up once three passes hardly shrank.
TEST_F(Converging, GivesUpWithoutATimeout) {
  WorldOptions options;
  options.source.downtime_limit = absl::ZeroDuration();
  MigrationWorld world(options);
  world.Start();
  Run(world, 5);
  const MigrationProgress progress = world.here().source->progress();
  EXPECT_EQ(progress.phase, SourcePhase::kFailed);
  EXPECT_EQ(progress.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(progress.status.message()),
              HasSubstr("not converging"));
  EXPECT_FALSE(progress.is_converging);
  EXPECT_GT(progress.dirty_bytes_per_second, 0);
  EXPECT_TRUE(world.here().device->is_running());
}

// bad:T11
TEST_F(Converging, TimeoutCancels) {
  WorldOptions options;
  options.source.downtime_limit = absl::ZeroDuration();
  options.source.timeout = absl::Milliseconds(300);
  MigrationWorld world(options);
  world.Start();
  Run(world, 5);
  EXPECT_EQ(world.here().source->progress().status.code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(world.here().device->is_running());
}

// bad:T11: the pass that is under way becomes the first of the blackout.
TEST_F(Converging, TimeoutForces) {
  WorldOptions options;
  options.source.downtime_limit = absl::ZeroDuration();
  options.source.timeout = absl::Milliseconds(300);
  options.source.on_timeout = OnTimeout::kForce;
  MigrationWorld world(options);
  world.Start();
  Run(world, 5);
  EXPECT_TRUE(world.is_moved());
  EXPECT_EQ(world.there().state.memory, world.here().state.memory);
  EXPECT_EQ(world.there().state.done, world.here().state.done);
}

// The limit is on the rate of blocks as they are sent.
TEST(MigrationTest, BandwidthIsLimited) {
  WorldOptions options;
  options.requests_during = 0;
  options.source.compress = false;
  options.source.bandwidth_max_bytes = 100 * kFakePageSize;
  MigrationWorld world(options);
  world.Start();
  const absl::Time begin = world.now();
  ASSERT_TRUE(world.Settle());
  ASSERT_TRUE(world.is_moved());
  // 30 pages are zeros; all but the last block are waited for.
  EXPECT_GT(world.now() - begin, absl::Milliseconds(150));
}

// ---- What the target refuses

// bad:T10
TEST(MigrationTest, AnotherModelIsRefusedBeforeThePause) {
  WorldOptions options;
  MigrationWorld world(options);
  world.there().fault.calls_until = 1;  // RestoreImmutable
  world.Start();
  ASSERT_TRUE(world.Settle());
  EXPECT_FALSE(world.is_moved());
  EXPECT_THAT(world.here().fault.calls, Not(Contains("Pause")));
  EXPECT_THAT(std::string(world.here().source->progress().status.message()),
              HasSubstr("the target says: fake: refused"));
  EXPECT_EQ(world.CheckEnd(), "");
}

// bad:T2: nothing is allocated for pages that no block can have.
TEST(MigrationTest, PagesBeyondABlockAreRefused) {
  for (uint64_t size : {kPageSizeMin / 2, kPageSizeMin, kMigratedPageSizeMax,
                        2 * kMigratedPageSizeMax, uint64_t{1} << 40}) {
    const std::string bytes = SerializeMessage(Hello{
        .migration_id = std::string(kIdSizeBytes, 'm'),
        .machine = "machine",
        .epoch = 1,
        .devices = {
            {.name = "device",
             .creation_parameters = {},
             .segments = {
                 {.id = 1, .page_size_bytes = size, .size_bytes = size}}}}});
    const bool is_allowed =
        size >= kPageSizeMin && size <= kMigratedPageSizeMax;
    EXPECT_EQ(ParseMessage({reinterpret_cast<const std::byte*>(bytes.data()),
                            bytes.size()},
                           {})
                  .ok(),
              is_allowed)
        << size;
  }
}

// bad:T6: the messages of an earlier move, again.
TEST(MigrationTest, AReplayIsRefused) {
  WorldOptions options;
  MigrationWorld world(options);
  world.Start();
  ASSERT_TRUE(world.Settle());
  ASSERT_EQ(world.CheckEnd(), "");
  const std::vector<std::string> messages = world.sent_to_target();
  // To where the machine runs, and to where it came from.
  for (int host : {0, 1}) {
    FakeLedger& ledger = host == 0 ? world.here().ledger : world.there().ledger;
    MigrationTarget target({.machine = "machine",
                            .session = std::string(kIdSizeBytes, 's'),
                            .peer = "x"},
                           &world, &ledger);
    for (const std::string& message : messages) {
      target.OnMessage(
          {reinterpret_cast<const std::byte*>(message.data()), message.size()},
          {}, world.now());
      // The hello already: nothing is made for it.
      ASSERT_EQ(target.phase(), TargetPhase::kFailed) << target.status();
    }
  }
  EXPECT_TRUE(world.here().device->is_running());
}

// bad:T3 bad:T7
TEST(MigrationTest, APassEndsWithAllOfItsBlocksAndEachOnce) {
  WorldOptions options;
  MigrationWorld world(options);
  world.Start();
  while (world.sent_blocks().empty()) world.Step();  // and it has come
  MigrationTarget& target = *world.there().target;
  const std::string end = SerializeMessage(PassEnd{.pass = 1, .blocks = 2});
  target.OnMessage({reinterpret_cast<const std::byte*>(end.data()), end.size()},
                   {}, world.now());
  EXPECT_EQ(target.TakeMessage(), std::nullopt) << "it misses a block";
  // One that was there does not stand in for it.
  const std::string& block = world.sent_blocks()[0];
  target.OnBlock(
      {reinterpret_cast<const std::byte*>(block.data()), block.size()},
      world.now());
  target.Poll(world.now());
  EXPECT_EQ(target.phase(), TargetPhase::kFailed);
  EXPECT_THAT(std::string(target.status().message()), HasSubstr("comes twice"));
}

// ---- bad:T3: every message, at every step, to either role

TEST(MigrationTest, AnyMessageAtAnyStepLeavesOneOwner) {
  WorldOptions options;
  options.requests_during = 20;
  std::vector<std::string> to_target, to_source, blocks;
  uint64_t steps = 0;
  {
    MigrationWorld world(options);
    world.Start();
    ASSERT_TRUE(world.Settle());
    to_target = world.sent_to_target();
    to_source = world.sent_to_source();
    blocks = world.sent_blocks();
    steps = world.steps();
  }
  std::vector<std::string> all = to_target;
  all.insert(all.end(), to_source.begin(), to_source.end());
  all.push_back(SerializeMessage(
      Abort{.reason = absl::CancelledError("not of this session")}));
  int cases = 0;
  for (uint64_t step = 0; step < steps; step += 3) {
    for (size_t i = 0; i < all.size() + 1; ++i) {
      for (bool to_the_target : {true, false}) {
        MigrationWorld world(options);
        world.Start();
        while (world.steps() < step) world.Step();
        const std::string& bytes = i < all.size() ? all[i] : blocks[1];
        const absl::Span<const std::byte> span(
            reinterpret_cast<const std::byte*>(bytes.data()), bytes.size());
        if (i == all.size()) {
          world.there().target->OnBlock(span, world.now());
        } else if (to_the_target) {
          world.there().target->OnMessage(span, {}, world.now());
        } else {
          world.here().source->OnMessage(span, world.now());
        }
        ASSERT_TRUE(world.Settle()) << "step " << step << " message " << i;
        ASSERT_EQ(world.CheckEnd(), "")
            << "step " << step << " message " << i << " to the "
            << (to_the_target ? "target" : "source");
        ++cases;
      }
    }
  }
  std::cout << cases << " cases\n";
}

}  // namespace
}  // namespace ferrybus::migration
