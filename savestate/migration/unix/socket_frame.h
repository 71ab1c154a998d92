// SPDX-License-Identifier: MIT
//
// How the messages and blocks of a migration are laid out on a stream between
// two processes of one host.
//
//   0  'F' 'B'        2  kind        3  descriptors that go with it
//   4  size of what follows, 32 bits, little-endian
//   8  the bytes
//
// A process that connects begins with a greeting, then its migration follows;
// or with a question, which is answered.  Messages and blocks have their own
// checksums; so have greeting, question and answer here.
//
// Ownership: none.  Thread safety: pure functions.
// Trust: a peer's bytes.  A size is bounded before anything is read for it, and
// nothing is allocated for what is only announced.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_UNIX_SOCKET_FRAME_H_
#define FERRYBUS_SAVESTATE_MIGRATION_UNIX_SOCKET_FRAME_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/migration_messages.h"
#include "ferrybus/savestate/migration/ownership.h"

namespace ferrybus::migration {

// An address of this transport: this, and the path of a socket.
inline constexpr char kUnixPrefix[] = "unix:";
// As the system has it, less the zero at its end.
inline constexpr size_t kSocketPathMax = 107;
// As many as the system sends at a time.
inline constexpr size_t kFrameDescriptorsMax = 253;
inline constexpr size_t kFrameHeaderBytes = 8;

enum class FrameKind : uint8_t {
  kGreeting = 1,  // where the source's host answers questions
  kMessage = 2,   // of migration.proto; alone may have descriptors
  kBlock = 3,
  kQuestion = 4,  // what became of a migration
  kAnswer = 5,
};

struct FrameHeader {
  FrameKind kind = FrameKind::kMessage;
  uint8_t descriptors = 0;
  uint32_t size_bytes = 0;

  friend bool operator==(const FrameHeader&, const FrameHeader&) = default;
};

std::array<char, kFrameHeaderBytes> SerializeFrameHeader(
    const FrameHeader& header);
// InvalidArgument, ResourceExhausted.
absl::StatusOr<FrameHeader> ParseFrameHeader(
    const std::array<char, kFrameHeaderBytes>& bytes,
    const MessageLimits& limits);

// Of a frame of this kind.
uint64_t FrameBytesMax(FrameKind kind, const MessageLimits& limits);

// The path, or InvalidArgument.
absl::StatusOr<std::string> ParseUnixAddress(absl::string_view address);

std::string SerializeGreeting(const std::string& address);
// The address, checked.
absl::StatusOr<std::string> ParseGreeting(absl::string_view bytes);

struct DecisionQuestion {
  std::string machine;
  std::string migration_id;
};
std::string SerializeQuestion(const DecisionQuestion& question);
absl::StatusOr<DecisionQuestion> ParseQuestion(absl::string_view bytes);

// What is no decision is why there is none.
std::string SerializeAnswer(const absl::StatusOr<Decision>& answer);
absl::StatusOr<Decision> ParseAnswer(absl::string_view bytes);

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_UNIX_SOCKET_FRAME_H_
