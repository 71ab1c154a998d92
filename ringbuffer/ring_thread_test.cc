// SPDX-License-Identifier: MIT
//
// Two real threads, two eventfds: packets pass in order and whole, both sides
// sleep whenever the rules let them, and nobody sleeps for ever.
//
//   FERRYBUS_THREAD_PACKETS=N   more or fewer packets

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>

#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "gtest/gtest.h"

namespace ferrybus::ringbuffer {
namespace {

using testing::TestRing;
using testing::TestSeed;

// How long a side sleeps before the wake-up counts as lost.  Nothing polls, so
// any wait that ends without a signal is a failure.
constexpr int kWatchdogMs = 20000;

class Doorbell {
 public:
  Doorbell() : fd_(eventfd(0, EFD_CLOEXEC)) {}
  ~Doorbell() { close(fd_); }
  void Ring() {
    const uint64_t one = 1;
    ASSERT_EQ(write(fd_, &one, sizeof(one)), 8);
    ++rings_;
  }
  // False: nobody rang.
  bool Wait() {
    pollfd waiter = {fd_, POLLIN, 0};
    if (poll(&waiter, 1, kWatchdogMs) != 1) return false;
    uint64_t count = 0;
    return read(fd_, &count, sizeof(count)) == 8;
  }
  uint64_t rings() const { return rings_; }

 private:
  const int fd_;
  uint64_t rings_ = 0;
};

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccd;
  return x ^ (x >> 29);
}

// Packet `number` has a length and contents that follow from it.
size_t WordsOf(uint64_t number) { return 1 + Mix(number) % 24; }

void FillPayload(uint64_t number, uint64_t* words) {
  for (size_t i = 0; i < WordsOf(number); ++i) words[i] = Mix(number + i);
}

// No sleep is left to chance: after each so many packets a side waits until the
// other one sleeps.  The consumer's turns lie between the producer's, further
// apart than any ring here has room for, so that both never wait at once.
constexpr uint64_t kTurnPackets = 2000;

// Relaxed: nothing here orders what the rings have to.
struct Side {
  uint64_t sleeps = 0;
  std::atomic<bool> is_asleep = false;
  std::atomic<bool> is_over = false;
  std::string failure;

  // False: nobody rang.
  bool SleepUntil(Doorbell* doorbell) {
    ++sleeps;
    is_asleep.store(true, std::memory_order_relaxed);
    const bool rang = doorbell->Wait();
    is_asleep.store(false, std::memory_order_relaxed);
    return rang;
  }

  void WaitUntilAsleep() const {
    while (!is_asleep.load(std::memory_order_relaxed) &&
           !is_over.load(std::memory_order_relaxed)) {
      std::this_thread::yield();
    }
  }
};

// A little work now and then, so that the sides overtake each other.
void Dawdle(std::mt19937_64* random) {
  if ((*random)() % 64 != 0) return;
  for (uint64_t n = (*random)() % 2000; n > 0; --n) asm volatile("");
}

void Produce(RingView view, uint64_t packets, uint64_t seed, Doorbell* to_peer,
             Doorbell* from_peer, Side* side, const Side& other) {
  std::mt19937_64 random(seed);
  RingProducer producer(view);
  uint64_t words[32];
  uint64_t next = 0;
  uint64_t batch = 1;
  while (next < packets) {
    FillPayload(next, words);
    const size_t bytes = WordsOf(next) * 8;
    const WriteResult result =
        producer.Write({PacketType::kDataInBand, 0, next}, {},
                       {reinterpret_cast<const std::byte*>(words), bytes});
    if (result == WriteResult::kOk) {
      ++next;
      const bool is_turn = next % kTurnPackets == 0;
      if (--batch != 0 && next < packets && !is_turn) continue;
      if (producer.Publish()) to_peer->Ring();
      if (is_turn) other.WaitUntilAsleep();
      batch = 1 + random() % 16;
      Dawdle(&random);
      continue;
    }
    if (result != WriteResult::kFull) {
      side->failure = RingFaultName(producer.fault());
      return;
    }
    if (producer.Publish()) to_peer->Ring();
    // Sometimes ask for more than the packet needs, to sleep longer.
    const uint64_t wanted = PacketRingBytes(16, bytes) + random() % 3 * 1000;
    if (producer.ArmPendingSend(wanted)) continue;
    if (!side->SleepUntil(from_peer)) {
      side->failure = "producer: lost wake-up";
      return;
    }
  }
}

bool TakeOne(const PacketView& packet, uint64_t expected, Side* side) {
  uint64_t words[32];
  uint64_t model[32];
  FillPayload(expected, model);
  const size_t bytes = packet.payload.CopyTo(
      {reinterpret_cast<std::byte*>(words), sizeof(words)});
  if (packet.transaction_id == expected && bytes == WordsOf(expected) * 8 &&
      std::memcmp(words, model, bytes) == 0) {
    return true;
  }
  side->failure = "consumer: packet " + std::to_string(expected) +
                  " is wrong; its number is " +
                  std::to_string(packet.transaction_id);
  return false;
}

void Consume(RingView view, uint64_t packets, uint64_t seed, Doorbell* to_peer,
             Doorbell* from_peer, Side* side, const Side& other) {
  std::mt19937_64 random(seed);
  RingConsumer consumer(view, 4096);
  const bool masks = seed % 2 == 0;
  uint64_t next = 0;
  while (next < packets) {
    if (masks) consumer.MaskSignals();
    PacketView packet;
    ReadResult result = ReadResult::kOk;
    for (uint64_t n = 1 + random() % 32; n > 0; --n) {
      result = consumer.Next(&packet);
      if (result != ReadResult::kOk) break;
      if (!TakeOne(packet, next, side)) return;
      ++next;
      if (next % kTurnPackets == kTurnPackets / 2) break;
    }
    if (result == ReadResult::kCorrupt) {
      side->failure = RingFaultName(consumer.fault());
      return;
    }
    if (consumer.Release()) to_peer->Ring();
    if (next % kTurnPackets == kTurnPackets / 2) other.WaitUntilAsleep();
    Dawdle(&random);
    if (result != ReadResult::kEmpty || next == packets) continue;
    if (consumer.UnmaskSignals()) continue;
    if (!side->SleepUntil(from_peer)) {
      side->failure = "consumer: lost wake-up";
      return;
    }
  }
}

void Pass(uint64_t packets, uint32_t data_bytes, uint64_t seed) {
  TestRing ring(data_bytes);
  Doorbell to_consumer;
  Doorbell to_producer;
  Side producer;
  Side consumer;
  std::thread thread([&] {
    Produce(ring.view(), packets, seed, &to_consumer, &to_producer, &producer,
            consumer);
    producer.is_over.store(true, std::memory_order_relaxed);
  });
  Consume(ring.view(), packets, seed, &to_producer, &to_consumer, &consumer,
          producer);
  consumer.is_over.store(true, std::memory_order_relaxed);
  thread.join();
  EXPECT_EQ(producer.failure, "");
  EXPECT_EQ(consumer.failure, "");
  EXPECT_EQ(ring.word(kReadIndexOffset), ring.word(kWriteIndexOffset));
  EXPECT_GE(producer.sleeps + 1, packets / kTurnPackets);
  EXPECT_GE(consumer.sleeps + 1, packets / kTurnPackets);
  std::printf("%u bytes, %s: sleeps %llu and %llu, signals %llu and %llu\n",
              data_bytes, seed % 2 == 0 ? "masking" : "not masking",
              static_cast<unsigned long long>(producer.sleeps),
              static_cast<unsigned long long>(consumer.sleeps),
              static_cast<unsigned long long>(to_producer.rings()),
              static_cast<unsigned long long>(to_consumer.rings()));
}

uint64_t PacketCount() {
  const char* const text = std::getenv("FERRYBUS_THREAD_PACKETS");
  return text != nullptr ? std::strtoull(text, nullptr, 0) : 1000000;
}

// The thread sanitizer knows of no compiler barrier: with [W1] or [R1] relaxed
// it reports a race here.
// promise:P2 quirk:D27
TEST(ThreadTest, AMillionPacketsArriveOnceInOrderAndWhole) {
  const uint64_t seed = TestSeed("//ringbuffer:ring_thread_test", "*");
  Pass(PacketCount(), 4096, seed & ~1ull);
  Pass(PacketCount(), 4096, seed | 1);
}

TEST(ThreadTest, OddSizesWrapElsewhereEachTime) {
  const uint64_t seed = TestSeed("//ringbuffer:ring_thread_test", "*");
  Pass(PacketCount() / 4, 12288, seed & ~1ull);
  Pass(PacketCount() / 4, 20480, seed | 1);
}

}  // namespace
}  // namespace ferrybus::ringbuffer
