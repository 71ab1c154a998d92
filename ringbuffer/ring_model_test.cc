// SPDX-License-Identifier: MIT
//
// Random traffic against the naive model, in both directions: what one side
// wrote is what the other side reads, at any index, wrap and batch size.

#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_mapping.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/testing/model_ring.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "gtest/gtest.h"

namespace ferrybus::ringbuffer {
namespace {

using testing::Bytes;
using testing::ModelPacket;
using testing::ModelReader;
using testing::ModelResult;
using testing::ModelWriter;
using testing::PaddedTo8;
using testing::Pattern;
using testing::TestRing;
using testing::TestSeed;

constexpr char kTarget[] = "//ringbuffer:ring_model_test";
// Few enough for the model, which is slow, to be done in a second or two.
int PacketCount(uint32_t data_bytes) {
  return 20000 / static_cast<int>(data_bytes / 4096);
}

// Sizes from empty to almost the whole ring, small ones more often.
ModelPacket RandomPacket(std::mt19937_64* random, uint32_t data_bytes) {
  static constexpr uint16_t kTypes[] = {6, 7, 9, 11};
  ModelPacket packet;
  packet.type = kTypes[(*random)() % 4];
  packet.flags = (*random)() % 2;
  packet.transaction_id = (*random)();
  if (packet.type == 7 || packet.type == 9) {
    packet.extension = Pattern(8 + (*random)() % 20 * 8, (*random)());
  }
  const uint64_t most = data_bytes - 16 - 24 - 8 - 19 * 8;
  const uint64_t bound = (*random)() % 8 == 0 ? most : 200;
  packet.payload = Pattern((*random)() % (bound + 1), (*random)());
  return packet;
}

class ModelTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  // A ring with an arbitrary past: indices anywhere, old bytes everywhere.
  void SetUp() override {
    seed_ = TestSeed(kTarget, "*ModelTest*");
    random_.seed(seed_);
    ring_ = std::make_unique<TestRing>(GetParam(), seed_);
    ring_->FillData(std::byte{0xa5});
    const uint32_t start =
        static_cast<uint32_t>(random_() % (GetParam() / 8)) * 8;
    ring_->SetIndices(start, start);
  }

  uint64_t seed_ = 0;
  std::mt19937_64 random_;
  std::unique_ptr<TestRing> ring_;
};

// Our writer, the model's reader.
TEST_P(ModelTest, TheModelReadsWhatTheProducerWrites) {
  RingProducer producer(ring_->view());
  ModelReader reader(ring_.get());
  std::deque<ModelPacket> sent;
  int received = 0;
  while (received < PacketCount(GetParam())) {
    const ModelPacket packet = RandomPacket(&random_, GetParam());
    const WriteResult result =
        producer.Write({static_cast<PacketType>(packet.type), packet.flags,
                        packet.transaction_id},
                       packet.extension, packet.payload);
    if (result == WriteResult::kOk) {
      sent.push_back(packet);
      sent.back().payload = PaddedTo8(sent.back().payload);
    } else {
      ASSERT_EQ(result, WriteResult::kFull);
    }
    if (random_() % 4 != 0 && result == WriteResult::kOk) continue;
    (void)producer.Publish();
    for (uint64_t n = random_() % 8; n > 0 && !sent.empty(); --n) {
      ModelPacket read;
      ASSERT_EQ(reader.Next(&read), ModelResult::kPacket);
      ASSERT_EQ(read, sent.front()) << "packet " << received;
      sent.pop_front();
      ++received;
    }
  }
  EXPECT_EQ(producer.fault(), RingFault::kNone);
}

ModelPacket CopyOf(const PacketView& view) {
  ModelPacket packet;
  packet.type = static_cast<uint16_t>(view.type);
  packet.flags = view.completion_requested ? 1 : 0;
  packet.transaction_id = view.transaction_id;
  packet.extension.resize(view.extension.size());
  packet.payload.resize(view.payload.size());
  view.extension.CopyTo(absl::MakeSpan(packet.extension));
  view.payload.CopyTo(absl::MakeSpan(packet.payload));
  return packet;
}

// The model's writer, our reader, which sometimes gives packets back unread.
TEST_P(ModelTest, TheConsumerReadsWhatTheModelWrites) {
  ModelWriter writer(ring_.get());
  RingConsumer consumer(ring_->view(), UINT32_MAX);
  std::deque<ModelPacket> sent;
  size_t taken = 0;  // of `sent`, since the last release
  int received = 0;
  while (received < PacketCount(GetParam())) {
    const ModelPacket packet = RandomPacket(&random_, GetParam());
    const bool written = writer.Write(packet);
    if (written) {
      sent.push_back(packet);
      sent.back().payload = PaddedTo8(sent.back().payload);
    }
    if (random_() % 4 != 0 && written) continue;
    for (uint64_t n = 1 + random_() % 8; n > 0; --n) {
      PacketView view;
      const ReadResult result = consumer.Next(&view);
      ASSERT_EQ(result == ReadResult::kOk, taken < sent.size());
      if (result != ReadResult::kOk) break;
      ASSERT_EQ(CopyOf(view), sent[taken++]) << "packet " << received;
    }
    if (random_() % 5 == 0) {
      consumer.Rollback();
      taken = 0;
    } else {
      EXPECT_FALSE(consumer.Release());
      sent.erase(sent.begin(), sent.begin() + taken);
      received += static_cast<int>(taken);
      taken = 0;
    }
  }
  EXPECT_EQ(consumer.fault(), RingFault::kNone);
}

// Both ends are dropped and attached again at any moment, as after a save and
// restore: the ring itself carries all that is needed.
TEST_P(ModelTest, NewHandlesGoOnWhereTheOldOnesStopped) {
  auto producer = std::make_unique<RingProducer>(ring_->view());
  auto consumer = std::make_unique<RingConsumer>(ring_->view(), UINT32_MAX);
  RingMapping elsewhere = ring_->MapAgain();
  std::deque<ModelPacket> sent;
  int received = 0;
  while (received < PacketCount(GetParam())) {
    const ModelPacket packet = RandomPacket(&random_, GetParam());
    if (producer->Write({static_cast<PacketType>(packet.type), packet.flags,
                         packet.transaction_id},
                        packet.extension, packet.payload) == WriteResult::kOk) {
      sent.push_back(packet);
      sent.back().payload = PaddedTo8(sent.back().payload);
    }
    (void)producer->Publish();
    PacketView view;
    while (random_() % 3 != 0 && consumer->Next(&view) == ReadResult::kOk) {
      ASSERT_EQ(CopyOf(view), sent.front());
      sent.pop_front();
      ++received;
    }
    (void)consumer->Release();
    const RingView where =
        random_() % 2 == 0 ? ring_->view() : elsewhere.view();
    if (random_() % 8 == 0) {
      const RingPosition before = producer->position();
      producer = std::make_unique<RingProducer>(where);
      ASSERT_EQ(producer->position().own_index, before.own_index);
    }
    if (random_() % 8 == 0) {
      const RingPosition before = consumer->position();
      consumer = std::make_unique<RingConsumer>(where, UINT32_MAX);
      ASSERT_EQ(consumer->position().own_index, before.own_index);
    }
  }
  EXPECT_EQ(producer->fault(), RingFault::kNone);
  EXPECT_EQ(consumer->fault(), RingFault::kNone);
}

INSTANTIATE_TEST_SUITE_P(Sizes, ModelTest,
                         ::testing::Values(4096, 12288, 20480, 65536));

TEST(RollbackTest, DeliversTheSamePacketsAgain) {
  TestRing ring(4096);
  ModelWriter writer(&ring);
  for (uint64_t id = 1; id <= 4; ++id) {
    ASSERT_TRUE(writer.Write({6, 0, id, {}, Pattern(40, id)}));
  }
  RingConsumer consumer(ring.view(), 4096);
  PacketView view;
  ASSERT_EQ(consumer.Next(&view), ReadResult::kOk);
  EXPECT_FALSE(consumer.Release());
  for (int round = 0; round < 2; ++round) {
    for (uint64_t id = 2; id <= 4; ++id) {
      ASSERT_EQ(consumer.Next(&view), ReadResult::kOk);
      EXPECT_EQ(view.transaction_id, id);
    }
    EXPECT_EQ(consumer.Next(&view), ReadResult::kEmpty);
    EXPECT_EQ(ring.word(kReadIndexOffset), 64u);
    consumer.Rollback();
  }
  // Nothing is left to give back.
  EXPECT_FALSE(consumer.Release());
  EXPECT_EQ(ring.word(kReadIndexOffset), 64u);
}

TEST(AttachTest, ProducerWithdrawsAnOldRequestForRoomAndTellsItsFeature) {
  TestRing ring(4096);
  ring.SetIndices(64, 32);
  ring.set_word(kPendingSendSizeOffset, 1000);
  ring.set_word(kInterruptMaskOffset, 1);
  RingProducer producer(ring.view());
  EXPECT_EQ(ring.word(kPendingSendSizeOffset), 0u);
  EXPECT_EQ(ring.word(kFeatureBitsOffset), kFeaturePendingSendSize);
  EXPECT_EQ(ring.word(kInterruptMaskOffset), 1u);
  EXPECT_EQ(producer.position(), (RingPosition{64, 32}));
}

TEST(AttachTest, ConsumerChangesNothing) {
  TestRing ring(4096);
  ring.SetIndices(64, 32);
  ring.set_word(kPendingSendSizeOffset, 1000);
  ring.set_word(kInterruptMaskOffset, 1);
  const Bytes before = ring.ControlPage();
  RingConsumer consumer(ring.view(), 4096);
  EXPECT_EQ(ring.ControlPage(), before);
  EXPECT_EQ(consumer.position(), (RingPosition{32, 64}));
}

}  // namespace
}  // namespace ferrybus::ringbuffer
