// SPDX-License-Identifier: MIT
//
// Says what can still be read of a frame that is damaged, or newer than this
// reader: for tools and for support, where Frame::Parse only refuses.
//
// Trust: the bytes may be anything.  Nothing in a report was validated; it is
// for people, never to restore from.
// Cost: reads each byte at most twice; at most 8192 section rows.
//
//   std::puts(DescribeHeader(bytes).ToString().c_str());

#ifndef FERRYBUS_SAVESTATE_FRAME_REPORT_H_
#define FERRYBUS_SAVESTATE_FRAME_REPORT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace ferrybus::savestate {

struct SectionReport {
  enum class Body {
    kGood,       // present, and its CRC32C fits
    kDamaged,    // present, and its CRC32C does not fit
    kMissing,    // reaches past the end of the bytes
    kUnchecked,  // overlaps or precedes an earlier body
  };

  std::string name;  // escaped
  uint64_t instance = 0;
  uint32_t version = 0;
  uint32_t flags = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  Body body = Body::kUnchecked;
};

struct FrameReport {
  uint64_t file_bytes = 0;
  bool has_header = false;  // 64 bytes are there; false: the rest says nothing
  bool magic_ok = false;
  uint32_t frame_version = 0;
  uint32_t header_bytes = 0;
  uint32_t section_count = 0;
  uint32_t flags = 0;
  uint64_t total_bytes = 0;
  std::string producer;  // escaped
  bool header_crc_ok = false;
  bool table_crc_ok = false;  // also false when the table is cut off
  // The entries that are there, in a layout that this reader knows: empty for
  // another frame version or a wrong magic.
  std::vector<SectionReport> sections;
  // What Frame::Parse says, with its default limits.
  absl::Status verdict;

  // Several lines for people; the wording may change.
  std::string ToString() const;
};

FrameReport DescribeHeader(absl::Span<const std::byte> bytes);

}  // namespace ferrybus::savestate

#endif  // FERRYBUS_SAVESTATE_FRAME_REPORT_H_
