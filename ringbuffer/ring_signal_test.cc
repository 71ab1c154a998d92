// SPDX-License-Identifier: MIT
//
// Who must be signalled and when: the numbered signal vectors, the values that
// peers put into the mask and pending words, and both handshakes in every
// interleaving.

#include <cstdint>
#include <functional>
#include <vector>

#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_producer.h"
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
using testing::RingRole;
using testing::ScriptedAccess;
using testing::TestRing;

constexpr uint32_t kSize = 4096;

// Calls `hook` where the peer can act between an index store and the loads
// that decide about a signal.
class HookAccess : public ProductionAccess {
 public:
  HookAccess() = default;
  explicit HookAccess(const std::function<void()>* hook) : hook_(hook) {}
  void FullFence() const {
    if (hook_ != nullptr && *hook_) (*hook_)();
  }
  void SleepFence() const { FullFence(); }

 private:
  const std::function<void()>* hook_ = nullptr;
};

// Writes a packet that takes `ring_bytes` of the ring.
template <class Producer>
WriteResult Write(Producer* producer, uint32_t ring_bytes) {
  return producer->Write({}, {}, Bytes(ring_bytes - 24));
}

// A ring where packets of these sizes lie, from index 0, and nothing is read.
void Fill(TestRing* ring, const std::vector<uint32_t>& ring_bytes) {
  RingProducer producer(ring->view());
  for (uint32_t bytes : ring_bytes) {
    ASSERT_EQ(Write(&producer, bytes), WriteResult::kOk);
  }
  (void)producer.Publish();
}

// Takes one packet and releases it.
template <class Consumer>
bool TakeAndRelease(Consumer* consumer) {
  typename Consumer::PacketView packet;
  EXPECT_EQ(consumer->Next(&packet), ReadResult::kOk);
  return consumer->Release();
}

// vector:G1
TEST(PublishTest, SignalsWhenTheRingWasEmpty) {
  TestRing ring(kSize);
  RingProducer producer(ring.view());
  ASSERT_EQ(Write(&producer, 32), WriteResult::kOk);
  EXPECT_TRUE(producer.Publish());
}

// vector:G2
TEST(PublishTest, DoesNotSignalWhenPacketsAreUnread) {
  TestRing ring(kSize);
  Fill(&ring, {32});
  RingProducer producer(ring.view());
  ASSERT_EQ(Write(&producer, 24), WriteResult::kOk);
  EXPECT_FALSE(producer.Publish());
}

// vector:G3
// bad:R21
TEST(PublishTest, AnyMaskButZeroSuppressesTheSignal) {
  for (uint32_t mask : {0u, 1u, 2u, 0x80000000u, 0xffffffffu}) {
    TestRing ring(kSize);
    ring.SetIndices(32, 32);
    RingProducer producer(ring.view());
    ring.set_word(kInterruptMaskOffset, mask);
    ASSERT_EQ(Write(&producer, 32), WriteResult::kOk);
    EXPECT_EQ(producer.Publish(), mask == 0) << mask;
    EXPECT_EQ(ring.word(kInterruptMaskOffset), mask);
    EXPECT_EQ(producer.fault(), RingFault::kNone);
  }
}

// quirk:D26
TEST(PublishTest, AReaderThatStartsMaskedIsNoError) {
  TestRing ring(kSize);
  ring.set_word(kInterruptMaskOffset, 1);
  RingProducer producer(ring.view());
  ASSERT_EQ(Write(&producer, 32), WriteResult::kOk);
  EXPECT_FALSE(producer.Publish());
  EXPECT_EQ(producer.fault(), RingFault::kNone);
}

// vector:G4
TEST(PublishTest, ABatchGetsOneDecisionFromItsFirstIndex) {
  TestRing ring(kSize);
  FetchRecorder recorder(ring.view(), RingRole::kProducer);
  BasicRingProducer<CountingAccess> producer(ring.view(), {&recorder});
  for (uint32_t bytes : {32u, 24u, 72u}) {
    ASSERT_EQ(Write(&producer, bytes), WriteResult::kOk);
  }
  EXPECT_EQ(recorder.stores(kWriteIndexOffset), 0u);
  recorder.BeginOperation();
  EXPECT_TRUE(producer.Publish());
  EXPECT_FALSE(producer.Publish());
  EXPECT_EQ(recorder.stores(kWriteIndexOffset), 1u);
  EXPECT_EQ(recorder.fences(), 1u);
  EXPECT_EQ(recorder.violation(), "");
}

// vector:G5
TEST(PublishTest, DoesNotSignalAReaderThatAlreadyMovesOn) {
  TestRing ring(kSize);
  std::function<void()> hook;
  BasicRingProducer<HookAccess> producer(ring.view(), HookAccess(&hook));
  ASSERT_EQ(Write(&producer, 32), WriteResult::kOk);
  hook = [&] { ring.set_word(kReadIndexOffset, 0x20); };
  EXPECT_FALSE(producer.Publish());
  EXPECT_EQ(producer.fault(), RingFault::kNone);
}

TEST(PublishTest, ABatchThatStartsBehindAnUnreadPacketDoesNotSignal) {
  TestRing ring(kSize);
  Fill(&ring, {32});
  RingProducer producer(ring.view());
  ASSERT_EQ(Write(&producer, 32), WriteResult::kOk);
  ASSERT_EQ(Write(&producer, 32), WriteResult::kOk);
  // The reader is at the middle of the batch's range: it is awake.
  EXPECT_FALSE(producer.Publish());
  ring.set_word(kReadIndexOffset, 96);
  ASSERT_EQ(Write(&producer, 32), WriteResult::kOk);
  EXPECT_TRUE(producer.Publish());
}

// vector:G6
TEST(ReleaseTest, DoesNotSignalAPeerThatDoesNotWait) {
  TestRing ring(kSize);
  Fill(&ring, {4080});
  RingConsumer consumer(ring.view(), kSize);
  EXPECT_FALSE(TakeAndRelease(&consumer));
  EXPECT_EQ(ring.word(kReadIndexOffset), 4080u);
}

// A ring with D - 8 bytes in two packets, as in G7 to G9: only a peer fills
// it so far.
void FillToTheBrim(TestRing* ring, uint32_t first_ring_bytes) {
  Fill(ring, {first_ring_bytes, 4080 - first_ring_bytes});
  // Stretch the second packet by one unit.
  const uint16_t length8 =
      static_cast<uint16_t>((4088 - first_ring_bytes - 8) / 8);
  const Bytes bytes = {static_cast<std::byte>(length8 & 0xff),
                       static_cast<std::byte>(length8 >> 8)};
  ring->Write(first_ring_bytes + 4, bytes);
  ring->set_word(kWriteIndexOffset, 0xff8);
}

// vector:G7 vector:G8 vector:G9
TEST(ReleaseTest, SignalsWhenFreeSpacePassesThePendingSize) {
  struct Case {
    uint32_t first_ring_bytes;
    bool signal;
  };
  for (const Case& c : {Case{248, false}, Case{256, true}, Case{264, true}}) {
    TestRing ring(kSize);
    FillToTheBrim(&ring, c.first_ring_bytes);
    RingConsumer consumer(ring.view(), kSize);
    ring.set_word(kPendingSendSizeOffset, 256);
    EXPECT_EQ(TakeAndRelease(&consumer), c.signal) << c.first_ring_bytes;
    // At most one signal: the other half of the ring crosses what is left.
    EXPECT_EQ(TakeAndRelease(&consumer), !c.signal) << c.first_ring_bytes;
  }
}

// vector:G10
TEST(ReleaseTest, DoesNotSignalWhenThereWasRoomBefore) {
  TestRing ring(kSize);
  Fill(&ring, {kSize - 512});
  RingConsumer consumer(ring.view(), kSize);
  ring.set_word(kPendingSendSizeOffset, 256);
  EXPECT_FALSE(TakeAndRelease(&consumer));
}

// vector:G11
// quirk:D5
TEST(ReleaseTest, ObeysThePendingSizeWithoutTheFeatureBit) {
  TestRing ring(kSize);
  Fill(&ring, {4080});
  ring.set_word(kFeatureBitsOffset, 0);
  ring.set_word(kPendingSendSizeOffset, 256);
  RingConsumer consumer(ring.view(), kSize);
  EXPECT_TRUE(TakeAndRelease(&consumer));
}

// bad:R23
TEST(ReleaseTest, FeatureBitsAreNeverLookedAt) {
  TestRing ring(kSize);
  Fill(&ring, {1000, 1000, 1000, 1000});
  FetchRecorder recorder(ring.view(), RingRole::kConsumer);
  BasicRingConsumer<CountingAccess> consumer(ring.view(), kSize, {&recorder});
  ring.set_word(kPendingSendSizeOffset, 2500);
  std::vector<bool> signals;
  for (uint32_t bits : {0u, 0xffffffffu, 0u, 2u}) {
    ring.set_word(kFeatureBitsOffset, bits);
    recorder.BeginOperation();
    signals.push_back(TakeAndRelease(&consumer));
  }
  EXPECT_EQ(signals, std::vector<bool>({false, false, true, false}));
  EXPECT_EQ(recorder.loads(kFeatureBitsOffset), 0u);
}

// vector:G12
// bad:R22 quirk:D6
TEST(ReleaseTest, SignalsAtMostOnceForAnyPendingSize) {
  const std::vector<uint32_t> kPending = {
      0, 1, 7, 8, 9, 23, 24, 256, 257, 4072, 4088, 4095, 4096, 0x7fffffff, ~0u};
  for (uint32_t pending : kPending) {
    TestRing ring(kSize);
    Fill(&ring, std::vector<uint32_t>(170, 24));  // 16 bytes stay free
    ring.set_word(kPendingSendSizeOffset, pending);
    RingConsumer consumer(ring.view(), kSize);
    int signals = 0;
    uint32_t free_at_signal = 0;
    for (uint32_t i = 1; i <= 170; ++i) {
      if (!TakeAndRelease(&consumer)) continue;
      ++signals;
      free_at_signal = 16 + 24 * i;
    }
    const bool passes = pending >= 16 && pending < kSize;
    EXPECT_EQ(signals, passes ? 1 : 0) << pending;
    if (!passes) continue;
    EXPECT_GT(free_at_signal, pending);
    EXPECT_LE(free_at_signal - 24, pending);
  }
}

// bad:R22
TEST(ReleaseTest, APendingSizeLeftStandingSignalsOncePerCrossing) {
  TestRing ring(kSize);
  ring.set_word(kPendingSendSizeOffset, 0);
  RingProducer producer(ring.view());
  RingConsumer consumer(ring.view(), kSize);
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 4; ++i) {
      ASSERT_EQ(Write(&producer, 1000), WriteResult::kOk);
    }
    (void)producer.Publish();
    // As one peer does that never takes the word back.
    ring.set_word(kPendingSendSizeOffset, 2000);
    int signals = 0;
    for (int i = 0; i < 4; ++i) signals += TakeAndRelease(&consumer);
    EXPECT_EQ(signals, 1);
  }
}

// The peer takes the room while Release() decides: it has noticed by itself.
TEST(ReleaseTest, DoesNotSignalAPeerThatUsedTheRoomAlready) {
  TestRing ring(kSize);
  Fill(&ring, {2040, 2040});
  std::function<void()> hook;
  BasicRingConsumer<HookAccess> consumer(ring.view(), kSize, HookAccess(&hook));
  RingProducer producer(ring.view());
  ring.set_word(kPendingSendSizeOffset, 1000);
  hook = [&] {
    ASSERT_EQ(Write(&producer, 1600), WriteResult::kOk);
    (void)producer.Publish();
  };
  EXPECT_FALSE(TakeAndRelease(&consumer));
  EXPECT_EQ(consumer.fault(), RingFault::kNone);
}

TEST(ReleaseTest, ABatchGetsOneStoreOneFenceAndOneDecision) {
  TestRing ring(kSize);
  Fill(&ring, {1000, 1000, 1000, 1000});
  ring.set_word(kPendingSendSizeOffset, 2500);
  FetchRecorder recorder(ring.view(), RingRole::kConsumer);
  BasicRingConsumer<CountingAccess> consumer(ring.view(), kSize, {&recorder});
  BasicPacketView<CountingAccess> packet;
  for (int i = 0; i < 4; ++i) {
    recorder.BeginOperation();
    ASSERT_EQ(consumer.Next(&packet), ReadResult::kOk);
  }
  // One look at the peer's index served the whole batch.
  EXPECT_EQ(recorder.loads(kWriteIndexOffset), 1u);
  recorder.BeginOperation();
  EXPECT_TRUE(consumer.Release());
  EXPECT_FALSE(consumer.Release());
  EXPECT_EQ(recorder.stores(kReadIndexOffset), 1u);
  EXPECT_EQ(recorder.fences(), 1u);
  EXPECT_EQ(recorder.violation(), "");
}

// vector:G13
TEST(UnmaskTest, SeesAPacketThatCameBeforeTheMaskWasOff) {
  TestRing ring(kSize);
  RingProducer producer(ring.view());
  RingConsumer consumer(ring.view(), kSize);
  consumer.MaskSignals();
  EXPECT_EQ(ring.word(kInterruptMaskOffset), 1u);
  PacketView packet;
  EXPECT_EQ(consumer.Next(&packet), ReadResult::kEmpty);
  ASSERT_EQ(Write(&producer, 32), WriteResult::kOk);
  EXPECT_FALSE(producer.Publish());
  EXPECT_TRUE(consumer.UnmaskSignals());
  EXPECT_EQ(ring.word(kInterruptMaskOffset), 0u);
  consumer.MaskSignals();
  EXPECT_FALSE(TakeAndRelease(&consumer));
  EXPECT_FALSE(consumer.UnmaskSignals());
  ASSERT_EQ(Write(&producer, 32), WriteResult::kOk);
  EXPECT_TRUE(producer.Publish());
}

// The mask is off before the second look, and the look comes after the fence.
TEST(UnmaskTest, SeesAPacketThatCameJustAfterTheMaskWasOff) {
  TestRing ring(kSize);
  std::function<void()> hook;
  BasicRingConsumer<HookAccess> consumer(ring.view(), kSize, HookAccess(&hook));
  RingProducer producer(ring.view());
  consumer.MaskSignals();
  bool signalled = false;
  hook = [&] {
    ASSERT_EQ(Write(&producer, 32), WriteResult::kOk);
    signalled = producer.Publish();
  };
  EXPECT_TRUE(consumer.UnmaskSignals());
  EXPECT_TRUE(signalled);
}

// A fault that the re-check meets must not be slept on: no signal will come.
TEST(UnmaskTest, AFaultSaysDrainOnSoThatNextReportsIt) {
  TestRing ring(kSize);
  RingConsumer consumer(ring.view(), kSize);
  ring.set_word(kWriteIndexOffset, kSize);
  EXPECT_TRUE(consumer.UnmaskSignals());
  PacketView packet;
  EXPECT_EQ(consumer.Next(&packet), ReadResult::kCorrupt);
  EXPECT_TRUE(consumer.UnmaskSignals());
}

TEST(ArmTest, WaitsUntilTheRoomIsThere) {
  TestRing ring(kSize);
  Fill(&ring, {2040, 2040});
  RingProducer producer(ring.view());
  EXPECT_EQ(Write(&producer, 1000), WriteResult::kFull);
  EXPECT_FALSE(producer.ArmPendingSend(1000));
  EXPECT_EQ(ring.word(kPendingSendSizeOffset), 1000u);
  RingConsumer consumer(ring.view(), kSize);
  EXPECT_TRUE(TakeAndRelease(&consumer));
  EXPECT_EQ(Write(&producer, 1000), WriteResult::kOk);
  (void)producer.Publish();
  EXPECT_EQ(ring.word(kPendingSendSizeOffset), 0u);
}

// Exactly the wanted bytes free is not room: the indices would meet.
TEST(ArmTest, RoomMeansMoreThanTheWantedBytes) {
  for (uint32_t used : {4096u - 1008u, 4096u - 1000u, 4096u - 992u}) {
    TestRing ring(kSize);
    Fill(&ring, {used});
    RingProducer producer(ring.view());
    const bool fits = Write(&producer, 1000) == WriteResult::kOk;
    EXPECT_EQ(fits, used == 4096 - 1008);
    if (fits) continue;
    EXPECT_FALSE(producer.ArmPendingSend(1000));
  }
}

TEST(ArmTest, SaysWriteAgainWhenRoomCameMeanwhile) {
  TestRing ring(kSize);
  Fill(&ring, {2040, 2040});
  std::function<void()> hook;
  BasicRingProducer<HookAccess> producer(ring.view(), HookAccess(&hook));
  EXPECT_EQ(Write(&producer, 1000), WriteResult::kFull);
  hook = [&] { ring.set_word(kReadIndexOffset, 2040); };
  EXPECT_TRUE(producer.ArmPendingSend(1000));
}

TEST(ArmTest, MoreThanTheRingIsCutToItsSize) {
  TestRing ring(kSize);
  Fill(&ring, {4080});
  RingProducer producer(ring.view());
  EXPECT_FALSE(producer.ArmPendingSend(uint64_t{1} << 40));
  EXPECT_EQ(ring.word(kPendingSendSizeOffset), kSize - 1);
  RingConsumer consumer(ring.view(), kSize);
  EXPECT_TRUE(TakeAndRelease(&consumer));
}

// A fault must not be waited on either.
TEST(ArmTest, AFaultSaysWriteAgainSoThatTheWriteReportsIt) {
  TestRing ring(kSize);
  Fill(&ring, {4080});
  RingProducer producer(ring.view());
  ring.set_word(kReadIndexOffset, kSize);
  EXPECT_TRUE(producer.ArmPendingSend(100));
  EXPECT_EQ(Write(&producer, 100), WriteResult::kCorrupt);
  EXPECT_TRUE(producer.ArmPendingSend(100));
}

// One side of a handshake sleeps, the other acts, in every order of their
// steps.  What may not happen: asleep with work there and no signal sent.
TEST(HandshakeTest, NoOrderOfPublishAndUnmaskLosesTheWakeUp) {
  int slept = 0;
  for (bool masks : {true, false}) {
    for (const std::vector<int>& script : Interleaver::AllScripts(3, 7)) {
      TestRing ring(kSize);
      Fill(&ring, {32});
      Interleaver turns;
      BasicRingProducer<ScriptedAccess> producer(ring.view(), {&turns, 0});
      BasicRingConsumer<ScriptedAccess> consumer(ring.view(), kSize,
                                                 {&turns, 1});
      if (masks) consumer.MaskSignals();
      bool signalled = false;
      bool sleeps = false;
      int taken = 0;
      turns.Run(
          script,
          [&] {
            ASSERT_EQ(Write(&producer, 32), WriteResult::kOk);
            signalled = producer.Publish();
          },
          [&] {
            BasicPacketView<ScriptedAccess> packet;
            while (consumer.Next(&packet) == ReadResult::kOk) ++taken;
            (void)consumer.Release();
            sleeps = !consumer.UnmaskSignals();
          });
      slept += sleeps && taken == 1;
      EXPECT_TRUE(!sleeps || taken == 2 || signalled)
          << ::testing::PrintToString(script);
      // Nor is a reader signalled that has seen all.
      EXPECT_FALSE(signalled && sleeps && taken == 2)
          << ::testing::PrintToString(script);
      EXPECT_EQ(producer.fault(), RingFault::kNone);
      EXPECT_EQ(consumer.fault(), RingFault::kNone);
    }
  }
  EXPECT_GT(slept, 0);
}

TEST(HandshakeTest, NoOrderOfArmAndReleaseLosesTheWakeUp) {
  int slept = 0;
  for (const std::vector<int>& script : Interleaver::AllScripts(4, 9)) {
    TestRing ring(kSize);
    Fill(&ring, {1360, 1360, 1360});
    Interleaver turns;
    BasicRingProducer<ScriptedAccess> producer(ring.view(), {&turns, 0});
    BasicRingConsumer<ScriptedAccess> consumer(ring.view(), kSize, {&turns, 1});
    bool sleeps = false;
    int signals = 0;
    turns.Run(
        script,
        [&] {
          // Wants room that comes with the second release.
          if (Write(&producer, 2000) == WriteResult::kFull) {
            sleeps = !producer.ArmPendingSend(2000);
          }
        },
        [&] {
          for (int i = 0; i < 3; ++i) signals += TakeAndRelease(&consumer);
        });
    slept += sleeps;
    EXPECT_TRUE(!sleeps || signals == 1) << ::testing::PrintToString(script);
    EXPECT_LE(signals, 1) << ::testing::PrintToString(script);
    EXPECT_EQ(producer.fault(), RingFault::kNone);
    EXPECT_EQ(consumer.fault(), RingFault::kNone);
  }
  EXPECT_GT(slept, 0);
}

}  // namespace
}  // namespace ferrybus::ringbuffer
