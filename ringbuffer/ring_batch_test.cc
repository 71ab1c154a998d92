// SPDX-License-Identifier: MIT
//
// Batches: when a publication is due, and taking a batch back.

#include <cstdint>

#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/ring_view.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "gtest/gtest.h"

namespace ferrybus::ringbuffer {
namespace {

using testing::Bytes;
using testing::TestRing;

constexpr uint32_t kPacketBytes = 88;  // in the ring, of 64 bytes

class BatchTest : public ::testing::Test {
 protected:
  void Stage(int packets = 1) {
    for (int i = 0; i < packets; ++i) {
      ASSERT_EQ(producer_.Write({}, {}, Bytes(64)), WriteResult::kOk);
    }
  }
  // How many packets the consumer sees now.
  int Take() {
    int taken = 0;
    while (consumer_.Next(&packet_) == ReadResult::kOk) ++taken;
    return taken;
  }
  uint32_t published() { return ring_.word(kWriteIndexOffset); }
  uint32_t released() { return ring_.word(kReadIndexOffset); }

  TestRing ring_{4096};
  RingProducer producer_{ring_.view()};
  RingConsumer consumer_{ring_.view(), 4096};
  PacketView packet_;
};

TEST_F(BatchTest, APacketForAnIdlePeerGoesAtOnce) {
  Stage();
  EXPECT_TRUE(producer_.PublishIfDue({}));
  EXPECT_EQ(published(), kPacketBytes);
  EXPECT_EQ(Take(), 1);
}

TEST_F(BatchTest, PacketsForABusyPeerWaitForTheBoundInPackets) {
  Stage();
  ASSERT_TRUE(producer_.Publish());
  for (int i = 0; i < 3; ++i) {
    Stage();
    EXPECT_FALSE(producer_.PublishIfDue({.packets = 4}));
    EXPECT_EQ(published(), kPacketBytes) << i;
  }
  Stage();
  EXPECT_FALSE(producer_.PublishIfDue({.packets = 4}));  // it is awake
  EXPECT_EQ(published(), 5 * kPacketBytes);
  EXPECT_EQ(Take(), 5);
}

TEST_F(BatchTest, PacketsForABusyPeerWaitForTheBoundInBytes) {
  Stage();
  ASSERT_TRUE(producer_.Publish());
  Stage();
  EXPECT_FALSE(producer_.PublishIfDue({.bytes = 2 * kPacketBytes}));
  EXPECT_EQ(published(), kPacketBytes);
  Stage();
  EXPECT_FALSE(producer_.PublishIfDue({.bytes = 2 * kPacketBytes}));
  EXPECT_EQ(published(), 3 * kPacketBytes);
}

TEST_F(BatchTest, WhatWasStagedGoesOnceThePeerHasCaughtUp) {
  Stage();
  ASSERT_TRUE(producer_.Publish());
  Stage();
  ASSERT_FALSE(producer_.PublishIfDue({}));
  ASSERT_EQ(Take(), 1);
  EXPECT_FALSE(consumer_.Release());
  Stage();
  EXPECT_TRUE(producer_.PublishIfDue({}));
  EXPECT_EQ(Take(), 2);
}

TEST_F(BatchTest, RoomComesBackInLargePieces) {
  Stage(5);
  ASSERT_TRUE(producer_.Publish());
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(consumer_.Next(&packet_), ReadResult::kOk);
    EXPECT_FALSE(consumer_.ReleaseIfDue({.packets = 2}));
    EXPECT_EQ(released(), (i + 1) / 2 * 2 * kPacketBytes);
  }
  EXPECT_FALSE(consumer_.ReleaseIfDue({.bytes = kPacketBytes}));
  EXPECT_EQ(released(), 5 * kPacketBytes);
}

TEST_F(BatchTest, ARolledBackBatchIsCountedAnew) {
  Stage(3);
  ASSERT_TRUE(producer_.Publish());
  ASSERT_EQ(consumer_.Next(&packet_), ReadResult::kOk);
  consumer_.Rollback();
  EXPECT_FALSE(consumer_.ReleaseIfDue({.packets = 1}));
  ASSERT_EQ(consumer_.Next(&packet_), ReadResult::kOk);
  EXPECT_FALSE(consumer_.ReleaseIfDue({.packets = 2}));
  EXPECT_EQ(released(), 0);
  EXPECT_EQ(Take(), 2);
}

TEST_F(BatchTest, DiscardedPacketsAreNeverSeenAndTakeNoRoom) {
  Stage(2);
  ASSERT_TRUE(producer_.Publish());
  int staged = 0;
  while (producer_.Write({}, {}, Bytes(64)) == WriteResult::kOk) ++staged;
  producer_.Discard();
  EXPECT_FALSE(producer_.has_unpublished());
  EXPECT_FALSE(producer_.Publish());
  EXPECT_EQ(Take(), 2);
  // All of the room is there again, and not more.
  Stage(staged);
  EXPECT_EQ(producer_.Write({}, {}, Bytes(64)), WriteResult::kFull);
}

TEST_F(BatchTest, PublishToLeavesTheRestStaged) {
  Stage(2);
  const uint32_t end = producer_.staged_end();
  Stage(3);
  EXPECT_TRUE(producer_.PublishTo(end));
  EXPECT_EQ(published(), 2 * kPacketBytes);
  EXPECT_EQ(Take(), 2);
  EXPECT_TRUE(producer_.has_unpublished());
  EXPECT_FALSE(consumer_.Release());
  EXPECT_TRUE(producer_.Publish());
  EXPECT_EQ(Take(), 3);
}

}  // namespace
}  // namespace ferrybus::ringbuffer
