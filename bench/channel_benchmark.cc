// SPDX-License-Identifier: MIT
//
// Requests and their answers through the whole stack, beside the same through
// bare rings; and many channels on one connection.
//
//   channel_request/<payload bytes>/<queue depth>/<lane>
//   channel_open/<channels>/<ring>    time and heap of one channel
//   channel_idle/<open channels>      one request while the others are idle
//
// A batch is as many requests as the queue is deep: sent, published at once,
// and awaited.  An answer carries as many bytes as its request.  Lanes on one
// thread poll both sides in turn; those on two pin and poll each on its own.
//
// Counters of channel_request: `ns` of one request; for the stack
// `ring_ns`, of bare rings in the same run, turn by turn with it, and
// `above_ring_ns`, the difference; `allocations` of one request.

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "benchmark/benchmark.h"
#include "ferrybus/bench/core_pair.h"
#include "ferrybus/bench/lane.h"
#include "ferrybus/bench/ring_lanes.h"
#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/testing/allocation_count.h"
#include "ferrybus/tests/testing/bus_pair.h"

namespace ferrybus::bench {
namespace {

using ringbuffer::testing::AllocatedBytes;
using ringbuffer::testing::AllocationCount;
using testing::BusPair;
using testing::EchoDevice;
using testing::EchoDriver;
using testing::EchoOffer;

constexpr uint32_t kRingDataPages = 32;

// What carries requests.  Client and server may run on two threads.
class Carrier {
 public:
  virtual ~Carrier() = default;
  virtual void Send(uint32_t count) = 0;
  virtual void Serve() = 0;
  // Takes the answers that are there; the number of all so far.
  virtual uint64_t Reap() = 0;
};

class Stack final : public Carrier {
 public:
  explicit Stack(uint32_t payload_bytes) : payload_(payload_bytes) {
    const bool offered = pair_.host->Offer(EchoOffer(1), &device_).ok();
    pair_.guest.AddDriver(EchoOffer(1).interface_type, &driver_);
    pair_.Connect();
    if (!offered || driver_.channel == nullptr) std::abort();
  }
  ~Stack() override {
    if (driver_.wrong != 0) std::abort();
  }

  void Send(uint32_t count) override {
    driver_.Request(absl::MakeSpan(payload_), count);
  }
  void Serve() override { pair_.host->Poll(); }
  uint64_t Reap() override {
    pair_.guest.Poll();
    return driver_.answers;
  }

 private:
  EchoDevice device_;
  alignas(128) EchoDriver driver_;
  std::vector<std::byte> payload_;
  BusPair pair_{1024};
};

// A ring each way, as large, and what is read is copied out of it, too.
class BareRings final : public Carrier {
 public:
  explicit BareRings(uint32_t payload_bytes)
      : payload_(payload_bytes),
        request_(payload_bytes),
        answer_(payload_bytes) {
    requests_.MaskSignals();
    answers_.MaskSignals();
  }

  void Send(uint32_t count) override {
    for (uint32_t i = 0; i < count; ++i) {
      Write(sender_, ringbuffer::PacketType::kDataInBand, ++sent_, payload_);
    }
    Use(sender_.Publish());
  }

  void Serve() override {
    bool any = false;
    ringbuffer::PacketView packet;
    while (Next(requests_, &packet)) {
      packet.payload.CopyTo(absl::MakeSpan(request_));
      Write(answerer_, ringbuffer::PacketType::kCompletion,
            packet.transaction_id, request_);
      any = true;
    }
    if (!any) return;
    Use(requests_.Release());
    Use(answerer_.Publish());
  }

  uint64_t Reap() override {
    bool any = false;
    ringbuffer::PacketView packet;
    while (Next(answers_, &packet)) {
      packet.payload.CopyTo(absl::MakeSpan(answer_));
      if (packet.transaction_id != ++reaped_) std::abort();
      any = true;
    }
    if (any) Use(answers_.Release());
    return reaped_;
  }

 private:
  static void Write(ringbuffer::RingProducer& producer,
                    ringbuffer::PacketType type, uint64_t id,
                    absl::Span<const std::byte> payload) {
    if (producer.Write({type, 0, id}, {}, payload) !=
        ringbuffer::WriteResult::kOk) {
      std::abort();
    }
  }
  static bool Next(ringbuffer::RingConsumer& consumer,
                   ringbuffer::PacketView* packet) {
    const ringbuffer::ReadResult result = consumer.Next(packet);
    if (result == ringbuffer::ReadResult::kCorrupt) std::abort();
    return result == ringbuffer::ReadResult::kOk;
  }
  static void Use(bool signal) { asm volatile("" ::"r"(signal)); }

  static constexpr uint32_t kBytes = kRingDataPages * 4096;
  const MemfdRing there_{kBytes};
  const MemfdRing back_{kBytes};
  // The client's.
  alignas(128) ringbuffer::RingProducer sender_{there_.view()};
  ringbuffer::RingConsumer answers_{back_.view(), kBytes};
  const std::vector<std::byte> payload_;
  uint64_t sent_ = 0;
  uint64_t reaped_ = 0;
  // The server's.
  alignas(128) ringbuffer::RingConsumer requests_{there_.view(), kBytes};
  ringbuffer::RingProducer answerer_{back_.view()};
  std::vector<std::byte> request_;
  alignas(128) std::vector<std::byte> answer_;
};

struct RequestRun {
  uint32_t payload_bytes = 0;
  uint32_t depth = 0;
  bool two_threads = false;
  uint64_t batches() const { return (two_threads ? 8'000 : 16'000) / depth; }
};

// Seconds of run.batches() batches.
double RunBatches(const RequestRun& run, Carrier& carrier) {
  if (!run.two_threads) {
    const auto begin = std::chrono::steady_clock::now();
    uint64_t due = carrier.Reap();
    for (uint64_t i = 0; i < run.batches(); ++i) {
      carrier.Send(run.depth);
      due += run.depth;
      do {
        carrier.Serve();
      } while (carrier.Reap() != due);
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() -
                                         begin)
        .count();
  }
  std::atomic<bool> done{false};
  const auto client = [&] {
    uint64_t due = carrier.Reap();
    for (uint64_t i = 0; i < run.batches(); ++i) {
      carrier.Send(run.depth);
      due += run.depth;
      while (carrier.Reap() != due) Pause();
    }
    done.store(true, std::memory_order_relaxed);
  };
  const auto server = [&] {
    while (!done.load(std::memory_order_relaxed)) {
      carrier.Serve();
      Pause();
    }
  };
  return CorePair::Get().Run(std::ref(client), std::ref(server));
}

void ReportRequests(benchmark::State& state, const RequestRun& run,
                    Carrier& carrier, Carrier* rings) {
  std::vector<double> own;
  std::vector<double> above;
  const double requests = static_cast<double>(run.batches() * run.depth);
  RunBatches(run, carrier);  // caches, page tables, branch predictors
  if (rings != nullptr) RunBatches(run, *rings);
  const Calibrated calibrated(state);
  uint64_t allocations = 0;
  for (auto iteration : state) {
    const uint64_t before = AllocationCount();
    const double seconds = RunBatches(run, carrier);
    allocations += AllocationCount() - before;
    state.SetIterationTime(seconds);
    own.push_back(seconds * 1e9 / requests);
    if (rings == nullptr) continue;
    above.push_back(own.back() - RunBatches(run, *rings) * 1e9 / requests);
  }
  const auto median = [](std::vector<double>& values) {
    std::nth_element(values.begin(), values.begin() + values.size() / 2,
                     values.end());
    return values[values.size() / 2];
  };
  state.counters["ns"] = median(own);
  state.counters["allocations"] =
      static_cast<double>(allocations) /
      (requests * static_cast<double>(state.iterations()));
  if (rings != nullptr) {
    state.counters["above_ring_ns"] = median(above);
    state.counters["ring_ns"] =
        state.counters["ns"] - state.counters["above_ring_ns"];
  }
  state.SetItemsProcessed(static_cast<int64_t>(run.batches() * run.depth) *
                          state.iterations());
}

void RegisterRequests(const RequestRun& run) {
  const std::string name = "channel_request/" +
                           std::to_string(run.payload_bytes) + "/" +
                           std::to_string(run.depth) + "/";
  const std::string threads = run.two_threads ? "_two_threads" : "_one_thread";
  benchmark::RegisterBenchmark((name + "stack" + threads).c_str(),
                               [run](benchmark::State& state) {
                                 Stack stack(run.payload_bytes);
                                 BareRings rings(run.payload_bytes);
                                 ReportRequests(state, run, stack, &rings);
                               })
      ->UseManualTime();
  benchmark::RegisterBenchmark((name + "bare_ring" + threads).c_str(),
                               [run](benchmark::State& state) {
                                 BareRings rings(run.payload_bytes);
                                 ReportRequests(state, run, rings, nullptr);
                               })
      ->UseManualTime();
}

// ---- many channels

vsc::BusOptions RingsOf(uint32_t data_pages) {
  vsc::BusOptions options;
  options.ring_data_pages = data_pages;
  return options;
}

// A connection with open channels, each between a device and a driver.
class Channels {
 public:
  Channels(uint32_t count, uint32_t ring_data_pages)
      : pair_(1 + uint64_t{count} * 2 * (ring_data_pages + 1),
              RingsOf(ring_data_pages)),
        drivers_(count) {
    // Guest RAM is there before a guest has channels.
    const auto ram =
        pair_.memory->Translate(0, pair_.memory->page_count() * 4096);
    std::fill(ram.begin(), ram.end(), std::byte{0});
  }

  void Offer() {
    for (uint32_t i = 0; i < drivers_.size(); ++i) {
      if (!pair_.host->Offer(EchoOffer(i), &device_).ok()) std::abort();
      pair_.guest.AddDriver(EchoOffer(i).interface_type, &drivers_[i]);
    }
  }
  void Open() {
    pair_.Connect();
    if (drivers_.back().channel == nullptr) std::abort();
  }
  // One request through the last of them.
  void Request() {
    EchoDriver& busy = drivers_.back();
    busy.Request(absl::MakeSpan(payload_), 1);
    pair_.host->Poll();
    pair_.guest.Poll();
    if (busy.answers != busy.requests) std::abort();
  }

 private:
  EchoDevice device_;
  std::array<std::byte, 64> payload_ = {};
  BusPair pair_;
  std::vector<EchoDriver> drivers_;
};

// Two rings of `data_pages` in one GPADL.
void RegisterOpen(uint32_t channels, uint32_t data_pages,
                  const std::string& ring) {
  const auto body = [channels, data_pages](benchmark::State& state) {
    double seconds = 0;
    double bytes = 0;
    for (auto iteration : state) {
      Channels all(channels, data_pages);
      const int64_t before = AllocatedBytes();
      const auto begin = std::chrono::steady_clock::now();
      all.Offer();
      all.Open();
      const std::chrono::duration<double> time =
          std::chrono::steady_clock::now() - begin;
      state.SetIterationTime(time.count());
      seconds += time.count();
      bytes = static_cast<double>(AllocatedBytes() - before);
    }
    state.counters["us_per_channel"] =
        seconds * 1e6 / channels / static_cast<double>(state.iterations());
    state.counters["heap_bytes_per_channel"] = bytes / channels;
  };
  benchmark::RegisterBenchmark(
      ("channel_open/" + std::to_string(channels) + "/" + ring).c_str(), body)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

void RegisterIdle(uint32_t channels) {
  const auto body = [channels](benchmark::State& state) {
    Channels all(channels, 1);
    all.Offer();
    all.Open();
    for (auto iteration : state) all.Request();
  };
  benchmark::RegisterBenchmark(
      ("channel_idle/" + std::to_string(channels)).c_str(), body);
}

}  // namespace
}  // namespace ferrybus::bench

int main(int argc, char** argv) {
  using namespace ferrybus::bench;  // NOLINT
  for (const uint32_t payload : {64u, 1024u}) {
    for (const uint32_t depth : {1u, 32u}) {
      RegisterRequests({payload, depth, false});
      RegisterRequests({payload, depth, true});
    }
  }
  for (const uint32_t channels : {1u, 16u, 256u, 2047u}) {
    RegisterOpen(channels, 1, "rings_of_4_kib");
    if (channels >= 256) RegisterOpen(channels, 127, "gpadl_1_mib");
    RegisterIdle(channels);
  }
  // Debian's Abseil is a debugging build: each lock looks for cycles in a
  // graph that all threads share.
  if (std::getenv("FERRYBUS_BENCH_ABSL_DEBUG") == nullptr) {
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
