// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/dirty_bitmap.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/migration/dirty_words.h"
#include "ferrybus/savestate/migration/memory_ranges.h"

namespace ferrybus::migration {
namespace {

static_assert(std::endian::native == std::endian::little,
              "bits are copied out by the word");

constexpr uint64_t kWordBits = 64;

// Bits of one word: `count` of them, 1 to 64, from `bit` on.
struct WordPart {
  uint64_t bit = 0;
  uint64_t count = 0;

  uint64_t mask() const { return (~uint64_t{0} >> (kWordBits - count)) << bit; }
};

// Calls `visit(word index, part)` for the pages from `first` on.
template <typename Visit>
void ForEachWord(uint64_t first, uint64_t pages, Visit visit) {
  while (pages > 0) {
    WordPart part;
    part.bit = first % kWordBits;
    part.count = std::min(kWordBits - part.bit, pages);
    visit(first / kWordBits, part);
    first += part.count;
    pages -= part.count;
  }
}

// Packs bits without gaps, the lowest of a byte first.
class BitWriter {
 public:
  explicit BitWriter(std::byte* out) : out_(out) {}

  // `count` of 1 to 64; the bits above are zero.
  void Append(uint64_t bits, uint64_t count) {
    word_ |= bits << used_;
    if (used_ + count < kWordBits) {
      used_ += count;
      return;
    }
    std::memcpy(out_, &word_, sizeof(word_));
    out_ += sizeof(word_);
    word_ = used_ == 0 ? 0 : bits >> (kWordBits - used_);
    used_ = used_ + count - kWordBits;
  }
  void Finish() { std::memcpy(out_, &word_, (used_ + 7) / 8); }

 private:
  std::byte* out_;
  uint64_t word_ = 0;
  uint64_t used_ = 0;
};

absl::Status CheckSegment(const DirtySegment& segment) {
  if (auto status = CheckPageSize(segment.page_size_bytes); !status.ok()) {
    return status;
  }
  if (segment.size_bytes % segment.page_size_bytes != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "segment ", segment.id, ": ", segment.size_bytes,
        " bytes are not whole pages of ", segment.page_size_bytes));
  }
  return absl::OkStatus();
}

absl::Status NotTracked() {
  return absl::FailedPreconditionError("the basis is not tracked");
}

absl::Status Tracked() {
  return absl::FailedPreconditionError("the basis is tracked");
}

}  // namespace

DirtyBitmap::DirtyBitmap(const std::vector<DirtySegment>& segments,
                         const DirtyBitmapLimits& limits)
    : limits_(limits), segments_(segments.size()) {
  for (size_t i = 0; i < segments.size(); ++i) {
    Segment& segment = segments_[i];
    segment.is = segments[i];
    if (!CheckSegment(segment.is).ok()) continue;
    segment.page_shift = std::countr_zero(segment.is.page_size_bytes);
    const uint64_t pages = segment.is.size_bytes >> segment.page_shift;
    segment.words = (pages + kWordBits - 1) / kWordBits;
  }
}

void DirtyBitmap::MarkWritten(uint32_t segment, uint64_t offset_bytes,
                              uint64_t size_bytes) {
  Segment* found = FindSegment(segment);
  if (found == nullptr || size_bytes == 0 ||
      offset_bytes >= found->is.size_bytes) {
    return;
  }
  uint64_t tracked = PlanesToMark(found->tracked);
  if (tracked == 0) return;
  size_bytes = std::min(size_bytes, found->is.size_bytes - offset_bytes);
  const uint64_t first = offset_bytes >> found->page_shift;
  const uint64_t last = (offset_bytes + size_bytes - 1) >> found->page_shift;
  for (; tracked != 0; tracked &= tracked - 1) {
    Word* words = found->planes[std::countr_zero(tracked)].get();
    ForEachWord(first, last - first + 1, [words](uint64_t word, WordPart part) {
      MarkBits(words[word], part.mask());
    });
  }
}

absl::StatusOr<BasisId> DirtyBitmap::CreateBasis(
    uint32_t segment, absl::Span<const MemoryRange> ranges) {
  Segment* found = FindSegment(segment);
  if (found == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("segment ", segment, " does not exist"));
  }
  if (ranges.size() > limits_.ranges_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(ranges.size(), " ranges; at most ", limits_.ranges_max));
  }
  if (auto status = CheckSegment(found->is); !status.ok()) return status;
  const MemoryRange whole = {0, found->is.size_bytes};
  if (auto status = CheckBasisRanges(absl::MakeConstSpan(&whole, 1),
                                     found->is.page_size_bytes, ranges);
      !status.ok()) {
    return status;
  }
  Basis basis;
  basis.segment = found;
  basis.ranges.assign(ranges.begin(), ranges.end());
  absl::MutexLock lock(&mutex_);
  const auto plane = TakePlane(found);
  if (!plane.ok()) return plane.status();
  basis.plane = *plane;
  bases_.emplace(++last_id_, std::move(basis));
  return last_id_;
}

absl::Status DirtyBitmap::DestroyBasis(BasisId basis) {
  absl::MutexLock lock(&mutex_);
  const auto found = Find(basis);
  if (!found.ok()) return found.status();
  if ((*found)->is_tracked) return Tracked();
  (*found)->segment->used &= ~(uint64_t{1} << (*found)->plane);
  bases_.erase(basis);
  return absl::OkStatus();
}

absl::Status DirtyBitmap::StartTracking(BasisId basis) {
  absl::MutexLock lock(&mutex_);
  const auto found = Find(basis);
  if (!found.ok()) return found.status();
  if ((*found)->is_tracked) return Tracked();
  Segment& segment = *(*found)->segment;
  TrackPlane(segment.tracked, (*found)->plane,
             segment.planes[(*found)->plane].get(), segment.words);
  (*found)->is_tracked = true;
  return absl::OkStatus();
}

absl::Status DirtyBitmap::StopTracking(BasisId basis) {
  absl::MutexLock lock(&mutex_);
  const auto found = Find(basis);
  if (!found.ok()) return found.status();
  if (!(*found)->is_tracked) return NotTracked();
  (*found)->segment->tracked.fetch_and(~(uint64_t{1} << (*found)->plane),
                                       std::memory_order_acq_rel);
  (*found)->is_tracked = false;
  return absl::OkStatus();
}

absl::Status DirtyBitmap::Query(BasisId basis, const DirtyQuery& query,
                                absl::Span<std::byte> bits) {
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = Find(basis);
  if (!found.ok()) return found.status();
  if (!(*found)->is_tracked) return NotTracked();
  const Segment& segment = *(*found)->segment;
  absl::Span<const MemoryRange> ranges = (*found)->ranges;
  const auto pages =
      CheckQuery(query, ranges, segment.is.page_size_bytes, bits.size());
  if (!pages.ok()) return pages.status();
  MemoryRange part;
  if (query.size_bytes != 0) {
    part.offset_bytes =
        ranges[query.range_index].offset_bytes + query.offset_bytes;
    part.size_bytes = query.size_bytes;
    ranges = absl::MakeConstSpan(&part, 1);
  }
  Word* words = segment.planes[(*found)->plane].get();
  BitWriter writer(bits.data());
  for (const MemoryRange& range : ranges) {
    ForEachWord(range.offset_bytes >> segment.page_shift,
                range.size_bytes >> segment.page_shift,
                [&](uint64_t word, WordPart part) {
                  const uint64_t taken =
                      TakeBits(words[word], part.mask(), query.clear);
                  writer.Append(taken >> part.bit, part.count);
                });
  }
  writer.Finish();
  return absl::OkStatus();
}

DirtyBitmap::Segment* DirtyBitmap::FindSegment(uint32_t id) {
  for (Segment& segment : segments_) {
    if (segment.is.id == id) return &segment;
  }
  return nullptr;
}

absl::StatusOr<DirtyBitmap::Basis*> DirtyBitmap::Find(BasisId basis) {
  const auto found = bases_.find(basis);
  if (found == bases_.end()) {
    return absl::NotFoundError(
        absl::StrCat("basis ", basis, " does not exist"));
  }
  return &found->second;
}

absl::StatusOr<int> DirtyBitmap::TakePlane(Segment* segment) {
  const int plane = std::countr_one(segment->used);
  if (plane == kBasesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("segment ", segment->is.id, " has ", kBasesMax,
                     " bases, which is the limit; destroy one"));
  }
  if (segment->planes[plane] == nullptr) {
    const uint64_t bytes = segment->words * sizeof(Word);
    if (bytes > limits_.bitmap_bytes_max - bitmap_bytes_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("another ", bytes, " bytes of dirty bits; the limit of ",
                       limits_.bitmap_bytes_max, " leaves ",
                       limits_.bitmap_bytes_max - bitmap_bytes_));
    }
    segment->planes[plane] = std::make_unique<Word[]>(segment->words);
    bitmap_bytes_ += bytes;
  }
  segment->used |= uint64_t{1} << plane;
  return plane;
}

}  // namespace ferrybus::migration
