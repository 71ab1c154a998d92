// SPDX-License-Identifier: MIT
//
// Messages a second from one processor to another: our ring, used in several
// ways, beside other queues and beside what the machine allows.
//
// Names: ring_throughput/<payload bytes>/<lane>.  bench/lane.h says what every
// lane does, docs/BENCHMARKS.md what the lanes are.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "benchmark/benchmark.h"
#include "ferrybus/bench/core_pair.h"
#include "ferrybus/bench/lane.h"
#include "ferrybus/bench/peer_lanes.h"
#include "ferrybus/bench/ring_lanes.h"
#include "ferrybus/ringbuffer/memory_access.h"

namespace ferrybus::bench {
namespace {

using ringbuffer::ProductionAccess;

constexpr uint32_t kRingBytes = 1 << 20;
constexpr RingUse kOneByOne = {.batch = {.packets = 1}};

using MakeLane = std::function<std::unique_ptr<Lane>()>;

// Enough work for some milliseconds.
uint64_t PacketsFor(uint32_t payload_bytes, bool slow) {
  const uint64_t bytes = slow ? 8 << 20 : 64 << 20;
  const uint64_t packets = bytes / (payload_bytes + 24);
  return std::min<uint64_t>(packets, slow ? 40'000 : 1'000'000);
}

void Register(uint32_t payload_bytes, const std::string& name,
              const MakeLane& make, bool slow = false) {
  const uint64_t packets = PacketsFor(payload_bytes, slow);
  const auto run = [make, packets](benchmark::State& state) {
    const std::unique_ptr<Lane> lane = make();
    const auto once = [&] {
      return CorePair::Get().Run([&] { lane->Produce(packets); },
                                 [&] { lane->Consume(packets); });
    };
    once();  // caches, page tables, branch predictors
    Calibrated calibrated(state);
    for (auto iteration : state) state.SetIterationTime(once());
    state.SetItemsProcessed(static_cast<int64_t>(packets) * state.iterations());
  };
  benchmark::RegisterBenchmark(
      ("ring_throughput/" + std::to_string(payload_bytes) + "/" + name).c_str(),
      run)
      ->UseManualTime();
}

template <class Access, uint32_t kBytes>
MakeLane Ring(const RingUse& use) {
  return [use] { return std::make_unique<RingLane<Access, kBytes>>(use); };
}

template <uint32_t kBytes>
void RegisterRing() {
  const auto production = [&](const char* name, const RingUse& use,
                              bool slow = false) {
    Register(kBytes, name, Ring<ProductionAccess, kBytes>(use), slow);
  };
  production("ferrybus_batch_64k", {.batch = {.bytes = 65536}});
  production("ferrybus_batch_16k", {.batch = {.bytes = 16384}});
  production("ferrybus_batch_equal",
             {.batch = {.bytes = 16384, .packets = 32}});
  production("ferrybus_adaptive",
             {.batch = {.bytes = 16384}, .adaptive = true});
  production("ferrybus_one_by_one", kOneByOne, true);
  Register(kBytes, "ferrybus_no_fence", Ring<NoFenceAccess, kBytes>(kOneByOne),
           true);
  Register(kBytes, "ferrybus_no_fence_paced",
           Ring<NoFenceAccess, kBytes>(
               {.batch = {.packets = 1}, .reader_pause = 32}),
           true);
}

template <size_t kBytes>
void RegisterPeers() {
  Register(kBytes, "boost_spsc",
           [] { return std::make_unique<BoostLane<kBytes>>(kRingBytes); });
  Register(kBytes, "boost_spsc_all",
           [] { return std::make_unique<BoostAllLane<kBytes>>(kRingBytes); });
  Register(kBytes, "moodycamel_readerwriter", [] {
    return std::make_unique<ReaderWriterQueueLane<kBytes>>(kRingBytes);
  });
  Register(kBytes, "bound_chunk_flag",
           [] { return std::make_unique<ChunkFlagLane>(kBytes, kRingBytes); });
}

template <size_t... kBytes>
void RegisterAll() {
  ((RegisterRing<kBytes>(), RegisterPeers<kBytes>()), ...);
}

}  // namespace
}  // namespace ferrybus::bench

int main(int argc, char** argv) {
  ferrybus::bench::RegisterAll<8, 64, 256, 1024, 4096, 16384, 65536>();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
