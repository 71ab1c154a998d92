// SPDX-License-Identifier: MIT
//
// A peer that changes memory while it is looked at: chosen changes between any
// two fetches, then a thread that storms everything.
//
//   FERRYBUS_STORM_SECONDS=60   a longer storm

#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_index.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/testing/checked_ring.h"
#include "ferrybus/ringbuffer/testing/counting_access.h"
#include "ferrybus/ringbuffer/testing/model_ring.h"
#include "ferrybus/ringbuffer/testing/mutating_access.h"
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
using testing::CheckedConsumer;
using testing::CheckedProducer;
using testing::CountingAccess;
using testing::FetchRecorder;
using testing::FromHex;
using testing::ModelPacket;
using testing::ModelWriter;
using testing::Pattern;
using testing::RingMutator;
using testing::RingRole;
using testing::TestRing;
using testing::TestSeed;

constexpr uint32_t kSize = 4096;

ModelPacket RandomPacket(std::mt19937_64* random) {
  static constexpr uint16_t kTypes[] = {6, 7, 9, 11};
  ModelPacket packet;
  packet.type = kTypes[(*random)() % 4];
  packet.flags = (*random)() % 2;
  packet.transaction_id = (*random)();
  const bool ranges = packet.type == 7 || packet.type == 9;
  packet.extension = Pattern(ranges ? 8 + (*random)() % 8 * 8 : 0, 1);
  packet.payload = Pattern((*random)() % 100, 2);
  return packet;
}

// bad:R19
TEST(MutationTest, WhatTheConsumerDoesFitsOneSnapshot) {
  const uint64_t seed =
      TestSeed("//ringbuffer:ring_storm_test", "MutationTest.*");
  TestRing ring(kSize);
  uint64_t packets = 0;
  uint64_t faults = 0;
  for (uint64_t round = 0; round < 8000; ++round) {
    std::mt19937_64 random(seed + round);
    ring.ZeroControlPage();
    const uint32_t start = static_cast<uint32_t>(random() % 512) * 8;
    ring.SetIndices(start, start);
    ModelWriter writer(&ring);
    for (int i = 0; i < 12; ++i) (void)writer.Write(RandomPacket(&random));
    RingMutator mutator(ring.view(), random());
    mutator.set_changes_control(round % 2 == 0);
    CheckedConsumer consumer(&ring, &mutator, 2048);
    bool good = !consumer.corrupt();
    for (int i = 0; i < 30 && good; ++i) {
      switch (random() % 8) {
        case 0:
          good = consumer.Release();
          break;
        case 1:
          good = consumer.Rollback();
          break;
        case 2:
          good = consumer.Unmask();
          break;
        case 3:
        case 4:
          good = consumer.TakeBatch(
              {.bytes = static_cast<uint32_t>(random() % 1000),
               .packets = static_cast<uint32_t>(random() % 8)});
          break;
        default:
          good = consumer.Next();
      }
    }
    ASSERT_EQ(consumer.error(), "") << "round " << round;
    packets += consumer.packets();
    faults += consumer.corrupt();
  }
  // The changes were neither too few nor too many to mean something.
  EXPECT_GT(packets, 8000u);
  EXPECT_GT(faults, 800u);
  EXPECT_LT(faults, 8000u);
}

// bad:R19
TEST(MutationTest, WhatTheProducerDoesFitsOneSnapshot) {
  const uint64_t seed =
      TestSeed("//ringbuffer:ring_storm_test", "MutationTest.*");
  TestRing ring(kSize);
  uint64_t packets = 0;
  uint64_t faults = 0;
  for (uint64_t round = 0; round < 2500; ++round) {
    std::mt19937_64 random(seed + round);
    ring.ZeroControlPage();
    const uint32_t start = static_cast<uint32_t>(random() % 512) * 8;
    ring.SetIndices(start, start);
    RingMutator mutator(ring.view(), random());
    mutator.set_changes_data(false);
    mutator.set_changes_control(round % 2 == 0);
    CheckedProducer producer(&ring, &mutator);
    bool good = !producer.corrupt();
    for (int i = 0; i < 60 && good; ++i) {
      const uint64_t choice = random() % 8;
      if (choice == 0) {
        good = producer.Publish();
      } else if (choice == 1 && !producer.has_unpublished()) {
        good = producer.Arm(random() % 5000);
      } else if (choice == 2 && round % 2 == 1) {
        ring.set_word(kReadIndexOffset, ring.word(kWriteIndexOffset));
      } else if (choice == 3) {
        std::vector<ModelPacket> batch(random() % 8);
        for (ModelPacket& packet : batch) packet = RandomPacket(&random);
        good = producer.WriteBatch(
            batch, {.bytes = static_cast<uint32_t>(random() % 1000),
                    .packets = static_cast<uint32_t>(random() % 8)});
      } else {
        good = producer.Write(RandomPacket(&random));
      }
    }
    ASSERT_EQ(producer.error(), "") << "round " << round;
    packets += producer.packets();
    faults += producer.corrupt();
  }
  EXPECT_GT(packets, 25000u);
  EXPECT_GT(faults, 100u);
  EXPECT_LT(faults, 2500u);
}

// The policy itself: it must see a second fetch, or the tests above are blind.
TEST(CountingTest, ReportsAByteThatIsFetchedTwice) {
  TestRing ring(kSize);
  ModelWriter writer(&ring);
  ASSERT_TRUE(writer.Write({6, 0, 1, {}, Bytes(16)}));
  FetchRecorder recorder(ring.view(), RingRole::kConsumer);
  BasicRingConsumer<CountingAccess> consumer(ring.view(), kSize, {&recorder});
  BasicPacketView<CountingAccess> packet;
  ASSERT_EQ(consumer.Next(&packet), ReadResult::kOk);
  Bytes copy(16);
  packet.payload.CopyTo(absl::MakeSpan(copy));
  EXPECT_EQ(recorder.violation(), "");
  packet.payload.CopyTo(absl::MakeSpan(copy));
  EXPECT_NE(recorder.violation(), "");
}

TEST(CountingTest, ReportsAWordThatIsFetchedTwiceOrIsNotThePeers) {
  TestRing ring(kSize);
  const RingView& view = ring.view();
  FetchRecorder twice(view, RingRole::kConsumer);
  CountingAccess access(&twice);
  access.LoadAcquire(view.word(kWriteIndexOffset));
  EXPECT_EQ(twice.violation(), "");
  access.LoadAcquire(view.word(kWriteIndexOffset));
  EXPECT_NE(twice.violation(), "");
  FetchRecorder own(view, RingRole::kConsumer);
  CountingAccess(&own).LoadAcquire(view.word(kReadIndexOffset));
  EXPECT_EQ(own.violation(), "");
  CountingAccess(&own).LoadAcquire(view.word(kReadIndexOffset));
  EXPECT_NE(own.violation(), "");
  FetchRecorder foreign(view, RingRole::kConsumer);
  CountingAccess(&foreign).StoreRelease(view.word(kWriteIndexOffset), 0);
  EXPECT_NE(foreign.violation(), "");
  FetchRecorder outside(view, RingRole::kConsumer);
  EXPECT_FALSE(outside.InData(view.data + 2 * kSize - 8, 16));
  EXPECT_NE(outside.violation(), "");
}

// bad:R28
TEST(BudgetTest, AMillionSmallestPacketsKeepTheBatchBudget) {
  constexpr uint32_t kPackets = 1 << 20;
  constexpr int kBudget = 64;
  TestRing ring(1 << 20);
  RingProducer producer(ring.view());
  FetchRecorder recorder(ring.view(), RingRole::kConsumer);
  BasicRingConsumer<CountingAccess> consumer(ring.view(), 2048, {&recorder});
  uint32_t written = 0;
  uint32_t taken = 0;
  uint32_t batches = 0;
  while (taken < kPackets) {
    while (written < kPackets &&
           producer.Write({PacketType::kDataInBand, 0, written}, {}, {}) ==
               WriteResult::kOk) {
      ++written;
    }
    (void)producer.Publish();
    BasicPacketView<CountingAccess> packet;
    for (int i = 0; i < kBudget; ++i) {
      recorder.BeginOperation();
      if (consumer.Next(&packet) != ReadResult::kOk) break;
      ASSERT_EQ(packet.transaction_id, taken++);
    }
    recorder.BeginOperation();
    (void)consumer.Release();
    ++batches;
    ASSERT_EQ(ring.word(kReadIndexOffset), taken * 24ull % (1 << 20));
  }
  EXPECT_EQ(recorder.violation(), "");
  EXPECT_EQ(recorder.stores(kReadIndexOffset), batches);
  EXPECT_EQ(recorder.fences(), batches);
  EXPECT_LE(recorder.loads(kWriteIndexOffset), batches + 2);
}

// The real instructions, with every address checked.
class BoundedAccess : public ProductionAccess {
 public:
  BoundedAccess() = default;
  explicit BoundedAccess(FetchRecorder* recorder) : recorder_(recorder) {}
  void CopyFrom(void* to, const std::byte* shared, size_t bytes) const {
    if (recorder_->InData(shared, bytes)) {
      ProductionAccess::CopyFrom(to, shared, bytes);
    }
  }
  void CopyTo(std::byte* shared, const void* from, size_t bytes) const {
    if (recorder_->InData(shared, bytes)) {
      ProductionAccess::CopyTo(shared, from, bytes);
    }
  }

 private:
  FetchRecorder* recorder_ = nullptr;
};

// A storm over the data is one data race by intent; over the control words it
// is none, since each access to them is atomic.
#ifdef FERRYBUS_TEST_TSAN
constexpr bool kStormsData = false;
#else
constexpr bool kStormsData = true;
#endif

constexpr uint32_t kControlWords = 32;

// Packets of 24 bytes, one every 32.
void FillWithPackets(TestRing* ring) {
  const Bytes descriptor = FromHex("0600 0200 0300 0100");
  for (uint32_t at = 0; at < kSize; at += 32) ring->Write(at, descriptor);
}

// Writes control words and data as fast as it can, mostly plausible ones.
// Returns how often.
uint64_t Storm(const RingView& view, uint64_t seed,
               const std::atomic<bool>& stop) {
  std::mt19937_64 random(seed);
  const Bytes descriptor = FromHex("0600 0200 0300 0100");
  uint64_t writes = 0;
  for (; !stop.load(std::memory_order_relaxed); ++writes) {
    const uint64_t dice = random();
    const uint32_t value = static_cast<uint32_t>(dice >> 32);
    switch (kStormsData ? dice % 16 : 0) {
      case 0:
        __atomic_store_n(view.word(dice / 16 % kControlWords * 4),
                         dice / 512 % 16 == 0 ? value : value % kSize & ~31u,
                         __ATOMIC_RELEASE);
        break;
      case 1:
        view.data[value % kSize] = static_cast<std::byte>(dice >> 8);
        break;
      default:
        std::copy(descriptor.begin(), descriptor.end(),
                  view.data + (value % kSize & ~31u));
    }
  }
  return writes;
}

struct StormCounts {
  uint64_t handles = 0;
  uint64_t packets = 0;
  uint64_t faults = 0;
};

// What a host does with a ring between two polls, with new handles.
void PollOnce(TestRing* ring, FetchRecorder* bounds, StormCounts* counts) {
  BasicRingConsumer<BoundedAccess> consumer(ring->view(), 1024,
                                            BoundedAccess(bounds));
  BasicRingProducer<BoundedAccess> producer(ring->view(),
                                            BoundedAccess(bounds));
  ++counts->handles;
  // Without a release between them, packets cannot be more than the ring,
  // whatever the peer does to the index.
  uint64_t taken_bytes = 0;
  BasicPacketView<BoundedAccess> packet;
  for (int i = 0; i < 512 && consumer.Next(&packet) == ReadResult::kOk; ++i) {
    Bytes copy(packet.payload.size());
    packet.payload.CopyTo(absl::MakeSpan(copy));
    taken_bytes += copy.size() + packet.extension.size() + 24;
    ++counts->packets;
  }
  ASSERT_LT(taken_bytes, kSize);
  (void)consumer.Release();
  (void)consumer.UnmaskSignals();
  for (int i = 0; i < 8; ++i) (void)producer.Write({}, {}, Bytes(i * 13));
  (void)producer.Publish();
  (void)producer.ArmPendingSend(2000);
  for (const RingPosition& position :
       {consumer.position(), producer.position()}) {
    if (consumer.fault() != RingFault::kNone) break;
    if (producer.fault() != RingFault::kNone) break;
    ASSERT_TRUE(IsValidIndex(position.own_index, kSize));
    ASSERT_TRUE(IsValidIndex(position.peer_index, kSize));
  }
  counts->faults += consumer.fault() != RingFault::kNone;
  counts->faults += producer.fault() != RingFault::kNone;
}

double ThreadCpuSeconds() {
  timespec used;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) +
         static_cast<double>(used.tv_nsec) * 1e-9;
}

// bad:R20
TEST(StormTest, NothingIsTouchedOutsideTheRingAndEachPollEnds) {
  const uint64_t seed = TestSeed("//ringbuffer:ring_storm_test", "StormTest.*");
  std::printf("longer: --test_env=FERRYBUS_STORM_SECONDS=60\n");
  const char* const seconds = std::getenv("FERRYBUS_STORM_SECONDS");
  const auto length = std::chrono::milliseconds(
      seconds != nullptr ? 1000 * std::strtoull(seconds, nullptr, 0) : 300);
  TestRing ring(kSize);
  FillWithPackets(&ring);
  std::atomic<bool> stop{false};
  uint64_t writes = 0;
  // At our own addresses: the thread sanitizer knows no others.
  std::thread peer([&] { writes = Storm(ring.view(), seed, stop); });
  FetchRecorder bounds(ring.view(), RingRole::kConsumer);
  StormCounts counts;
  const double cpu_before = ThreadCpuSeconds();
  const auto end = std::chrono::steady_clock::now() + length;
  while (std::chrono::steady_clock::now() < end && !HasFailure()) {
    PollOnce(&ring, &bounds, &counts);
  }
  const double cpu_seconds = ThreadCpuSeconds() - cpu_before;
  stop.store(true, std::memory_order_relaxed);
  peer.join();
  EXPECT_EQ(bounds.violation(), "");
  EXPECT_GT(counts.packets, 100u);
  std::printf(
      "storm: %llu writes; %llu packets and %llu faults through %llu handles "
      "in %.2f s of CPU\n",
      static_cast<unsigned long long>(writes),
      static_cast<unsigned long long>(counts.packets),
      static_cast<unsigned long long>(counts.faults),
      static_cast<unsigned long long>(counts.handles), cpu_seconds);
}

}  // namespace
}  // namespace ferrybus::ringbuffer
