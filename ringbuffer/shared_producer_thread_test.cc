// SPDX-License-Identifier: MIT
//
// Several real threads write into one small ring.  Each packet arrives once,
// whole, in the order of the claims; both sides sleep whenever the rules let
// them, rely only on the wake-ups they are told of, and nobody sleeps for ever.
//
//   FERRYBUS_THREAD_PACKETS=N   more or fewer packets

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "ferrybus/ringbuffer/brief_lock.h"
#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/shared_producer.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "gtest/gtest.h"

namespace ferrybus::ringbuffer {
namespace {

using testing::TestRing;
using testing::TestSeed;

// How long a thread sleeps before the wake-up counts as lost.  Nothing polls,
// so any wait that ends without one is a failure.
constexpr int kWatchdogSeconds = 20;

// Wakes all who sleep.  A wake-up after now() is not missed.
class Bell {
 public:
  uint32_t now() const { return rings_.load(std::memory_order_acquire); }
  void Ring() {
    rings_.fetch_add(1, std::memory_order_release);
    syscall(SYS_futex, &rings_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr,
            0);
  }
  // Sleeps until it rings after `seen`.  False: it did not.
  bool Wait(uint32_t seen) {
    const timespec limit = {kWatchdogSeconds, 0};
    while (now() == seen) {
      if (syscall(SYS_futex, &rings_, FUTEX_WAIT_PRIVATE, seen, &limit, nullptr,
                  0) != 0 &&
          errno == ETIMEDOUT) {
        return now() != seen;
      }
    }
    return true;
  }

 private:
  std::atomic<uint32_t> rings_{0};
};

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccd;
  return x ^ (x >> 29);
}

// A packet's id is its writer and its number; length and contents follow from
// it, but for the first word, which is the ticket.
uint64_t IdOf(uint64_t writer, uint64_t number) {
  return writer << 40 | number;
}
uint32_t WordsOf(uint64_t id) {
  return 1 + static_cast<uint32_t>(Mix(id) % (Mix(id + 1) % 16 == 0 ? 90 : 12));
}

void FillWords(uint64_t id, uint64_t ticket, uint64_t* words) {
  words[0] = ticket;
  for (uint32_t i = 1; i < WordsOf(id); ++i) words[i] = Mix(id + i);
}

constexpr uint32_t kMaxClaims = 8;
using Producer = BasicSharedProducer<ProductionAccess, kMaxClaims>;

struct Run {
  Run(uint32_t data_bytes, uint64_t writer_count, uint64_t packet_count,
      uint64_t run_seed)
      : ring(data_bytes),
        producer(ring.view()),
        writers(writer_count),
        packets(packet_count),
        seed(run_seed) {}

  void Fail(const std::string& why) {
    if (failed.exchange(true)) return;
    failure = why;
    Stop();
  }
  void Stop() {
    to_consumer.Ring();
    to_writers.Ring();
  }
  void Deliver(Published published) {
    if (published.signal_peer) to_consumer.Ring();
    if (published.wake_waiters) to_writers.Ring();
  }

  TestRing ring;
  Producer producer;
  const uint64_t writers;
  const uint64_t packets;  // of each writer
  const uint64_t seed;
  Bell to_consumer;
  Bell to_writers;
  std::atomic<bool> failed{false};
  std::string failure;  // the first
  std::atomic<uint64_t> writer_sleeps{0};
  std::atomic<uint64_t> consumer_sleeps{0};
  // The reader, or a writer.
  std::atomic<bool> is_side_over{false};
};

// Each side begins with a sleep, which is not left to chance: the writers wait
// for the reader's first one, and it then for theirs.
void WaitForOne(const Run& run, const std::atomic<uint64_t>& sleeps) {
  while (sleeps.load(std::memory_order_relaxed) == 0 && !run.failed &&
         !run.is_side_over) {
    sched_yield();
  }
}

// Fills a claim, sometimes so slowly that others overtake it.
void FillSlowly(const ClaimedPacket& packet, uint64_t id,
                std::mt19937_64* random) {
  uint64_t words[96];
  FillWords(id, packet.ticket, words);
  const uint64_t pause = (*random)() % 16;
  for (uint32_t i = 0; i < WordsOf(id); ++i) {
    std::memcpy(packet.payload + 8 * i, &words[i], 8);
    if (pause == i) sched_yield();
    if (pause == 1) {
      for (int n = 0; n < 50; ++n) asm volatile("");
    }
  }
}

// False: woken for the end.
bool SleepForRoom(Run* run, uint32_t seen, uint64_t id) {
  if (run->producer.ArmPendingSend(PacketRingBytes(16, WordsOf(id) * 8))) {
    return true;
  }
  run->writer_sleeps.fetch_add(1, std::memory_order_relaxed);
  if (!run->to_writers.Wait(seen)) run->Fail("writer: lost wake-up");
  return !run->failed;
}

void WriteAll(Run* run, uint64_t writer) {
  std::mt19937_64 random(run->seed + writer);
  std::vector<ClaimedPacket> held;
  WaitForOne(*run, run->consumer_sleeps);
  for (uint64_t next = 0; next < run->packets;) {
    const uint64_t id = IdOf(writer, next);
    const uint32_t seen = run->to_writers.now();
    const ClaimedPacket packet = run->producer.Claim(
        {PacketType::kDataInBand, 0, id}, 0, WordsOf(id) * 8);
    if (packet.result == WriteResult::kOk) {
      FillSlowly(packet, id, &random);
      held.push_back(packet);
      ++next;
      if (random() % 4 == 0 && next < run->packets) continue;
    } else if (packet.result != WriteResult::kFull) {
      return run->Fail(RingFaultName(run->producer.fault()));
    }
    // The youngest first, which publishes nothing, or the other way round.
    const bool youngest_first = random() % 2 == 0;
    for (size_t i = 0; i < held.size(); ++i) {
      const size_t at = youngest_first ? held.size() - 1 - i : i;
      run->Deliver(run->producer.Commit(held[at].ticket));
    }
    held.clear();
    if (packet.result == WriteResult::kFull && !SleepForRoom(run, seen, id)) {
      return;
    }
  }
}

// What has arrived.
struct Oracle {
  std::vector<uint64_t> next_of_writer;
  uint64_t total = 0;

  // "": as it should be.
  std::string Take(const PacketView& packet) {
    const uint64_t id = packet.transaction_id;
    const uint64_t writer = id >> 40;
    if (writer >= next_of_writer.size()) return "no such writer";
    if (id != IdOf(writer, next_of_writer[writer])) {
      return "writer " + std::to_string(writer) + " out of order";
    }
    uint64_t words[96];
    uint64_t model[96];
    // The packet's place is that of its claim.
    FillWords(id, total, model);
    const size_t bytes = packet.payload.CopyTo(
        {reinterpret_cast<std::byte*>(words), sizeof(words)});
    if (bytes != WordsOf(id) * 8u || std::memcmp(words, model, bytes) != 0) {
      return "packet " + std::to_string(total) + " has wrong bytes";
    }
    ++next_of_writer[writer];
    ++total;
    return "";
  }
};

void ReadAll(Run* run) {
  std::mt19937_64 random(~run->seed);
  RingConsumer consumer(run->ring.view(), 4096);
  Oracle oracle{std::vector<uint64_t>(run->writers, 0)};
  const uint64_t expected = run->writers * run->packets;
  while (oracle.total < expected && !run->failed) {
    const uint32_t seen = run->to_consumer.now();
    if (run->seed % 2 == 0) consumer.MaskSignals();
    ReadResult result = ReadResult::kOk;
    for (uint64_t n = 1 + random() % 24; n > 0; --n) {
      PacketView packet;
      result = consumer.Next(&packet);
      if (result != ReadResult::kOk) break;
      const std::string wrong = oracle.Take(packet);
      if (!wrong.empty()) return run->Fail(wrong);
    }
    if (result == ReadResult::kCorrupt) {
      return run->Fail(RingFaultName(consumer.fault()));
    }
    if (consumer.Release()) run->to_writers.Ring();
    if (result != ReadResult::kEmpty || oracle.total == expected) continue;
    if (consumer.UnmaskSignals()) continue;
    run->consumer_sleeps.fetch_add(1, std::memory_order_relaxed);
    if (!run->to_consumer.Wait(seen)) return run->Fail("reader: lost wake-up");
    WaitForOne(*run, run->writer_sleeps);
  }
}

uint64_t PacketCount() {
  const char* const text = std::getenv("FERRYBUS_THREAD_PACKETS");
  return text != nullptr ? std::strtoull(text, nullptr, 0) : 200000;
}

void Pass(uint64_t writers, uint32_t data_bytes, uint64_t seed) {
  Run run(data_bytes, writers, PacketCount() / writers, seed);
  std::vector<std::thread> threads;
  for (uint64_t writer = 0; writer < writers; ++writer) {
    threads.emplace_back([&run, writer] {
      WriteAll(&run, writer);
      run.is_side_over = true;
    });
  }
  ReadAll(&run);
  run.is_side_over = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(run.failure, "");
  EXPECT_EQ(run.ring.word(kReadIndexOffset), run.ring.word(kWriteIndexOffset));
  // Both handshakes were used, not only spun past.
  EXPECT_GT(run.writer_sleeps, 0u);
  EXPECT_GT(run.consumer_sleeps, 0u);
  std::printf("%llu writers, %s: writers slept %llu times, reader %llu\n",
              static_cast<unsigned long long>(writers),
              seed % 2 == 0 ? "masking" : "not masking",
              static_cast<unsigned long long>(run.writer_sleeps),
              static_cast<unsigned long long>(run.consumer_sleeps));
}

class SharedProducerThreadTest : public ::testing::TestWithParam<uint64_t> {};

// promise:P2 promise:P13
TEST_P(SharedProducerThreadTest, PacketsArriveOnceInClaimOrderAndWhole) {
  const uint64_t seed =
      TestSeed("//ringbuffer:shared_producer_thread_test", "*");
  Pass(GetParam(), 4096, seed & ~1ull);
  Pass(GetParam(), 4096, seed | 1);
}

INSTANTIATE_TEST_SUITE_P(Writers, SharedProducerThreadTest,
                         ::testing::Values(2, 3, 8));

TEST(BriefLockTest, IsHeldByOneThreadAtATime) {
  BriefLock lock;
  uint64_t count = 0;
  constexpr uint64_t kRounds = 100000;
  const auto work = [&] {
    for (uint64_t i = 0; i < kRounds; ++i) {
      const BriefLockHolder hold(&lock);
      const uint64_t before = count;
      // Now and then the holder is away, and the others go to sleep.
      if (i % 1000 == 0) sched_yield();
      asm volatile("" ::: "memory");
      count = before + 1;
    }
  };
  std::thread first(work);
  std::thread second(work);
  work();
  first.join();
  second.join();
  EXPECT_EQ(count, 3 * kRounds);
}

}  // namespace
}  // namespace ferrybus::ringbuffer
