// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/memory_ranges.h"

#include <algorithm>
#include <bit>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace ferrybus::migration {
namespace {

std::string Text(const MemoryRange& range) {
  return absl::StrCat(range.size_bytes, " bytes at ", range.offset_bytes);
}

bool IsInside(const MemoryRange& part, const MemoryRange& whole) {
  if (part.offset_bytes < whole.offset_bytes) return false;
  const uint64_t offset_bytes = part.offset_bytes - whole.offset_bytes;
  return offset_bytes <= whole.size_bytes &&
         part.size_bytes <= whole.size_bytes - offset_bytes;
}

bool IsWholePages(const MemoryRange& range, uint64_t page_size_bytes) {
  return range.size_bytes != 0 &&
         (range.offset_bytes | range.size_bytes) % page_size_bytes == 0;
}

}  // namespace

absl::Status CheckPageSize(uint64_t page_size_bytes) {
  if (std::has_single_bit(page_size_bytes) && page_size_bytes >= kPageSizeMin) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "a page of ", page_size_bytes,
      " bytes; it must be a power of two, at least ", kPageSizeMin));
}

absl::Status CheckBasisRanges(absl::Span<const MemoryRange> memory,
                              uint64_t page_size_bytes,
                              absl::Span<const MemoryRange> ranges) {
  if (ranges.empty()) return absl::InvalidArgumentError("no range");
  for (const MemoryRange& range : ranges) {
    const bool is_inside =
        std::any_of(memory.begin(), memory.end(),
                    [&](const MemoryRange& m) { return IsInside(range, m); });
    if (!is_inside || !IsWholePages(range, page_size_bytes)) {
      return absl::InvalidArgumentError(
          absl::StrCat(Text(range), " are not whole pages of ", page_size_bytes,
                       " bytes within the segment"));
    }
  }
  std::vector<MemoryRange> sorted(ranges.begin(), ranges.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const MemoryRange& a, const MemoryRange& b) {
              return a.offset_bytes < b.offset_bytes;
            });
  for (size_t i = 1; i < sorted.size(); ++i) {
    const MemoryRange& before = sorted[i - 1];
    if (sorted[i].offset_bytes - before.offset_bytes < before.size_bytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "ranges overlap: ", Text(before), " and ", Text(sorted[i])));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> CheckQuery(const DirtyQuery& query,
                                    absl::Span<const MemoryRange> ranges,
                                    uint64_t page_size_bytes,
                                    size_t buffer_bytes) {
  uint64_t size_bytes = query.size_bytes;
  if (size_bytes == 0) {
    for (const MemoryRange& range : ranges) size_bytes += range.size_bytes;
  } else {
    const MemoryRange asked = {query.offset_bytes, size_bytes};
    if (query.range_index >= ranges.size() ||
        !IsInside(asked, {0, ranges[query.range_index].size_bytes}) ||
        !IsWholePages(asked, page_size_bytes)) {
      return absl::InvalidArgumentError(
          absl::StrCat(Text(asked), " of range ", query.range_index,
                       " are not whole pages of a range of the basis"));
    }
  }
  const uint64_t pages = size_bytes / page_size_bytes;
  if (buffer_bytes < (pages + 7) / 8) {
    return absl::InvalidArgumentError(
        absl::StrCat(buffer_bytes, " bytes for the bits of ", pages, " pages"));
  }
  return pages;
}

}  // namespace ferrybus::migration
