// SPDX-License-Identifier: MIT
//
// The rules of waiting, one by one: who is asked for what before a side
// sleeps, in every interleaving with the peer; what ends a wait; what the
// sleepers do with peers that play with the bell.  Threads and processes that
// wait for each other are in waiting_storm_test.cc.

#include "ferrybus/ringbuffer/waiting.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "ferrybus/ringbuffer/paged_ring.h"
#include "ferrybus/ringbuffer/sleepers.h"
#include "ferrybus/ringbuffer/testing/scripted_access.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "gtest/gtest.h"

namespace ferrybus::ringbuffer {
namespace {

using testing::Bytes;
using testing::Interleaver;
using testing::ScriptedAccess;
using testing::TestRing;

constexpr uint32_t kSize = 4096;
constexpr WaitPolicy kSleepAtOnce = {.sleep = true};
constexpr int64_t kPast = 1;  // a deadline of long ago

// Does not sleep but remembers that it would have: the wait then ends.
class ProbeSleeper {
 public:
  WaitResult Check(int64_t) {
    ++checks;
    return slept != 0 ? WaitResult::kStopped : WaitResult::kReady;
  }
  void Sleep(int64_t) {
    ++slept;
    if (while_asleep) while_asleep();
  }

  int slept = 0;
  int checks = 0;
  std::function<void()> while_asleep;
};

template <class Producer>
WriteResult Write(Producer* producer, uint32_t ring_bytes) {
  return producer->Write({}, {}, Bytes(ring_bytes - kMinPacketBytes));
}

void Fill(TestRing* ring, const std::vector<uint32_t>& ring_bytes) {
  RingProducer producer(ring->view());
  for (uint32_t bytes : ring_bytes) {
    ASSERT_EQ(Write(&producer, bytes), WriteResult::kOk);
  }
  (void)producer.Publish();
}

// What an actor does while it sleeps: nothing, until the other one is done.
std::function<void()> AsleepUntil(Interleaver* turns, int actor,
                                  const std::atomic<bool>* done) {
  return [turns, actor, done] {
    while (!done->load()) {
      turns->Step(actor);
      std::this_thread::yield();
    }
  };
}

// One packet is published while the consumer goes to sleep, in every order of
// their steps.  Either it does not sleep, or it is signalled.
// promise:P3
TEST(WaitForPacketsTest, NoOrderOfPublishAndSleepLosesTheWakeUp) {
  int slept = 0;
  for (const std::vector<int>& script : Interleaver::AllScripts(3, 7)) {
    TestRing ring(kSize);
    Interleaver turns;
    BasicRingProducer<ScriptedAccess> producer(ring.view(), {&turns, 0});
    BasicRingConsumer<ScriptedAccess> consumer(ring.view(), kSize, {&turns, 1});
    ProbeSleeper sleeper;
    std::atomic<bool> published{false};
    sleeper.while_asleep = AsleepUntil(&turns, 1, &published);
    bool signalled = false;
    WaitResult result = WaitResult::kReady;
    turns.Run(
        script,
        [&] {
          ASSERT_EQ(Write(&producer, 32), WriteResult::kOk);
          signalled = producer.Publish();
          published = true;
        },
        [&] { result = WaitForPackets(consumer, kSleepAtOnce, sleeper); });
    slept += sleeper.slept;
    EXPECT_TRUE(sleeper.slept == 0 || signalled)
        << ::testing::PrintToString(script);
    EXPECT_TRUE(sleeper.slept != 0 || result == WaitResult::kReady);
    EXPECT_EQ(consumer.fault(), RingFault::kNone);
  }
  EXPECT_GT(slept, 0);
}

// The same for room, which comes with the second of three releases.
// promise:P3
TEST(WaitForRoomTest, NoOrderOfReleaseAndSleepLosesTheWakeUp) {
  int slept = 0;
  for (const std::vector<int>& script : Interleaver::AllScripts(4, 9)) {
    TestRing ring(kSize);
    Fill(&ring, {1360, 1360, 1360});
    Interleaver turns;
    BasicRingProducer<ScriptedAccess> producer(ring.view(), {&turns, 0});
    BasicRingConsumer<ScriptedAccess> consumer(ring.view(), kSize, {&turns, 1});
    ProbeSleeper sleeper;
    std::atomic<bool> released{false};
    sleeper.while_asleep = AsleepUntil(&turns, 0, &released);
    int signals = 0;
    WaitResult result = WaitResult::kReady;
    turns.Run(
        script,
        [&] { result = WaitForRoom(producer, 2000, kSleepAtOnce, sleeper); },
        [&] {
          for (int i = 0; i < 3; ++i) {
            BasicPacketView<ScriptedAccess> packet;
            ASSERT_EQ(consumer.Next(&packet), ReadResult::kOk);
            signals += consumer.Release();
          }
          released = true;
        });
    slept += sleeper.slept;
    EXPECT_TRUE(sleeper.slept == 0 || signals == 1)
        << ::testing::PrintToString(script);
    EXPECT_LE(signals, 1) << ::testing::PrintToString(script);
    EXPECT_TRUE(sleeper.slept != 0 || result == WaitResult::kReady);
    EXPECT_EQ(producer.fault(), RingFault::kNone);
  }
  EXPECT_GT(slept, 0);
}

TEST(WaitForPacketsTest, APacketThatIsThereCostsNoStore) {
  TestRing ring(kSize);
  Fill(&ring, {32, 40});
  RingConsumer consumer(ring.view(), kSize);
  ProbeSleeper sleeper;
  const Bytes before = ring.ControlPage();
  EXPECT_EQ(WaitForPackets(consumer, kSleepAtOnce, sleeper),
            WaitResult::kReady);
  EXPECT_EQ(ring.ControlPage(), before);
  EXPECT_EQ(sleeper.checks, 0);
  // Nothing was taken by looking.
  PacketView packet;
  EXPECT_EQ(consumer.Next(&packet), ReadResult::kOk);
  EXPECT_EQ(packet.payload.size(), 8u);
}

TEST(WaitForPacketsTest, AsksForSignalsOnlyWhileAsleep) {
  TestRing ring(kSize);
  RingConsumer consumer(ring.view(), kSize);
  ProbeSleeper sleeper;
  uint32_t mask_asleep = 1;
  sleeper.while_asleep = [&] { mask_asleep = ring.word(kInterruptMaskOffset); };
  EXPECT_EQ(WaitForPackets(consumer, kSleepAtOnce, sleeper),
            WaitResult::kStopped);
  EXPECT_EQ(mask_asleep, 0u);
  EXPECT_EQ(ring.word(kInterruptMaskOffset), 1u);
}

TEST(WaitForPacketsTest, TheLastLookComesAfterTheSleep) {
  TestRing ring(kSize);
  RingConsumer consumer(ring.view(), kSize);
  ProbeSleeper sleeper;  // stops once it has slept
  sleeper.while_asleep = [&] { Fill(&ring, {32}); };
  EXPECT_EQ(WaitForPackets(consumer, kSleepAtOnce, sleeper),
            WaitResult::kReady);
}

// A ring that breaks while a side waits for it must not be slept on.
TEST(WaitForPacketsTest, AFaultIsReadyForNextToReport) {
  TestRing ring(kSize);
  RingConsumer consumer(ring.view(), kSize);
  ProbeSleeper sleeper;
  sleeper.while_asleep = [&] { ring.set_word(kWriteIndexOffset, 4097); };
  EXPECT_EQ(WaitForPackets(consumer, kSleepAtOnce, sleeper),
            WaitResult::kReady);
  PacketView packet;
  EXPECT_EQ(consumer.Next(&packet), ReadResult::kCorrupt);
  EXPECT_EQ(WaitForPackets(consumer, kSleepAtOnce, sleeper),
            WaitResult::kReady);
}

TEST(WaitForRoomTest, AsksForTheRoomThatItWaitsFor) {
  TestRing ring(kSize);
  Fill(&ring, {2040, 2040});
  RingProducer producer(ring.view());
  ProbeSleeper sleeper;
  EXPECT_EQ(WaitForRoom(producer, 1000, kSleepAtOnce, sleeper),
            WaitResult::kStopped);
  EXPECT_EQ(ring.word(kPendingSendSizeOffset), 1000u);
  RingConsumer consumer(ring.view(), kSize);
  PacketView packet;
  ASSERT_EQ(consumer.Next(&packet), ReadResult::kOk);
  EXPECT_TRUE(consumer.Release());
  EXPECT_EQ(WaitForRoom(producer, 1000, kSleepAtOnce, sleeper),
            WaitResult::kReady);
  EXPECT_EQ(Write(&producer, 1000), WriteResult::kOk);
}

// Every free size around the wanted one: ready exactly when a write succeeds.
TEST(WaitForRoomTest, ReadyMeansThatTheWriteSucceeds) {
  for (uint32_t used = 3040; used <= 3120; used += 8) {
    for (uint32_t wanted : {24u, 992u, 997u, 1000u, 1008u}) {
      TestRing ring(kSize);
      Fill(&ring, {used});
      RingProducer producer(ring.view());
      ProbeSleeper sleeper;
      const WaitResult result =
          WaitForRoom(producer, wanted, kSleepAtOnce, sleeper);
      EXPECT_EQ(Write(&producer, wanted) == WriteResult::kOk,
                result == WaitResult::kReady)
          << used << " " << wanted;
      EXPECT_EQ(sleeper.slept, result == WaitResult::kReady ? 0 : 1);
    }
  }
}

// No room will ever do: the write says so, the wait must not.
TEST(WaitForRoomTest, WhatNeverFitsIsNotWaitedFor) {
  TestRing ring(kSize);
  Fill(&ring, {4080});
  RingProducer producer(ring.view());
  ProbeSleeper sleeper;
  for (uint64_t wanted : {uint64_t{4088}, uint64_t{4096}, uint64_t{1} << 40}) {
    EXPECT_EQ(WaitForRoom(producer, wanted, kSleepAtOnce, sleeper),
              WaitResult::kReady);
  }
  EXPECT_EQ(Write(&producer, 4088), WriteResult::kTooLarge);
  ring.set_word(kReadIndexOffset, 4);
  EXPECT_EQ(WaitForRoom(producer, 1000, kSleepAtOnce, sleeper),
            WaitResult::kReady);
  EXPECT_EQ(Write(&producer, 1000), WriteResult::kCorrupt);
  EXPECT_EQ(sleeper.slept, 0);
}

// Over scattered pages, where a packet cannot be reserved but only copied in.
TEST(WaitForRoomTest, AProducerOfAPagedRingWaitsToo) {
  TestRing ring(kSize);
  PagedRing paged;
  ASSERT_EQ(PagedRing::Create(ring.pages(), &paged), 0);
  Fill(&ring, {2040, 2040});
  PagedRingProducer producer(paged.view(), paged.access());
  PagedRingConsumer consumer(paged.view(), kSize, paged.access());
  ProbeSleeper sleeper;
  sleeper.while_asleep = [&] {
    EXPECT_EQ(ring.word(kPendingSendSizeOffset), 1000u);
    PagedPacketView packet;
    ASSERT_EQ(consumer.Next(&packet), ReadResult::kOk);
    EXPECT_TRUE(consumer.Release());
  };
  EXPECT_EQ(WaitForRoom(producer, 1000, kSleepAtOnce, sleeper),
            WaitResult::kReady);
  EXPECT_EQ(sleeper.slept, 1);
  EXPECT_EQ(Write(&producer, 1000), WriteResult::kOk);
  EXPECT_TRUE(WaitForPackets(consumer, kSpin, sleeper) == WaitResult::kReady);
}

// A look is no write: what the peer reads stays as it is.
TEST(WaitForRoomTest, LookingForRoomWritesNoPacket) {
  TestRing ring(kSize);
  const Bytes before = ring.Read(0, kSize);
  RingProducer producer(ring.view());
  ProbeSleeper sleeper;
  EXPECT_EQ(WaitForRoom(producer, 1000, kSleepAtOnce, sleeper),
            WaitResult::kReady);
  EXPECT_EQ(ring.Read(0, kSize), before);
  EXPECT_EQ(producer.staged_end(), 0u);
}

// A policy that never sleeps asks for no signal, and still ends.
TEST(WaitPolicyTest, WithoutSleepNobodyIsAskedForASignal) {
  for (const WaitPolicy& policy : {kSpin, kBackOff, kYield}) {
    TestRing ring(kSize);
    Fill(&ring, {4080});
    RingProducer producer(ring.view());
    RingConsumer consumer(ring.view(), kSize);
    PacketView packet;
    ASSERT_EQ(consumer.Next(&packet), ReadResult::kOk);
    uint32_t word = 0;
    FutexSleeper sleeper(&word);
    EXPECT_EQ(WaitForRoom(producer, 32, policy, sleeper, kPast),
              WaitResult::kTimeout);
    EXPECT_EQ(ring.word(kPendingSendSizeOffset), 0u);
    (void)consumer.Release();
    EXPECT_EQ(WaitForPackets(consumer, policy, sleeper, DeadlineAfterMs(1)),
              WaitResult::kTimeout);
    EXPECT_EQ(ring.word(kInterruptMaskOffset), 1u);
    sleeper.RequestStop();
    EXPECT_EQ(WaitForPackets(consumer, policy, sleeper), WaitResult::kStopped);
    // A ready ring is ready, whatever else is the case.
    Fill(&ring, {32});
    EXPECT_EQ(WaitForPackets(consumer, policy, sleeper), WaitResult::kReady);
  }
}

TEST(WaitPolicyTest, SleepsAfterItsSpinsAndYields) {
  TestRing ring(kSize);
  RingConsumer consumer(ring.view(), kSize);
  ProbeSleeper sleeper;
  const WaitPolicy policy = {.spins = 64, .yields = 32, .sleep = true};
  EXPECT_EQ(WaitForPackets(consumer, policy, sleeper), WaitResult::kStopped);
  // Every 32 looks, before the sleep and after it.
  EXPECT_EQ(sleeper.checks, 3 + 1 + 1);
  EXPECT_EQ(sleeper.slept, 1);
}

class EventFd {
 public:
  explicit EventFd(int flags = 0) : fd_(eventfd(0, EFD_CLOEXEC | flags)) {}
  ~EventFd() { close(fd_); }
  int fd() const { return fd_; }
  void Add(uint64_t n) const { ASSERT_EQ(write(fd_, &n, sizeof(n)), 8); }

 private:
  const int fd_;
};

// The sleeper's own part: what it does with a bell in any state.
TEST(EventFdSleeperTest, TakesTheBellInAnyStateAndBlocksOnNone) {
  for (int flags : std::vector<int>{0, EFD_NONBLOCK, EFD_SEMAPHORE}) {
    for (uint64_t count : {uint64_t{1}, uint64_t{7}, ~uint64_t{0} - 1}) {
      EventFd bell(flags);
      const auto sleeper = EventFdSleeper::Create(bell.fd());
      ASSERT_TRUE(sleeper.ok());
      bell.Add(count);
      (*sleeper)->Sleep(kNoDeadline);
      // Taken, or one ring of it.
      if (flags != EFD_SEMAPHORE) {
        fcntl(bell.fd(), F_SETFL, O_NONBLOCK);
        EXPECT_EQ(read(bell.fd(), &count, sizeof(count)), -1);
      }
      EXPECT_EQ((*sleeper)->Check(kNoDeadline), WaitResult::kReady);
    }
  }
}

// The peer reads the bell back, and switches it to blocking, all the time.
TEST(EventFdSleeperTest, APeerThatTakesItsRingBackBlocksNobody) {
  EventFd bell(EFD_NONBLOCK);
  const auto sleeper = EventFdSleeper::Create(bell.fd());
  ASSERT_TRUE(sleeper.ok());
  std::atomic<bool> done{false};
  std::thread peer([&] {
    while (!done) {
      uint64_t count = 1;
      fcntl(bell.fd(), F_SETFL, O_NONBLOCK);
      (void)!write(bell.fd(), &count, sizeof(count));
      (void)!read(bell.fd(), &count, sizeof(count));
      fcntl(bell.fd(), F_SETFL, 0);
    }
  });
  for (int i = 0; i < 2000; ++i) (*sleeper)->Sleep(DeadlineAfterMs(1));
  done = true;
  peer.join();
}

TEST(EventFdSleeperTest, ADescriptorThatIsNoneStopsTheWait) {
  const auto sleeper = EventFdSleeper::Create(9999);
  ASSERT_TRUE(sleeper.ok());
  TestRing ring(kSize);
  RingConsumer consumer(ring.view(), kSize);
  EXPECT_EQ(WaitForPackets(consumer, kSleepAtOnce, **sleeper),
            WaitResult::kStopped);
}

TEST(FutexSleeperTest, ARingBeforeTheSleepIsNotLost) {
  uint32_t word = 0;
  FutexSleeper sleeper(&word);
  FutexSleeper::Ring(&word);
  FutexSleeper::Ring(&word);
  sleeper.Sleep(kNoDeadline);
  EXPECT_EQ(word, 0u);
  // Any value is a ring.
  word = 0x80000000;
  sleeper.Sleep(kNoDeadline);
  EXPECT_EQ(word, 0u);
}

// The rest holds for both.
struct EventFdBell {
  EventFdBell() : made(EventFdSleeper::Create(bell.fd())) {}
  EventFdSleeper& sleeper() { return **made; }
  void Ring() { bell.Add(1); }

  EventFd bell;
  absl::StatusOr<std::unique_ptr<EventFdSleeper>> made;
};

struct FutexBell {
  FutexSleeper& sleeper() { return made; }
  void Ring() { FutexSleeper::Ring(&word); }

  uint32_t word = 0;
  FutexSleeper made{&word};
};

template <class Bell>
class SleeperTest : public ::testing::Test {};
using Bells = ::testing::Types<EventFdBell, FutexBell>;
TYPED_TEST_SUITE(SleeperTest, Bells);

TYPED_TEST(SleeperTest, ADeadlineEndsTheWait) {
  TypeParam bell;
  TestRing ring(kSize);
  RingConsumer consumer(ring.view(), kSize);
  for (const WaitPolicy& policy : {kSleepAtOnce, kSleep}) {
    EXPECT_EQ(
        WaitForPackets(consumer, policy, bell.sleeper(), DeadlineAfterMs(2)),
        WaitResult::kTimeout);
    EXPECT_EQ(WaitForPackets(consumer, policy, bell.sleeper(), kPast),
              WaitResult::kTimeout);
  }
}

// Rings without a cause neither end a wait nor keep it from its deadline.
TYPED_TEST(SleeperTest, ADeadlineEndsTheWaitOfAPeerThatRingsForEver) {
  TypeParam bell;
  TestRing ring(kSize);
  RingConsumer consumer(ring.view(), kSize);
  std::atomic<bool> done{false};
  std::thread peer([&] {
    while (!done) bell.Ring();
  });
  EXPECT_EQ(WaitForPackets(consumer, kSleepAtOnce, bell.sleeper(),
                           DeadlineAfterMs(20)),
            WaitResult::kTimeout);
  done = true;
  peer.join();
}

TYPED_TEST(SleeperTest, AStopRequestEndsThisWaitAndAllLaterOnes) {
  for (const WaitPolicy& policy : {kSpin, kBackOff, kYield, kSleep}) {
    for (int round = 0; round < 50; ++round) {
      TypeParam bell;
      TestRing ring(kSize);
      RingConsumer consumer(ring.view(), kSize);
      std::thread stopper([&] { bell.sleeper().RequestStop(); });
      EXPECT_EQ(WaitForPackets(consumer, policy, bell.sleeper()),
                WaitResult::kStopped);
      stopper.join();
      EXPECT_EQ(WaitForPackets(consumer, policy, bell.sleeper()),
                WaitResult::kStopped);
    }
  }
}

}  // namespace
}  // namespace ferrybus::ringbuffer
