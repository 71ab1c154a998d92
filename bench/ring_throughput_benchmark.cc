// SPDX-License-Identifier: MIT
//
// Messages a second from one processor to another: our ring, used in several
// ways, beside other queues and beside what the machine allows.
//
//   ring_throughput/<payload bytes>/<lane>
//   ring_mixed/<lane>                          lengths of 8 to 1,504 bytes
//   ring_size/<ring bytes>/<payload bytes>/<lane>
//   ring_channels/<channels>/<lane>            64 bytes
//
// bench/lane.h says what every lane does, docs/BENCHMARKS.md what the lanes
// are.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "benchmark/benchmark.h"
#include "ferrybus/bench/channels_lane.h"
#include "ferrybus/bench/dpdk_lanes.h"
#include "ferrybus/bench/lane.h"
#include "ferrybus/bench/lane_runner.h"
#include "ferrybus/bench/peer_lanes.h"
#include "ferrybus/bench/ring_lanes.h"
#include "ferrybus/ringbuffer/asymmetric_access.h"
#include "ferrybus/ringbuffer/memory_access.h"

namespace ferrybus::bench {
namespace {

using ringbuffer::AsymmetricAccess;
using ringbuffer::FenceScope;
using ringbuffer::ProductionAccess;

constexpr uint32_t kRingBytes = 1 << 20;
constexpr RingUse kOneByOne = {.batch = {.packets = 1}};
constexpr RingUse kBatch64k = {.batch = {.bytes = 65536},
                               .release = {.bytes = 65536}};
constexpr RingUse kBatchEqual = {.batch = {.bytes = 16384, .packets = 32}};

std::string Name(uint32_t length, const std::string& lane) {
  if (length == kMixed) return "ring_mixed/" + lane;
  return "ring_throughput/" + std::to_string(length) + "/" + lane;
}

// T(arguments...), made anew for each run.
template <class T, typename... Arguments>
MakeLane Make(Arguments... arguments) {
  return [=] { return std::make_unique<T>(arguments...); };
}

void Register(uint32_t length, const std::string& lane, const MakeLane& make) {
  RegisterLane({.name = Name(length, lane), .length = length}, make);
}
void RegisterSlow(uint32_t length, const std::string& lane,
                  const MakeLane& make) {
  RegisterLane({.name = Name(length, lane), .length = length, .slow = true},
               make);
}

template <uint32_t kLength>
void RegisterRing() {
  using Fenced = RingLane<ProductionAccess, kLength>;
  using NoFence = RingLane<NoFenceAccess, kLength>;
  Register(kLength, "ferrybus_batch_64k", Make<Fenced>(kBatch64k));
  Register(kLength, "ferrybus_batch_16k",
           Make<Fenced>(RingUse{.batch = {.bytes = 16384}}));
  Register(kLength, "ferrybus_batch_equal", Make<Fenced>(kBatchEqual));
  Register(kLength, "ferrybus_adaptive",
           Make<Fenced>(RingUse{.batch = {.bytes = 16384}, .adaptive = true}));
  RegisterSlow(kLength, "ferrybus_one_by_one", Make<Fenced>(kOneByOne));
  RegisterSlow(kLength, "ferrybus_no_fence", Make<NoFence>(kOneByOne));
  RegisterSlow(
      kLength, "ferrybus_no_fence_paced",
      Make<NoFence>(RingUse{.batch = {.packets = 1}, .reader_pauses = 16}));
  const auto access = AsymmetricAccess::Register(FenceScope::kProcess);
  if (access.ok()) {
    RegisterSlow(kLength, "ferrybus_asymmetric_one_by_one",
                 Make<RingLane<AsymmetricAccess, kLength>>(kOneByOne, *access));
  }
}

// What the checks and what other address spaces cost, and what each trick
// buys.
template <uint32_t kLength>
void RegisterVariants() {
  using Fenced = RingLane<ProductionAccess, kLength>;
  using NoFence = RingLane<NoFenceAccess, kLength>;
  Register(kLength, "ferrybus_without_prefetch_batch_64k",
           Make<RingLane<NoPrefetchAccess, kLength>>(kBatch64k));
  Register(kLength, "ferrybus_without_wide_copy_batch_64k",
           Make<RingLane<LibcCopyAccess, kLength>>(kBatch64k));
  Register(kLength, "ferrybus_without_fence_batch_64k",
           Make<NoFence>(kBatch64k));
  RegisterSlow(kLength, "ferrybus_without_lazy_release_one_by_one",
               Make<Fenced>(RingUse{.batch = {.packets = 1},
                                    .release = {.packets = 1}}));
  RegisterSlow(
      kLength, "ferrybus_without_mask_one_by_one",
      Make<Fenced>(RingUse{.batch = {.packets = 1}, .masks_signals = false}));
  Register(kLength, "ferrybus_unchecked_batch_64k",
           Make<TrustingRingLane<kLength>>(kBatch64k));
  Register(kLength, "ferrybus_unchecked_batch_equal",
           Make<TrustingRingLane<kLength>>(kBatchEqual));
  RegisterLane({.name = Name(kLength, "ferrybus_processes_batch_64k"),
                .length = kLength,
                .two_processes = true},
               Make<RingLane<ProductionAccess, kLength>>(kBatch64k));
}

// Those that take messages of any length.
void RegisterVariableLengthPeers(uint32_t length) {
  using Kind = DescriptorLane::Kind;
  RegisterSlow(length, "dpdk_vmbus", Make<DpdkVmbusLane>(length, kRingBytes));
  RegisterSlow(length, "pipe", Make<DescriptorLane>(length, Kind::kPipe));
  RegisterSlow(length, "unix_socket",
               Make<DescriptorLane>(length, Kind::kUnixSocket));
}

template <uint32_t kLength>
void RegisterPeers() {
  RegisterVariableLengthPeers(kLength);
  Register(kLength, "boost_spsc", Make<BoostLane<kLength>>(kRingBytes));
  Register(kLength, "boost_spsc_all", Make<BoostAllLane<kLength>>(kRingBytes));
  Register(kLength, "moodycamel_readerwriter",
           Make<ReaderWriterQueueLane<kLength>>(kRingBytes));
  // Its bursts must fit into the ring.
  if constexpr (kLength <= 4096) {
    Register(kLength, "moodycamel_concurrent",
             Make<ConcurrentQueueLane<kLength>>(kRingBytes));
  }
  Register(kLength, "rte_ring_pointer",
           Make<RtePointerLane>(kLength, kRingBytes));
  Register(kLength, "rte_ring_zero_copy",
           Make<RteZeroCopyLane>(kLength, kRingBytes));
  Register(kLength, "rte_ring_element",
           Make<RteElementLane<kLength>>(kRingBytes));
  Register(kLength, "bound_chunk_flag",
           Make<ChunkFlagLane>(kLength, kRingBytes));
}

template <uint32_t... kLengths>
void RegisterLengths() {
  ((RegisterRing<kLengths>(), RegisterPeers<kLengths>()), ...);
  RegisterVariants<8>();
  RegisterVariants<64>();
  RegisterVariants<256>();
  RegisterVariants<1024>();
}

void RegisterMixed() {
  RegisterRing<kMixed>();
  RegisterVariableLengthPeers(kMixed);
  Register(kMixed, "boost_bytes", Make<BoostBytesLane>(kMixed, kRingBytes));
}

template <uint32_t kLength>
void RegisterSize(uint32_t ring_bytes) {
  const auto add = [=](const std::string& lane, const MakeLane& make) {
    RegisterLane({.name = "ring_size/" + std::to_string(ring_bytes) + "/" +
                          std::to_string(kLength) + "/" + lane,
                  .length = kLength},
                 make);
  };
  // A quarter of the ring, so that both sides have something to do.
  const RingUse use = {.batch = {.bytes = std::min(65536u, ring_bytes / 4)},
                       .release = {.bytes = std::min(65536u, ring_bytes / 4)},
                       .data_bytes = ring_bytes};
  add("ferrybus_batch", Make<RingLane<ProductionAccess, kLength>>(use));
  if (ring_bytes < 4 * kLength) return;
  add("boost_spsc_all", Make<BoostAllLane<kLength>>(ring_bytes));
  add("rte_ring_zero_copy", Make<RteZeroCopyLane>(kLength, ring_bytes));
  add("rte_ring_pointer", Make<RtePointerLane>(kLength, ring_bytes));
}

void RegisterSizes() {
  for (uint32_t bytes = 4096; bytes <= 16 << 20; bytes *= 4) {
    RegisterSize<64>(bytes);
    if (bytes > 4096) RegisterSize<4096>(bytes);
  }
}

void RegisterChannels() {
  constexpr uint32_t kLength = 64;
  for (uint32_t channels = 1; channels <= 64; channels *= 4) {
    for (const uint32_t per_visit : {1u, 32u}) {
      RegisterLane({.name = "ring_channels/" + std::to_string(channels) +
                            "/ferrybus_burst_" + std::to_string(per_visit),
                    .length = kLength,
                    .slow = per_visit == 1},
                   Make<ChannelsLane<kLength>>(channels, per_visit, 256 << 10));
    }
  }
}

}  // namespace
}  // namespace ferrybus::bench

int main(int argc, char** argv) {
  using namespace ferrybus::bench;  // NOLINT
  RegisterLengths<8, 64, 256, 1024, 4096, 16384, 65536>();
  RegisterMixed();
  RegisterSizes();
  RegisterChannels();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
