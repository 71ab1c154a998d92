// SPDX-License-Identifier: MIT
//
// The outer frame of a saved state: a header, a table of named sections and
// their bodies, each under a CRC32C.  It is frozen (docs/SAVE_STATE.md), so a
// reader of any age can say what a file is and why it refuses it; everything
// that evolves is inside the sections.
//
// Ownership: a Frame borrows the bytes it was parsed from, which must stay
// alive and unchanged.  They must be private memory, never memory shared with
// a guest.
// Thread safety: distinct objects are independent; a const Frame may be read
// from many threads.
// Trust: the bytes may be hostile.  Parse checks the whole frame before it
// hands out the first body.  A body that passed its CRC is still hostile.
// Cost: Parse reads each byte once and allocates 72 bytes per section.
//
//   FrameWriter writer;
//   writer.AddSection("ring", relid, 1, SectionKind::kRequired, body);
//   absl::StatusOr<std::string> file = writer.Finish();
//
//   absl::StatusOr<Frame> frame = Frame::Parse(bytes);
//   const Section* ring = frame->Find("ring", relid);

#ifndef FERRYBUS_SAVESTATE_FRAME_H_
#define FERRYBUS_SAVESTATE_FRAME_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ferrybus::savestate {

// What a reader takes, and what a writer may make.  Beyond: kResourceExhausted.
struct FrameLimits {
  uint64_t total_bytes_max = uint64_t{1} << 30;
  uint32_t sections_max = 8192;
  uint64_t body_bytes_max = uint64_t{256} << 20;
};

// What a reader does that does not know the section's name.
enum class SectionKind {
  kOptional,  // skip it and say so
  kRequired,  // refuse the file
};

// A view into a parsed frame.
struct Section {
  std::string_view name;
  uint64_t instance = 0;  // tells sections of one name apart (a relid); else 0
  uint32_t version = 0;   // of the body's format, from 1
  SectionKind kind = SectionKind::kRequired;
  absl::Span<const std::byte> body;
};

// Builds a frame.  The same calls give the same bytes.
class FrameWriter {
 public:
  // `producer` says who wrote the file, for people to read: at most 24
  // printable ASCII characters.  Readers never act on it.
  explicit FrameWriter(std::string producer = "ferrybus",
                       const FrameLimits& limits = {});

  // Sections stand in the frame in the order they were added.  `name` is 1 to
  // 24 of [A-Za-z0-9._-]; (name, instance) is unique; `version` counts from 1.
  // A mistake is reported by Finish.
  void AddSection(std::string name, uint64_t instance, uint32_t version,
                  SectionKind kind, std::string body);

  // The whole file, or what was wrong: kInvalidArgument for a bad name or
  // version, kAlreadyExists for a repeated section, kResourceExhausted for a
  // limit.  It can be called again, and after more sections.
  absl::StatusOr<std::string> Finish() const;

 private:
  struct Pending {
    std::string name;
    uint64_t instance;
    uint32_t version;
    SectionKind kind;
    std::string body;
  };

  absl::Status CheckSections() const;

  std::string producer_;
  FrameLimits limits_;
  std::vector<Pending> sections_;
};

class Frame {
 public:
  // Refusals: kDataLoss when a checksum fails or bytes are missing,
  // kInvalidArgument when the bytes are whole but are not a frame,
  // kUnimplemented for a frame version, flag or reserved field this reader
  // does not know, kResourceExhausted for a limit.  The text names the section
  // and the byte offset.
  static absl::StatusOr<Frame> Parse(absl::Span<const std::byte> bytes,
                                     const FrameLimits& limits = {});

  std::string_view producer() const { return producer_; }

  // In file order.
  absl::Span<const Section> sections() const { return sections_; }

  // Null when there is none.
  const Section* Find(std::string_view name, uint64_t instance = 0) const;

  // Whether it has a seal, true or false: OpenSeal (seal.h) checks it.
  bool HasSeal() const;

 private:
  Frame() = default;

  std::string_view producer_;
  std::vector<Section> sections_;
  std::vector<uint32_t> by_name_;  // indices, sorted by (name, instance)
};

// A section name that a reader understands, up to a version.
struct KnownSection {
  std::string_view name;
  uint32_t max_version = 1;
};

// Compares a file with what the reader knows.  Unknown optional sections come
// back as the list of what will be left out; the caller should report it.
// kUnimplemented, naming all that is in the way, when an unknown section is
// required or a known one (required or not) is newer than `max_version`.
// kFailedPrecondition when the frame is sealed: whoever reads its sections must
// have checked the seal, and then has a frame without one.
absl::StatusOr<std::vector<Section>> CheckKnownSections(
    const Frame& frame, absl::Span<const KnownSection> known);

// "ring" instance 7, as error texts name a section.
std::string DescribeSection(std::string_view name, uint64_t instance);

}  // namespace ferrybus::savestate

#endif  // FERRYBUS_SAVESTATE_FRAME_H_
