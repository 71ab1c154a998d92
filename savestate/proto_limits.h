// SPDX-License-Identifier: MIT
//
// Parses protobuf bytes that may be hostile.  A scan of the wire format, by
// the message's descriptor, bounds everything before protobuf sees a byte:
// size, depth, number of fields and the memory that the message will take.
//
// The scan also refuses what two readers may read differently: groups,
// unknown fields, a singular field or a oneof given twice, varints longer
// than needed, strings that are not UTF-8.
//
// What passes is well-formed, no more.  Enums may hold any value, and the
// values may contradict each other: a second pass must check what they mean
// before anything is done with them.
//
// Thread safety: pure functions.
// Cost: one pass over the bytes with a descriptor lookup per field, then the
// ordinary parse.
//
//   ConnectionState state;
//   absl::Status status =
//       ParseBounded(section.body, ProtoLimits(), &state, "section
//       connection");

#ifndef FERRYBUS_SAVESTATE_PROTO_LIMITS_H_
#define FERRYBUS_SAVESTATE_PROTO_LIMITS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace google::protobuf {
class Message;
}  // namespace google::protobuf

namespace ferrybus::savestate {

enum class UnknownFields {
  kRefuse,
  // Dropped, so that a stranger's bytes do not travel on in our own files.
  kDiscard,
};

struct ProtoLimits {
  uint64_t bytes_max = uint64_t{64} << 20;
  // Of all messages together; each element of a repeated field counts.
  uint64_t fields_max = uint64_t{1} << 20;
  // Messages nested within each other, not counting the outermost.
  int depth_max = 16;
  // The parsed message may take memory_per_byte * size + memory_slack_bytes.
  uint64_t memory_per_byte = 4;
  uint64_t memory_slack_bytes = uint64_t{16} << 20;
  UnknownFields unknown_fields = UnknownFields::kRefuse;
};

// Parses `bytes` into `out`, which is cleared first, and again on failure.
// `where` names the bytes in error texts, which add the byte offset.
//
// kResourceExhausted for a limit (depth, too), kInvalidArgument for everything
// else.
absl::Status ParseBounded(absl::Span<const std::byte> bytes,
                          const ProtoLimits& limits,
                          google::protobuf::Message* out,
                          std::string_view where);

// The same message gives the same bytes: map entries are sorted by key.
//
// REQUIRES: `message` serialises to less than 2 GiB, and has its required
// fields; a violation gives an empty string.
std::string SerializeDeterministic(const google::protobuf::Message& message);

}  // namespace ferrybus::savestate

#endif  // FERRYBUS_SAVESTATE_PROTO_LIMITS_H_
