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
  const Bytes payload_ = Bytes(64);
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

TEST_F(BatchTest, AReaderThatSpinsGivesRoomBackOnceItIsIdle) {
  Stage();
  ASSERT_TRUE(producer_.Publish());
  ASSERT_EQ(Take(), 1);  // and found the ring empty once
  EXPECT_FALSE(consumer_.ReleaseIfIdle(2));
  EXPECT_EQ(released(), 0);
  ASSERT_EQ(Take(), 0);
  EXPECT_FALSE(consumer_.ReleaseIfIdle(2));
  EXPECT_EQ(released(), kPacketBytes);
  // A packet begins the count again.
  Stage();
  ASSERT_TRUE(producer_.Publish());
  ASSERT_EQ(Take(), 1);
  EXPECT_FALSE(consumer_.ReleaseIfIdle(2));
  EXPECT_EQ(released(), kPacketBytes);
}

TEST_F(BatchTest, ABatchIsTakenUpToItsBound) {
  Stage(7);
  ASSERT_TRUE(producer_.Publish());
  int taken = 0;
  const auto take = [&](const BatchBound& bound) {
    taken = 0;
    return consumer_.TakeBatch(bound, [&](const PacketView& packet) {
      EXPECT_EQ(packet.payload.size(), 64u);
      ++taken;
    });
  };
  EXPECT_EQ(take({.packets = 2}), ReadResult::kOk);
  EXPECT_EQ(taken, 2);
  EXPECT_EQ(take({.bytes = kPacketBytes + 1}), ReadResult::kOk);
  EXPECT_EQ(taken, 2);
  EXPECT_FALSE(consumer_.ReleaseIfDue({.packets = 4}));
  EXPECT_EQ(released(), 4 * kPacketBytes);
  EXPECT_EQ(take({}), ReadResult::kOk);
  EXPECT_EQ(taken, 3);
  EXPECT_EQ(take({}), ReadResult::kEmpty);
  EXPECT_EQ(taken, 0);
}

TEST_F(BatchTest, ABrokenPacketEndsTheBatchBehindTheGoodOnes) {
  Stage(3);
  ASSERT_TRUE(producer_.Publish());
  const Bytes broken(8);  // type 0
  ring_.Write(2 * kPacketBytes, broken);
  int taken = 0;
  const auto count = [&](const PacketView&) { ++taken; };
  EXPECT_EQ(consumer_.TakeBatch({}, count), ReadResult::kCorrupt);
  EXPECT_EQ(taken, 2);
  EXPECT_EQ(consumer_.fault(), RingFault::kPacketType);
  EXPECT_EQ(consumer_.TakeBatch({}, count), ReadResult::kCorrupt);
  EXPECT_EQ(taken, 2);
}

// bad:R8
TEST_F(BatchTest, APacketThatEndsBeyondTheIndexEndsTheBatch) {
  // Of the shape of the one before, and of another.
  for (const size_t second : {64, 72}) {
    TestRing ring(4096);
    RingProducer producer(ring.view());
    ASSERT_EQ(producer.Write({}, {}, Bytes(64)), WriteResult::kOk);
    ASSERT_EQ(producer.Write({}, {}, Bytes(second)), WriteResult::kOk);
    ASSERT_TRUE(producer.Publish());
    ring.set_word(kWriteIndexOffset, ring.word(kWriteIndexOffset) - 8);
    RingConsumer consumer(ring.view(), 4096);
    int taken = 0;
    EXPECT_EQ(consumer.TakeBatch({}, [&](const PacketView&) { ++taken; }),
              ReadResult::kCorrupt);
    EXPECT_EQ(taken, 1);
    EXPECT_EQ(consumer.fault(), RingFault::kTruncatedPacket);
  }
}

TEST_F(BatchTest, ABatchIsWrittenAsFarAsThereIsRoom) {
  const auto packet_at = [this](uint32_t i) {
    return OutgoingPacket{{.transaction_id = i}, {}, payload_};
  };
  BatchResult batch = producer_.WriteBatch(100, {.packets = 5}, packet_at);
  EXPECT_EQ(batch.result, WriteResult::kOk);
  EXPECT_EQ(batch.packets, 5u);
  batch = producer_.WriteBatch(100, {.bytes = kPacketBytes + 1}, packet_at);
  EXPECT_EQ(batch.packets, 2u);
  batch = producer_.WriteBatch(1, {}, packet_at);
  EXPECT_EQ(batch.packets, 1u);
  ASSERT_TRUE(producer_.Publish());
  EXPECT_EQ(published(), 8 * kPacketBytes);
  // 46 packets fit into a ring of 4096 bytes.
  batch = producer_.WriteBatch(100, {}, packet_at);
  EXPECT_EQ(batch.result, WriteResult::kFull);
  EXPECT_EQ(batch.packets, 38u);
  ASSERT_EQ(Take(), 8);
  EXPECT_FALSE(consumer_.Release());
  // The peer's room is found in the middle of a batch.
  batch = producer_.WriteBatch(100, {}, packet_at);
  EXPECT_EQ(batch.result, WriteResult::kFull);
  EXPECT_EQ(batch.packets, 8u);
  EXPECT_TRUE(producer_.Publish());
  EXPECT_EQ(Take(), 46);
}

TEST_F(BatchTest, APacketThatNeverFitsEndsTheBatchBeforeIt) {
  const Bytes huge(8192);
  const BatchResult batch =
      producer_.WriteBatch(5, {}, [&](uint32_t i) -> OutgoingPacket {
        if (i == 2) return {{}, {}, huge};
        return {{}, {}, payload_};
      });
  EXPECT_EQ(batch.result, WriteResult::kTooLarge);
  EXPECT_EQ(batch.packets, 2u);
  EXPECT_TRUE(producer_.Publish());
  EXPECT_EQ(Take(), 2);
}

// What the batch has written before counts: nothing unread is overwritten.
TEST_F(BatchTest, AfterAPacketThatNeverFitsThereIsNoMoreRoomThanBefore) {
  const Bytes huge(8192);
  const BatchResult batch =
      producer_.WriteBatch(41, {}, [&](uint32_t i) -> OutgoingPacket {
        return {{}, {}, i == 40 ? huge : payload_};
      });
  EXPECT_EQ(batch.result, WriteResult::kTooLarge);
  EXPECT_EQ(batch.packets, 40u);
  int more = 0;
  while (more < 100 && producer_.Write({}, {}, payload_) == WriteResult::kOk) {
    ++more;
  }
  EXPECT_EQ(more, 6);
  EXPECT_TRUE(producer_.Publish());
  EXPECT_EQ(Take(), 46);
}

}  // namespace
}  // namespace ferrybus::ringbuffer
