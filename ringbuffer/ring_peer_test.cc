// SPDX-License-Identifier: MIT
//
// Peers as they are: how each of them asks for room, signals and masks.  Each
// style runs long random traffic against ours; nobody may sleep while there is
// something to do for him, and nobody is signalled beyond the rules.  Then
// handles that attach in the middle of all that.

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <tuple>
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
using testing::ModelImage;
using testing::ModelPacket;
using testing::ModelReader;
using testing::ModelResult;
using testing::ModelWriter;
using testing::Pattern;
using testing::TestRing;
using testing::TestSeed;

constexpr int kSteps = 1000;

uint32_t TotalBytes(const ModelPacket& packet) {
  return static_cast<uint32_t>(ModelImage(packet, 0).size());
}

// Bytes not used, from the shared words alone.
uint32_t FreeBytesOf(const TestRing& ring) {
  const uint32_t size = ring.data_bytes();
  const uint32_t used =
      (ring.word(kWriteIndexOffset) + size - ring.word(kReadIndexOffset)) %
      size;
  return size - used;
}

bool IsEmpty(const TestRing& ring) {
  return ring.word(kWriteIndexOffset) == ring.word(kReadIndexOffset);
}

// The rule that all of them mean.
bool Crosses(uint32_t free_before, uint32_t free_after, uint32_t pending) {
  return pending != 0 && free_before <= pending && free_after > pending;
}

class PeerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    random_.seed(TestSeed("//ringbuffer:ring_peer_test", "*PeerTest*"));
  }

  std::unique_ptr<TestRing> Ring(uint32_t size) {
    auto ring = std::make_unique<TestRing>(size);
    const uint32_t start = static_cast<uint32_t>(random_() % (size / 8)) * 8;
    ring->SetIndices(start, start);
    return ring;
  }

  ModelPacket RandomPacket() {
    return {6, 0, random_(), {}, Pattern(random_() % 1000, random_())};
  }

  std::mt19937_64 random_;
};

// How a producer that found the ring full asks for room.
struct Asking {
  const char* name;
  // What it stores; 0: it never asks, and tries again by itself.
  uint32_t (*pending)(uint32_t total, uint32_t size);
  // Takes the word back once its packet is out.
  bool clears;
};

const Asking kAskings[] = {
    {"Linux", [](uint32_t total, uint32_t) { return total; }, true},
    {"LinuxThatLeavesIt", [](uint32_t total, uint32_t) { return total; },
     false},
    {"LinuxSocket", [](uint32_t, uint32_t) { return 4088u; }, false},
    {"Dpdk", [](uint32_t, uint32_t) { return 0u; }, false},
    {"Microsoft",  // all that it has not written yet
     [](uint32_t total, uint32_t size) {
       return std::min(4 * total, size - 1);
     },
     true},
    {"MicrosoftWholeRing", [](uint32_t, uint32_t size) { return size - 1; },
     true},
    {"OpenVmm",
     [](uint32_t total, uint32_t size) {
       return (std::max(total, (size - 8) / 4) + 7) & ~7u;
     },
     true},
};

class AskingPeerTest
    : public PeerTest,
      public ::testing::WithParamInterface<std::tuple<Asking, uint32_t>> {};

// bad:R22 quirk:D6 quirk:D7
TEST_P(AskingPeerTest, IsWokenOnceAndOnlyWhenItsPacketFits) {
  const auto [asking, size] = GetParam();
  const std::unique_ptr<TestRing> ring = Ring(size);
  ModelWriter peer(ring.get());
  RingConsumer consumer(ring->view(), UINT32_MAX);
  ModelPacket refused;
  bool asleep = false;
  int wake_ups = 0;
  int full = 0;
  for (int step = 0; step < kSteps; ++step) {
    while (!asleep && random_() % 16 != 0) {
      refused = RandomPacket();
      if (peer.Write(refused)) {
        if (asking.clears) ring->set_word(kPendingSendSizeOffset, 0);
        continue;
      }
      ++full;
      const uint32_t pending = asking.pending(TotalBytes(refused), size);
      ring->set_word(kPendingSendSizeOffset, pending);
      // It looks again, and sleeps only if there is still no room.
      asleep = pending != 0 && FreeBytesOf(*ring) <= pending;
      break;
    }
    const uint32_t pending = ring->word(kPendingSendSizeOffset);
    const uint32_t free_before = FreeBytesOf(*ring);
    PacketView packet;
    const uint64_t most = asleep ? 16 : 4;
    for (uint64_t n = random_() % most; n > 0; --n) {
      (void)consumer.Next(&packet);
    }
    const bool signal = consumer.Release();
    ASSERT_EQ(signal, Crosses(free_before, FreeBytesOf(*ring), pending));
    if (asleep && signal) {
      ++wake_ups;
      asleep = false;
      ASSERT_TRUE(peer.Write(refused)) << "woken too early";
      if (asking.clears) ring->set_word(kPendingSendSizeOffset, 0);
    }
    ASSERT_FALSE(asleep && IsEmpty(*ring)) << "a lost wake-up";
  }
  EXPECT_EQ(consumer.fault(), RingFault::kNone);
  EXPECT_GT(full, 0);
  EXPECT_EQ(wake_ups > 0, asking.pending(100, size) != 0);
}

INSTANTIATE_TEST_SUITE_P(Styles, AskingPeerTest,
                         ::testing::Combine(::testing::ValuesIn(kAskings),
                                            ::testing::Values(4096, 12288,
                                                              20480, 1 << 20)),
                         [](const auto& info) {
                           return std::get<0>(info.param).name +
                                  std::to_string(std::get<1>(info.param));
                         });

// How a consumer decides whether it signals a producer that waits, each in
// its own words.
struct Answering {
  const char* name;
  bool (*signals)(uint32_t free_before, uint32_t free_after, uint32_t pending,
                  uint32_t feature_bits);
};

const Answering kAnswerings[] = {
    {"LinuxAndDpdk",
     [](uint32_t before, uint32_t after, uint32_t pending, uint32_t bits) {
       if ((bits & 1) == 0 || pending == 0) return false;
       return after > pending && !(before > pending);
     }},
    {"Microsoft",  // its free space is one byte less
     [](uint32_t before, uint32_t after, uint32_t pending, uint32_t) {
       return pending != 0 && before - 1 < pending && after - 1 >= pending;
     }},
    {"OpenVmm",  // its free space is one unit less, and units are whole
     [](uint32_t before, uint32_t after, uint32_t pending, uint32_t) {
       const uint32_t units = pending & ~7u;
       return pending != 0 && before - 8 < units && after - 8 >= units;
     }},
};

class AnsweringPeerTest
    : public PeerTest,
      public ::testing::WithParamInterface<std::tuple<Answering, uint32_t>> {};

// quirk:D1 quirk:D5
TEST_P(AnsweringPeerTest, WakesOurProducerOnceAndOnlyWhenThereIsRoom) {
  const auto [answering, size] = GetParam();
  const std::unique_ptr<TestRing> ring = Ring(size);
  RingProducer producer(ring->view());
  ModelReader peer(ring.get());
  uint64_t wanted = 0;
  bool asleep = false;
  int wake_ups = 0;
  for (int step = 0; step < kSteps; ++step) {
    while (!asleep) {
      const ModelPacket packet = RandomPacket();
      const WriteResult result = producer.Write({}, {}, packet.payload);
      if (result == WriteResult::kOk) continue;
      ASSERT_EQ(result, WriteResult::kFull);
      (void)producer.Publish();
      // What is waited for may be more than a packet, or the whole ring.
      wanted = TotalBytes(packet) * (1 + random_() % 4);
      if (random_() % 16 == 0) wanted = 2 * uint64_t{size};
      asleep = !producer.ArmPendingSend(wanted);
    }
    const uint32_t pending = ring->word(kPendingSendSizeOffset);
    const uint32_t free_before = FreeBytesOf(*ring);
    ModelPacket packet;
    for (uint64_t n = 1 + random_() % 8; n > 0; --n) (void)peer.Next(&packet);
    const bool signal =
        answering.signals(free_before, FreeBytesOf(*ring), pending,
                          ring->word(kFeatureBitsOffset));
    ASSERT_EQ(signal, Crosses(free_before, FreeBytesOf(*ring), pending));
    if (signal) {
      ++wake_ups;
      asleep = false;
      const uint64_t total = std::min<uint64_t>(wanted, size - 16);
      ASSERT_EQ(producer.Write({}, {}, Bytes(total - kMinPacketBytes)),
                total > 0xffff * 8 ? WriteResult::kTooLarge : WriteResult::kOk);
      (void)producer.Publish();
      ASSERT_EQ(ring->word(kPendingSendSizeOffset),
                total > 0xffff * 8 ? pending : 0);
    }
    ASSERT_FALSE(asleep && IsEmpty(*ring)) << "a lost wake-up";
  }
  EXPECT_EQ(producer.fault(), RingFault::kNone);
  EXPECT_GT(wake_ups, 10);
}

INSTANTIATE_TEST_SUITE_P(Styles, AnsweringPeerTest,
                         ::testing::Combine(::testing::ValuesIn(kAnswerings),
                                            ::testing::Values(4096, 12288,
                                                              20480, 1 << 20)),
                         [](const auto& info) {
                           return std::get<0>(info.param).name +
                                  std::to_string(std::get<1>(info.param));
                         });

// How a consumer uses the mask.
struct Masking {
  const char* name;
  uint32_t at_first;
  uint32_t while_awake;
  uint32_t while_asleep;
};

const Masking kMaskings[] = {
    {"Linux", 0, 1, 0},
    {"LinuxWithoutMask", 0, 0, 0},
    {"OpenVmm", 1, 1, 0},
    {"Poller", 1, 1, 1},
};

class MaskingPeerTest : public PeerTest,
                        public ::testing::WithParamInterface<Masking> {};

// bad:R21 quirk:D26
TEST_P(MaskingPeerTest, IsSignalledWhenItSleepsAndNotOtherwise) {
  const Masking& masking = GetParam();
  const bool polls = masking.while_asleep != 0;
  const std::unique_ptr<TestRing> ring = Ring(4096);
  ring->set_word(kInterruptMaskOffset, masking.at_first);
  RingProducer producer(ring->view());
  ModelReader peer(ring.get());
  bool asleep = false;
  int signals = 0;
  for (int step = 0; step < kSteps; ++step) {
    for (uint64_t n = random_() % 3; n > 0; --n) {
      (void)producer.Write({}, {}, Bytes(random_() % 700));
    }
    const bool was_empty = IsEmpty(*ring);
    const bool published = producer.has_unpublished();
    const bool signal = producer.Publish();
    ASSERT_EQ(signal,
              published && was_empty && ring->word(kInterruptMaskOffset) == 0);
    signals += signal;
    if (asleep && !signal && !polls) {
      ASSERT_TRUE(IsEmpty(*ring)) << "a lost wake-up";
      continue;
    }
    asleep = false;
    ring->set_word(kInterruptMaskOffset, masking.while_awake);
    ModelPacket packet;
    for (uint64_t n = random_() % 4; n > 0; --n) (void)peer.Next(&packet);
    if (!IsEmpty(*ring)) continue;
    ring->set_word(kInterruptMaskOffset, masking.while_asleep);
    asleep = IsEmpty(*ring);
  }
  EXPECT_EQ(producer.fault(), RingFault::kNone);
  EXPECT_EQ(signals > 10, !polls);
  EXPECT_TRUE(!polls || signals == 0);
}

INSTANTIATE_TEST_SUITE_P(Styles, MaskingPeerTest,
                         ::testing::ValuesIn(kMaskings),
                         [](const auto& info) { return info.param.name; });

// How a producer decides whether it signals a consumer that may sleep.
struct Calling {
  const char* name;
  bool (*signals)(uint32_t mask, uint32_t unread_before, uint32_t written);
};

const Calling kCallings[] = {
    {"OnlyWhenEmpty", [](uint32_t mask, uint32_t unread,
                         uint32_t) { return mask == 0 && unread == 0; }},
    {"Qemu", [](uint32_t mask, uint32_t unread,
                uint32_t written) { return mask == 0 && unread <= written; }},
    {"Always", [](uint32_t, uint32_t, uint32_t) { return true; }},
};

class CallingPeerTest : public PeerTest,
                        public ::testing::WithParamInterface<Calling> {};

TEST_P(CallingPeerTest, NeverLeavesOurConsumerAsleep) {
  const std::unique_ptr<TestRing> ring = Ring(4096);
  ModelWriter peer(ring.get());
  RingConsumer consumer(ring->view(), UINT32_MAX);
  const bool masks = random_() % 2 == 0;
  bool asleep = !consumer.UnmaskSignals();
  uint64_t sent = 0;
  uint64_t taken = 0;
  for (int step = 0; step < kSteps; ++step) {
    bool signal = false;
    for (uint64_t n = random_() % 3; n > 0; --n) {
      const ModelPacket packet = {6, 0, sent, {}, Bytes(random_() % 700)};
      const uint32_t unread = 4096 - FreeBytesOf(*ring);
      if (!peer.Write(packet)) break;
      ++sent;
      signal |= GetParam().signals(ring->word(kInterruptMaskOffset), unread,
                                   TotalBytes(packet));
    }
    if (asleep && !signal) {
      ASSERT_EQ(taken, sent) << "a lost wake-up";
      continue;
    }
    asleep = false;
    if (masks) consumer.MaskSignals();
    PacketView packet;
    for (uint64_t n = random_() % 4; n > 0; --n) {
      if (consumer.Next(&packet) != ReadResult::kOk) break;
      ASSERT_EQ(packet.transaction_id, taken++);
    }
    EXPECT_FALSE(consumer.Release());
    // One that has more to do stays awake.
    if (!IsEmpty(*ring) && random_() % 2 == 0) continue;
    asleep = !consumer.UnmaskSignals();
  }
  EXPECT_GT(taken, 300u);
}

INSTANTIATE_TEST_SUITE_P(Styles, CallingPeerTest,
                         ::testing::ValuesIn(kCallings),
                         [](const auto& info) { return info.param.name; });

// A ring in the middle of its life, `unread` bytes from `read` in packets of
// `each` bytes, with a peer that masks and waits.
class AttachTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  std::unique_ptr<TestRing> Ring(uint32_t read, uint32_t unread,
                                 uint32_t each) {
    auto ring = std::make_unique<TestRing>(GetParam());
    ring->FillData(std::byte{0xa5});
    ring->SetIndices(read, read);
    ModelWriter writer(ring.get());
    for (uint32_t at = 0; at < unread; at += each) {
      EXPECT_TRUE(
          writer.Write({6, 0, at / each, {}, Bytes(each - kMinPacketBytes)}));
    }
    ring->set_word(kInterruptMaskOffset, 1);
    ring->set_word(kPendingSendSizeOffset, GetParam() / 2);
    ring->set_word(kFeatureBitsOffset, 0xfffffffe);
    return ring;
  }

  // The ring's two ends and its middle.
  std::vector<uint32_t> Starts() const {
    return {0, 8, GetParam() / 2 + 16, GetParam() - 16, GetParam() - 8};
  }
};

TEST_P(AttachTest, AProducerGoesOnBehindWhatIsUnread) {
  for (uint32_t start : Starts()) {
    for (uint32_t unread : {0u, 512u, GetParam() - 1024, GetParam() - 512}) {
      const std::unique_ptr<TestRing> ring = Ring(start, unread, 512);
      const uint32_t end = (start + unread) % GetParam();
      RingProducer producer(ring->view());
      ASSERT_EQ(producer.fault(), RingFault::kNone);
      EXPECT_EQ(producer.position(), (RingPosition{end, start}));
      // Its own words are its own, the peer's stay.
      EXPECT_EQ(ring->word(kPendingSendSizeOffset), 0u);
      EXPECT_EQ(ring->word(kFeatureBitsOffset), kFeaturePendingSendSize);
      EXPECT_EQ(ring->word(kInterruptMaskOffset), 1u);
      const ModelPacket packet = {6, 0, 77, {}, Pattern(480, 1)};
      const WriteResult result =
          producer.Write({PacketType::kDataInBand, 0, 77}, {}, packet.payload);
      const bool fits = unread + 504 < GetParam();
      ASSERT_EQ(result, fits ? WriteResult::kOk : WriteResult::kFull);
      if (!fits) continue;
      EXPECT_EQ(ring->Read(end, 504), ModelImage(packet, end));
      EXPECT_FALSE(producer.Publish());  // masked
      ring->set_word(kInterruptMaskOffset, 0);
      if (unread == 0) continue;
      ASSERT_EQ(producer.Write({}, {}, {}) == WriteResult::kOk,
                unread + 504 + 24 < GetParam());
      EXPECT_FALSE(producer.Publish());  // the reader has still enough to do
    }
  }
}

TEST_P(AttachTest, AConsumerReadsOnAndWakesThePeerThatWaited) {
  for (uint32_t start : Starts()) {
    const uint32_t unread = GetParam() - 512;
    const std::unique_ptr<TestRing> ring = Ring(start, unread, 512);
    const Bytes control = ring->ControlPage();
    auto first = std::make_unique<RingConsumer>(ring->view(), 4096);
    EXPECT_EQ(ring->ControlPage(), control);
    PacketView packet;
    ASSERT_EQ(first->Next(&packet), ReadResult::kOk);
    EXPECT_FALSE(first->Release());
    // Taken and not released: the next handle gets it again.
    ASSERT_EQ(first->Next(&packet), ReadResult::kOk);
    first.reset();
    RingConsumer consumer(ring->view(), 4096);
    EXPECT_EQ(consumer.position(),
              (RingPosition{(start + 512) % GetParam(),
                            (start + unread) % GetParam()}));
    uint32_t free = 1024;
    int signals = 0;
    for (uint64_t id = 1; id < unread / 512; ++id) {
      ASSERT_EQ(consumer.Next(&packet), ReadResult::kOk);
      EXPECT_EQ(packet.transaction_id, id);
      const bool signal = consumer.Release();
      free += 512;
      EXPECT_EQ(signal, Crosses(free - 512, free, GetParam() / 2));
      signals += signal;
    }
    EXPECT_EQ(signals, 1);
    EXPECT_EQ(consumer.Next(&packet), ReadResult::kEmpty);
    EXPECT_FALSE(consumer.UnmaskSignals());
    EXPECT_EQ(ring->word(kInterruptMaskOffset), 0u);
    EXPECT_EQ(ring->word(kFeatureBitsOffset), 0xfffffffe);
  }
}

// A ring that a peer filled to the last unit.
// quirk:D2
TEST_P(AttachTest, BothHandlesTakeARingWithOneUnitFree) {
  for (uint32_t start : Starts()) {
    auto ring = std::make_unique<TestRing>(GetParam());
    ring->SetIndices(start, start);
    ModelWriter writer(ring.get());
    // Two halves, since a packet is at most 0xffff units long.
    const uint32_t half = GetParam() / 2;
    ASSERT_TRUE(writer.Write({6, 0, 1, {}, Bytes(half - 24)}));
    ASSERT_TRUE(writer.Write({6, 0, 2, {}, Bytes(half - 32)}));
    RingProducer producer(ring->view());
    EXPECT_EQ(producer.Write({}, {}, {}), WriteResult::kFull);
    EXPECT_FALSE(producer.ArmPendingSend(24));
    RingConsumer consumer(ring->view(), UINT32_MAX);
    PacketView packet;
    ASSERT_EQ(consumer.Next(&packet), ReadResult::kOk);
    EXPECT_TRUE(consumer.Release());
    ASSERT_EQ(consumer.Next(&packet), ReadResult::kOk);
    EXPECT_EQ(consumer.Next(&packet), ReadResult::kEmpty);
    EXPECT_FALSE(consumer.Release());
    EXPECT_EQ(producer.Write({}, {}, {}), WriteResult::kOk);
    EXPECT_TRUE(producer.Publish());
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, AttachTest,
                         ::testing::Values(4096, 12288, 20480, 1 << 20));

}  // namespace
}  // namespace ferrybus::ringbuffer
