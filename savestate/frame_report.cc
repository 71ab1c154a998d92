// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/frame_report.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "ferrybus/savestate/crc32c.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/frame_layout.h"

namespace ferrybus::savestate {
namespace {

constexpr uint64_t kRowsMax = 8192;

std::string ReadName(const std::byte* at) {
  const std::string field(reinterpret_cast<const char*>(at), kFrameNameBytes);
  return absl::CHexEscape(field.substr(0, field.find_last_not_of('\0') + 1));
}

SectionReport::Body CheckBody(absl::Span<const std::byte> bytes,
                              const SectionReport& row, uint32_t stated_crc,
                              uint64_t earlier_end) {
  if (row.offset > bytes.size() || row.length > bytes.size() - row.offset) {
    return SectionReport::Body::kMissing;
  }
  // Hostile entries may all name the same bytes; reading those for each entry
  // would be quadratic work.
  if (row.offset < earlier_end) return SectionReport::Body::kUnchecked;
  return Crc32c(bytes.subspan(row.offset, row.length)) == stated_crc
             ? SectionReport::Body::kGood
             : SectionReport::Body::kDamaged;
}

void DescribeSections(absl::Span<const std::byte> bytes, FrameReport* report) {
  const uint64_t room = (bytes.size() - kFrameHeaderBytes) / kSectionEntryBytes;
  const uint64_t rows =
      std::min({uint64_t{report->section_count}, room, kRowsMax});
  uint64_t earlier_end = kFrameHeaderBytes;
  for (uint64_t i = 0; i < rows; ++i) {
    const std::byte* entry = bytes.data() + SectionEntryOffset(i);
    SectionReport row;
    row.name = ReadName(entry);
    row.instance = LoadU64(entry + kInstanceOffset);
    row.version = LoadU32(entry + kSectionVersionOffset);
    row.flags = LoadU32(entry + kSectionFlagsOffset);
    row.offset = LoadU64(entry + kBodyOffsetOffset);
    row.length = LoadU64(entry + kBodyLengthOffset);
    row.body =
        CheckBody(bytes, row, LoadU32(entry + kBodyCrcOffset), earlier_end);
    if (row.body == SectionReport::Body::kGood ||
        row.body == SectionReport::Body::kDamaged) {
      earlier_end = row.offset + row.length;
    }
    report->sections.push_back(std::move(row));
  }
}

std::string_view BodyText(SectionReport::Body body) {
  switch (body) {
    case SectionReport::Body::kGood:
      return "good";
    case SectionReport::Body::kDamaged:
      return "DAMAGED";
    case SectionReport::Body::kMissing:
      return "MISSING";
    case SectionReport::Body::kUnchecked:
      return "OVERLAPS";
  }
  return "?";
}

}  // namespace

FrameReport DescribeHeader(absl::Span<const std::byte> bytes) {
  FrameReport report;
  report.file_bytes = bytes.size();
  report.verdict = Frame::Parse(bytes).status();
  if (bytes.size() < kFrameHeaderBytes) return report;
  report.has_header = true;
  const std::byte* header = bytes.data();
  report.magic_ok = std::string_view(reinterpret_cast<const char*>(header),
                                     kFrameMagic.size()) == kFrameMagic;
  report.frame_version = LoadU32(header + kFrameVersionOffset);
  report.header_bytes = LoadU32(header + kHeaderBytesOffset);
  report.section_count = LoadU32(header + kSectionCountOffset);
  report.flags = LoadU32(header + kFrameFlagsOffset);
  report.total_bytes = LoadU64(header + kTotalBytesOffset);
  report.producer = ReadName(header + kProducerOffset);
  report.header_crc_ok = LoadU32(header + kHeaderCrcOffset) ==
                         Crc32c(bytes.subspan(0, kHeaderCrcOffset));
  const uint64_t table_bytes =
      uint64_t{report.section_count} * kSectionEntryBytes;
  report.table_crc_ok =
      table_bytes <= bytes.size() - kFrameHeaderBytes &&
      LoadU32(header + kTableCrcOffset) ==
          Crc32c(bytes.subspan(kFrameHeaderBytes, table_bytes));
  if (report.magic_ok && report.frame_version == kFrameVersion) {
    DescribeSections(bytes, &report);
  }
  return report;
}

std::string FrameReport::ToString() const {
  std::string text = absl::StrFormat("verdict         %s\nfile bytes      %u\n",
                                     verdict.ToString(), file_bytes);
  if (!has_header) {
    return text + "no header: shorter than 64 bytes\n";
  }
  const auto good = [](bool ok) { return ok ? "good" : "BAD"; };
  absl::StrAppendFormat(
      &text,
      "magic           %s\nframe version   %u (this reader: %u)\n"
      "header bytes    %u\nsections        %u\nflags           0x%x\n"
      "total bytes     %u\nproducer        \"%s\"\nheader CRC32C   %s\n"
      "table CRC32C    %s\n",
      good(magic_ok), frame_version, kFrameVersion, header_bytes, section_count,
      flags, total_bytes, producer, good(header_crc_ok), good(table_crc_ok));
  for (const SectionReport& row : sections) {
    absl::StrAppendFormat(
        &text,
        "section \"%s\" instance %u version %u flags 0x%x: %u bytes from byte "
        "%u, %s\n",
        row.name, row.instance, row.version, row.flags, row.length, row.offset,
        BodyText(row.body));
  }
  return text;
}

}  // namespace ferrybus::savestate
