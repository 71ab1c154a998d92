// SPDX-License-Identifier: MIT
//
// The bytes: what the producer puts into a ring, compared byte for byte with
// known vectors and with the naive model, and read back by the consumer.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/testing/model_ring.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "gtest/gtest.h"

namespace ferrybus::ringbuffer {
namespace {

using testing::Bytes;
using testing::FromHex;
using testing::ModelImage;
using testing::ModelPacket;
using testing::PaddedTo8;
using testing::Pattern;
using testing::TestRing;
using testing::ToHex;

// Old bytes of the ring, which must not shine through.
constexpr std::byte kStale{0xa5};

WriteResult WritePacket(RingProducer* producer, const ModelPacket& packet) {
  return producer->Write({static_cast<PacketType>(packet.type), packet.flags,
                          packet.transaction_id},
                         packet.extension, packet.payload);
}

template <class View>
ModelPacket CopyOf(const View& view) {
  ModelPacket packet;
  packet.type = static_cast<uint16_t>(view.type);
  packet.flags = view.completion_requested ? 1 : 0;
  packet.transaction_id = view.transaction_id;
  packet.extension.resize(view.extension.size());
  view.extension.CopyTo(absl::MakeSpan(packet.extension));
  packet.payload.resize(view.payload.size());
  view.payload.CopyTo(absl::MakeSpan(packet.payload));
  return packet;
}

struct Vector {
  const char* name;
  uint32_t index;  // where the packet starts
  ModelPacket packet;
  const char* image;
};

// One packet of each shape.
std::vector<Vector> ShapeVectors() {
  return {
      {"P1",
       0,
       {6, 1, 0x1122334455667788, {}, FromHex("0102030405")},
       "0600020003000100 8877665544332211 0102030405000000 0000000000000000"},
      {"P2",
       0x20,
       {11, 0, 7, {}, {}},
       "0b00020002000000 0700000000000000 0000000020000000"},
      {"P3",
       0x38,
       {9, 1, 9,
        FromHex("0000000002000000 00020000000e0000 4523010000000000"
                "0001000000000000 7707000000000000"),
        FromHex("deadbeef")},
       "0900070008000100 0900000000000000 0000000002000000 00020000000e0000"
       "4523010000000000 0001000000000000 7707000000000000 deadbeef00000000"
       "0000000038000000"},
      {"P5",
       0,
       {7, 1, 1, FromHex("feca000001000000 6e00000000100000"),
        FromHex("6b00000000000000 ffffffff00000000 0000000000000000"
                "0000000000000000 0000000000000000")},
       "0700040009000100 0100000000000000 feca000001000000 6e00000000100000"
       "6b00000000000000 ffffffff00000000 0000000000000000 0000000000000000"
       "0000000000000000 0000000000000000"},
      {"P6",
       0,
       {6, 0, 0, {}, FromHex("0100000005000000 68656c6c6f")},
       "0600020004000000 0000000000000000 0100000005000000 68656c6c6f000000"
       "0000000000000000"},
      {"P8",
       0xfe8,
       {6, 0, 2, {}, FromHex("a0a1a2a3a4a5a6a7a8a9aaabacadaeaf")},
       "0600020004000000 0200000000000000 a0a1a2a3a4a5a6a7 a8a9aaabacadaeaf"
       "00000000e80f0000"},
  };
}

// What drivers send.
std::vector<Vector> DeviceVectors() {
  const Bytes storvsc = FromHex("0700000001000000" + std::string(112, '0'));
  const Bytes storvsc_done = FromHex("01000000" + std::string(120, '0'));
  return {
      {"P9",
       0,
       {6, 1, 0xfffffffffffffffd, {}, storvsc},
       "060002000a000100 fdffffffffffffff 0700000001000000 0000000000000000"
       "0000000000000000 0000000000000000 0000000000000000 0000000000000000"
       "0000000000000000 0000000000000000 0000000000000000"},
      {"P10",
       0,
       {11, 0, 0xfffffffffffffffd, {}, storvsc_done},
       "0b0002000a000000 fdffffffffffffff 0100000000000000 0000000000000000"
       "0000000000000000 0000000000000000 0000000000000000 0000000000000000"
       "0000000000000000 0000000000000000 0000000000000000"},
      {"P12",
       0,
       {6,
        1,
        1,
        {},
        FromHex("0100000028000000 0100000000000100 0000140000000000"
                "0003000002000100 0000000001000000 0300000003000000")},
       "0600020008000100 0100000000000000 0100000028000000 0100000000000100"
       "0000140000000000 0003000002000100 0000000001000000 0300000003000000"
       "0000000000000000"},
      {"P13",
       0,
       {6,
        0,
        2,
        {},
        FromHex("010000003c000000 0300000001000300 0000280000000000"
                "0503000029000000" +
                std::string(72, '0'))},
       "060002000b000000 0200000000000000 010000003c000000 0300000001000300"
       "0000280000000000 0503000029000000 0000000000000000 0000000000000000"
       "0000000000000000 0000000000000000 0000000000000000 0000000000000000"},
  };
}

std::vector<Vector> Vectors() {
  std::vector<Vector> all = ShapeVectors();
  for (const Vector& v : DeviceVectors()) all.push_back(v);
  return all;
}

class VectorTest : public ::testing::TestWithParam<Vector> {};

// vector:P1 vector:P2 vector:P3 vector:P5 vector:P6 vector:P8 vector:P9
// vector:P10 vector:P12 vector:P13
// bad:R32
TEST_P(VectorTest, ProducerWritesTheseBytesAndNoOthers) {
  const Vector& v = GetParam();
  TestRing ring(4096);
  ring.FillData(kStale);
  ring.SetIndices(v.index, v.index);
  RingProducer producer(ring.view());
  ASSERT_EQ(WritePacket(&producer, v.packet), WriteResult::kOk);
  EXPECT_TRUE(producer.Publish());

  const Bytes image = FromHex(v.image);
  EXPECT_EQ(ToHex(ring.Read(v.index, image.size())), ToHex(image));
  EXPECT_EQ(ring.Read(v.index + image.size(), 4096 - image.size()),
            Bytes(4096 - image.size(), kStale));
  EXPECT_EQ(ring.word(kWriteIndexOffset), (v.index + image.size()) % 4096);
  EXPECT_EQ(ring.word(kReadIndexOffset), v.index);
}

TEST_P(VectorTest, ConsumerReadsThePacketBack) {
  const Vector& v = GetParam();
  const Bytes image = FromHex(v.image);
  TestRing ring(4096);
  ring.FillData(kStale);
  ring.Write(v.index, image);
  ring.SetIndices((v.index + image.size()) % 4096, v.index);
  RingConsumer consumer(ring.view(), 4096);
  PacketView view;
  ASSERT_EQ(consumer.Next(&view), ReadResult::kOk);
  ModelPacket expected = v.packet;
  expected.payload = PaddedTo8(expected.payload);
  EXPECT_EQ(CopyOf(view), expected);
  EXPECT_EQ(consumer.Next(&view), ReadResult::kEmpty);
  EXPECT_FALSE(consumer.Release());
  EXPECT_EQ(ring.word(kReadIndexOffset), (v.index + image.size()) % 4096);
}

// The model is a third opinion: were it wrong, the tests that use it would
// prove nothing.
TEST_P(VectorTest, ModelAgrees) {
  const Vector& v = GetParam();
  EXPECT_EQ(ToHex(ModelImage(v.packet, v.index)), ToHex(FromHex(v.image)));
}

INSTANTIATE_TEST_SUITE_P(All, VectorTest, ::testing::ValuesIn(Vectors()),
                         [](const auto& info) { return info.param.name; });

// The 68 bytes that a control page has, as hex words in memory order.
std::string ControlHex(const TestRing& ring) {
  const Bytes page = ring.ControlPage();
  return ToHex(absl::MakeSpan(page).subspan(0, 16)) + " " +
         ToHex(absl::MakeSpan(page).subspan(64, 4));
}

// vector:6.1 (after P1; after P1, P2, P3; consumer drained)
// bad:R32
TEST(RingStateTest, ControlWordsAfterThreePacketsAndAfterTheDrain) {
  TestRing ring(4096);
  RingProducer producer(ring.view());
  EXPECT_EQ(ControlHex(ring), "00000000000000000000000000000000 01000000");
  const std::vector<Vector> vectors = Vectors();
  ASSERT_EQ(WritePacket(&producer, vectors[0].packet), WriteResult::kOk);
  EXPECT_TRUE(producer.Publish());
  EXPECT_EQ(ControlHex(ring), "20000000000000000000000000000000 01000000");
  ASSERT_EQ(WritePacket(&producer, vectors[1].packet), WriteResult::kOk);
  ASSERT_EQ(WritePacket(&producer, vectors[2].packet), WriteResult::kOk);
  EXPECT_FALSE(producer.Publish());
  EXPECT_EQ(ControlHex(ring), "80000000000000000000000000000000 01000000");
  EXPECT_EQ(ToHex(ring.Read(0, 0x80)), ToHex(FromHex(vectors[0].image)) +
                                           ToHex(FromHex(vectors[1].image)) +
                                           ToHex(FromHex(vectors[2].image)));

  RingConsumer consumer(ring.view(), 4096);
  PacketView view;
  for (int i = 0; i < 3; ++i) ASSERT_EQ(consumer.Next(&view), ReadResult::kOk);
  EXPECT_EQ(consumer.Next(&view), ReadResult::kEmpty);
  EXPECT_FALSE(consumer.Release());
  EXPECT_EQ(ControlHex(ring), "80000000800000000000000000000000 01000000");
  // Nothing was written beside the five words.
  Bytes page = ring.ControlPage();
  for (size_t i = 0; i < 16; ++i) page[i] = std::byte{0};
  page[64] = std::byte{0};
  EXPECT_EQ(page, Bytes(4096));
}

// vector:6.1 (P8 at 0xfe8)
TEST(RingStateTest, ControlWordsAfterAWrap) {
  TestRing ring(4096);
  ring.SetIndices(0xfe8, 0xfe8);
  RingProducer producer(ring.view());
  ASSERT_EQ(WritePacket(&producer, Vectors()[5].packet), WriteResult::kOk);
  EXPECT_TRUE(producer.Publish());
  EXPECT_EQ(ControlHex(ring).substr(0, 16), "10000000e80f0000");
}

// vector:6.1 (full, payload 4064 at 0)
// quirk:D1 quirk:D2
TEST(RingStateTest, ConsumerAcceptsThePacketThatFillsTheRing) {
  TestRing ring(4096);
  const ModelPacket packet = {6, 0, 1, {}, Pattern(4064, 1)};
  testing::ModelWriter peer(&ring);
  ASSERT_TRUE(peer.Write(packet));
  EXPECT_EQ(ControlHex(ring).substr(0, 16), "f80f000000000000");
  RingConsumer consumer(ring.view(), 4096);
  PacketView view;
  ASSERT_EQ(consumer.Next(&view), ReadResult::kOk);
  EXPECT_EQ(CopyOf(view), packet);
}

class SizeTest : public ::testing::TestWithParam<uint32_t> {};

// quirk:D1 quirk:D2
TEST_P(SizeTest, ProducerStopsOneUnitShortOfAFullRing) {
  const uint32_t size = GetParam();
  TestRing ring(size);
  RingProducer producer(ring.view());
  const uint32_t limit =
      std::min<uint32_t>(size - 16 - 24, 0xffff * 8 - 16);  // payload bytes
  EXPECT_EQ(producer.Write({}, {}, Bytes(limit + 1)), WriteResult::kTooLarge);
  ASSERT_EQ(producer.Write({}, {}, Bytes(limit)), WriteResult::kOk);
  EXPECT_TRUE(producer.Publish());
  RingConsumer consumer(ring.view(), UINT32_MAX);
  PacketView view;
  ASSERT_EQ(consumer.Next(&view), ReadResult::kOk);
  EXPECT_EQ(view.payload.size(), limit);
}

// quirk:D1
TEST_P(SizeTest, ConsumerAcceptsTotalsUpToOneUnitBelowTheSize) {
  const uint32_t size = GetParam();
  TestRing ring(size);
  ring.SetIndices(size - 8, size - 8);
  const ModelPacket packet = {
      6, 0, 1, {}, Pattern(std::min(size - 8 - 24, 0xffffu * 8 - 16), 2)};
  ASSERT_TRUE(testing::ModelWriter(&ring).Write(packet));
  RingConsumer consumer(ring.view(), UINT32_MAX);
  PacketView view;
  ASSERT_EQ(consumer.Next(&view), ReadResult::kOk);
  EXPECT_EQ(CopyOf(view), packet);
}

// A packet that has all parts: ranges, payload, padding, trailer.
ModelPacket PacketOfAllParts() {
  return {9, 1, 0x0102030405060708,
          FromHex("0000000002000000 00020000000e0000 4523010000000000"
                  "0001000000000000 7707000000000000"),
          Pattern(21, 3)};
}

// bad:R12 bad:R32
TEST_P(SizeTest, ProducerWrapsAtEveryPhase) {
  const uint32_t size = GetParam();
  const ModelPacket packet = PacketOfAllParts();
  const uint32_t total = static_cast<uint32_t>(ModelImage(packet, 0).size());
  TestRing ring(size);
  for (uint32_t before_end = 0; before_end <= total; before_end += 8) {
    const uint32_t start = (size - before_end) % size;
    ring.Write(start - 64 + size, Bytes(total + 128, kStale));
    ring.SetIndices(start, start);
    RingProducer producer(ring.view());
    ASSERT_EQ(WritePacket(&producer, packet), WriteResult::kOk);
    EXPECT_TRUE(producer.Publish());
    EXPECT_EQ(ToHex(ring.Read(start, total)), ToHex(ModelImage(packet, start)));
    EXPECT_EQ(ring.Read(start - 64 + size, 64), Bytes(64, kStale)) << start;
    EXPECT_EQ(ring.Read(start + total, 64), Bytes(64, kStale)) << start;
    EXPECT_EQ(ring.word(kWriteIndexOffset), (start + total) % size);
  }
}

// bad:R12
TEST_P(SizeTest, ConsumerWrapsAtEveryPhase) {
  const uint32_t size = GetParam();
  ModelPacket packet = PacketOfAllParts();
  const uint32_t total = static_cast<uint32_t>(ModelImage(packet, 0).size());
  TestRing ring(size);
  for (uint32_t before_end = 0; before_end <= total; before_end += 8) {
    const uint32_t start = (size - before_end) % size;
    ring.SetIndices(start, start);
    ASSERT_TRUE(testing::ModelWriter(&ring).Write(packet));
    RingConsumer consumer(ring.view(), 4096);
    PacketView view;
    ASSERT_EQ(consumer.Next(&view), ReadResult::kOk);
    ModelPacket expected = packet;
    expected.payload = PaddedTo8(expected.payload);
    EXPECT_EQ(CopyOf(view), expected) << start;
    EXPECT_EQ(consumer.Next(&view), ReadResult::kEmpty);
    EXPECT_FALSE(consumer.Release());
    EXPECT_EQ(ring.word(kReadIndexOffset), (start + total) % size);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, SizeTest,
                         ::testing::Values(4096, 12288, 20480, 1 << 20));

// bad:R32 promise:P10
TEST(PaddingTest, EveryPayloadLengthIsPaddedWithZeros) {
  TestRing ring(4096);
  for (size_t bytes = 0; bytes <= 24; ++bytes) {
    ring.FillData(kStale);
    ring.SetIndices(0, 0);
    RingProducer producer(ring.view());
    const ModelPacket packet = {6, 0, 1, {}, Pattern(bytes, bytes)};
    ASSERT_EQ(WritePacket(&producer, packet), WriteResult::kOk);
    EXPECT_TRUE(producer.Publish());
    const Bytes image = ModelImage(packet, 0);
    EXPECT_EQ(ToHex(ring.Read(0, image.size())), ToHex(image));
  }
}

// A filled reservation is the same packet as a written copy.
TEST(ReservationTest, FilledInPlaceGivesTheSameBytes) {
  TestRing ring(4096);
  ring.FillData(kStale);
  ring.SetIndices(4096 - 40, 4096 - 40);
  RingProducer producer(ring.view());
  const ModelPacket packet = PacketOfAllParts();
  const Reservation room = producer.Reserve(
      {PacketType::kDataUsingGpaDirect, 1, packet.transaction_id},
      static_cast<uint32_t>(packet.extension.size()),
      static_cast<uint32_t>(packet.payload.size()));
  ASSERT_EQ(room.result, WriteResult::kOk);
  std::copy(packet.extension.begin(), packet.extension.end(), room.extension);
  std::copy(packet.payload.begin(), packet.payload.end(), room.payload);
  EXPECT_EQ(ring.word(kWriteIndexOffset), 4096u - 40);
  EXPECT_TRUE(producer.Publish());
  const Bytes image = ModelImage(packet, 4096 - 40);
  EXPECT_EQ(ToHex(ring.Read(4096 - 40, image.size())), ToHex(image));
}

TEST(ReservationTest, RefusesLengthsThatSixteenBitsCannotSay) {
  TestRing ring(1 << 20);
  RingProducer producer(ring.view());
  EXPECT_EQ(producer.Reserve({}, 0, 0xffff * 8 - 16).result, WriteResult::kOk);
  EXPECT_EQ(producer.Reserve({}, 0, 0xffff * 8 - 15).result,
            WriteResult::kTooLarge);
  EXPECT_EQ(producer.Reserve({}, UINT32_MAX - 7, UINT32_MAX).result,
            WriteResult::kTooLarge);
  // An extension is whole units.
  EXPECT_EQ(producer.Reserve({}, 12, 0).result, WriteResult::kTooLarge);
}

}  // namespace
}  // namespace ferrybus::ringbuffer
