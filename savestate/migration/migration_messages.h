// SPDX-License-Identifier: MIT
//
// The messages between the two sides of a migration, checked.
//
//   source                                target
//   Hello                  ->
//                          <-             HelloReply
//   ImmutableData (each)   ->
//                          <-             ImmutableAccepted
//   page blocks, PassEnd   ->                              again and again
//                          <-             PassDone
//   MutableData (each)     ->
//   Prepare                ->
//                          <-             Prepared
//   Commit                 ->
//                          <-             Running
//   Abort                  <->            at any time before Commit
//
// Trust: bytes of a peer.  A wrong checksum is refused; parsing bounds them
// before protobuf sees them, and checks all that can be known without the
// state: sizes, counts, names. Thread safety: pure functions.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_MESSAGES_H_
#define FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_MESSAGES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace ferrybus::migration {

// What this build speaks.
inline constexpr uint32_t kProtocolVersion = 1;
// Bytes of a migration id and of a session.
inline constexpr size_t kIdSizeBytes = 16;

struct MessageLimits {
  uint64_t blob_bytes_max = uint64_t{32} << 20;
  uint64_t state_bytes_max = uint64_t{128} << 20;  // of all blobs
  uint32_t devices_max = 64;
  uint32_t segments_max = 16;  // of a device
  uint64_t segment_bytes_max = uint64_t{1} << 46;
};

struct SegmentDescription {
  uint32_t id = 0;
  uint64_t page_size_bytes = 0;
  uint64_t size_bytes = 0;
  bool is_shared = false;

  friend bool operator==(const SegmentDescription&,
                         const SegmentDescription&) = default;
};

struct DeviceDescription {
  std::string name;
  std::string creation_parameters;
  std::vector<SegmentDescription> segments;

  friend bool operator==(const DeviceDescription&,
                         const DeviceDescription&) = default;
};

struct Hello {
  uint32_t version_min = kProtocolVersion;
  uint32_t version_max = kProtocolVersion;
  std::string migration_id;
  std::string machine;
  uint64_t epoch = 0;
  std::vector<DeviceDescription> devices;
};
struct HelloReply {
  uint32_t version = kProtocolVersion;
  std::string session;
};
struct ImmutableData {
  uint32_t device = 0;
  std::string data;
};
struct ImmutableAccepted {};
struct PassEnd {
  uint32_t pass = 0;
  uint64_t blocks = 0;
};
struct PassDone {
  uint32_t pass = 0;
};
struct MutableData {
  uint32_t device = 0;
  std::string data;
};
struct Prepare {};
struct Prepared {};
struct Commit {
  std::string session;
  uint64_t epoch = 0;
};
struct Running {};
struct Abort {
  absl::Status reason;
  std::string session = {};  // the source's, once it has one
};

using Message = std::variant<Hello, HelloReply, ImmutableData,
                             ImmutableAccepted, PassEnd, PassDone, MutableData,
                             Prepare, Prepared, Commit, Running, Abort>;

absl::string_view MessageName(const Message& message);

std::string SerializeMessage(const Message& message);
// InvalidArgument, ResourceExhausted.
absl::StatusOr<Message> ParseMessage(absl::Span<const std::byte> bytes,
                                     const MessageLimits& limits);

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_MESSAGES_H_
