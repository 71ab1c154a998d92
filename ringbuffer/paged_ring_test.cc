// SPDX-License-Identifier: MIT
//
// A ring over scattered pages: the same bytes as over a contiguous mapping, at
// every wrap and page boundary, and nothing touched beside the pages.

#include "ferrybus/ringbuffer/paged_ring.h"

#include <errno.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/testing/model_ring.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "gtest/gtest.h"

namespace ferrybus::ringbuffer {
namespace {

using testing::Bytes;
using testing::FromHex;
using testing::ModelImage;
using testing::ModelPacket;
using testing::ModelWriter;
using testing::PaddedTo8;
using testing::Pattern;
using testing::TestRing;
using testing::TestSeed;

constexpr std::byte kStale{0xa5};

PagedRing PagedRingOver(const TestRing& ring) {
  PagedRing paged;
  EXPECT_EQ(PagedRing::Create(ring.pages(), &paged), 0);
  return paged;
}

template <class Producer>
WriteResult WritePacket(Producer* producer, const ModelPacket& packet) {
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
  packet.payload.resize(view.payload.size());
  view.extension.CopyTo(absl::MakeSpan(packet.extension));
  view.payload.CopyTo(absl::MakeSpan(packet.payload));
  return packet;
}

// Ranges, payload, padding, trailer; with `pages`, several pages of payload.
ModelPacket PacketOfAllParts(uint32_t pages) {
  return {9, 1, 0x0102030405060708,
          FromHex("0000000002000000 00020000000e0000 4523010000000000"
                  "0001000000000000 7707000000000000"),
          Pattern(21 + pages * kPageBytes, 3)};
}

// Where a packet can start so that a page ends in it or just beside it: every
// 8-byte phase, at the ring's end and at each boundary before it.
std::vector<uint32_t> StartsAroundPageEnds(uint32_t data_bytes,
                                           uint32_t ring_bytes) {
  // In large rings one boundary is like the other.
  const uint32_t boundaries = std::min(data_bytes / kPageBytes, 6u);
  std::vector<uint32_t> starts;
  for (uint32_t page = 0; page < boundaries; ++page) {
    const uint32_t end = data_bytes - page * kPageBytes;
    for (uint32_t before = 0; before <= ring_bytes % kPageBytes + 8;
         before += 8) {
      starts.push_back((end - before + data_bytes) % data_bytes);
    }
  }
  return starts;
}

bool SameData(const TestRing& a, const TestRing& b) {
  return std::memcmp(a.view().data, b.view().data, a.data_bytes()) == 0;
}

class PagedTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  // Packets from small to the largest that the ring takes.
  std::vector<ModelPacket> Packets() const {
    std::vector<ModelPacket> packets = {PacketOfAllParts(0)};
    if (GetParam() > 3 * kPageBytes) packets.push_back(PacketOfAllParts(2));
    return packets;
  }
};

// bad:R12 bad:R32
TEST_P(PagedTest, ProducerWritesTheSameBytesAsOverAContiguousMapping) {
  TestRing contiguous(GetParam(), 1);
  TestRing scattered(GetParam(), 2);
  const PagedRing paged = PagedRingOver(scattered);
  for (const ModelPacket& packet : Packets()) {
    const auto total = static_cast<uint32_t>(ModelImage(packet, 0).size());
    contiguous.FillData(kStale);
    scattered.FillData(kStale);
    for (uint32_t start : StartsAroundPageEnds(GetParam(), total)) {
      contiguous.SetIndices(start, start);
      scattered.SetIndices(start, start);
      RingProducer producer(contiguous.view());
      PagedRingProducer paged_producer(paged.view(), paged.access());
      ASSERT_EQ(WritePacket(&producer, packet), WriteResult::kOk);
      ASSERT_EQ(WritePacket(&paged_producer, packet), WriteResult::kOk);
      EXPECT_TRUE(producer.Publish());
      EXPECT_TRUE(paged_producer.Publish());
      ASSERT_EQ(scattered.ControlPage(), contiguous.ControlPage());
      ASSERT_EQ(scattered.Read(start, total), ModelImage(packet, start));
      ASSERT_TRUE(SameData(scattered, contiguous)) << start;
    }
  }
}

// bad:R12
TEST_P(PagedTest, ConsumerReadsThemBackAtEveryPhase) {
  TestRing ring(GetParam());
  const PagedRing paged = PagedRingOver(ring);
  for (const ModelPacket& packet : Packets()) {
    const auto total = static_cast<uint32_t>(ModelImage(packet, 0).size());
    ModelPacket expected = packet;
    expected.payload = PaddedTo8(expected.payload);
    for (uint32_t start : StartsAroundPageEnds(GetParam(), total)) {
      ring.SetIndices(start, start);
      ASSERT_TRUE(ModelWriter(&ring).Write(packet));
      PagedRingConsumer consumer(paged.view(), UINT32_MAX, paged.access());
      PagedPacketView view;
      ASSERT_EQ(consumer.Next(&view), ReadResult::kOk);
      ASSERT_EQ(CopyOf(view), expected) << start;
      for (uint32_t at = 0; at < view.payload.size(); at += 1024) {
        uint64_t word;
        std::memcpy(&word, &expected.payload[at], sizeof(word));
        EXPECT_EQ(view.payload.Load64(at), word);
      }
      EXPECT_EQ(consumer.Next(&view), ReadResult::kEmpty);
      EXPECT_FALSE(consumer.Release());
      EXPECT_EQ(ring.word(kReadIndexOffset), (start + total) % GetParam());
    }
  }
}

// Both directions between a contiguous and a paged handle, random traffic.
TEST_P(PagedTest, SpeaksWithAContiguousPeer) {
  std::mt19937_64 random(TestSeed("//ringbuffer:paged_ring_test", "*Paged*"));
  TestRing ring(GetParam());
  const PagedRing paged = PagedRingOver(ring);
  RingProducer producer(ring.view());
  PagedRingProducer paged_producer(paged.view(), paged.access());
  RingConsumer consumer(ring.view(), UINT32_MAX);
  PagedRingConsumer paged_consumer(paged.view(), UINT32_MAX, paged.access());
  uint64_t sent_bytes = 0;
  for (int round = 0; sent_bytes < (1 << 20) + 4ull * GetParam(); ++round) {
    std::deque<ModelPacket> sent;
    const auto exchange = [&](auto* from, auto* to) {
      while (random() % 8 != 0) {
        ModelPacket packet = PacketOfAllParts(0);
        packet.payload = Pattern(random() % (GetParam() / 3), random());
        if (WritePacket(from, packet) != WriteResult::kOk) break;
        sent_bytes += ModelImage(packet, 0).size();
        packet.payload = PaddedTo8(packet.payload);
        sent.push_back(packet);
      }
      EXPECT_EQ(from->Publish(), !sent.empty());
      typename std::remove_pointer_t<decltype(to)>::PacketView view;
      while (to->Next(&view) == ReadResult::kOk) {
        ASSERT_FALSE(sent.empty());
        ASSERT_EQ(CopyOf(view), sent.front());
        sent.pop_front();
      }
      EXPECT_TRUE(sent.empty());
      EXPECT_FALSE(to->Release());
      ASSERT_EQ(from->fault(), RingFault::kNone);
      ASSERT_EQ(to->fault(), RingFault::kNone);
    };
    // A ring has one producer and one consumer at a time: hand over.
    if (round % 2 == 0) {
      paged_producer = PagedRingProducer(paged.view(), paged.access());
      consumer = RingConsumer(ring.view(), UINT32_MAX);
      exchange(&paged_producer, &consumer);
    } else {
      producer = RingProducer(ring.view());
      paged_consumer =
          PagedRingConsumer(paged.view(), UINT32_MAX, paged.access());
      exchange(&producer, &paged_consumer);
    }
    ASSERT_FALSE(HasFailure());
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, PagedTest,
                         ::testing::Values(4096, 12288, 20480, 1 << 20));

// Counts what is done with each byte of the pages, and allows no other bytes.
struct Touches {
  explicit Touches(const TestRing& ring) : pages(ring.pages()) {}

  void Add(std::map<const std::byte*, int>* counts, const std::byte* at,
           size_t bytes) {
    const bool in_a_page =
        std::any_of(pages.begin() + 1, pages.end(), [&](const std::byte* page) {
          return at >= page && at + bytes <= page + kPageBytes;
        });
    EXPECT_TRUE(in_a_page);
    for (size_t i = 0; i < bytes; ++i) ++(*counts)[at + i];
  }
  static int Most(const std::map<const std::byte*, int>& counts) {
    int most = 0;
    for (const auto& [at, count] : counts) most = std::max(most, count);
    return most;
  }

  const std::vector<std::byte*> pages;
  std::map<const std::byte*, int> fetched;
  std::map<const std::byte*, int> stored;
};

class TouchingAccess : public ProductionAccess {
 public:
  TouchingAccess() = default;
  explicit TouchingAccess(Touches* touches) : touches_(touches) {}
  void CopyFrom(void* to, const std::byte* shared, size_t bytes) const {
    touches_->Add(&touches_->fetched, shared, bytes);
    ProductionAccess::CopyFrom(to, shared, bytes);
  }
  void CopyTo(std::byte* shared, const void* from, size_t bytes) const {
    touches_->Add(&touches_->stored, shared, bytes);
    ProductionAccess::CopyTo(shared, from, bytes);
  }

 private:
  Touches* touches_ = nullptr;
};

// bad:R19
TEST(PagedAccessTest, FetchesEachByteOfAPacketOnceAndTouchesNoOther) {
  const ModelPacket packet = PacketOfAllParts(1);
  const auto total = static_cast<uint32_t>(ModelImage(packet, 0).size());
  TestRing ring(12288);
  const PagedRing paged = PagedRingOver(ring);
  const std::vector<std::byte*> pages = ring.pages();
  using Access = BasicPagedAccess<TouchingAccess>;
  for (uint32_t start : StartsAroundPageEnds(12288, total)) {
    ring.SetIndices(start, start);
    Touches touches(ring);
    const Access access(paged.view(), pages.data() + 1,
                        TouchingAccess(&touches));
    BasicRingProducer<Access> producer(paged.view(), access);
    ASSERT_EQ(WritePacket(&producer, packet), WriteResult::kOk);
    EXPECT_TRUE(producer.Publish());
    EXPECT_EQ(touches.stored.size(), total);
    EXPECT_TRUE(touches.fetched.empty());
    touches.stored.clear();

    BasicRingConsumer<Access> consumer(paged.view(), UINT32_MAX, access);
    BasicPacketView<Access> view;
    ASSERT_EQ(consumer.Next(&view), ReadResult::kOk);
    EXPECT_EQ(CopyOf(view).extension, packet.extension);
    // All but the trailer, which nobody reads.
    EXPECT_EQ(touches.fetched.size(), total - kTrailerBytes);
    EXPECT_EQ(Touches::Most(touches.fetched), 1);
    EXPECT_TRUE(touches.stored.empty());
    EXPECT_FALSE(consumer.Release());
  }
}

TEST(PagedRingTest, RefusesPagesThatCannotBeARing) {
  TestRing ring(8192);
  PagedRing paged = PagedRingOver(ring);
  const std::byte* const before = paged.view().data;
  const std::vector<std::byte*> good = ring.pages();
  EXPECT_EQ(PagedRing::Create({}, &paged), EINVAL);
  EXPECT_EQ(PagedRing::Create({good[0]}, &paged), EINVAL);
  EXPECT_EQ(PagedRing::Create({good[0], nullptr}, &paged), EINVAL);
  EXPECT_EQ(PagedRing::Create({nullptr, good[1]}, &paged), EINVAL);
  EXPECT_EQ(PagedRing::Create({good[0], good[1] + 8}, &paged), EINVAL);
  EXPECT_EQ(PagedRing::Create({good[0] + 8, good[1]}, &paged), EINVAL);
  const std::vector<std::byte*> too_many((1 << 18) + 2, good[0]);
  EXPECT_EQ(PagedRing::Create(too_many, &paged), EINVAL);
  // The ring that was there is still there.
  EXPECT_EQ(paged.view().data, before);
  RingProducer producer(ring.view());
  ASSERT_EQ(producer.Write({}, {}, Pattern(8, 1)), WriteResult::kOk);
  (void)producer.Publish();
  PagedRingConsumer consumer(paged.view(), 4096, paged.access());
  PagedPacketView view;
  EXPECT_EQ(consumer.Next(&view), ReadResult::kOk);
}

TEST(PagedRingTest, HandlesStayGoodWhenTheRingObjectMoves) {
  TestRing ring(8192);
  PagedRing first = PagedRingOver(ring);
  PagedRingProducer producer(first.view(), first.access());
  PagedRing second = std::move(first);
  PagedRing third;
  third = std::move(second);
  EXPECT_EQ(first.view().data, nullptr);
  EXPECT_EQ(second.view().data, nullptr);
  const ModelPacket packet = {6, 0, 1, {}, Pattern(8, 1)};
  ASSERT_EQ(WritePacket(&producer, packet), WriteResult::kOk);
  EXPECT_TRUE(producer.Publish());
  PagedRingConsumer consumer(third.view(), 4096, third.access());
  PagedPacketView view;
  ASSERT_EQ(consumer.Next(&view), ReadResult::kOk);
  EXPECT_EQ(CopyOf(view), packet);
}

TEST(PagedRingDeathTest, AnAddressThatGoesAroundTheAccessPolicyCrashes) {
  TestRing ring(4096);
  const PagedRing paged = PagedRingOver(ring);
  volatile std::byte* const data = paged.view().data;
  EXPECT_DEATH(data[0] = std::byte{1}, "");
  EXPECT_DEATH(data[2 * 4096 - 1] = std::byte{1}, "");
}

}  // namespace
}  // namespace ferrybus::ringbuffer
