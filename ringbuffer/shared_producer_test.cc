// SPDX-License-Identifier: MIT
//
// The shared producer step by step: what becomes visible when, for every order
// of commits, who is to be woken, and what a full table, a full ring and a
// hostile index do.

#include "ferrybus/ringbuffer/shared_producer.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <optional>
#include <vector>

#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/testing/counting_access.h"
#include "ferrybus/ringbuffer/testing/scripted_access.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "gtest/gtest.h"

namespace ferrybus::ringbuffer {
namespace {

using testing::Bytes;
using testing::CountingAccess;
using testing::FetchRecorder;
using testing::Interleaver;
using testing::Pattern;
using testing::RingRole;
using testing::ScriptedAccess;
using testing::TestRing;

constexpr uint32_t kSize = 4096;

// Claims a packet that takes `ring_bytes` of the ring.
template <class Producer>
ClaimedPacket Claim(Producer* producer, uint32_t ring_bytes, uint64_t id = 0) {
  return producer->Claim({PacketType::kDataInBand, 0, id}, 0, ring_bytes - 24);
}

// Claims and fills.
template <class Producer>
ClaimedPacket Fill(Producer* producer, uint32_t ring_bytes, uint64_t id = 0) {
  const ClaimedPacket packet = Claim(producer, ring_bytes, id);
  EXPECT_EQ(packet.result, WriteResult::kOk);
  if (packet.result != WriteResult::kOk) return packet;
  const Bytes payload = Pattern(ring_bytes - 24, id);
  std::memcpy(packet.payload, payload.data(), payload.size());
  return packet;
}

// A whole packet, published.
template <class Producer>
Published Put(Producer* producer, uint32_t ring_bytes) {
  return producer->Commit(Fill(producer, ring_bytes).ticket);
}

// Takes one packet and releases it.
template <class Consumer>
bool TakeAndRelease(Consumer* consumer) {
  typename Consumer::PacketView packet;
  EXPECT_EQ(consumer->Next(&packet), ReadResult::kOk);
  return consumer->Release();
}

// The packet is `id`'s, and whole.
void ExpectPacket(RingConsumer* consumer, uint64_t id) {
  PacketView packet;
  ASSERT_EQ(consumer->Next(&packet), ReadResult::kOk);
  EXPECT_EQ(packet.transaction_id, id);
  Bytes payload(packet.payload.size());
  packet.payload.CopyTo(absl::MakeSpan(payload));
  EXPECT_EQ(payload, Pattern(payload.size(), id)) << id;
}

// promise:P2
TEST(CommitTest, EveryOrderOfFourShowsTheFilledFrontAndNoMore) {
  std::vector<uint64_t> order = {0, 1, 2, 3};
  do {
    SCOPED_TRACE(::testing::PrintToString(order));
    TestRing ring(kSize);
    FetchRecorder recorder(ring.view(), RingRole::kProducer);
    BasicSharedProducer<CountingAccess> producer(ring.view(), {&recorder});
    RingConsumer consumer(ring.view(), kSize);
    std::vector<uint32_t> ends;
    for (uint64_t id = 0; id < 4; ++id) {
      const uint32_t bytes = 32 + 8 * static_cast<uint32_t>(id);
      EXPECT_EQ(Fill(&producer, bytes, id).ticket, id);
      ends.push_back(bytes + (id == 0 ? 0 : ends.back()));
    }
    EXPECT_EQ(ring.word(kWriteIndexOffset), 0u);
    std::vector<bool> filled(5, false);
    uint64_t shown = 0;
    uint32_t publications = 0;
    for (uint64_t ticket : order) {
      filled[ticket] = true;
      const uint64_t before = shown;
      while (filled[shown]) ++shown;
      publications += shown != before;
      recorder.BeginOperation();
      const Published published = producer.Commit(ticket);
      // The reader sleeps at 0, so the first publication wakes it.
      EXPECT_EQ(published.signal_peer, before == 0 && shown != 0);
      EXPECT_FALSE(published.wake_waiters);
      EXPECT_EQ(ring.word(kWriteIndexOffset), shown == 0 ? 0 : ends[shown - 1]);
      EXPECT_EQ(recorder.stores(kWriteIndexOffset), publications);
      EXPECT_EQ(recorder.fences(), publications);
    }
    EXPECT_EQ(recorder.violation(), "");
    for (uint64_t id = 0; id < 4; ++id) ExpectPacket(&consumer, id);
  } while (std::next_permutation(order.begin(), order.end()));
}

// Nobody waits for a filler that stalls, not even to claim and commit more
// than the ring or the table would hold at one time.
TEST(CommitTest, ALaterPacketAppearsWhenTheStalledOneIsCommitted) {
  TestRing ring(kSize);
  SharedProducer producer(ring.view());
  RingConsumer consumer(ring.view(), kSize);
  const ClaimedPacket stalled = Fill(&producer, 64, 0);
  for (uint64_t id = 1; id < 40; ++id) {
    EXPECT_FALSE(producer.Commit(Fill(&producer, 64, id).ticket).signal_peer);
  }
  PacketView packet;
  EXPECT_EQ(consumer.Next(&packet), ReadResult::kEmpty);
  EXPECT_TRUE(producer.Commit(stalled.ticket).signal_peer);
  for (uint64_t id = 0; id < 40; ++id) ExpectPacket(&consumer, id);
  EXPECT_EQ(consumer.Next(&packet), ReadResult::kEmpty);
}

TEST(CommitTest, APublicationBehindUnreadPacketsDoesNotSignal) {
  TestRing ring(kSize);
  SharedProducer producer(ring.view());
  RingConsumer consumer(ring.view(), kSize);
  EXPECT_TRUE(Put(&producer, 32).signal_peer);
  EXPECT_FALSE(Put(&producer, 32).signal_peer);
  (void)TakeAndRelease(&consumer);
  EXPECT_FALSE(Put(&producer, 32).signal_peer);
  (void)TakeAndRelease(&consumer);
  (void)TakeAndRelease(&consumer);
  EXPECT_TRUE(Put(&producer, 32).signal_peer);
  consumer.MaskSignals();
  (void)TakeAndRelease(&consumer);
  EXPECT_FALSE(Put(&producer, 32).signal_peer);
}

TEST(CommitTest, ATicketThatIsNotOutstandingChangesNothing) {
  TestRing ring(kSize);
  SharedProducer producer(ring.view());
  EXPECT_FALSE(producer.Commit(0).signal_peer);
  const ClaimedPacket first = Fill(&producer, 32);
  const ClaimedPacket second = Fill(&producer, 32);
  EXPECT_FALSE(producer.Commit(2).signal_peer);
  // Nor do two tickets of one slot of the table mix.
  EXPECT_FALSE(producer.Commit(second.ticket + 64).signal_peer);
  EXPECT_TRUE(producer.Commit(first.ticket).signal_peer);
  EXPECT_FALSE(producer.Commit(first.ticket).signal_peer);
  EXPECT_EQ(ring.word(kWriteIndexOffset), 32u);
  (void)producer.Commit(second.ticket);
  EXPECT_EQ(ring.word(kWriteIndexOffset), 64u);
}

TEST(SharedWriteTest, WritesTheBytesOfAPlainProducer) {
  TestRing expected(kSize);
  TestRing ring(kSize);
  RingProducer plain(expected.view());
  SharedProducer producer(ring.view());
  const PacketHeader header = {PacketType::kDataUsingGpaDirect,
                               kFlagCompletionRequested, 7};
  for (size_t bytes : {0u, 1u, 8u, 61u, 900u}) {
    const Bytes extension = Pattern(24, bytes);
    const Bytes payload = Pattern(bytes, bytes);
    ASSERT_EQ(plain.Write(header, extension, payload), WriteResult::kOk);
    EXPECT_EQ(plain.Publish(), bytes == 0);
    const SharedWrite write = producer.Write(header, extension, payload);
    ASSERT_EQ(write.result, WriteResult::kOk);
    EXPECT_EQ(write.published.signal_peer, bytes == 0);
  }
  EXPECT_EQ(ring.Read(0, kSize), expected.Read(0, kSize));
  EXPECT_EQ(ring.ControlPage(), expected.ControlPage());
}

TEST(SharedWriteTest, RefusesWhatCanNeverFit) {
  TestRing ring(kSize);
  SharedProducer producer(ring.view());
  EXPECT_EQ(producer.Write({}, {}, Bytes(kSize)).result,
            WriteResult::kTooLarge);
  EXPECT_EQ(producer.Write({}, Bytes(4), {}).result, WriteResult::kTooLarge);
  // Nothing was claimed.
  EXPECT_EQ(producer.position(), (RingPosition{0, 0}));
  EXPECT_TRUE(Put(&producer, 32).signal_peer);
}

TEST(ClaimTest, AFullTableIsFullUntilTheOldestIsCommitted) {
  TestRing ring(kSize);
  BasicSharedProducer<ProductionAccess, 4> producer(ring.view());
  std::vector<ClaimedPacket> claims;
  for (int i = 0; i < 4; ++i) claims.push_back(Fill(&producer, 32));
  EXPECT_EQ(Claim(&producer, 32).result, WriteResult::kFull);
  // There is room in the ring; a commit must wake the caller nevertheless.
  EXPECT_FALSE(producer.ArmPendingSend(32));
  for (int i = 3; i > 0; --i) {
    EXPECT_FALSE(producer.Commit(claims[i].ticket).wake_waiters);
    EXPECT_EQ(Claim(&producer, 32).result, WriteResult::kFull);
  }
  EXPECT_TRUE(producer.Commit(claims[0].ticket).wake_waiters);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Fill(&producer, 32).ticket, 4u + i);
  EXPECT_EQ(Claim(&producer, 32).result, WriteResult::kFull);
}

TEST(ClaimTest, PositionIsThereOnlyWithoutClaims) {
  TestRing ring(kSize);
  ring.SetIndices(128, 64);
  SharedProducer producer(ring.view());
  EXPECT_EQ(producer.position(), (RingPosition{128, 64}));
  const ClaimedPacket first = Fill(&producer, 32);
  const ClaimedPacket second = Fill(&producer, 32);
  EXPECT_EQ(producer.position(), std::nullopt);
  (void)producer.Commit(second.ticket);
  EXPECT_EQ(producer.position(), std::nullopt);
  (void)producer.Commit(first.ticket);
  EXPECT_EQ(producer.position(), (RingPosition{192, 64}));
}

// bad:R1 bad:R2
TEST(SharedProducerHostileTest, AnImpossibleReadIndexEndsTheRingForAll) {
  for (uint32_t index : {kSize, 12u, 72u, 0xffffffffu}) {
    SCOPED_TRACE(index);
    TestRing ring(kSize);
    SharedProducer producer(ring.view());
    const ClaimedPacket filled = Fill(&producer, 72);
    const ClaimedPacket other = Fill(&producer, 2000);
    // 72 is the end of a claim that the peer has not been told of.
    ring.set_word(kReadIndexOffset, index);
    EXPECT_EQ(Claim(&producer, 2040).result, WriteResult::kCorrupt);
    EXPECT_NE(producer.fault(), RingFault::kNone);
    EXPECT_EQ(Claim(&producer, 32).result, WriteResult::kCorrupt);
    EXPECT_TRUE(producer.ArmPendingSend(32));
    // Those who are still filling are not told anything new, and no more
    // reaches the ring.
    EXPECT_FALSE(producer.Commit(other.ticket).signal_peer);
    EXPECT_FALSE(producer.Commit(filled.ticket).signal_peer);
    EXPECT_EQ(ring.word(kWriteIndexOffset), 0u);
    EXPECT_EQ(producer.Write({}, {}, {}).result, WriteResult::kCorrupt);
    EXPECT_TRUE(producer.position().has_value());
  }
}

TEST(SharedProducerHostileTest, AFaultMetInACommitWakesWhoSleeps) {
  TestRing ring(kSize);
  SharedProducer producer(ring.view());
  const ClaimedPacket packet = Fill(&producer, 2048);
  EXPECT_EQ(Claim(&producer, 2048).result, WriteResult::kFull);
  EXPECT_FALSE(producer.ArmPendingSend(2048));
  ring.set_word(kReadIndexOffset, 4);
  EXPECT_TRUE(producer.Commit(packet.ticket).wake_waiters);
  EXPECT_EQ(Claim(&producer, 2048).result, WriteResult::kCorrupt);
}

TEST(SharedArmTest, AsksForTheClaimedBytesOnTop) {
  TestRing ring(kSize);
  SharedProducer producer(ring.view());
  RingConsumer consumer(ring.view(), kSize);
  for (uint32_t bytes : {504u, 504u, 1000u}) (void)Put(&producer, bytes);
  const ClaimedPacket packet = Fill(&producer, 800);
  EXPECT_EQ(Claim(&producer, 2000).result, WriteResult::kFull);
  EXPECT_FALSE(producer.ArmPendingSend(2000));
  EXPECT_EQ(ring.word(kPendingSendSizeOffset), 2800u);
  // The peer sees more than 2000 free, but 800 of them are claimed.
  EXPECT_FALSE(TakeAndRelease(&consumer));
  EXPECT_EQ(Claim(&producer, 2000).result, WriteResult::kFull);
  EXPECT_TRUE(TakeAndRelease(&consumer));
  // Without waiting for the one who is filling.
  EXPECT_EQ(Claim(&producer, 2000).result, WriteResult::kOk);
  EXPECT_TRUE(producer.Commit(packet.ticket).wake_waiters);
  EXPECT_EQ(ring.word(kPendingSendSizeOffset), 0u);
}

TEST(SharedArmTest, SaysClaimAgainWhenThereIsRoomBehindTheClaims) {
  TestRing ring(kSize);
  SharedProducer producer(ring.view());
  RingConsumer consumer(ring.view(), kSize);
  (void)Put(&producer, 2000);
  const ClaimedPacket packet = Fill(&producer, 1600);
  EXPECT_EQ(Claim(&producer, 1000).result, WriteResult::kFull);
  (void)TakeAndRelease(&consumer);
  // 2496 are free for this caller, though 2600 are asked of the peer.
  EXPECT_TRUE(producer.ArmPendingSend(1000));
  EXPECT_FALSE(producer.ArmPendingSend(2496));
  EXPECT_TRUE(producer.ArmPendingSend(2488));
  EXPECT_TRUE(producer.Commit(packet.ticket).wake_waiters);
}

TEST(SharedArmTest, ASmallerRequestDoesNotTakeTheSignalFromALarger) {
  TestRing ring(kSize);
  SharedProducer producer(ring.view());
  RingConsumer consumer(ring.view(), kSize);
  for (int i = 0; i < 4; ++i) (void)Put(&producer, 1000);
  EXPECT_FALSE(producer.ArmPendingSend(2000));
  EXPECT_FALSE(producer.ArmPendingSend(200));
  EXPECT_EQ(ring.word(kPendingSendSizeOffset), 2000u);
  EXPECT_FALSE(TakeAndRelease(&consumer));
  EXPECT_TRUE(producer.ArmPendingSend(200));
  EXPECT_TRUE(TakeAndRelease(&consumer));
}

// Publishing takes the request back, so that the sleeper has to renew it.
TEST(SharedArmTest, ACommitWakesTheSleepersOnce) {
  TestRing ring(kSize);
  SharedProducer producer(ring.view());
  (void)Put(&producer, 3000);
  EXPECT_FALSE(producer.ArmPendingSend(2000));
  const ClaimedPacket first = Fill(&producer, 32);
  const ClaimedPacket second = Fill(&producer, 32);
  EXPECT_FALSE(producer.Commit(second.ticket).wake_waiters);
  EXPECT_EQ(ring.word(kPendingSendSizeOffset), 2000u);
  EXPECT_TRUE(producer.Commit(first.ticket).wake_waiters);
  EXPECT_EQ(ring.word(kPendingSendSizeOffset), 0u);
  EXPECT_FALSE(Put(&producer, 32).wake_waiters);
}

TEST(SharedArmTest, AnEmptyRingIsRoomForAnyRequest) {
  TestRing ring(kSize);
  SharedProducer producer(ring.view());
  EXPECT_TRUE(producer.ArmPendingSend(kSize));
  EXPECT_TRUE(producer.ArmPendingSend(uint64_t{1} << 40));
}

// A thread sleeps for room while another still fills and then commits, and the
// reader drains, in every order of their steps.  What may not happen: asleep
// at the end, with room there, and neither of them woke it.
TEST(SharedHandshakeTest, NoOrderOfArmReleaseAndCommitLosesTheWakeUp) {
  int slept = 0;
  for (bool commits : {false, true}) {
    for (const std::vector<int>& script :
         Interleaver::AllScripts(commits ? 7 : 3, 7)) {
      TestRing ring(kSize);
      Interleaver turns;
      BasicSharedProducer<ScriptedAccess> producer(ring.view(), {&turns, 0});
      BasicRingConsumer<ScriptedAccess> consumer(ring.view(), kSize,
                                                 {&turns, 1});
      (void)Put(&producer, 1360);
      (void)Put(&producer, 1360);
      const ClaimedPacket packet = Fill(&producer, 800);
      bool sleeps = false;
      bool woken = false;
      int signals = 0;
      turns.Run(
          script,
          [&] {
            if (Claim(&producer, 1900).result == WriteResult::kFull) {
              sleeps = !producer.ArmPendingSend(1900);
            }
            if (commits) woken = producer.Commit(packet.ticket).wake_waiters;
          },
          [&] {
            BasicPacketView<ScriptedAccess> view;
            for (int i = 0; i < 2; ++i) {
              if (consumer.Next(&view) == ReadResult::kOk) {
                signals += consumer.Release();
              }
            }
          });
      slept += sleeps;
      EXPECT_TRUE(!sleeps || woken || signals > 0)
          << ::testing::PrintToString(script);
      EXPECT_TRUE(!sleeps || woken == commits)
          << ::testing::PrintToString(script);
      // A commit between the peer's loads of request and index may make it two.
      EXPECT_LE(signals, commits ? 2 : 1) << ::testing::PrintToString(script);
    }
  }
  EXPECT_GT(slept, 0);
}

}  // namespace
}  // namespace ferrybus::ringbuffer
