// SPDX-License-Identifier: MIT
//
// What it costs to know which pages were written.
//
//   migration_dirty_query/<pages of 100000>
//       taking the bits of 64 GiB of 4 KiB pages, so many of them set, spread
//       evenly
//   migration_dirty_query_parts/<pages of 100000>
//       the same through a buffer of 4 KiB
//   migration_dirty_start
//       the start of tracking them, after a stop
//   migration_dirty_mark/<bases tracked>/<pages>/threads:<n>
//       one MarkWritten(); each thread writes a part of its own

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "benchmark/benchmark.h"
#include "ferrybus/savestate/migration/dirty_bitmap.h"
#include "ferrybus/savestate/migration/dirty_tracking.h"

namespace ferrybus::bench {
namespace {

using migration::BasisId;
using migration::DirtyBitmap;
using migration::DirtyQuery;

constexpr uint32_t kSegment = 1;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kSize = uint64_t{64} << 30;
constexpr uint64_t kPages = kSize / kPage;
constexpr uint64_t kPartBytes = 4096;

void Need(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "dirty_benchmark: %s\n", what);
  std::abort();
}

BasisId Track(DirtyBitmap& dirty) {
  const auto basis = dirty.CreateBasis(kSegment, {{0, kSize}});
  Need(basis.ok() && dirty.StartTracking(*basis).ok(), "no tracking");
  return *basis;
}

// `dirty_share` of 100000 pages.
void MarkShare(DirtyBitmap& dirty, uint64_t dirty_share) {
  if (dirty_share == 0) return;
  if (dirty_share == 100000) return dirty.MarkWritten(kSegment, 0, kSize);
  const uint64_t step = 100000 / dirty_share;
  for (uint64_t page = 0; page < kPages; page += step) {
    dirty.MarkWritten(kSegment, page * kPage, 1);
  }
}

void Query(benchmark::State& state, uint64_t dirty_share, uint64_t part_bytes) {
  DirtyBitmap dirty({{.id = kSegment, .size_bytes = kSize}});
  const BasisId basis = Track(dirty);
  std::vector<std::byte> bits(part_bytes);
  for (auto _ : state) {
    state.PauseTiming();
    MarkShare(dirty, dirty_share);
    state.ResumeTiming();
    for (uint64_t page = 0; page < kPages; page += part_bytes * 8) {
      const DirtyQuery query = {.size_bytes = part_bytes * 8 * kPage,
                                .offset_bytes = page * kPage,
                                .clear = true};
      Need(dirty.Query(basis, query, absl::MakeSpan(bits)).ok(), "no bits");
      benchmark::DoNotOptimize(bits.data());
      benchmark::ClobberMemory();
    }
  }
}

void Start(benchmark::State& state) {
  DirtyBitmap dirty({{.id = kSegment, .size_bytes = kSize}});
  const BasisId basis = Track(dirty);
  for (auto _ : state) {
    state.PauseTiming();
    Need(dirty.StopTracking(basis).ok(), "not stopped");
    state.ResumeTiming();
    Need(dirty.StartTracking(basis).ok(), "not started");
  }
}

void Mark(benchmark::State& state, uint64_t pages, DirtyBitmap* dirty) {
  // Some GiB for each thread: never the same words.
  const uint64_t part = kSize / 8;
  const uint64_t first = static_cast<uint64_t>(state.thread_index()) * part;
  uint64_t offset = 0;
  for (auto _ : state) {
    dirty->MarkWritten(kSegment, first + offset, pages * kPage);
    offset = (offset + pages * kPage) % (part / 2);
  }
}

void RegisterMark(int bases, uint64_t pages) {
  // Never ends: the benchmarks run later.
  auto* dirty = new DirtyBitmap({{.id = kSegment, .size_bytes = kSize}});
  for (int i = 0; i < bases; ++i) Track(*dirty);
  benchmark::RegisterBenchmark(
      ("migration_dirty_mark/" + std::to_string(bases) + "/" +
       std::to_string(pages))
          .c_str(),
      [=](benchmark::State& state) { Mark(state, pages, dirty); })
      ->Threads(1)
      ->Threads(2)
      ->UseRealTime();
}

void RegisterQuery(uint64_t dirty_share) {
  const std::string share = std::to_string(dirty_share);
  const auto add = [=](const std::string& name, uint64_t part_bytes) {
    benchmark::RegisterBenchmark(
        (name + share).c_str(),
        [=](benchmark::State& state) { Query(state, dirty_share, part_bytes); })
        ->Unit(benchmark::kMillisecond)
        ->UseRealTime();
  };
  add("migration_dirty_query/", kPages / 8);
  add("migration_dirty_query_parts/", kPartBytes);
}

}  // namespace
}  // namespace ferrybus::bench

int main(int argc, char** argv) {
  using namespace ferrybus::bench;  // NOLINT
  for (const uint64_t share : {0, 1000, 100000}) RegisterQuery(share);
  benchmark::RegisterBenchmark("migration_dirty_start", Start)
      ->Unit(benchmark::kMillisecond)
      ->UseRealTime();
  for (const int bases : {0, 1, 2}) {
    for (const uint64_t pages : {1, 256}) RegisterMark(bases, pages);
  }
  // Debian's Abseil is a debugging build: see channel_benchmark.cc.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
