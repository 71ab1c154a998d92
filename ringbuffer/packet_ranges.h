// SPDX-License-Identifier: MIT
//
// The range lists of GPA-direct and transfer-page packets, checked.
//
// What it is: two passes over a PRIVATE COPY of a packet's extension.
// CheckRangeList says whether the list itself is sound; if not, the sender
// does not speak the protocol and its channel faults.  ForEachGpaRange hands
// out the ranges, each of which may still describe nonsense: that concerns
// one packet only and is answered to it.
//
// Thread safety: pure functions.  Cost: linear in the ranges, no allocation.

#ifndef FERRYBUS_RINGBUFFER_PACKET_RANGES_H_
#define FERRYBUS_RINGBUFFER_PACKET_RANGES_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/types/span.h"
#include "ferrybus/ringbuffer/wire.h"

namespace ferrybus::ringbuffer {

enum class [[nodiscard]] RangeResult : uint8_t{
    kOk,
    kListTooShort,   // no room for the list's header
    kNoRanges,       // range_count is 0
    kTooManyRanges,  // range_count needs more bytes than are there
    kTrailingBytes,  // bytes after the last range (transfer pages)
    kEmptyRange,     // byte_count is 0
    kBadOffset,      // byte_offset is not within the first page
    kTooManyPages,   // more than kMaxPagesPerRange
    kListTruncated,  // fewer page numbers than the range needs
};

constexpr const char* RangeResultName(RangeResult result) {
  switch (result) {
    case RangeResult::kOk:
      return "ok";
    case RangeResult::kListTooShort:
      return "range list is too short for its header";
    case RangeResult::kNoRanges:
      return "range count is 0";
    case RangeResult::kTooManyRanges:
      return "range count is larger than the list";
    case RangeResult::kTrailingBytes:
      return "bytes follow the last range";
    case RangeResult::kEmptyRange:
      return "a range has no bytes";
    case RangeResult::kBadOffset:
      return "a range's offset is outside its first page";
    case RangeResult::kTooManyPages:
      return "a range has too many pages";
    case RangeResult::kListTruncated:
      return "a range has fewer page numbers than bytes";
  }
  return "unknown";
}

namespace internal {
template <typename T>
T LoadAt(absl::Span<const std::byte> bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}
}  // namespace internal

// Whether `extension` (all bytes between descriptor and payload) is a sound
// list for its packet type.  In-band and completion packets have none.
inline RangeResult CheckRangeList(PacketType type,
                                  absl::Span<const std::byte> extension) {
  if (type != PacketType::kDataUsingGpaDirect &&
      type != PacketType::kDataUsingTransferPages) {
    return RangeResult::kOk;
  }
  // Both headers are 8 bytes with the count in the second word.
  if (extension.size() < 8) return RangeResult::kListTooShort;
  const uint32_t count = internal::LoadAt<uint32_t>(extension, 4);
  const uint64_t room = extension.size() - 8;
  if (count == 0) return RangeResult::kNoRanges;
  if (type == PacketType::kDataUsingTransferPages) {
    const uint64_t needed = uint64_t{count} * sizeof(TransferPageRange);
    if (needed > room) return RangeResult::kTooManyRanges;
    return needed == room ? RangeResult::kOk : RangeResult::kTrailingBytes;
  }
  // A GPA range has at least its header and one page number.
  if (uint64_t{count} * 16 > room) return RangeResult::kTooManyRanges;
  return RangeResult::kOk;
}

struct GpaRange {
  uint32_t byte_count = 0;
  uint32_t byte_offset = 0;
  uint32_t page_count = 0;
  absl::Span<const std::byte> page_numbers;  // page_count u64, little-endian

  uint64_t page_number(uint32_t index) const {
    return internal::LoadAt<uint64_t>(page_numbers, size_t{index} * 8);
  }
};

// Calls `each(const GpaRange&)` for every range of a list that passed
// CheckRangeList; stops at the first unsound range or when `each` returns
// false (then the result is kOk).
template <typename Each>
RangeResult ForEachGpaRange(absl::Span<const std::byte> extension, Each each) {
  if (extension.size() < 8) return RangeResult::kListTooShort;
  const uint32_t count = internal::LoadAt<uint32_t>(extension, 4);
  size_t at = 8;
  for (uint32_t i = 0; i < count; ++i) {
    if (extension.size() - at < sizeof(GpaRangeHeader)) {
      return RangeResult::kListTruncated;
    }
    GpaRange range;
    range.byte_count = internal::LoadAt<uint32_t>(extension, at);
    range.byte_offset = internal::LoadAt<uint32_t>(extension, at + 4);
    at += sizeof(GpaRangeHeader);
    if (range.byte_count == 0) return RangeResult::kEmptyRange;
    if (range.byte_offset >= kPageBytes) return RangeResult::kBadOffset;
    const uint64_t pages =
        (uint64_t{range.byte_offset} + range.byte_count + kPageBytes - 1) /
        kPageBytes;
    if (pages > kMaxPagesPerRange) return RangeResult::kTooManyPages;
    if (pages * 8 > extension.size() - at) return RangeResult::kListTruncated;
    range.page_count = static_cast<uint32_t>(pages);
    range.page_numbers = extension.subspan(at, pages * 8);
    at += pages * 8;
    if (!each(static_cast<const GpaRange&>(range))) return RangeResult::kOk;
  }
  return RangeResult::kOk;
}

}  // namespace ferrybus::ringbuffer

#endif  // FERRYBUS_RINGBUFFER_PACKET_RANGES_H_
