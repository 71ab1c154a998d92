// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/proto_limits.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "absl/strings/str_format.h"
#include "ferrybus/savestate/wire_scan.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/message.h"

namespace ferrybus::savestate {
namespace {

using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::Reflection;

// Unknown fields at any depth.  The scan refused those it could see; a closed
// enum's unknown values are put there by the parser.
bool HasUnknownFields(const Message& message) {
  const Reflection* reflection = message.GetReflection();
  if (!reflection->GetUnknownFields(message).empty()) return true;
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      if (HasUnknownFields(reflection->GetMessage(message, field))) return true;
      continue;
    }
    const int count = reflection->FieldSize(message, field);
    for (int i = 0; i < count; ++i) {
      if (HasUnknownFields(reflection->GetRepeatedMessage(message, field, i))) {
        return true;
      }
    }
  }
  return false;
}

// Whether an enum's unknown value may have become an unknown field: only the
// enums of proto2 are closed.
bool MayHoldUnknownFields(const google::protobuf::FileDescriptor& file) {
  if (file.syntax() != google::protobuf::FileDescriptor::SYNTAX_PROTO3) {
    return true;
  }
  for (int i = 0; i < file.dependency_count(); ++i) {
    if (MayHoldUnknownFields(*file.dependency(i))) return true;
  }
  return false;
}

absl::Status Parse(absl::Span<const std::byte> bytes, const ProtoLimits& limits,
                   Message* out, std::string_view where) {
  const auto size_bytes = static_cast<int>(bytes.size());
  google::protobuf::io::CodedInputStream stream(
      reinterpret_cast<const uint8_t*>(bytes.data()), size_bytes);
  // The scan did all this; if it has a bug, these still hold.
  stream.SetRecursionLimit(limits.depth_max);
  stream.SetTotalBytesLimit(size_bytes);
  // "Partial", because the other form writes to the log.
  if (!out->ParsePartialFromCodedStream(&stream) ||
      !stream.ConsumedEntireMessage()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s: not a %s", where, out->GetDescriptor()->full_name()));
  }
  if (!out->IsInitialized()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: required fields are missing: %s", where,
                        out->InitializationErrorString()));
  }
  if (limits.unknown_fields == UnknownFields::kDiscard) {
    out->DiscardUnknownFields();
  } else if (MayHoldUnknownFields(*out->GetDescriptor()->file()) &&
             HasUnknownFields(*out)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: unknown enum values", where));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ParseBounded(absl::Span<const std::byte> bytes,
                          const ProtoLimits& limits, Message* out,
                          std::string_view where) {
  out->Clear();
  // Protobuf counts bytes in an int.
  const uint64_t bytes_max =
      std::min<uint64_t>(limits.bytes_max, std::numeric_limits<int>::max());
  if (bytes.size() > bytes_max) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "%s: %u bytes, the limit is %u", where, bytes.size(), bytes_max));
  }
  WireScan scan(limits, where, *out->GetReflection()->GetMessageFactory());
  absl::Status status = scan.Run(bytes, *out->GetDescriptor());
  if (status.ok()) status = Parse(bytes, limits, out, where);
  if (!status.ok()) out->Clear();
  return status;
}

std::string SerializeDeterministic(const Message& message) {
  const size_t size_bytes = message.ByteSizeLong();
  if (!message.IsInitialized() ||
      size_bytes > std::numeric_limits<int>::max()) {
    return std::string();
  }
  std::string bytes(size_bytes, '\0');
  google::protobuf::io::ArrayOutputStream sink(bytes.data(),
                                               static_cast<int>(size_bytes));
  google::protobuf::io::CodedOutputStream stream(&sink);
  stream.SetSerializationDeterministic(true);
  message.SerializeWithCachedSizes(&stream);
  stream.Trim();  // the last bytes, too
  return bytes;
}

}  // namespace ferrybus::savestate
