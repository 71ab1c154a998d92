// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/unix/socket_frame.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/migration/checksummed.h"
#include "ferrybus/savestate/migration/page_block.h"

namespace ferrybus::migration {
namespace {

constexpr char kMagic[] = {'F', 'B'};
// Everything of a message but the blob, or the pages, in it.
constexpr uint64_t kOverheadBytesMax = uint64_t{2} << 20;
constexpr size_t kMachineNameMax = 256;
constexpr size_t kReasonMax = 512;

std::string Checksummed(std::string bytes) {
  AppendChecksum(&bytes);
  return bytes;
}

absl::StatusOr<absl::string_view> Body(absl::string_view bytes,
                                       absl::string_view what) {
  absl::StatusOr<absl::Span<const std::byte>> body = CheckChecksum(
      {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}, what);
  if (!body.ok()) return body.status();
  return bytes.substr(0, body->size());
}

bool IsPrintable(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return c >= ' ' && c <= '~'; });
}

}  // namespace

uint64_t FrameBytesMax(FrameKind kind, const MessageLimits& limits) {
  switch (kind) {
    case FrameKind::kGreeting:
      return sizeof(kUnixPrefix) - 1 + kSocketPathMax + kChecksumSizeBytes;
    case FrameKind::kMessage:
      return std::min<uint64_t>(limits.blob_bytes_max + kOverheadBytesMax,
                                1 << 30);
    case FrameKind::kBlock:
      return kBlockBytesMax + kOverheadBytesMax;
    case FrameKind::kQuestion:
      return kIdSizeBytes + kMachineNameMax + kChecksumSizeBytes;
    case FrameKind::kAnswer:
      return 2 + kReasonMax + kChecksumSizeBytes;
  }
  return 0;
}

std::array<char, kFrameHeaderBytes> SerializeFrameHeader(
    const FrameHeader& header) {
  std::array<char, kFrameHeaderBytes> bytes = {
      kMagic[0], kMagic[1], static_cast<char>(header.kind),
      static_cast<char>(header.descriptors)};
  std::memcpy(&bytes[4], &header.size_bytes, sizeof(header.size_bytes));
  return bytes;
}

absl::StatusOr<FrameHeader> ParseFrameHeader(
    const std::array<char, kFrameHeaderBytes>& bytes,
    const MessageLimits& limits) {
  const auto kind = static_cast<uint8_t>(bytes[2]);
  if (bytes[0] != kMagic[0] || bytes[1] != kMagic[1] ||
      kind < static_cast<uint8_t>(FrameKind::kGreeting) ||
      kind > static_cast<uint8_t>(FrameKind::kAnswer)) {
    return absl::InvalidArgumentError("this is no frame of a migration");
  }
  FrameHeader header = {.kind = static_cast<FrameKind>(kind),
                        .descriptors = static_cast<uint8_t>(bytes[3])};
  std::memcpy(&header.size_bytes, &bytes[4], sizeof(header.size_bytes));
  const uint64_t size_max = FrameBytesMax(header.kind, limits);
  if (header.size_bytes > size_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a frame of ", header.size_bytes, " bytes; of kind ", kind,
                     " are at most ", size_max));
  }
  const size_t descriptors_max =
      header.kind == FrameKind::kMessage ? kFrameDescriptorsMax : 0;
  if (header.descriptors > descriptors_max) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a frame with ", header.descriptors, " descriptors; of kind ", kind,
        " has at most ", descriptors_max));
  }
  return header;
}

absl::StatusOr<std::string> ParseUnixAddress(absl::string_view address) {
  const absl::string_view path =
      address.substr(std::min(address.size(), sizeof(kUnixPrefix) - 1));
  if (absl::StartsWith(address, kUnixPrefix) && absl::StartsWith(path, "/") &&
      path.size() <= kSocketPathMax && IsPrintable(path)) {
    return std::string(path);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "the address of a socket is ", kUnixPrefix, "/PATH, with a path of at ",
      "most ", kSocketPathMax, " printable characters"));
}

std::string SerializeGreeting(const std::string& address) {
  return Checksummed(address);
}

absl::StatusOr<std::string> ParseGreeting(absl::string_view bytes) {
  absl::StatusOr<absl::string_view> address = Body(bytes, "greeting");
  if (!address.ok()) return address.status();
  absl::Status status = ParseUnixAddress(*address).status();
  if (!status.ok()) return status;
  return std::string(*address);
}

std::string SerializeQuestion(const DecisionQuestion& question) {
  return Checksummed(question.migration_id + question.machine);
}

absl::StatusOr<DecisionQuestion> ParseQuestion(absl::string_view bytes) {
  absl::StatusOr<absl::string_view> body = Body(bytes, "question");
  if (!body.ok()) return body.status();
  if (body->size() <= kIdSizeBytes ||
      body->size() > kIdSizeBytes + kMachineNameMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a question of ", body->size(), " bytes"));
  }
  return DecisionQuestion{
      .machine = std::string(body->substr(kIdSizeBytes)),
      .migration_id = std::string(body->substr(0, kIdSizeBytes))};
}

// The decision, or 0xff, the code, and the reason.
std::string SerializeAnswer(const absl::StatusOr<Decision>& answer) {
  if (answer.ok()) return Checksummed({static_cast<char>(*answer)});
  std::string bytes = {'\xff', static_cast<char>(answer.status().code())};
  absl::StrAppend(&bytes, answer.status().message().substr(0, kReasonMax));
  return Checksummed(std::move(bytes));
}

absl::StatusOr<Decision> ParseAnswer(absl::string_view bytes) {
  absl::StatusOr<absl::string_view> body = Body(bytes, "answer");
  if (!body.ok()) return body.status();
  if (body->size() >= 2 && (*body)[0] == '\xff' &&
      IsPrintable(body->substr(2))) {
    const int code = static_cast<unsigned char>((*body)[1]);
    const absl::Status why(static_cast<absl::StatusCode>(code),
                           body->substr(2));
    if (code <= static_cast<int>(absl::StatusCode::kUnauthenticated) &&
        !why.ok()) {
      return why;
    }
  }
  if (body->size() == 1 &&
      static_cast<unsigned char>((*body)[0]) <=
          static_cast<unsigned char>(Decision::kUndecided)) {
    return static_cast<Decision>((*body)[0]);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("an answer of ", body->size(), " bytes that says nothing"));
}

}  // namespace ferrybus::migration
