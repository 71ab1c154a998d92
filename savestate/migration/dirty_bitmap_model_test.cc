// SPDX-License-Identifier: MIT

// Random bases, sub-ranges, starts and stops beside a model that keeps a set
// of pages for each basis.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/dirty_bitmap.h"
#include "ferrybus/savestate/migration/dirty_tracking.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {
namespace {

using absl::StatusCode;

constexpr std::byte kUntouched{0x5A};

struct ModelBasis {
  uint32_t segment = 0;
  std::vector<std::vector<uint64_t>> ranges;  // their pages
  bool is_tracked = false;
  std::set<uint64_t> dirty;
};

class World {
 public:
  explicit World(uint64_t seed) : random_(seed) {
    std::vector<DirtySegment> segments;
    for (uint32_t id = 1; id <= 3; ++id) {
      const uint64_t page = kPageSizeMin << Pick(10);
      segments.push_back({id, page * (1 + Pick(300)), page});
      segments_[id] = segments.back();
    }
    dirty_.emplace(segments);
  }

  void Step() {
    switch (Pick(8)) {
      case 0:
        return Create();
      case 1:
        return StartOrStop();
      case 2:
        return Destroy();
      case 3:
      case 4:
      case 5:
        return Mark();
      default:
        return Query();
    }
  }

 private:
  uint64_t Pick(uint64_t below) { return random_() % below; }

  const DirtySegment& PickSegment() {
    return segments_[static_cast<uint32_t>(1 + Pick(3))];
  }

  // Its number, which may be of none.
  BasisId PickBasis() {
    if (bases_.empty() || Pick(30) == 0) return last_ + 1;
    return std::next(bases_.begin(), Pick(bases_.size()))->first;
  }

  void Create() {
    if (bases_.size() > 8) return;
    const DirtySegment& segment = PickSegment();
    // The cuts of the segment, every other piece of it.
    const uint64_t pages = segment.size_bytes / segment.page_size_bytes;
    std::set<uint64_t> cuts = {0, pages};
    for (uint64_t i = Pick(8); i > 0; --i) cuts.insert(Pick(pages));
    std::vector<MemoryRange> ranges;
    ModelBasis basis;
    basis.segment = segment.id;
    for (auto cut = cuts.begin(); std::next(cut) != cuts.end(); ++cut) {
      if (cuts.size() > 2 && Pick(3) == 0) continue;
      ranges.push_back({*cut * segment.page_size_bytes,
                        (*std::next(cut) - *cut) * segment.page_size_bytes});
    }
    std::shuffle(ranges.begin(), ranges.end(), random_);
    for (const MemoryRange& range : ranges) {
      auto& listed = basis.ranges.emplace_back();
      for (uint64_t at = 0; at < range.size_bytes;
           at += segment.page_size_bytes) {
        listed.push_back((range.offset_bytes + at) / segment.page_size_bytes);
      }
    }
    const auto created = dirty_->CreateBasis(segment.id, ranges);
    if (ranges.empty()) {
      EXPECT_EQ(created.status().code(), StatusCode::kInvalidArgument);
      return;
    }
    ASSERT_TRUE(created.ok()) << created.status();
    EXPECT_GT(*created, last_);
    last_ = *created;
    bases_[last_] = basis;
  }

  void StartOrStop() {
    const BasisId id = PickBasis();
    const bool start = Pick(2) == 0;
    const absl::Status status =
        start ? dirty_->StartTracking(id) : dirty_->StopTracking(id);
    const auto found = bases_.find(id);
    if (found == bases_.end()) {
      EXPECT_EQ(status.code(), StatusCode::kNotFound);
    } else if (found->second.is_tracked == start) {
      EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
    } else {
      EXPECT_TRUE(status.ok());
      found->second.is_tracked = start;
      found->second.dirty.clear();
    }
  }

  void Destroy() {
    const BasisId id = PickBasis();
    const StatusCode code = dirty_->DestroyBasis(id).code();
    const auto found = bases_.find(id);
    if (found == bases_.end()) {
      EXPECT_EQ(code, StatusCode::kNotFound);
    } else if (found->second.is_tracked) {
      EXPECT_EQ(code, StatusCode::kFailedPrecondition);
    } else {
      EXPECT_EQ(code, StatusCode::kOk);
      bases_.erase(found);
    }
  }

  void Mark() {
    const DirtySegment& segment = PickSegment();
    const uint64_t offset = Pick(segment.size_bytes);
    const uint64_t size = Pick(segment.page_size_bytes * (1 + Pick(100)));
    dirty_->MarkWritten(segment.id, offset, size);
    if (size == 0) return;
    const uint64_t last = std::min(offset + size, segment.size_bytes) - 1;
    for (auto& [id, basis] : bases_) {
      if (basis.segment != segment.id || !basis.is_tracked) continue;
      for (uint64_t page = offset / segment.page_size_bytes;
           page <= last / segment.page_size_bytes; ++page) {
        basis.dirty.insert(page);
      }
    }
  }

  void Query() {
    const auto found = bases_.find(PickBasis());
    if (found == bases_.end()) return;
    ModelBasis& basis = found->second;
    const uint64_t page_size = segments_[basis.segment].page_size_bytes;
    DirtyQuery query = {.clear = Pick(2) == 0};
    std::vector<uint64_t> pages;
    if (Pick(2) == 0) {
      query.range_index = Pick(basis.ranges.size());
      const auto& range = basis.ranges[query.range_index];
      const uint64_t first = Pick(range.size());
      const uint64_t count = 1 + Pick(range.size() - first);
      query.offset_bytes = first * page_size;
      query.size_bytes = count * page_size;
      pages.assign(range.begin() + first, range.begin() + first + count);
    } else {
      for (const auto& range : basis.ranges) {
        pages.insert(pages.end(), range.begin(), range.end());
      }
    }
    std::vector<std::byte> bits((pages.size() + 7) / 8 + 9, kUntouched);
    const absl::Status status =
        dirty_->Query(found->first, query, absl::MakeSpan(bits));
    if (!basis.is_tracked) {
      EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
      return;
    }
    ASSERT_TRUE(status.ok()) << status;
    std::vector<std::byte> expected((pages.size() + 7) / 8, std::byte{0});
    expected.resize(bits.size(), kUntouched);
    for (size_t i = 0; i < pages.size(); ++i) {
      if (!basis.dirty.contains(pages[i])) continue;
      expected[i / 8] |= std::byte{1} << (i % 8);
      if (query.clear) basis.dirty.erase(pages[i]);
    }
    EXPECT_EQ(bits, expected);
  }

  std::mt19937_64 random_;
  std::map<uint32_t, DirtySegment> segments_;
  std::optional<DirtyBitmap> dirty_;
  std::map<BasisId, ModelBasis> bases_;
  BasisId last_ = 0;
};

// doc:DT2 doc:DT6 doc:DT7 doc:DT9 doc:DT10 doc:DT11
TEST(DirtyBitmapModelTest, AnswersAsTheModel) {
  const char* text = std::getenv("FERRYBUS_SEED");
  const uint64_t seed = text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
  std::printf(
      "seed %ju: repeat with bazel test "
      "//savestate/migration:dirty_bitmap_model_test "
      "--test_env=FERRYBUS_SEED=%ju\n",
      uintmax_t{seed}, uintmax_t{seed});
  for (uint64_t round = 0; round < 300; ++round) {
    SCOPED_TRACE(round);
    World world(seed + round);
    for (int step = 0; step < 200; ++step) world.Step();
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace ferrybus::migration
