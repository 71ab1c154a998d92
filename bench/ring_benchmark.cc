// SPDX-License-Identifier: MIT
//
// Packets through one ring between two threads, beside a queue that makes no
// promises to the outside.
//
// Each iteration moves a fixed amount of work from one pinned thread to
// another; the consumer reads every cache line of each payload.  Items per
// second are packets.  The number after the payload size is how many bytes are
// published at once: 0 is one by one, each with its fence and signal decision.
//
// Run it with --benchmark_repetitions and
// --benchmark_enable_random_interleaving (./ferry bench does): the machine's
// mood then hits all rows alike.

#include <pthread.h>
#include <readerwriterqueue/readerwriterqueue.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "benchmark/benchmark.h"
#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_mapping.h"
#include "ferrybus/ringbuffer/ring_producer.h"

namespace ferrybus::ringbuffer {
namespace {

constexpr uint32_t kRingBytes = 1 << 20;
constexpr uint64_t kWorkBytes = uint64_t{256} << 20;
constexpr uint64_t kPacketsMax = 4'000'000;

uint64_t PacketsFor(uint32_t payload_bytes, bool one_by_one) {
  const uint64_t packets = kWorkBytes / (payload_bytes + 24);
  return std::min(packets, one_by_one ? kPacketsMax / 4 : kPacketsMax);
}

void Pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

class Ring {
 public:
  Ring() {
    const int fd = memfd_create("ring", MFD_CLOEXEC);
    std::vector<uint64_t> pages(1 + kRingBytes / kPageBytes);
    for (size_t i = 0; i < pages.size(); ++i) pages[i] = i * kPageBytes;
    if (fd < 0 ||
        ftruncate(fd, static_cast<off_t>(pages.size() * kPageBytes)) != 0 ||
        RingMapping::Map(fd, pages, &mapping_) != 0) {
      std::abort();
    }
    close(fd);
  }
  RingView view() const { return mapping_.view(); }

 private:
  RingMapping mapping_;
};

// Runs both halves at the same time on two processors; seconds it took.
template <typename Produce, typename Consume>
double RunPair(Produce produce, Consume consume) {
  std::atomic<int> ready{0};
  const auto meet = [&ready] {
    ready.fetch_add(1);
    while (ready.load() < 2) {
    }
  };
  std::thread consumer([&] {
    Pin(1);
    meet();
    consume();
  });
  Pin(0);
  meet();
  const auto begin = std::chrono::steady_clock::now();
  produce();
  consumer.join();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
      .count();
}

// Reads one word of every cache line.
uint64_t Touch(const BasicUntrustedBytes<ProductionAccess>& payload) {
  uint64_t sum = 0;
  for (uint32_t at = 0; at < payload.size(); at += 64) {
    sum += payload.Load64(at);
  }
  return sum;
}

void Produce(Ring& ring, uint64_t packets, uint32_t payload_bytes,
             uint32_t batch_bytes) {
  RingProducer producer(ring.view());
  std::vector<std::byte> payload(payload_bytes);
  uint32_t staged = 0;
  for (uint64_t i = 0; i < packets;) {
    std::memcpy(payload.data(), &i, sizeof(i));
    const WriteResult result =
        producer.Write({PacketType::kDataInBand, 0, i}, {}, payload);
    if (result == WriteResult::kOk) {
      ++i;
      staged += payload_bytes + 24;
    }
    if (staged > batch_bytes || result == WriteResult::kFull) {
      benchmark::DoNotOptimize(producer.Publish());
      staged = 0;
    }
  }
  benchmark::DoNotOptimize(producer.Publish());
}

void Consume(Ring& ring, uint64_t packets, uint32_t batch_bytes) {
  RingConsumer consumer(ring.view(), kRingBytes);
  PacketView packet;
  uint64_t sum = 0;
  uint32_t taken = 0;
  for (uint64_t i = 0; i < packets;) {
    const ReadResult result = consumer.Next(&packet);
    if (result == ReadResult::kOk) {
      sum += Touch(packet.payload);
      taken += packet.payload.size() + 24;
      ++i;
    } else if (result == ReadResult::kCorrupt) {
      std::abort();
    }
    if (taken > batch_bytes || result == ReadResult::kEmpty) {
      benchmark::DoNotOptimize(consumer.Release());
      taken = 0;
    }
  }
  benchmark::DoNotOptimize(consumer.Release());
  benchmark::DoNotOptimize(sum);
}

void BM_Ring(benchmark::State& state) {
  const uint32_t payload_bytes = static_cast<uint32_t>(state.range(0));
  const uint32_t batch_bytes = static_cast<uint32_t>(state.range(1));
  const uint64_t packets = PacketsFor(payload_bytes, batch_bytes == 0);
  for (auto iteration : state) {
    Ring ring;
    state.SetIterationTime(
        RunPair([&] { Produce(ring, packets, payload_bytes, batch_bytes); },
                [&] { Consume(ring, packets, batch_bytes); }));
  }
  state.SetItemsProcessed(static_cast<int64_t>(
      packets * static_cast<uint64_t>(state.iterations())));
}
BENCHMARK(BM_Ring)
    ->ArgNames({"payload", "batch"})
    ->ArgsProduct({{8, 64, 256, 1024, 4096}, {0, 16384, 65536}})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

// moodycamel's ReaderWriterQueue: fixed slots in private memory, published one
// by one, nothing checked.
template <size_t kBytes>
void BM_ReaderWriterQueue(benchmark::State& state) {
  using Message = std::array<std::byte, kBytes>;
  const uint64_t packets = PacketsFor(kBytes, false);
  for (auto iteration : state) {
    moodycamel::ReaderWriterQueue<Message> queue(kRingBytes / kBytes);
    const auto produce = [&] {
      Message message = {};
      for (uint64_t i = 0; i < packets;) {
        std::memcpy(message.data(), &i, sizeof(i));
        if (queue.try_enqueue(message)) ++i;
      }
    };
    const auto consume = [&] {
      uint64_t sum = 0;
      for (uint64_t i = 0; i < packets;) {
        const Message* const front = queue.peek();
        if (front == nullptr) continue;
        for (size_t at = 0; at < kBytes; at += 64) {
          uint64_t word;
          std::memcpy(&word, front->data() + at, sizeof(word));
          sum += word;
        }
        queue.pop();
        ++i;
      }
      benchmark::DoNotOptimize(sum);
    };
    state.SetIterationTime(RunPair(produce, consume));
  }
  state.SetItemsProcessed(static_cast<int64_t>(
      packets * static_cast<uint64_t>(state.iterations())));
}
BENCHMARK(BM_ReaderWriterQueue<8>)->UseManualTime();
BENCHMARK(BM_ReaderWriterQueue<64>)->UseManualTime();
BENCHMARK(BM_ReaderWriterQueue<256>)->UseManualTime();
BENCHMARK(BM_ReaderWriterQueue<1024>)->UseManualTime();
BENCHMARK(BM_ReaderWriterQueue<4096>)->UseManualTime();

}  // namespace
}  // namespace ferrybus::ringbuffer
