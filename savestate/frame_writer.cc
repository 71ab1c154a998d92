// SPDX-License-Identifier: MIT

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "ferrybus/savestate/crc32c.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/frame_layout.h"

namespace ferrybus::savestate {

FrameWriter::FrameWriter(std::string producer, const FrameLimits& limits)
    : producer_(std::move(producer)), limits_(limits) {}

void FrameWriter::AddSection(std::string name, uint64_t instance,
                             uint32_t version, SectionKind kind,
                             std::string body) {
  sections_.push_back(
      {std::move(name), instance, version, kind, std::move(body)});
}

absl::Status FrameWriter::CheckSections() const {
  if (!IsProducerName(producer_)) {
    return absl::InvalidArgumentError(
        "the producer name is not at most 24 printable ASCII characters");
  }
  if (sections_.size() > limits_.sections_max) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("%u sections, the limit is %u", sections_.size(),
                        limits_.sections_max));
  }
  std::vector<std::tuple<std::string_view, uint64_t>> keys;
  for (const Pending& section : sections_) {
    const std::string text = DescribeSection(section.name, section.instance);
    if (!IsSectionName(section.name) || section.version == 0) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "section %s version %u: the name must be 1 to %u of [A-Za-z0-9._-], "
          "the version at least 1",
          text, section.version, kFrameNameBytes));
    }
    if (section.body.size() > limits_.body_bytes_max) {
      return absl::ResourceExhaustedError(
          absl::StrFormat("section %s: %u bytes, the limit is %u", text,
                          section.body.size(), limits_.body_bytes_max));
    }
    keys.emplace_back(section.name, section.instance);
  }
  std::sort(keys.begin(), keys.end());
  const auto twin = std::adjacent_find(keys.begin(), keys.end());
  if (twin == keys.end()) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat(
      "section ", DescribeSection(std::get<0>(*twin), std::get<1>(*twin)),
      " was added twice"));
}

absl::StatusOr<std::string> FrameWriter::Finish() const {
  if (auto status = CheckSections(); !status.ok()) return status;
  uint64_t total_bytes = SectionEntryOffset(sections_.size());
  for (const Pending& section : sections_) {
    total_bytes = AlignBody(total_bytes + section.body.size());
  }
  if (total_bytes > limits_.total_bytes_max) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("the frame would have %u bytes, the limit is %u",
                        total_bytes, limits_.total_bytes_max));
  }
  std::string file(total_bytes, '\0');
  uint64_t body_offset = SectionEntryOffset(sections_.size());
  for (size_t i = 0; i < sections_.size(); ++i) {
    const Pending& section = sections_[i];
    const auto body = absl::MakeConstSpan(
        reinterpret_cast<const std::byte*>(section.body.data()),
        section.body.size());
    char* entry = file.data() + SectionEntryOffset(i);
    section.name.copy(entry, kFrameNameBytes);
    StoreU64(entry + kInstanceOffset, section.instance);
    StoreU32(entry + kSectionVersionOffset, section.version);
    StoreU32(entry + kSectionFlagsOffset,
             section.kind == SectionKind::kRequired ? kSectionFlagRequired : 0);
    StoreU64(entry + kBodyOffsetOffset, body_offset);
    StoreU64(entry + kBodyLengthOffset, body.size());
    StoreU32(entry + kBodyCrcOffset, Crc32c(body));
    section.body.copy(file.data() + body_offset, section.body.size());
    body_offset = AlignBody(body_offset + body.size());
  }
  const auto bytes = absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(file.data()), file.size());
  kFrameMagic.copy(file.data(), kFrameMagic.size());
  StoreU32(file.data() + kFrameVersionOffset, kFrameVersion);
  StoreU32(file.data() + kHeaderBytesOffset, kFrameHeaderBytes);
  StoreU32(file.data() + kSectionCountOffset,
           static_cast<uint32_t>(sections_.size()));
  StoreU64(file.data() + kTotalBytesOffset, total_bytes);
  producer_.copy(file.data() + kProducerOffset, kFrameNameBytes);
  StoreU32(file.data() + kTableCrcOffset,
           Crc32c(bytes.subspan(kFrameHeaderBytes,
                                sections_.size() * kSectionEntryBytes)));
  StoreU32(file.data() + kHeaderCrcOffset,
           Crc32c(bytes.subspan(0, kHeaderCrcOffset)));
  return file;
}

}  // namespace ferrybus::savestate
