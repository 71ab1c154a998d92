// SPDX-License-Identifier: MIT
//
// DPDK's own VMBus ring code as the peer: what one side writes the other
// reads, both write the same bytes, and both decide alike about signals.
// Nothing of DPDK is initialised: its send and receive functions need only a
// channel structure, which this test fills in.

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_index.h"
#include "ferrybus/ringbuffer/ring_mapping.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/testing/dpdk_channel.h"
#include "ferrybus/ringbuffer/testing/model_ring.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "gtest/gtest.h"

#if defined(__SANITIZE_THREAD__)
#define FERRYBUS_TEST_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FERRYBUS_TEST_TSAN 1
#endif
#endif

namespace ferrybus::ringbuffer {
namespace {

using testing::Bytes;
using testing::ModelImage;
using testing::ModelPacket;
using testing::PaddedTo8;
using testing::Pattern;
using testing::TestRing;
using testing::TestSeed;

// The guest's end of a channel.
class DpdkEnd {
 public:
  // Goes on at the indices that the rings have.
  DpdkEnd(TestRing* incoming, TestRing* outgoing)
      : maps_{incoming->MapAgain(), outgoing->MapAgain()},
        buffer_(incoming->data_bytes()) {
    channel_.incoming = testing::AttachDpdkRing(maps_[0].view());
    channel_.outgoing = testing::AttachDpdkRing(maps_[1].view());
    channel_.monitor_id = 37;
    channel_.monitor = &monitor_;
  }
  DpdkEnd(const DpdkEnd&) = delete;
  DpdkEnd& operator=(const DpdkEnd&) = delete;

  // 0 or a negative errno.
  int Send(const ModelPacket& packet, bool* signal) {
    *signal = false;
    Bytes payload = packet.payload;  // DPDK's pointers are not const
    const auto bytes = static_cast<uint32_t>(payload.size());
    if (packet.extension.empty()) {
      return rte_vmbus_chan_send(&channel_, packet.type, payload.data(), bytes,
                                 packet.transaction_id, packet.flags, signal);
    }
    std::vector<vmbus_gpa> ranges((packet.extension.size() - 8) /
                                  sizeof(vmbus_gpa));
    std::memcpy(ranges.data(), packet.extension.data() + 8,
                ranges.size() * sizeof(vmbus_gpa));
    return rte_vmbus_chan_send_sglist(
        &channel_, ranges.data(), static_cast<uint32_t>(ranges.size()),
        payload.data(), bytes, packet.transaction_id, signal);
  }

  // The next packet without its trailer; 0 or a negative errno.
  int Receive(Bytes* packet) {
    packet->resize(channel_.incoming.data_bytes);
    auto bytes = static_cast<uint32_t>(packet->size());
    const int read = rte_vmbus_chan_recv_raw(&channel_, packet->data(), &bytes);
    if (read < 0) return read;
    EXPECT_EQ(static_cast<uint32_t>(read), bytes + kTrailerBytes);
    packet->resize(bytes);
    unreported_bytes_ += bytes + kTrailerBytes;
    return 0;
  }

  // Ends a batch of Receive(): whether the writer was signalled.
  bool EndReceive() {
    rte_vmbus_chan_signal_read(&channel_, unreported_bytes_);
    unreported_bytes_ = 0;
    vmbus_mon_trig* const trigger = &monitor_.trigs[channel_.monitor_id / 32];
    const bool signalled = trigger->pending != 0;
    trigger->pending = 0;
    return signalled;
  }

 private:
  RingMapping maps_[2];
  vmbus_channel channel_ = {};
  vmbus_mon_page monitor_ = {};
  uint32_t unreported_bytes_ = 0;
  Bytes buffer_;
};

WriteResult WritePacket(RingProducer* producer, const ModelPacket& packet) {
  return producer->Write({static_cast<PacketType>(packet.type), packet.flags,
                          packet.transaction_id},
                         packet.extension, packet.payload);
}

// The packet as it lay in the ring, without its trailer.
Bytes BytesOf(const PacketView& view) {
  ModelPacket packet;
  packet.type = static_cast<uint16_t>(view.type);
  packet.flags = view.completion_requested ? 1 : 0;
  packet.transaction_id = view.transaction_id;
  packet.extension.resize(view.extension.size());
  packet.payload.resize(view.payload.size());
  view.extension.CopyTo(absl::MakeSpan(packet.extension));
  view.payload.CopyTo(absl::MakeSpan(packet.payload));
  return ModelImage(packet, 0);
}

Bytes WithoutTrailer(Bytes image) {
  image.resize(image.size() - kTrailerBytes);
  return image;
}

// A list of one-page ranges, the form that DPDK sends.
Bytes RangeList(std::mt19937_64* random) {
  const uint64_t count = 1 + (*random)() % MAX_PAGE_BUFFER_COUNT;
  Bytes list = Pattern(8 + count * sizeof(vmbus_gpa), (*random)());
  std::fill(list.begin(), list.begin() + 8, std::byte{0});
  list[4] = static_cast<std::byte>(count);
  return list;
}

// An in-band packet, a completion or one with external ranges, at most
// `most_ring_bytes` in the ring.
ModelPacket RandomPacket(std::mt19937_64* random, uint64_t most_ring_bytes) {
  static constexpr uint16_t kTypes[] = {6, 6, 9, 11};
  ModelPacket packet;
  packet.type = kTypes[(*random)() % 4];
  packet.flags = packet.type == 9 ? 1 : packet.type == 6 && (*random)() % 2;
  packet.transaction_id = (*random)();
  if (packet.type == 9) packet.extension = RangeList(random);
  const uint64_t by_length = 0xffff * 8 + 8;
  const uint64_t most = std::min(most_ring_bytes, by_length) -
                        packet.extension.size() - kMinPacketBytes;
  const uint64_t bound = (*random)() % 8 == 0 ? most : 200;
  packet.payload = Pattern((*random)() % (bound + 1), (*random)());
  return packet;
}

#ifdef FERRYBUS_TEST_TSAN  // where the naive model takes most of a minute
constexpr uint64_t kTrafficBytes = 1 << 16;
#else
constexpr uint64_t kTrafficBytes = 1 << 20;
#endif

class DpdkTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  void SetUp() override {
    random_.seed(TestSeed("//ringbuffer:dpdk_interop_test", "*DpdkTest*"));
    start_ = static_cast<uint32_t>(random_() % (GetParam() / 8)) * 8;
  }

  // A ring with old bytes everywhere, empty at start_.
  std::unique_ptr<TestRing> Ring() {
    auto ring = std::make_unique<TestRing>(GetParam());
    ring->FillData(std::byte{0xa5});
    ring->SetIndices(start_, start_);
    ring->set_word(kFeatureBitsOffset, kFeaturePendingSendSize);
    return ring;
  }

  // Enough to wrap many times.
  uint64_t TrafficBytes() const { return kTrafficBytes + 8ull * GetParam(); }

  // What a writer may ask for: nothing, anything, or just more than now.
  uint32_t Pending(const TestRing& ring) {
    switch (random_() % 4) {
      case 0:
        return 0;
      case 1:
        return FreeBytes(ring.word(kWriteIndexOffset),
                         ring.word(kReadIndexOffset), GetParam());
      default:
        return static_cast<uint32_t>(random_() % GetParam());
    }
  }

  std::mt19937_64 random_;
  uint32_t start_ = 0;
};

bool SameData(const TestRing& a, const TestRing& b) {
  return std::memcmp(a.view().data, b.view().data, a.data_bytes()) == 0;
}

// Two rings that start alike, one written by each, the same reader's moves in
// both.
TEST_P(DpdkTest, BothWriteTheSameBytesAndSignalAlike) {
  const std::unique_ptr<TestRing> theirs = Ring();
  const std::unique_ptr<TestRing> ours = Ring();
  DpdkEnd dpdk(theirs.get(), theirs.get());
  RingProducer producer(ours->view());
  std::deque<uint32_t> ends;  // of the packets that are unread
  uint64_t written = 0;
  int signals = 0;
  int full = 0;
  while (written < TrafficBytes()) {
    const uint32_t mask = random_() % 4 == 0;
    theirs->set_word(kInterruptMaskOffset, mask);
    ours->set_word(kInterruptMaskOffset, mask);
    const ModelPacket packet = RandomPacket(&random_, GetParam() - 16);
    bool their_signal = false;
    const int error = dpdk.Send(packet, &their_signal);
    const WriteResult result = WritePacket(&producer, packet);
    ASSERT_EQ(error, result == WriteResult::kOk ? 0 : -EAGAIN);
    ASSERT_EQ(producer.Publish(), their_signal);
    signals += their_signal;
    full += error != 0;
    if (error == 0) {
      written += ModelImage(packet, 0).size();
      ends.push_back(ours->word(kWriteIndexOffset));
    }
    ASSERT_EQ(ours->ControlPage(), theirs->ControlPage());
    // The reader is a little slow, and drains the ring now and then.
    const bool drains = random_() % 32 == 0;
    for (uint64_t n = drains ? ends.size() : random_() % 2; n > 0; --n) {
      if (ends.empty()) break;
      theirs->set_word(kReadIndexOffset, ends.front());
      ours->set_word(kReadIndexOffset, ends.front());
      ends.pop_front();
    }
    if (random_() % 64 != 0) continue;
    ASSERT_TRUE(SameData(*ours, *theirs));
  }
  EXPECT_TRUE(SameData(*ours, *theirs));
  EXPECT_GT(signals, 0);
  EXPECT_GT(full, 0);
  EXPECT_EQ(producer.fault(), RingFault::kNone);
}

// Two rings with the same packets, one read by each.
TEST_P(DpdkTest, BothReadTheSamePacketsAndSignalAlike) {
  const std::unique_ptr<TestRing> theirs = Ring();
  const std::unique_ptr<TestRing> ours = Ring();
  testing::ModelWriter their_writer(theirs.get());
  testing::ModelWriter our_writer(ours.get());
  DpdkEnd dpdk(theirs.get(), theirs.get());
  RingConsumer consumer(ours->view(), UINT32_MAX);
  uint64_t read = 0;
  int signals = 0;
  while (read < TrafficBytes()) {
    bool fits = true;
    while (fits && random_() % 8 != 0) {
      const ModelPacket packet = RandomPacket(&random_, GetParam() - 8);
      fits = our_writer.Write(packet);
      ASSERT_EQ(their_writer.Write(packet), fits);
    }
    const uint32_t pending = Pending(*ours);
    theirs->set_word(kPendingSendSizeOffset, pending);
    ours->set_word(kPendingSendSizeOffset, pending);
    for (uint64_t n = 1 + random_() % 6; n > 0; --n) {
      Bytes bytes;
      const int error = dpdk.Receive(&bytes);
      PacketView view;
      const ReadResult result = consumer.Next(&view);
      ASSERT_EQ(result, error == 0 ? ReadResult::kOk : ReadResult::kEmpty);
      if (error != 0) break;
      ASSERT_TRUE(WithoutTrailer(BytesOf(view)) == bytes);
      read += bytes.size() + kTrailerBytes;
    }
    const bool their_signal = dpdk.EndReceive();
    ASSERT_EQ(consumer.Release(), their_signal);
    signals += their_signal;
    ASSERT_EQ(ours->ControlPage(), theirs->ControlPage());
  }
  EXPECT_GT(signals, 0);
}

// One channel: DPDK asks, we answer; both of its rings wrap many times.
// quirk:D2 (DPDK's largest packet is 8 bytes larger than ours)
TEST_P(DpdkTest, EachReadsWhatTheOtherWrote) {
  const std::unique_ptr<TestRing> to_us = Ring();
  const std::unique_ptr<TestRing> to_them = Ring();
  DpdkEnd dpdk(to_them.get(), to_us.get());
  RingConsumer consumer(to_us->view(), UINT32_MAX);
  RingProducer producer(to_them->view());
  uint64_t sent_bytes = 0;
  while (sent_bytes < TrafficBytes()) {
    std::deque<Bytes> requests;
    for (uint64_t n = 1 + random_() % 8; n > 0; --n) {
      const ModelPacket packet = RandomPacket(&random_, GetParam() - 8);
      bool signal = false;
      const int error = dpdk.Send(packet, &signal);
      ASSERT_TRUE(error == 0 || error == -EAGAIN);
      if (error != 0) break;
      EXPECT_EQ(signal, requests.empty());
      requests.push_back(WithoutTrailer(ModelImage(packet, 0)));
      sent_bytes += requests.back().size() + kTrailerBytes;
    }
    std::deque<Bytes> answers;
    PacketView view;
    while (consumer.Next(&view) == ReadResult::kOk) {
      ASSERT_TRUE(BytesOf(view).size() == requests.front().size() + 8);
      ASSERT_TRUE(WithoutTrailer(BytesOf(view)) == requests.front());
      requests.pop_front();
      const ModelPacket answer = {
          11, 0, view.transaction_id, {}, Pattern(random_() % 300, sent_bytes)};
      ASSERT_EQ(WritePacket(&producer, answer), WriteResult::kOk);
      answers.push_back(WithoutTrailer(ModelImage(answer, 0)));
    }
    EXPECT_TRUE(requests.empty());
    EXPECT_FALSE(consumer.Release());
    EXPECT_EQ(producer.Publish(), !answers.empty());
    Bytes bytes;
    while (dpdk.Receive(&bytes) == 0) {
      ASSERT_FALSE(answers.empty());
      ASSERT_TRUE(bytes == answers.front());
      answers.pop_front();
    }
    EXPECT_TRUE(answers.empty());
    EXPECT_FALSE(dpdk.EndReceive());
  }
  EXPECT_EQ(consumer.fault(), RingFault::kNone);
  EXPECT_EQ(producer.fault(), RingFault::kNone);
}

INSTANTIATE_TEST_SUITE_P(Sizes, DpdkTest,
                         ::testing::Values(4096, 12288, 20480, 1 << 20));

// vector:G11 (DPDK obeys the feature bit, we do not)
// quirk:D5
TEST(DpdkQuirkTest, OnlyTheFeatureBitMakesOurSignalsDiffer) {
  TestRing theirs(4096);
  TestRing ours(4096);
  for (TestRing* ring : {&theirs, &ours}) {
    ASSERT_TRUE(testing::ModelWriter(ring).Write({6, 0, 1, {}, Bytes(4056)}));
    ring->set_word(kPendingSendSizeOffset, 256);
  }
  DpdkEnd dpdk(&theirs, &theirs);
  RingConsumer consumer(ours.view(), 4096);
  Bytes bytes;
  PacketView view;
  ASSERT_EQ(dpdk.Receive(&bytes), 0);
  ASSERT_EQ(consumer.Next(&view), ReadResult::kOk);
  EXPECT_FALSE(dpdk.EndReceive());
  EXPECT_TRUE(consumer.Release());
}

#ifndef FERRYBUS_TEST_TSAN

// Both at once, on two threads: the barriers of one fit those of the other.
TEST(DpdkThreadTest, RequestsAndAnswersStayWholeAndInOrder) {
  constexpr uint64_t kPackets = 100000;
  TestRing to_us(20480);
  TestRing to_them(20480);
  DpdkEnd dpdk(&to_them, &to_us);
  std::thread guest([&] {
    uint64_t sent = 0;
    uint64_t answered = 0;
    Bytes bytes;
    while (answered < kPackets && !HasFailure()) {
      bool signal = false;
      while (sent < kPackets &&
             dpdk.Send({6, 1, sent, {}, Pattern(sent % 97, sent)}, &signal) ==
                 0) {
        ++sent;
      }
      while (dpdk.Receive(&bytes) == 0) {
        const ModelPacket answer = {
            11, 0, answered, {}, Pattern(answered % 61, answered)};
        ASSERT_TRUE(bytes == WithoutTrailer(ModelImage(answer, 0)));
        ++answered;
      }
      std::this_thread::yield();
    }
  });
  RingConsumer consumer(to_us.view(), 4096);
  RingProducer producer(to_them.view());
  uint64_t answered = 0;
  while (answered < kPackets && !HasFailure()) {
    PacketView view;
    while (consumer.Next(&view) == ReadResult::kOk) {
      const ModelPacket request = {
          6, 1, answered, {}, Pattern(answered % 97, answered)};
      if (HasFailure()) break;
      EXPECT_TRUE(BytesOf(view) == ModelImage(request, 0));
      const ModelPacket answer = {
          11, 0, answered, {}, Pattern(answered % 61, answered)};
      while (WritePacket(&producer, answer) == WriteResult::kFull &&
             !HasFailure()) {
        (void)producer.Publish();
        std::this_thread::yield();
      }
      ++answered;
    }
    (void)consumer.Release();
    (void)producer.Publish();
    std::this_thread::yield();
  }
  guest.join();
  EXPECT_EQ(consumer.fault(), RingFault::kNone);
  EXPECT_EQ(producer.fault(), RingFault::kNone);
}

#endif  // FERRYBUS_TEST_TSAN: it cannot see how DPDK orders its accesses.

}  // namespace
}  // namespace ferrybus::ringbuffer
