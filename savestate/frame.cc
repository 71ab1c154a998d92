// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/frame.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "ferrybus/savestate/crc32c.h"
#include "ferrybus/savestate/frame_layout.h"

namespace ferrybus::savestate {
namespace {

// A refusal lists at most this many sections; the rest is a count.
constexpr size_t kListedMax = 8;

struct Header {
  std::string_view producer;
  uint32_t section_count = 0;
  uint64_t total_bytes = 0;
};

// Bytes 0..59 with the right magic have the CRC that the header states: only
// the magic is damaged.
bool IsFrameButForMagic(absl::Span<const std::byte> bytes) {
  const auto* magic = reinterpret_cast<const std::byte*>(kFrameMagic.data());
  const uint32_t crc = ExtendCrc32c(
      Crc32c(absl::MakeConstSpan(magic, kFrameMagic.size())),
      bytes.subspan(kFrameMagic.size(), kHeaderCrcOffset - kFrameMagic.size()));
  return crc == LoadU32(bytes.data() + kHeaderCrcOffset);
}

absl::Status CheckMagic(absl::Span<const std::byte> bytes) {
  const size_t present = std::min(bytes.size(), kFrameMagic.size());
  const std::string_view magic(reinterpret_cast<const char*>(bytes.data()),
                               present);
  const bool magic_ok = magic == kFrameMagic.substr(0, present);
  if (bytes.size() >= kFrameHeaderBytes) {
    if (magic_ok) return absl::OkStatus();
    if (IsFrameButForMagic(bytes)) {
      return absl::DataLossError("the magic at byte 0 is damaged");
    }
  }
  if (!magic_ok) {
    return absl::InvalidArgumentError(
        "not a Ferrybus save file: the magic at byte 0 is not \"FERRYBUS\"");
  }
  return absl::DataLossError(
      absl::StrFormat("truncated: %u bytes, the header alone has %u",
                      bytes.size(), kFrameHeaderBytes));
}

// Version and CRC.  Both are at the same place in every frame version, so
// that damage and a newer file can be told apart.
absl::Status CheckIdentity(absl::Span<const std::byte> bytes) {
  if (auto status = CheckMagic(bytes); !status.ok()) return status;
  const uint32_t version = LoadU32(bytes.data() + kFrameVersionOffset);
  const uint32_t swapped = __builtin_bswap32(version);
  if (swapped == kFrameVersion) {
    return absl::InvalidArgumentError(
        "the header is in big-endian byte order; frames are little-endian");
  }
  const uint32_t stated = LoadU32(bytes.data() + kHeaderCrcOffset);
  const uint32_t computed = Crc32c(bytes.subspan(0, kHeaderCrcOffset));
  if (stated != computed) {
    return absl::DataLossError(absl::StrFormat(
        "header damaged: CRC32C at byte %u is 0x%08x, the bytes have 0x%08x",
        kHeaderCrcOffset, stated, computed));
  }
  if (version != kFrameVersion) {
    return absl::UnimplementedError(
        absl::StrFormat("frame version %u at byte %u; this reader knows "
                        "version %u; use a build that matches the writer",
                        version, kFrameVersionOffset, kFrameVersion));
  }
  return absl::OkStatus();
}

absl::Status CheckSizes(absl::Span<const std::byte> bytes, const Header& header,
                        const FrameLimits& limits) {
  if (std::max<uint64_t>(header.total_bytes, bytes.size()) >
      limits.total_bytes_max) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "the frame says %u bytes, the file has %u, the limit is %u",
        header.total_bytes, bytes.size(), limits.total_bytes_max));
  }
  if (header.section_count > limits.sections_max) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "%u sections at byte %u, the limit is %u", header.section_count,
        kSectionCountOffset, limits.sections_max));
  }
  if (header.total_bytes > bytes.size()) {
    return absl::DataLossError(absl::StrFormat(
        "truncated: %u bytes of %u", bytes.size(), header.total_bytes));
  }
  if (header.total_bytes < bytes.size()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%u bytes after the end of the frame at byte %u",
                        bytes.size() - header.total_bytes, header.total_bytes));
  }
  // 2^32 entries of 64 bytes fit easily into 64 bits.
  const uint64_t table_end =
      kFrameHeaderBytes + uint64_t{header.section_count} * kSectionEntryBytes;
  if (table_end > header.total_bytes ||
      header.total_bytes % kBodyAlignmentBytes != 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "total size %u at byte %u: must be a multiple of %u and hold %u "
        "section table entries",
        header.total_bytes, kTotalBytesOffset, kBodyAlignmentBytes,
        header.section_count));
  }
  return absl::OkStatus();
}

absl::StatusOr<Header> ParseHeader(absl::Span<const std::byte> bytes,
                                   const FrameLimits& limits) {
  if (auto status = CheckIdentity(bytes); !status.ok()) return status;
  const uint32_t header_bytes = LoadU32(bytes.data() + kHeaderBytesOffset);
  if (header_bytes != kFrameHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("header size %u at byte %u, expected %u", header_bytes,
                        kHeaderBytesOffset, kFrameHeaderBytes));
  }
  const uint32_t flags = LoadU32(bytes.data() + kFrameFlagsOffset);
  if (flags != 0) {
    return absl::UnimplementedError(absl::StrFormat(
        "unknown frame flags 0x%x at byte %u", flags, kFrameFlagsOffset));
  }
  Header header;
  if (!ReadPaddedName(bytes.data() + kProducerOffset, &header.producer) ||
      !IsProducerName(header.producer)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("the producer name at byte %u is not printable ASCII "
                        "padded with NUL",
                        kProducerOffset));
  }
  header.section_count = LoadU32(bytes.data() + kSectionCountOffset);
  header.total_bytes = LoadU64(bytes.data() + kTotalBytesOffset);
  if (auto status = CheckSizes(bytes, header, limits); !status.ok()) {
    return status;
  }
  const uint32_t stated = LoadU32(bytes.data() + kTableCrcOffset);
  const uint32_t computed = Crc32c(bytes.subspan(
      kFrameHeaderBytes, size_t{header.section_count} * kSectionEntryBytes));
  if (stated != computed) {
    return absl::DataLossError(absl::StrFormat(
        "section table damaged: CRC32C at byte %u is 0x%08x, the bytes have "
        "0x%08x",
        kTableCrcOffset, stated, computed));
  }
  return header;
}

// The part of an entry that says what it is.
absl::StatusOr<Section> ParseIdentity(absl::Span<const std::byte> bytes,
                                      uint64_t entry_offset) {
  const std::byte* entry = bytes.data() + entry_offset;
  Section section;
  if (!ReadPaddedName(entry, &section.name) || !IsSectionName(section.name)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("the section name at byte %u is not 1 to %u of "
                        "[A-Za-z0-9._-] padded with NUL",
                        entry_offset, kFrameNameBytes));
  }
  section.instance = LoadU64(entry + kInstanceOffset);
  section.version = LoadU32(entry + kSectionVersionOffset);
  const uint32_t flags = LoadU32(entry + kSectionFlagsOffset);
  const uint32_t reserved = LoadU32(entry + kReservedOffset);
  if (section.version == 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "section %s: version 0 at byte %u; versions count from 1",
        DescribeSection(section.name, section.instance),
        entry_offset + kSectionVersionOffset));
  }
  if ((flags & ~kSectionFlagRequired) != 0 || reserved != 0) {
    return absl::UnimplementedError(absl::StrFormat(
        "section %s: unknown flags 0x%x at byte %u or reserved field 0x%x at "
        "byte %u",
        DescribeSection(section.name, section.instance), flags,
        entry_offset + kSectionFlagsOffset, reserved,
        entry_offset + kReservedOffset));
  }
  section.kind = (flags & kSectionFlagRequired) != 0 ? SectionKind::kRequired
                                                     : SectionKind::kOptional;
  return section;
}

// One entry, whose body must start at `body_offset` exactly: that one rule
// excludes gaps, overlaps and a table in another order than the bodies.
// REQUIRES: body_offset <= bytes.size(), which is a multiple of 8.
absl::StatusOr<Section> ParseEntry(absl::Span<const std::byte> bytes,
                                   uint64_t entry_offset, uint64_t body_offset,
                                   const FrameLimits& limits) {
  auto section = ParseIdentity(bytes, entry_offset);
  if (!section.ok()) return section;
  const auto text = [&] {
    return DescribeSection(section->name, section->instance);
  };
  const uint64_t offset =
      LoadU64(bytes.data() + entry_offset + kBodyOffsetOffset);
  const uint64_t length =
      LoadU64(bytes.data() + entry_offset + kBodyLengthOffset);
  if (length > limits.body_bytes_max) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "section %s: length %u at byte %u, the limit is %u", text(), length,
        entry_offset + kBodyLengthOffset, limits.body_bytes_max));
  }
  if (offset != body_offset) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "section %s: offset %u at byte %u, but bodies are contiguous and in "
        "table order: expected %u",
        text(), offset, entry_offset + kBodyOffsetOffset, body_offset));
  }
  if (length > bytes.size() - offset) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "section %s: length %u at byte %u, but only %u bytes follow", text(),
        length, entry_offset + kBodyLengthOffset, bytes.size() - offset));
  }
  section->body = bytes.subspan(offset, length);
  return section;
}

absl::Status CheckBody(absl::Span<const std::byte> bytes,
                       const Section& section, uint64_t entry_offset) {
  const uint32_t stated = LoadU32(bytes.data() + entry_offset + kBodyCrcOffset);
  const uint32_t computed = Crc32c(section.body);
  const auto offset = static_cast<uint64_t>(section.body.data() - bytes.data());
  if (stated != computed) {
    return absl::DataLossError(absl::StrFormat(
        "section %s damaged: %u bytes from byte %u have CRC32C 0x%08x, the "
        "table says 0x%08x",
        DescribeSection(section.name, section.instance), section.body.size(),
        offset, computed, stated));
  }
  const uint64_t end = offset + section.body.size();
  for (uint64_t at = end; at < AlignBody(end); ++at) {
    if (bytes[at] != std::byte{0}) {
      return absl::DataLossError(
          absl::StrFormat("section %s: padding at byte %u is not zero",
                          DescribeSection(section.name, section.instance), at));
    }
  }
  return absl::OkStatus();
}

using NameKey = std::tuple<std::string_view, uint64_t>;

NameKey KeyOf(const Section& section) {
  return {section.name, section.instance};
}

}  // namespace

std::string DescribeSection(std::string_view name, uint64_t instance) {
  return absl::StrFormat("\"%s\" instance %u", name, instance);
}

absl::StatusOr<Frame> Frame::Parse(absl::Span<const std::byte> bytes,
                                   const FrameLimits& limits) {
  const auto header = ParseHeader(bytes, limits);
  if (!header.ok()) return header.status();
  Frame frame;
  frame.producer_ = header->producer;
  frame.sections_.reserve(header->section_count);
  uint64_t body_offset = SectionEntryOffset(header->section_count);
  for (uint32_t i = 0; i < header->section_count; ++i) {
    auto section =
        ParseEntry(bytes, SectionEntryOffset(i), body_offset, limits);
    if (!section.ok()) return section.status();
    body_offset = AlignBody(body_offset + section->body.size());
    frame.sections_.push_back(*section);
  }
  if (body_offset != bytes.size()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "the last section ends at byte %u, the frame at byte %u", body_offset,
        bytes.size()));
  }
  auto& sections = frame.sections_;
  frame.by_name_.resize(sections.size());
  std::iota(frame.by_name_.begin(), frame.by_name_.end(), 0);
  std::sort(frame.by_name_.begin(), frame.by_name_.end(),
            [&](uint32_t a, uint32_t b) {
              return KeyOf(sections[a]) < KeyOf(sections[b]);
            });
  for (size_t i = 1; i < frame.by_name_.size(); ++i) {
    const Section& twin = sections[frame.by_name_[i]];
    if (KeyOf(sections[frame.by_name_[i - 1]]) == KeyOf(twin)) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "section %s appears twice (table entries at bytes %u and %u)",
          DescribeSection(twin.name, twin.instance),
          SectionEntryOffset(
              std::min(frame.by_name_[i - 1], frame.by_name_[i])),
          SectionEntryOffset(
              std::max(frame.by_name_[i - 1], frame.by_name_[i]))));
    }
  }
  for (uint32_t i = 0; i < header->section_count; ++i) {
    auto status = CheckBody(bytes, sections[i], SectionEntryOffset(i));
    if (!status.ok()) return status;
  }
  return frame;
}

const Section* Frame::Find(std::string_view name, uint64_t instance) const {
  const NameKey wanted(name, instance);
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), wanted,
                                   [&](uint32_t index, const NameKey& key) {
                                     return KeyOf(sections_[index]) < key;
                                   });
  if (at == by_name_.end() || KeyOf(sections_[*at]) != wanted) return nullptr;
  return &sections_[*at];
}

bool Frame::HasSeal() const {
  return std::any_of(
      sections_.begin(), sections_.end(),
      [](const Section& section) { return section.name == kSealSection; });
}

absl::StatusOr<std::vector<Section>> CheckKnownSections(
    const Frame& frame, absl::Span<const KnownSection> known) {
  if (frame.HasSeal()) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "the file is sealed (section \"%s\") and nobody has checked the seal; "
        "give this reader what savestate::OpenSeal returns",
        kSealSection));
  }
  std::vector<Section> skipped;
  std::vector<std::string> refused;
  size_t refused_count = 0;
  const auto refuse = [&](std::string line) {
    if (++refused_count <= kListedMax) refused.push_back(std::move(line));
  };
  for (const Section& section : frame.sections()) {
    const auto match = std::find_if(
        known.begin(), known.end(),
        [&](const KnownSection& k) { return k.name == section.name; });
    const auto text = [&] {
      return DescribeSection(section.name, section.instance);
    };
    if (match != known.end()) {
      if (section.version > match->max_version) {
        refuse(absl::StrFormat("%s has version %u, this reader knows up to %u",
                               text(), section.version, match->max_version));
      }
    } else if (section.kind == SectionKind::kOptional) {
      skipped.push_back(section);
    } else {
      refuse(absl::StrFormat("%s is unknown and required", text()));
    }
  }
  if (refused_count == 0) return skipped;
  if (refused_count > kListedMax) {
    refused.push_back(absl::StrCat(refused_count - kListedMax, " more"));
  }
  return absl::UnimplementedError(
      absl::StrFormat("the file needs a newer reader (written by \"%s\"): %s",
                      frame.producer(), absl::StrJoin(refused, "; ")));
}

}  // namespace ferrybus::savestate
