// SPDX-License-Identifier: MIT
//
// What a driver leaves to its successor: blocks of its device's memory, each
// with metadata that says what it is.
//
// A block is saved in exactly one of three forms: ranges of pages and a list
// of pages, which stay where they are and are not copied, or a buffer of the
// driver's own, which is copied.  Whatever the form, it is restored as the
// same bytes in the same order.  No page is saved twice in one update.
//
// Pages are counted from the start of the device's memory, 4096 bytes each.
//
// Ownership: the device's memory outlives the blocks, and all drivers.  A page
// that was saved belongs to whichever driver runs after the update.
// Thread safety: one thread at a time.
// Trust: the driver may be wrong: a call that is refused records nothing, and
// caps bound what it can make grow.
// Cost: a tree entry for each run of pages; a copy of buffers and metadata.
//
//   blocks.SaveRanges({{.first_page = 0, .pages = 16}}, metadata);
//   blocks.SaveBuffer(registers, metadata);
//
// Source: DXGKARGCB_SAVEMEMORYFORHOTUPDATE.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_HOT_UPDATE_BLOCKS_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_HOT_UPDATE_BLOCKS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace ferrybus::vsp {

inline constexpr uint64_t kHotUpdatePageBytes = 4096;

struct HotUpdateRange {
  uint64_t first_page = 0;
  uint64_t pages = 0;

  friend bool operator==(const HotUpdateRange&,
                         const HotUpdateRange&) = default;
};

// Bytes that lie in these pages, in this order; the first one may begin within
// its page, the last one may end within its own.
struct HotUpdatePageList {
  absl::Span<const uint64_t> pages;
  uint64_t first_byte = 0;  // in the first page
  uint64_t size_bytes = 0;
};

struct alignas(kHotUpdatePageBytes) HotUpdatePage {
  std::byte bytes[kHotUpdatePageBytes];
};

// A block as the successor gets it.
struct HotUpdateBlock {
  // The bytes that were saved, in order.  Not to be written before the
  // successor runs: if it does not come to that, they are the old driver's.
  std::vector<absl::Span<std::byte>> segments;
  uint64_t size_bytes = 0;
  std::vector<std::byte> metadata;
  // Of a buffer: where the one segment lies; zeros follow it to the page's end.
  std::unique_ptr<HotUpdatePage[]> copy;
};

struct HotUpdateLimits {
  uint32_t blocks_max = 65536;
  uint32_t metadata_bytes_max = 65536;    // of each block
  uint64_t copied_bytes_max = 256 << 20;  // of all; metadata, whole pages
  uint32_t ranges_max = 1 << 20;  // of all; adjacent pages of a list are one
};

class HotUpdateBlocks {
 public:
  // REQUIRES: `memory` begins and ends on a page.
  HotUpdateBlocks(absl::Span<std::byte> memory, const HotUpdateLimits& limits);
  HotUpdateBlocks(const HotUpdateBlocks&) = delete;
  HotUpdateBlocks& operator=(const HotUpdateBlocks&) = delete;

  // -- The old driver, while it is asked to save.
  //
  // InvalidArgument: nothing, beyond the memory, pages that were saved already,
  // metadata above its limit.  ResourceExhausted: another limit.
  // FailedPrecondition: not asked.

  // Ranges ascend, and leave each other alone.
  absl::Status SaveRanges(absl::Span<const HotUpdateRange> ranges,
                          absl::Span<const std::byte> metadata = {});
  absl::Status SavePageList(const HotUpdatePageList& list,
                            absl::Span<const std::byte> metadata = {});
  absl::Status SaveBuffer(absl::Span<const std::byte> buffer,
                          absl::Span<const std::byte> metadata = {});

  // -- Whoever updates.

  void Open() { is_open_ = true; }
  void Close() { is_open_ = false; }
  // Each block once.
  HotUpdateBlock Take(size_t index) { return std::move(blocks_[index]); }
  // Forgets and frees all.
  void Clear();

  absl::Span<std::byte> memory() const { return memory_; }
  const HotUpdateLimits& limits() const { return limits_; }
  size_t size() const { return blocks_.size(); }
  // Of those that were not cleared.
  uint64_t copied_bytes() const { return copied_bytes_; }

 private:
  // By first page: how many.
  using Runs = std::map<uint64_t, uint64_t>;

  absl::Status CheckCall(absl::Span<const std::byte> metadata) const;
  absl::Status CheckCopy(uint64_t size_bytes) const;
  absl::Status CheckFree(absl::Span<const HotUpdateRange> ascending) const;
  absl::Status SaveInPlace(absl::Span<const HotUpdateRange> ascending,
                           std::vector<absl::Span<std::byte>> segments,
                           absl::Span<const std::byte> metadata);
  void Add(HotUpdateBlock block, absl::Span<const std::byte> metadata);
  uint64_t memory_pages() const { return memory_.size() / kHotUpdatePageBytes; }

  const absl::Span<std::byte> memory_;
  const HotUpdateLimits limits_;
  std::vector<HotUpdateBlock> blocks_;
  Runs saved_;
  uint64_t copied_bytes_ = 0;
  bool is_open_ = false;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_HOT_UPDATE_BLOCKS_H_
