// SPDX-License-Identifier: MIT
//
// A peer that breaks the protocol: impossible indices, malformed packets,
// wrong geometry.  The rows where memory changes under the code are in
// ring_storm_test.cc.

#include <errno.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/ringbuffer/packet_ranges.h"
#include "ferrybus/ringbuffer/paged_ring.h"
#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_mapping.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/testing/counting_access.h"
#include "ferrybus/ringbuffer/testing/model_ring.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "gtest/gtest.h"

namespace ferrybus::ringbuffer {
namespace {

using testing::Bytes;
using testing::CountingAccess;
using testing::FetchRecorder;
using testing::FromHex;
using testing::ModelPacket;
using testing::ModelWriter;
using testing::RingRole;
using testing::TestRing;

constexpr uint32_t kSize = 4096;

struct Malformed {
  const char* name;
  const char* descriptor;  // its first 8 bytes
  uint32_t used;
  RingFault fault;
};

class MalformedTest : public ::testing::TestWithParam<Malformed> {};

// `attach` makes a consumer of `ring`.
template <class Attach>
void ExpectStopsForGood(const Malformed& row, TestRing* ring, Attach attach) {
  ring->Write(0, FromHex(row.descriptor));
  ring->SetIndices(row.used, 0);
  auto consumer = attach();
  typename decltype(consumer)::PacketView packet;
  EXPECT_EQ(consumer.Next(&packet), ReadResult::kCorrupt);
  EXPECT_EQ(consumer.fault(), row.fault) << RingFaultName(consumer.fault());

  // The peer repairs it; it is not believed again.
  ring->Write(0, FromHex("0600 0200 0200 0000"));
  ring->SetIndices(24, 0);
  EXPECT_EQ(consumer.Next(&packet), ReadResult::kCorrupt);
  consumer.Rollback();
  EXPECT_EQ(consumer.Next(&packet), ReadResult::kCorrupt);
  EXPECT_FALSE(consumer.Release());
  EXPECT_EQ(consumer.fault(), row.fault);
  EXPECT_EQ(ring->word(kReadIndexOffset), 0u);
  // A new handle, as after close and open, starts afresh.
  EXPECT_EQ(attach().Next(&packet), ReadResult::kOk);
}

// vector:X1 vector:X2 vector:X3 vector:X4 vector:X5 vector:X6 vector:X7
// vector:X8
// bad:R5 bad:R6 bad:R7 bad:R8 bad:R9 bad:R10 bad:R11 bad:R13 bad:R14
// quirk:D8 quirk:D9 quirk:D10
TEST_P(MalformedTest, StopsTheRingForGoodAndDoesNotAdvance) {
  TestRing ring(kSize);
  ExpectStopsForGood(GetParam(), &ring,
                     [&] { return RingConsumer(ring.view(), 2048); });
}

TEST_P(MalformedTest, StopsARingOfScatteredPagesAsWell) {
  TestRing ring(kSize);
  PagedRing paged;
  ASSERT_EQ(PagedRing::Create(ring.pages(), &paged), 0);
  ExpectStopsForGood(GetParam(), &ring, [&] {
    return PagedRingConsumer(paged.view(), 2048, paged.access());
  });
}

INSTANTIATE_TEST_SUITE_P(
    Rows, MalformedTest,
    ::testing::Values(
        Malformed{"X1", "0600 0200 0000 0000", 64, RingFault::kPacketLength},
        Malformed{"X2", "0600 0100 0400 0000", 64, RingFault::kHeaderLength},
        Malformed{"X3", "0600 0500 0400 0000", 64, RingFault::kPacketLength},
        Malformed{"X4", "0600 0200 ffff 0000", 64, RingFault::kTruncatedPacket},
        Malformed{"X5", "0600 0200 0800 0000", 64, RingFault::kTruncatedPacket},
        Malformed{"X6", "0600 0200 0400 0200", 64, RingFault::kPacketFlags},
        Malformed{"X7", "0800 0200 0400 0000", 64, RingFault::kPacketType},
        Malformed{"X8", "0900 0200 0400 0100", 64, RingFault::kHeaderLength},
        Malformed{"Used8", "ffff ffff ffff ffff", 8,
                  RingFault::kTruncatedPacket},
        Malformed{"Used16", "0600 0200 0200 0000", 16,
                  RingFault::kTruncatedPacket},
        Malformed{"Offset0", "0600 0000 0400 0000", 64,
                  RingFault::kHeaderLength},
        Malformed{"OffsetMax", "0600 ffff ffff 0000", 64,
                  RingFault::kTruncatedPacket},
        Malformed{"TransferPagesWithoutHeader", "0700 0200 0400 0100", 64,
                  RingFault::kHeaderLength},
        Malformed{"CancelRequest", "0a00 0200 0400 0000", 64,
                  RingFault::kPacketType},
        Malformed{"HighFlag", "0600 0200 0400 0180", 64,
                  RingFault::kPacketFlags},
        Malformed{"OneUnitAboveTheMaximum", "0600 0200 0101 0000", 4088,
                  RingFault::kPacketTooLong}),
    [](const auto& info) { return info.param.name; });

// bad:R10
TEST(ConsumerHostileTest, AnEmptyPayloadIsLegal) {
  for (const char* descriptor :
       {"0600 0200 0200 0000", "0b00 0200 0200 0000", "0900 0400 0400 0100"}) {
    TestRing ring(kSize);
    ring.Write(0, FromHex(descriptor));
    ring.SetIndices(40, 0);
    RingConsumer consumer(ring.view(), 2048);
    PacketView packet;
    ASSERT_EQ(consumer.Next(&packet), ReadResult::kOk);
    EXPECT_EQ(packet.payload.size(), 0u);
    EXPECT_EQ(packet.payload.CopyTo({}), 0u);
  }
}

// bad:R13
// quirk:D30
TEST(ConsumerHostileTest, FourTypesAndTwoFlagValuesAreAllThereIs) {
  TestRing ring(kSize);
  for (uint32_t value = 0; value <= 0xffff; ++value) {
    const Bytes number = {static_cast<std::byte>(value & 0xff),
                          static_cast<std::byte>(value >> 8)};
    PacketView packet;
    ring.Write(0, FromHex("0600 0300 0400 0000"));
    ring.SetIndices(64, 0);
    ring.Write(0, number);
    RingConsumer typed(ring.view(), 2048);
    const bool known = value == 6 || value == 7 || value == 9 || value == 11;
    ASSERT_EQ(typed.Next(&packet) == ReadResult::kOk, known) << value;
    ring.Write(0, FromHex("0600 0300 0400"));
    ring.Write(6, number);
    RingConsumer flagged(ring.view(), 2048);
    ASSERT_EQ(flagged.Next(&packet) == ReadResult::kOk, value <= 1) << value;
  }
}

// bad:R11
TEST(ConsumerHostileTest, ThePacketMaximumIsInclusive) {
  for (uint32_t max : {32u, 31u}) {
    TestRing ring(kSize);
    ring.Write(0, FromHex("0600 0200 0400 0000"));
    ring.SetIndices(64, 0);
    RingConsumer consumer(ring.view(), max);
    PacketView packet;
    EXPECT_EQ(consumer.Next(&packet) == ReadResult::kOk, max == 32);
  }
}

// vector:X9 vector:X10
// bad:R15
TEST(ConsumerHostileTest, ARangeListIsCheckedOnItsCopy) {
  struct Row {
    const char* packet;
    RangeResult result;
  };
  for (const Row& row :
       {Row{"0900030004000100 0100000000000000 0000000000000000",
            RangeResult::kNoRanges},
        Row{"0700040006000100 0100000000000000 feca000002000000"
            "6e00000000100000",
            RangeResult::kTooManyRanges}}) {
    TestRing ring(kSize);
    ring.Write(0, FromHex(row.packet));
    ring.SetIndices(64, 0);
    RingConsumer consumer(ring.view(), 2048);
    PacketView packet;
    ASSERT_EQ(consumer.Next(&packet), ReadResult::kOk);
    Bytes copy(packet.extension.size());
    packet.extension.CopyTo(absl::MakeSpan(copy));
    EXPECT_EQ(CheckRangeList(packet.type, copy), row.result);
  }
}

// bad:R25
// quirk:D4 quirk:D3
TEST(ConsumerHostileTest, TrailerAndPaddingAreNotLookedAt) {
  TestRing ring(kSize);
  FetchRecorder recorder(ring.view(), RingRole::kConsumer);
  ModelWriter peer(&ring);
  ASSERT_TRUE(peer.Write({6, 0, 1, {}, Bytes(5)}));
  ASSERT_TRUE(peer.Write({6, 0, 2, {}, Bytes(5)}));
  ring.Write(16 + 5, FromHex("ffffff ffffffff ffffffff"));
  BasicRingConsumer<CountingAccess> consumer(ring.view(), 2048, {&recorder});
  BasicPacketView<CountingAccess> packet;
  ASSERT_EQ(consumer.Next(&packet), ReadResult::kOk);
  EXPECT_EQ(recorder.bytes_fetched(), 16u);
  recorder.BeginOperation();
  ASSERT_EQ(consumer.Next(&packet), ReadResult::kOk);
  EXPECT_EQ(packet.transaction_id, 2u);
  EXPECT_EQ(recorder.violation(), "");
}

struct BadIndex {
  uint32_t value;
  RingFault fault;
};

const BadIndex kBadIndices[] = {
    {0x1000, RingFault::kIndexRange},     {0x1004, RingFault::kIndexRange},
    {0x13, RingFault::kIndexAlignment},   {0xfff, RingFault::kIndexAlignment},
    {0xffc, RingFault::kIndexAlignment},  {~0u, RingFault::kIndexRange},
    {0x80000000, RingFault::kIndexRange}, {0xfffffff8, RingFault::kIndexRange}};

// bad:R1 bad:R2
// vector:X11
TEST(IndexTest, ConsumerRefusesImpossibleWriteIndices) {
  for (const BadIndex& bad : kBadIndices) {
    TestRing ring(kSize);
    RingConsumer live(ring.view(), 2048);
    ring.set_word(kWriteIndexOffset, bad.value);
    PacketView packet;
    EXPECT_EQ(live.Next(&packet), ReadResult::kCorrupt);
    EXPECT_EQ(live.fault(), bad.fault) << bad.value;
    const RingConsumer attached(ring.view(), 2048);
    EXPECT_EQ(attached.fault(), bad.fault) << bad.value;
    ring.SetIndices(0, bad.value);
    EXPECT_EQ(RingConsumer(ring.view(), 2048).fault(), bad.fault) << bad.value;
  }
}

// bad:R1 bad:R2
TEST(IndexTest, ProducerRefusesImpossibleReadIndices) {
  for (const BadIndex& bad : kBadIndices) {
    TestRing ring(kSize);
    RingProducer live(ring.view());
    ring.set_word(kReadIndexOffset, bad.value);
    // The packet is out; only the decision about the signal met the fault.
    EXPECT_EQ(live.Write({}, {}, Bytes(8)), WriteResult::kOk);
    EXPECT_FALSE(live.Publish());
    EXPECT_EQ(ring.word(kWriteIndexOffset), 32u);
    EXPECT_EQ(live.fault(), bad.fault) << bad.value;
    EXPECT_EQ(live.Write({}, {}, Bytes(8)), WriteResult::kCorrupt);
    EXPECT_FALSE(live.Publish());
    EXPECT_FALSE(live.has_unpublished());
    RingProducer attached(ring.view());
    EXPECT_EQ(attached.fault(), bad.fault) << bad.value;
    EXPECT_EQ(attached.Write({}, {}, Bytes(8)), WriteResult::kCorrupt);
    ring.SetIndices(bad.value, 0);
    EXPECT_EQ(RingProducer(ring.view()).fault(), bad.fault) << bad.value;
  }
}

// bad:R3
TEST(IndexTest, ConsumerKeepsItsOwnIndexPrivately) {
  TestRing ring(kSize);
  ModelWriter peer(&ring);
  RingConsumer consumer(ring.view(), 2048);
  PacketView packet;
  for (uint32_t scribble : {~0u, 0x13u, 2048u, 0u}) {
    ring.set_word(kReadIndexOffset, consumer.position().own_index);
    ASSERT_TRUE(peer.Write({6, 0, scribble, {}, Bytes(8)}));
    ring.set_word(kReadIndexOffset, scribble);
    ASSERT_EQ(consumer.Next(&packet), ReadResult::kOk);
    EXPECT_EQ(packet.transaction_id, scribble);
    EXPECT_FALSE(consumer.Release());
    EXPECT_EQ(ring.word(kReadIndexOffset), ring.word(kWriteIndexOffset));
  }
}

// bad:R3
TEST(IndexTest, ProducerKeepsItsOwnIndexPrivately) {
  TestRing ring(kSize);
  RingProducer producer(ring.view());
  for (uint32_t i = 1; i <= 4; ++i) {
    ring.set_word(kWriteIndexOffset, 0xdeadbeef);
    ASSERT_EQ(producer.Write({}, {}, Bytes(8)), WriteResult::kOk);
    (void)producer.Publish();
    EXPECT_EQ(ring.word(kWriteIndexOffset), 32 * i);
  }
}

// bad:R4
TEST(IndexTest, AWriteIndexThatMovesBackIsAFault) {
  for (uint32_t back : {56u, 64u, 32u, 40u}) {
    TestRing ring(kSize);
    ring.SetIndices(32, 32);
    ModelWriter peer(&ring);
    ASSERT_TRUE(peer.Write({6, 0, 1, {}, Bytes(8)}));
    ASSERT_TRUE(peer.Write({6, 0, 2, {}, Bytes(8)}));
    RingConsumer consumer(ring.view(), 2048);
    PacketView packet;
    ASSERT_EQ(consumer.Next(&packet), ReadResult::kOk);
    ASSERT_EQ(consumer.Next(&packet), ReadResult::kOk);
    ring.set_word(kWriteIndexOffset, back);
    EXPECT_EQ(consumer.Next(&packet), ReadResult::kCorrupt);
    EXPECT_EQ(consumer.fault(), RingFault::kIndexBackwards);
  }
}

// bad:R4
TEST(IndexTest, AReadIndexOutsideWhatWasPublishedIsAFault) {
  for (uint32_t read : {0u, 24u, 104u, 2048u}) {
    TestRing ring(kSize);
    ring.SetIndices(32, 32);
    RingProducer producer(ring.view());
    ASSERT_EQ(producer.Write({}, {}, Bytes(40)), WriteResult::kOk);
    EXPECT_TRUE(producer.Publish());
    ASSERT_EQ(producer.Write({}, {}, Bytes(40)), WriteResult::kOk);
    ring.set_word(kReadIndexOffset, read);  // 32 to 96 are possible
    EXPECT_TRUE(producer.ArmPendingSend(4095));
    EXPECT_EQ(producer.fault(), RingFault::kIndexBackwards) << read;
  }
}

// The other side of the two tests above: what an honest peer does between two
// looks, however late they are, is never taken for a fault.
TEST(IndexTest, EveryStepAnHonestPeerCanTakeIsAccepted) {
  for (uint32_t start = 0; start < kSize; start += 248) {
    for (uint32_t ahead = 0; ahead <= 4080; ahead += 24) {
      TestRing ring(kSize);
      ring.SetIndices(start, start);
      RingProducer producer(ring.view());
      RingConsumer consumer(ring.view(), kSize);
      for (uint32_t bytes = 0; bytes < ahead; bytes += 24) {
        ASSERT_EQ(producer.Write({}, {}, {}), WriteResult::kOk);
      }
      (void)producer.Publish();
      PacketView packet;
      while (consumer.Next(&packet) == ReadResult::kOk) continue;
      (void)consumer.Release();
      EXPECT_EQ(consumer.position().own_index, (start + ahead) % kSize);
      EXPECT_TRUE(producer.ArmPendingSend(4000));
      ASSERT_EQ(producer.fault(), RingFault::kNone);
      ASSERT_EQ(consumer.fault(), RingFault::kNone);
    }
  }
}

// bad:R24
TEST(GeometryTest, HandlesRefuseSizesThatAreNotWholePages) {
  TestRing ring(kSize);
  for (uint32_t bytes : {0u, 8u, 4088u, 4095u, 4104u, 6144u, (1u << 30) + 4096u,
                         0xfffff000u, 0xffffffffu}) {
    RingView view = ring.view();
    view.data_bytes = bytes;
    RingProducer producer(view);
    EXPECT_EQ(producer.fault(), RingFault::kDataSize) << bytes;
    EXPECT_EQ(producer.Write({}, {}, {}), WriteResult::kCorrupt);
    EXPECT_FALSE(producer.Publish());
    RingConsumer consumer(view, 2048);
    EXPECT_EQ(consumer.fault(), RingFault::kDataSize) << bytes;
    PacketView packet;
    EXPECT_EQ(consumer.Next(&packet), ReadResult::kCorrupt);
    EXPECT_FALSE(consumer.Release());
  }
}

// bad:R24
TEST(GeometryTest, MappingRefusesRingsWithoutDataAndBadPages) {
  TestRing ring(8192);
  RingMapping mapping = ring.MapAgain();
  const std::byte* const before = mapping.view().data;
  EXPECT_EQ(RingMapping::Map(ring.fd(), {}, &mapping), EINVAL);
  EXPECT_EQ(RingMapping::Map(ring.fd(), {0}, &mapping), EINVAL);
  EXPECT_EQ(RingMapping::Map(ring.fd(), {0, 4097}, &mapping), EINVAL);
  EXPECT_EQ(RingMapping::Map(-1, {0, 4096}, &mapping), EBADF);
  const std::vector<uint64_t> too_many((1 << 18) + 2, 0);
  EXPECT_EQ(RingMapping::Map(ring.fd(), too_many, &mapping), EINVAL);
  // The mapping that was there is still there.
  EXPECT_EQ(mapping.view().data, before);
  ring.Write(5, {std::byte{42}});
  EXPECT_EQ(mapping.view().data[5], std::byte{42});
}

TEST(GeometryTest, TheDataAreaFollowsItself) {
  TestRing ring(12288, 7);
  const Bytes pattern = testing::Pattern(12288, 1);
  ring.Write(0, pattern);
  const RingView& view = ring.view();
  EXPECT_EQ(Bytes(view.data, view.data + 12288), pattern);
  EXPECT_EQ(Bytes(view.data + 12288, view.data + 24576), pattern);
  view.data[12288 + 4097] = std::byte{1};
  EXPECT_EQ(ring.At(4097), std::byte{1});
  RingMapping moved = ring.MapAgain();
  RingMapping target;
  target = std::move(moved);
  EXPECT_EQ(target.view().data[4097], std::byte{1});
  EXPECT_EQ(moved.view().data, nullptr);
}

// Handles live in channels, and channels in containers that move them.
TEST(LifetimeTest, APacketOutlivesTheConsumerObjectThatGaveIt) {
  TestRing ring(kSize);
  ModelWriter peer(&ring);
  ASSERT_TRUE(peer.Write({6, 0, 1, {}, testing::Pattern(8, 1)}));
  FetchRecorder recorder(ring.view(), RingRole::kConsumer);
  using Consumer = BasicRingConsumer<CountingAccess>;
  auto first = std::make_unique<Consumer>(ring.view(), 2048, &recorder);
  BasicPacketView<CountingAccess> packet;
  ASSERT_EQ(first->Next(&packet), ReadResult::kOk);
  Consumer second = std::move(*first);
  first.reset();
  Bytes copy(8);
  EXPECT_EQ(packet.payload.CopyTo(absl::MakeSpan(copy)), 8u);
  EXPECT_EQ(copy, testing::Pattern(8, 1));
  EXPECT_FALSE(second.Release());
  EXPECT_EQ(ring.word(kReadIndexOffset), 32u);
}

TEST(FaultNameTest, EveryFaultHasItsOwnName) {
  std::vector<std::string> names;
  for (int i = 0; i <= static_cast<int>(RingFault::kPacketTooLong); ++i) {
    const std::string name = RingFaultName(static_cast<RingFault>(i));
    EXPECT_NE(name, "unknown");
    EXPECT_EQ(std::count(names.begin(), names.end(), name), 0);
    names.push_back(name);
  }
}

}  // namespace
}  // namespace ferrybus::ringbuffer
