// SPDX-License-Identifier: MIT

// Writers beside those who ask, start and stop.  Each page of the memory is a
// counter; who moves it copies the pages whose bits it gets.

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/dirty_bitmap.h"
#include "ferrybus/savestate/migration/dirty_tracking.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {
namespace {

constexpr uint64_t kPage = kPageSizeMin;
constexpr uint64_t kPages = 150;  // two whole words, and some
constexpr uint32_t kSegment = 1;

using Memory = std::array<std::atomic<uint64_t>, kPages>;

BasisId Tracked(DirtyBitmap& dirty, std::vector<MemoryRange> ranges) {
  const BasisId basis = dirty.CreateBasis(kSegment, ranges).value();
  EXPECT_TRUE(dirty.StartTracking(basis).ok());
  return basis;
}

// A copy of the pages [first, first + pages), which are a basis.
class Mover {
 public:
  Mover(DirtyBitmap* dirty, const Memory* memory, uint64_t first,
        uint64_t pages)
      : dirty_(dirty),
        memory_(memory),
        first_(first),
        pages_(pages),
        basis_(Tracked(*dirty, {{first * kPage, pages * kPage}})),
        bits_((pages + 7) / 8) {}

  void Pass() {
    if (!dirty_->Query(basis_, {.clear = true}, absl::MakeSpan(bits_)).ok()) {
      ADD_FAILURE();
      return;
    }
    for (uint64_t page = 0; page < pages_; ++page) {
      if ((bits_[page / 8] >> (page % 8) & std::byte{1}) == std::byte{0}) {
        continue;
      }
      ++moved;
      copy_[first_ + page] =
          (*memory_)[first_ + page].load(std::memory_order_relaxed);
    }
  }

  void ExpectAllMoved() {
    Pass();
    for (uint64_t page = first_; page < first_ + pages_; ++page) {
      EXPECT_EQ(copy_[page], (*memory_)[page].load()) << "page " << page;
    }
  }

  uint64_t moved = 0;

 private:
  DirtyBitmap* dirty_;
  const Memory* memory_;
  const uint64_t first_;
  const uint64_t pages_;
  const BasisId basis_;
  std::vector<std::byte> bits_;
  std::array<uint64_t, kPages> copy_ = {};
};

// Both threads meet here, without sleeping as long as both run.
class Meeting {
 public:
  void Wait() {
    const int before = arrived_.fetch_add(1);
    const int both = before - before % 2 + 2;
    for (int tries = 0; arrived_.load() < both; ++tries) {
      if (tries > 1000) std::this_thread::yield();
    }
  }

 private:
  std::atomic<int> arrived_{0};
};

// Up to half a microsecond.
void Delay(uint64_t steps) {
  std::atomic<uint64_t> step{0};
  while (step.fetch_add(1, std::memory_order_relaxed) < steps % 64) {
  }
}

// Each lap writes each page of a basis twice beside the mover's passes; then it
// must have the last values: a later lap cannot make good for a lost bit.
void ExpectNoWriteLost(uint64_t first, uint64_t pages) {
  constexpr uint64_t kLaps = 5000;
  DirtyBitmap dirty({{.id = kSegment, .size_bytes = kPages * kPage}});
  Memory memory = {};
  Mover mover(&dirty, &memory, first, pages);
  Meeting meeting;
  std::thread writer([&] {
    for (uint64_t lap = 0; lap < kLaps; ++lap) {
      meeting.Wait();
      for (uint64_t i = 0; i < 2 * pages; ++i) {
        const uint64_t page = first + i / 2;
        memory[page].fetch_add(1, std::memory_order_relaxed);
        dirty.MarkWritten(kSegment, page * kPage, 1);
      }
      meeting.Wait();
    }
  });
  for (uint64_t lap = 0; lap < kLaps; ++lap) {
    meeting.Wait();
    for (int pass = 0; pass < 8; ++pass) mover.Pass();
    meeting.Wait();
    mover.ExpectAllMoved();
  }
  writer.join();
  EXPECT_GE(mover.moved, kLaps * pages);
}

// doc:DT8
TEST(DirtyBitmapThreadsTest, NoWriteIsLostInWholeWords) {
  ExpectNoWriteLost(64, 64);
}

// doc:DT8 doc:DT9
TEST(DirtyBitmapThreadsTest, NoWriteIsLostInPartsOfWords) {
  ExpectNoWriteLost(50, 40);
}

// Several writers, and bases that come and go.
// doc:DT5 doc:DT8
TEST(DirtyBitmapThreadsTest, NoWriteIsLostBesideOtherBases) {
  DirtyBitmap dirty({{.id = kSegment, .size_bytes = kPages * kPage}});
  Memory memory = {};
  Mover first(&dirty, &memory, 0, kPages);
  Mover second(&dirty, &memory, 61, 70);
  std::atomic<bool> stop{false};
  const auto write = [&](uint64_t step) {
    for (uint64_t page = 0; !stop.load(); page = (page + step) % kPages) {
      const uint64_t end = std::min(page + 1 + page % 3, kPages);
      for (uint64_t i = page; i < end; ++i) {
        memory[i].fetch_add(1, std::memory_order_relaxed);
      }
      dirty.MarkWritten(kSegment, page * kPage, (end - page) * kPage);
    }
  };
  std::thread writer([&] { write(1); });
  std::thread other_writer([&] { write(7); });
  std::thread mover([&] {
    for (int pass = 0; pass < 5000; ++pass) second.Pass();
  });
  for (int pass = 0; pass < 5000; ++pass) {
    first.Pass();
    const BasisId basis = Tracked(dirty, {{0, kPages * kPage}});
    EXPECT_TRUE(dirty.StopTracking(basis).ok());
    EXPECT_TRUE(dirty.DestroyBasis(basis).ok());
  }
  mover.join();
  stop = true;
  writer.join();
  other_writer.join();
  first.ExpectAllMoved();
  second.ExpectAllMoved();
}

// A page is written while `act` runs: who reads it after that finds what was
// written, or it has its bit then.
void ExpectSeenOrMarked(DirtyBitmap& dirty, BasisId basis,
                        absl::FunctionRef<void()> act,
                        absl::FunctionRef<void()> finish) {
  constexpr uint64_t kRounds = 100000;
  std::atomic<uint64_t> memory{0};
  Meeting meeting;
  std::thread writer([&] {
    for (uint64_t round = 1; round <= kRounds; ++round) {
      meeting.Wait();
      // All alignments of the two; and what MarkWritten() reads is in this
      // core's cache, the page is in the other's.
      Delay(round);
      dirty.MarkWritten(kSegment, kPage, 1);
      memory.store(round, std::memory_order_relaxed);
      dirty.MarkWritten(kSegment, 0, 1);
      meeting.Wait();
    }
  });
  for (uint64_t round = 1; round <= kRounds; ++round) {
    meeting.Wait();
    Delay(round / 64);
    act();
    const bool is_seen = memory.load(std::memory_order_relaxed) == round;
    meeting.Wait();
    std::array<std::byte, (kPages + 7) / 8> bits;
    EXPECT_TRUE(dirty.Query(basis, {}, absl::MakeSpan(bits)).ok());
    const bool is_marked = (bits[0] & std::byte{1}) != std::byte{0};
    EXPECT_TRUE(is_seen || is_marked) << "round " << round;
    finish();
  }
  writer.join();
}

// doc:DT4 doc:DT8
TEST(DirtyBitmapThreadsTest, NoWriteIsLostWhileTrackingStarts) {
  DirtyBitmap dirty({{.id = kSegment, .size_bytes = kPages * kPage}});
  const BasisId basis =
      dirty.CreateBasis(kSegment, {{0, kPages * kPage}}).value();
  ExpectSeenOrMarked(
      dirty, basis, [&] { EXPECT_TRUE(dirty.StartTracking(basis).ok()); },
      [&] { EXPECT_TRUE(dirty.StopTracking(basis).ok()); });
}

// doc:DT8
TEST(DirtyBitmapThreadsTest, NoWriteIsLostWhileItsBitIsTaken) {
  DirtyBitmap dirty({{.id = kSegment, .size_bytes = kPages * kPage}});
  const BasisId basis = Tracked(dirty, {{0, kPages * kPage}});
  const auto clear = [&] {
    std::byte bits;
    EXPECT_TRUE(dirty
                    .Query(basis, {.size_bytes = kPage, .clear = true},
                           absl::MakeSpan(&bits, 1))
                    .ok());
  };
  // The bit is set before the write.
  ExpectSeenOrMarked(dirty, basis, clear,
                     [&] { dirty.MarkWritten(kSegment, 0, 1); });
}

// The memory is no atomic here: the thread sanitizer sees the order.
// doc:DT8
TEST(DirtyBitmapThreadsTest, TakingTheBitIsAfterTheWrite) {
  DirtyBitmap dirty({{.id = kSegment, .size_bytes = kPages * kPage}});
  const BasisId basis = Tracked(dirty, {{0, kPages * kPage}});
  uint64_t memory = 0;
  std::atomic<uint64_t> asked{0};
  std::thread writer([&] {
    for (uint64_t round = 1; round <= 1000; ++round) {
      while (asked.load() < round) std::this_thread::yield();
      memory = round;
      dirty.MarkWritten(kSegment, 0, 1);
    }
  });
  for (uint64_t round = 1; round <= 1000; ++round) {
    asked.store(round);
    std::byte bits{};
    // A part of a word, and all of it, in turn.
    const DirtyQuery query = {.size_bytes = round % 2 == 0 ? 0 : kPage,
                              .clear = true};
    std::array<std::byte, (kPages + 7) / 8> all;
    while (bits == std::byte{0}) {
      EXPECT_TRUE(dirty.Query(basis, query, absl::MakeSpan(all)).ok());
      bits = all[0];
    }
    EXPECT_EQ(memory, round);
  }
  writer.join();
}

}  // namespace
}  // namespace ferrybus::migration
