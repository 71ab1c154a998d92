// SPDX-License-Identifier: MIT
//
// The scan of ParseBounded (proto_limits.h): walks protobuf wire format by a
// descriptor and adds up what a parse would cost, without building anything.
//
// Trust: the bytes may be hostile.  Recursion is bounded by depth_max.
// Thread safety: none; one object per scan.

#ifndef FERRYBUS_SAVESTATE_WIRE_SCAN_H_
#define FERRYBUS_SAVESTATE_WIRE_SCAN_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/proto_limits.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace ferrybus::savestate {

class WireScan {
 public:
  // `factory` makes the messages that will be parsed; it is asked how large
  // an empty one is.
  WireScan(const ProtoLimits& limits, std::string_view where,
           google::protobuf::MessageFactory& factory)
      : limits_(limits), where_(where), factory_(factory) {}

  // Scans one message with all that is in it.
  absl::Status Run(absl::Span<const std::byte> bytes,
                   const google::protobuf::Descriptor& type);

  uint64_t fields() const { return fields_; }
  // An upper estimate of the memory of the parsed message.
  uint64_t memory_bytes() const { return memory_bytes_; }

 private:
  struct Tag {
    int number;
    int wire_type;
    size_t offset;
  };
  class SeenFields;

  // All of these read at position_, and never at or beyond `end`.
  absl::Status ScanMessage(const google::protobuf::Descriptor& type, size_t end,
                           int depth);
  absl::Status ScanField(const google::protobuf::FieldDescriptor& field,
                         const Tag& tag, size_t end, int depth);
  absl::Status ScanLengthDelimited(
      const google::protobuf::FieldDescriptor& field, size_t end, int depth);
  absl::Status ScanPacked(const google::protobuf::FieldDescriptor& field,
                          size_t end);
  absl::Status ScanUnknown(const Tag& tag,
                           const google::protobuf::Descriptor& type,
                           size_t end);
  absl::Status SkipScalar(int wire_type, size_t end);
  absl::Status ReadTag(size_t end, Tag* tag);
  absl::Status ReadVarint(size_t end, uint64_t* value);
  // Where the length-delimited value at position_ ends.
  absl::Status ReadLength(size_t end, size_t* value_end);

  // One more field or element that takes `memory_bytes`.
  absl::Status Spend(uint64_t memory_bytes);
  uint64_t EmptySize(const google::protobuf::Descriptor& type);

  absl::Status Malformed(size_t offset, std::string_view why) const;

  const ProtoLimits& limits_;
  const std::string_view where_;
  google::protobuf::MessageFactory& factory_;
  absl::flat_hash_map<const google::protobuf::Descriptor*, uint64_t> sizes_;
  absl::Span<const std::byte> bytes_;
  size_t position_ = 0;
  uint64_t fields_ = 0;
  uint64_t memory_bytes_ = 0;
  uint64_t memory_bytes_max_ = 0;
};

}  // namespace ferrybus::savestate

#endif  // FERRYBUS_SAVESTATE_WIRE_SCAN_H_
