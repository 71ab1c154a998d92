// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/wire_scan.h"

#include <limits>
#include <string>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_format.h"

namespace ferrybus::savestate {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;

enum WireType {
  kVarint = 0,
  kFixed64 = 1,
  kLengthDelimited = 2,
  kGroupStart = 3,
  kGroupEnd = 4,
  kFixed32 = 5,
};

constexpr uint32_t kFieldNumberMax = (1u << 29) - 1;
constexpr int kVarintBytesMax = 10;

// What a value costs on the heap beside its own bytes.  Containers double:
// while one grows, the old and the new block are both there.
constexpr uint64_t kGrowth = 3;
constexpr uint64_t kAllocationBytes = 16;
constexpr uint64_t kPointerBytes = 8 * kGrowth;
constexpr uint64_t kStringBytes =
    sizeof(std::string) + 2 * kAllocationBytes + kPointerBytes;
constexpr uint64_t kMapNodeBytes = 64;
constexpr uint64_t kUnknownFieldBytes = 16 * kGrowth + kStringBytes;

int WireTypeOf(const FieldDescriptor& field) {
  switch (field.type()) {
    case FieldDescriptor::TYPE_DOUBLE:
    case FieldDescriptor::TYPE_FIXED64:
    case FieldDescriptor::TYPE_SFIXED64:
      return kFixed64;
    case FieldDescriptor::TYPE_FLOAT:
    case FieldDescriptor::TYPE_FIXED32:
    case FieldDescriptor::TYPE_SFIXED32:
      return kFixed32;
    case FieldDescriptor::TYPE_STRING:
    case FieldDescriptor::TYPE_BYTES:
    case FieldDescriptor::TYPE_MESSAGE:
      return kLengthDelimited;
    case FieldDescriptor::TYPE_GROUP:
      return kGroupStart;
    default:
      return kVarint;
  }
}

// Memory of one scalar element of a repeated field.
uint64_t ElementBytes(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return 1 * kGrowth;
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_UINT32:
    case FieldDescriptor::CPPTYPE_FLOAT:
    case FieldDescriptor::CPPTYPE_ENUM:
      return 4 * kGrowth;
    default:
      return 8 * kGrowth;
  }
}

// Length of the UTF-8 sequence at the start of `text`; 0 when it is not one.
// The parser would refuse it as well, but with a line in the log each time.
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  // Too long for its value, a surrogate, or beyond U+10FFFF.
  if (lead == 0xE0 && byte(1) < 0xA0) return 0;
  if (lead == 0xED && byte(1) > 0x9F) return 0;
  if (lead == 0xF0 && byte(1) < 0x90) return 0;
  if (lead == 0xF4 && byte(1) > 0x8F) return 0;
  return length;
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

}  // namespace

// Which singular fields and oneofs of one message were there already.
class WireScan::SeenFields {
 public:
  explicit SeenFields(const Descriptor& type)
      : fields_(static_cast<size_t>(type.field_count())),
        oneofs_(static_cast<size_t>(type.oneof_decl_count())) {}

  // False when `field` must not come now.
  bool Add(const FieldDescriptor& field) {
    if (field.is_repeated()) return true;
    bool fresh =
        !std::exchange(fields_[static_cast<size_t>(field.index())], true);
    if (const auto* oneof = field.containing_oneof()) {
      fresh &=
          !std::exchange(oneofs_[static_cast<size_t>(oneof->index())], true);
    }
    return fresh;
  }

 private:
  absl::InlinedVector<bool, 32> fields_;
  absl::InlinedVector<bool, 8> oneofs_;
};

absl::Status WireScan::Run(absl::Span<const std::byte> bytes,
                           const Descriptor& type) {
  bytes_ = bytes;
  // The caller bounded the size; limits that overflow mean "no limit".
  memory_bytes_max_ = std::numeric_limits<uint64_t>::max();
  uint64_t scaled = 0;
  if (!__builtin_mul_overflow(limits_.memory_per_byte, bytes.size(), &scaled)) {
    uint64_t sum = 0;
    if (!__builtin_add_overflow(scaled, limits_.memory_slack_bytes, &sum)) {
      memory_bytes_max_ = sum;
    }
  }
  memory_bytes_ = EmptySize(type);
  return ScanMessage(type, bytes.size(), 0);
}

absl::Status WireScan::ScanMessage(const Descriptor& type, size_t end,
                                   int depth) {
  if (depth > limits_.depth_max) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("%s: messages nested deeper than %d at byte %u", where_,
                        limits_.depth_max, position_));
  }
  SeenFields seen(type);
  while (position_ < end) {
    Tag tag;
    if (auto status = ReadTag(end, &tag); !status.ok()) return status;
    const FieldDescriptor* field = type.FindFieldByNumber(tag.number);
    absl::Status status;
    if (field == nullptr) {
      status = ScanUnknown(tag, type, end);
    } else if (!seen.Add(*field)) {
      status = Malformed(
          tag.offset, absl::StrFormat("field %s, or its oneof, is there twice",
                                      field->full_name()));
    } else {
      status = ScanField(*field, tag, end, depth);
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status WireScan::ScanField(const FieldDescriptor& field, const Tag& tag,
                                 size_t end, int depth) {
  if (tag.wire_type == kLengthDelimited && field.is_packable()) {
    return ScanPacked(field, end);
  }
  if (tag.wire_type != WireTypeOf(field)) {
    // The parser takes a field with another wire type for an unknown one.
    return ScanUnknown(tag, *field.containing_type(), end);
  }
  if (tag.wire_type == kLengthDelimited) {
    return ScanLengthDelimited(field, end, depth);
  }
  const uint64_t element_bytes = field.is_repeated() ? ElementBytes(field) : 0;
  if (auto status = Spend(element_bytes); !status.ok()) return status;
  return SkipScalar(tag.wire_type, end);
}

absl::Status WireScan::ScanLengthDelimited(const FieldDescriptor& field,
                                           size_t end, int depth) {
  size_t value_end = 0;
  if (auto status = ReadLength(end, &value_end); !status.ok()) return status;
  if (field.type() == FieldDescriptor::TYPE_MESSAGE) {
    const uint64_t memory_bytes = EmptySize(*field.message_type()) +
                                  kAllocationBytes + kPointerBytes +
                                  (field.is_map() ? kMapNodeBytes : 0);
    if (auto status = Spend(memory_bytes); !status.ok()) return status;
    return ScanMessage(*field.message_type(), value_end, depth + 1);
  }
  const std::string_view value(
      reinterpret_cast<const char*>(bytes_.data()) + position_,
      value_end - position_);
  if (field.type() == FieldDescriptor::TYPE_STRING && !IsUtf8(value)) {
    return Malformed(position_, "a string is not UTF-8");
  }
  position_ = value_end;
  return Spend(kStringBytes + value.size());
}

absl::Status WireScan::ScanPacked(const FieldDescriptor& field, size_t end) {
  size_t value_end = 0;
  if (auto status = ReadLength(end, &value_end); !status.ok()) return status;
  const uint64_t element_bytes = ElementBytes(field);
  const int wire_type = WireTypeOf(field);
  while (position_ < value_end) {
    if (auto status = Spend(element_bytes); !status.ok()) return status;
    if (auto status = SkipScalar(wire_type, value_end); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status WireScan::ScanUnknown(const Tag& tag, const Descriptor& type,
                                   size_t end) {
  if (limits_.unknown_fields == UnknownFields::kRefuse) {
    return Malformed(
        tag.offset,
        absl::StrFormat("%s has no field %d of wire type %d", type.full_name(),
                        tag.number, tag.wire_type));
  }
  if (tag.wire_type != kLengthDelimited) {
    if (auto status = Spend(kUnknownFieldBytes); !status.ok()) return status;
    return SkipScalar(tag.wire_type, end);
  }
  size_t value_end = 0;
  if (auto status = ReadLength(end, &value_end); !status.ok()) return status;
  const uint64_t value_bytes = value_end - position_;
  // The parser keeps it as one string; what is inside is never looked at.
  position_ = value_end;
  return Spend(kUnknownFieldBytes + value_bytes);
}

absl::Status WireScan::SkipScalar(int wire_type, size_t end) {
  if (wire_type == kVarint) {
    uint64_t value = 0;
    return ReadVarint(end, &value);
  }
  const size_t size_bytes = wire_type == kFixed64 ? 8 : 4;
  if (size_bytes > end - position_) {
    return Malformed(position_, "a fixed-size value is cut off");
  }
  position_ += size_bytes;
  return absl::OkStatus();
}

absl::Status WireScan::ReadTag(size_t end, Tag* tag) {
  tag->offset = position_;
  uint64_t value = 0;
  if (auto status = ReadVarint(end, &value); !status.ok()) return status;
  const uint64_t number = value >> 3;
  tag->wire_type = static_cast<int>(value & 7);
  if (number == 0 || number > kFieldNumberMax) {
    return Malformed(tag->offset, "field number out of range");
  }
  tag->number = static_cast<int>(number);
  if (tag->wire_type == kGroupStart || tag->wire_type == kGroupEnd) {
    return Malformed(tag->offset, "groups are not allowed");
  }
  if (tag->wire_type > kFixed32) {
    return Malformed(tag->offset, "unknown wire type");
  }
  return absl::OkStatus();
}

absl::Status WireScan::ReadVarint(size_t end, uint64_t* value) {
  const size_t start = position_;
  *value = 0;
  for (int i = 0; i < kVarintBytesMax; ++i) {
    if (position_ == end) return Malformed(start, "a varint is cut off");
    const auto byte = std::to_integer<uint64_t>(bytes_[position_++]);
    *value |= (byte & 0x7f) << (7 * i);
    if ((byte & 0x80) != 0) continue;
    const bool last_overflows = i == kVarintBytesMax - 1 && byte > 1;
    if (last_overflows || (i > 0 && byte == 0)) break;
    return absl::OkStatus();
  }
  return Malformed(start, "a varint is longer than its value needs");
}

absl::Status WireScan::ReadLength(size_t end, size_t* value_end) {
  const size_t start = position_;
  uint64_t length = 0;
  if (auto status = ReadVarint(end, &length); !status.ok()) return status;
  if (length > end - position_) {
    return Malformed(start, absl::StrFormat("length %u, but %u bytes follow",
                                            length, end - position_));
  }
  *value_end = position_ + static_cast<size_t>(length);
  return absl::OkStatus();
}

absl::Status WireScan::Spend(uint64_t memory_bytes) {
  if (++fields_ > limits_.fields_max) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("%s: more than %u fields and elements at byte %u",
                        where_, limits_.fields_max, position_));
  }
  // Cannot overflow: fewer terms than bytes, each below 2^32.
  memory_bytes_ += memory_bytes;
  if (memory_bytes_ > memory_bytes_max_) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "%s: would take more than %u bytes of memory, at byte %u", where_,
        memory_bytes_max_, position_));
  }
  return absl::OkStatus();
}

uint64_t WireScan::EmptySize(const Descriptor& type) {
  const auto [entry, fresh] = sizes_.try_emplace(&type, 0);
  if (fresh) {
    constexpr uint64_t kUnknownTypeBytes = 256;
    const auto* prototype = factory_.GetPrototype(&type);
    entry->second =
        prototype == nullptr ? kUnknownTypeBytes : prototype->SpaceUsedLong();
  }
  return entry->second;
}

absl::Status WireScan::Malformed(size_t offset, std::string_view why) const {
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: byte %u: %s", where_, offset, why));
}

}  // namespace ferrybus::savestate
