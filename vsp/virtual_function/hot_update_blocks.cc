// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/hot_update_blocks.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"

namespace ferrybus::vsp {
namespace {

uint64_t PagesOf(uint64_t size_bytes) {
  return size_bytes / kHotUpdatePageBytes +
         (size_bytes % kHotUpdatePageBytes == 0 ? 0 : 1);
}

// Adjacent pages of a list, in its order, as one range.
std::vector<HotUpdateRange> RunsOf(absl::Span<const uint64_t> pages) {
  std::vector<HotUpdateRange> runs;
  for (uint64_t page : pages) {
    if (!runs.empty() && runs.back().first_page + runs.back().pages == page) {
      ++runs.back().pages;
    } else {
      runs.push_back({page, 1});
    }
  }
  return runs;
}

}  // namespace

HotUpdateBlocks::HotUpdateBlocks(absl::Span<std::byte> memory,
                                 const HotUpdateLimits& limits)
    : memory_(memory), limits_(limits) {
  FERRYBUS_CHECK(
      memory.size() % kHotUpdatePageBytes == 0 &&
          reinterpret_cast<uintptr_t>(memory.data()) % kHotUpdatePageBytes == 0,
      "a device's memory is whole pages");
}

absl::Status HotUpdateBlocks::CheckCall(
    absl::Span<const std::byte> metadata) const {
  if (!is_open_) {
    return absl::FailedPreconditionError(
        "a block was saved while no update asked for it; save within Save()");
  }
  if (metadata.size() > limits_.metadata_bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("block ", size(), " has ", metadata.size(),
                     " bytes of metadata; at most ", limits_.metadata_bytes_max,
                     "; save more as a buffer"));
  }
  if (size() >= limits_.blocks_max) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "more than ", limits_.blocks_max, " blocks; save larger ones"));
  }
  return CheckCopy(metadata.size());
}

absl::Status HotUpdateBlocks::CheckCopy(uint64_t size_bytes) const {
  if (size_bytes <= limits_.copied_bytes_max - copied_bytes_) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("block ", size(), ": ", size_bytes, " bytes to copy after ",
                   copied_bytes_, "; at most ", limits_.copied_bytes_max,
                   " in all; save pages, which are not copied"));
}

absl::Status HotUpdateBlocks::CheckFree(
    absl::Span<const HotUpdateRange> ascending) const {
  uint64_t end = 0;  // of the range before
  for (const HotUpdateRange& range : ascending) {
    if (range.pages == 0 || range.first_page >= memory_pages() ||
        range.pages > memory_pages() - range.first_page) {
      return absl::InvalidArgumentError(absl::StrCat(
          "block ", size(), ": ", range.pages, " pages from page ",
          range.first_page, " on; the memory has ", memory_pages()));
    }
    if (range.first_page < end) {
      return absl::InvalidArgumentError(absl::StrCat(
          "block ", size(), ": page ", range.first_page, " comes after page ",
          end - 1, "; pages come once, and ranges ascend"));
    }
    end = range.first_page + range.pages;
    auto other = saved_.lower_bound(end);  // the first one behind
    if (other == saved_.begin()) continue;
    --other;
    if (other->first + other->second > range.first_page) {
      return absl::InvalidArgumentError(absl::StrCat(
          "block ", size(), ": page ", std::max(range.first_page, other->first),
          " was saved before"));
    }
  }
  if (ascending.size() > limits_.ranges_max - saved_.size()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "block ", size(), ": ", ascending.size(), " ranges after ",
        saved_.size(), "; at most ", limits_.ranges_max, " in all"));
  }
  return absl::OkStatus();
}

absl::Status HotUpdateBlocks::SaveRanges(
    absl::Span<const HotUpdateRange> ranges,
    absl::Span<const std::byte> metadata) {
  if (absl::Status s = CheckCall(metadata); !s.ok()) return s;
  if (ranges.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("block ", size(), " has no range"));
  }
  if (absl::Status s = CheckFree(ranges); !s.ok()) return s;
  std::vector<absl::Span<std::byte>> segments;
  for (const HotUpdateRange& range : ranges) {
    segments.push_back(memory_.subspan(range.first_page * kHotUpdatePageBytes,
                                       range.pages * kHotUpdatePageBytes));
  }
  return SaveInPlace(ranges, std::move(segments), metadata);
}

absl::Status HotUpdateBlocks::SavePageList(
    const HotUpdatePageList& list, absl::Span<const std::byte> metadata) {
  if (absl::Status s = CheckCall(metadata); !s.ok()) return s;
  if (list.pages.empty() || list.size_bytes == 0 ||
      list.size_bytes > memory_.size() ||
      list.first_byte >= kHotUpdatePageBytes ||
      PagesOf(list.first_byte + list.size_bytes) != list.pages.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "block ", size(), ": a list of ", list.pages.size(), " pages for ",
        list.size_bytes, " bytes from byte ", list.first_byte, " on; the ",
        "memory has ", memory_pages(), " pages of ", kHotUpdatePageBytes));
  }
  const std::vector<HotUpdateRange> runs = RunsOf(list.pages);
  std::vector<HotUpdateRange> ascending = runs;
  std::sort(ascending.begin(), ascending.end(),
            [](const HotUpdateRange& a, const HotUpdateRange& b) {
              return a.first_page < b.first_page;
            });
  if (absl::Status s = CheckFree(ascending); !s.ok()) return s;
  std::vector<absl::Span<std::byte>> segments;
  uint64_t first_byte = list.first_byte;
  uint64_t left = list.size_bytes;
  for (const HotUpdateRange& run : runs) {
    segments.push_back(memory_.subspan(
        run.first_page * kHotUpdatePageBytes + first_byte,
        std::min(left, run.pages * kHotUpdatePageBytes - first_byte)));
    left -= segments.back().size();
    first_byte = 0;
  }
  return SaveInPlace(ascending, std::move(segments), metadata);
}

absl::Status HotUpdateBlocks::SaveInPlace(
    absl::Span<const HotUpdateRange> ascending,
    std::vector<absl::Span<std::byte>> segments,
    absl::Span<const std::byte> metadata) {
  for (const HotUpdateRange& range : ascending) {
    saved_.emplace(range.first_page, range.pages);
  }
  HotUpdateBlock block;
  block.segments = std::move(segments);
  Add(std::move(block), metadata);
  return absl::OkStatus();
}

absl::Status HotUpdateBlocks::SaveBuffer(absl::Span<const std::byte> buffer,
                                         absl::Span<const std::byte> metadata) {
  if (absl::Status s = CheckCall(metadata); !s.ok()) return s;
  if (buffer.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("block ", size(), " is an empty buffer"));
  }
  const uint64_t pages = PagesOf(buffer.size());
  const uint64_t copy_bytes = pages * kHotUpdatePageBytes;
  if (absl::Status s = CheckCopy(copy_bytes + metadata.size()); !s.ok()) {
    return s;
  }
  HotUpdateBlock block;
  block.copy = std::make_unique<HotUpdatePage[]>(pages);
  std::memcpy(block.copy.get(), buffer.data(), buffer.size());
  block.segments.emplace_back(reinterpret_cast<std::byte*>(block.copy.get()),
                              buffer.size());
  copied_bytes_ += copy_bytes;
  Add(std::move(block), metadata);
  return absl::OkStatus();
}

void HotUpdateBlocks::Add(HotUpdateBlock block,
                          absl::Span<const std::byte> metadata) {
  for (absl::Span<std::byte> segment : block.segments) {
    block.size_bytes += segment.size();
  }
  block.metadata.assign(metadata.begin(), metadata.end());
  copied_bytes_ += metadata.size();
  blocks_.push_back(std::move(block));
}

void HotUpdateBlocks::Clear() {
  blocks_.clear();
  saved_.clear();
  copied_bytes_ = 0;
}

}  // namespace ferrybus::vsp
