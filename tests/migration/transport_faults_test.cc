// SPDX-License-Identifier: MIT
//
// Migrations over real sockets and TLS on a link that fails at any byte, in
// any way: one owner afterwards, and its memory is whole.

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ferrybus/tests/migration/tcp_relay.h"
#include "ferrybus/tests/migration/transport_world.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

struct Outcome {
  MigrationProgress result;
  bool is_moved = false;
  bool was_faulty = false;
  uint64_t bytes[2] = {0, 0};  // to the target, to the source
};

// One move through a relay with a fault; everything is checked afterwards.
Outcome MoveThrough(const RelayPlan& plan,
                    absl::Duration silence_max = absl::Seconds(5)) {
  TransportWorld world({.silence_max = silence_max});
  TcpRelay relay(world.target().port(), plan);
  Outcome outcome;
  outcome.result = world.Move(world.Outgoing(relay.address()));
  outcome.was_faulty = relay.is_fault_done();
  outcome.bytes[0] = relay.bytes_to_target();
  outcome.bytes[1] = relay.bytes_to_source();
  EXPECT_EQ(world.CheckEnd(), "")
      << "after " << plan.after_bytes << " bytes "
      << (plan.to_target ? "to the target" : "to the source");
  outcome.is_moved = world.is_moved();
  const bool is_done = outcome.result.phase == SourcePhase::kDone;
  EXPECT_EQ(outcome.is_moved, is_done) << outcome.result.status;
  EXPECT_TRUE(is_done || !outcome.result.status.ok());
  return outcome;
}

// Positions from the first byte to the last, denser at both ends.
std::vector<uint64_t> Positions(uint64_t bytes, int count) {
  std::vector<uint64_t> positions;
  for (int i = 0; i < count; ++i) positions.push_back(bytes * i / count);
  for (uint64_t i = 1; i <= 12; ++i) {
    positions.push_back(i * 150);
    positions.push_back(bytes - std::min(bytes, i * 60));
  }
  return positions;
}

// bad:T1 bad:T5 bad:T12
TEST(TransportFaultsTest, LinkCutAtAnyByte) {
  const Outcome clean = MoveThrough({});
  ASSERT_EQ(clean.result.phase, SourcePhase::kDone) << clean.result.status;
  int cases = 0;
  int moved = 0;
  for (bool to_target : {true, false}) {
    for (uint64_t position : Positions(clean.bytes[to_target ? 0 : 1], 25)) {
      const Outcome outcome = MoveThrough({.fault = RelayFault::kCut,
                                           .to_target = to_target,
                                           .after_bytes = position});
      ++cases;
      moved += outcome.is_moved ? 1 : 0;
    }
  }
  std::printf("cut: %d cases, %d of them moved, each with one owner\n", cases,
              moved);
}

// TLS notices a byte that was changed on the way.
// bad:T1
TEST(TransportFaultsTest, ByteChangedOnTheWay) {
  const Outcome clean = MoveThrough({});
  int cases = 0;
  int noticed = 0;
  for (bool to_target : {true, false}) {
    for (uint64_t position : Positions(clean.bytes[to_target ? 0 : 1], 4)) {
      const Outcome outcome = MoveThrough({.fault = RelayFault::kCorrupt,
                                           .to_target = to_target,
                                           .after_bytes = position},
                                          absl::Seconds(1));
      ++cases;
      noticed += outcome.result.status.ok() ? 0 : 1;
    }
  }
  EXPECT_GT(noticed, 0);
  std::printf("corrupt: %d cases, each with one owner\n", cases);
}

// bad:T4
TEST(TransportFaultsTest, LinkStallsOrTricklesFromAnyByte) {
  const Outcome clean = MoveThrough({});
  int cases = 0;
  int noticed = 0;
  for (RelayFault fault : {RelayFault::kStall, RelayFault::kTrickle}) {
    for (bool to_target : {true, false}) {
      const uint64_t bytes = clean.bytes[to_target ? 0 : 1];
      for (uint64_t position : {uint64_t{0}, uint64_t{2500}, bytes / 2}) {
        const Outcome outcome = MoveThrough(
            {.fault = fault, .to_target = to_target, .after_bytes = position},
            absl::Milliseconds(400));
        // Later ones may come after the last byte that matters.
        EXPECT_TRUE(position != 0 || !outcome.result.status.ok());
        noticed += outcome.result.status.ok() ? 0 : 1;
        ++cases;
      }
    }
  }
  EXPECT_GT(noticed, cases / 2);
  std::printf("stall and trickle: %d cases, %d noticed, each with one owner\n",
              cases, noticed);
}

TEST(TransportFaultsTest, SlowLinkOnlyTakesLonger) {
  const Outcome outcome =
      MoveThrough({.fault = RelayFault::kDelay, .after_bytes = 2000});
  EXPECT_EQ(outcome.result.phase, SourcePhase::kDone) << outcome.result.status;
  EXPECT_TRUE(outcome.result.status.ok()) << outcome.result.status;
}

// A stream of blocks dies, the others and the control stream live: no hole.
// bad:T7
TEST(TransportFaultsTest, OneStreamDies) {
  int ended = 0;
  for (int connection : {1, 2, 3}) {
    for (uint64_t position : {3000, 6000, 40000}) {
      const Outcome outcome = MoveThrough({.fault = RelayFault::kCutOne,
                                           .after_bytes = position,
                                           .connection = connection},
                                          absl::Seconds(2));
      if (outcome.is_moved || !outcome.was_faulty) continue;
      ++ended;
      EXPECT_THAT(
          std::string(outcome.result.status.message()),
          AnyOf(HasSubstr("a stream of blocks"), HasSubstr("connection")));
    }
  }
  EXPECT_GT(ended, 0);
  std::printf("one stream of three: 9 cases, %d ended the migration\n", ended);
}

// The decision is stored, and the link goes before the target hears of it; or
// before it is stored, but after the target was ready.
// bad:T5 promise:P7
TEST(TransportFaultsTest, LinkGoesAroundTheDecision) {
  int cases = 0;
  for (SourcePhase phase : {SourcePhase::kConnecting, SourcePhase::kValidating,
                            SourcePhase::kCopying, SourcePhase::kBlackout,
                            SourcePhase::kPreparing, SourcePhase::kCommitted}) {
    TransportWorld world;
    TcpRelay relay(world.target().port(), {});
    OutgoingOptions options = world.Outgoing(relay.address());
    bool was_there = false;
    options.on_progress = [&](const MigrationProgress& progress) {
      if (progress.phase != phase || was_there) return;
      was_there = true;
      relay.Cut();
    };
    const MigrationProgress result = world.Move(options);
    EXPECT_EQ(world.CheckEnd(), "") << SourcePhaseName(phase);
    EXPECT_EQ(world.is_moved(), result.phase == SourcePhase::kDone)
        << SourcePhaseName(phase);
    if (phase == SourcePhase::kCommitted) {
      EXPECT_TRUE(was_there);
      EXPECT_TRUE(world.is_moved()) << result.status;
    }
    ++cases;
  }
  std::printf("cut in a phase: %d cases, each with one owner\n", cases);
}

}  // namespace
}  // namespace ferrybus::migration
