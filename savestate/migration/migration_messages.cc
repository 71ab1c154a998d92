// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/migration_messages.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/migration/checksummed.h"
#include "ferrybus/savestate/migration/dirty_tracking.h"
#include "ferrybus/savestate/migration/migration.pb.h"
#include "ferrybus/savestate/proto_limits.h"

namespace ferrybus::migration {
namespace {

constexpr size_t kNameSizeMax = 64;
constexpr size_t kReasonSizeMax = 4096;
// Everything of a message but its blob.
constexpr uint64_t kOverheadBytesMax = uint64_t{1} << 20;

// ---- Writing

void Write(const Hello& hello, v1::Message* out) {
  v1::Hello* message = out->mutable_hello();
  message->set_version_min(hello.version_min);
  message->set_version_max(hello.version_max);
  message->set_migration_id(hello.migration_id);
  message->set_machine(hello.machine);
  message->set_epoch(hello.epoch);
  for (const DeviceDescription& device : hello.devices) {
    v1::Device* added = message->add_devices();
    added->set_name(device.name);
    added->set_creation_parameters(device.creation_parameters);
    for (const SegmentDescription& segment : device.segments) {
      v1::Segment* described = added->add_segments();
      described->set_id(segment.id);
      described->set_page_size_bytes(segment.page_size_bytes);
      described->set_size_bytes(segment.size_bytes);
      described->set_is_shared(segment.is_shared);
    }
  }
}

void Write(const HelloReply& reply, v1::Message* out) {
  out->mutable_hello_reply()->set_version(reply.version);
  out->mutable_hello_reply()->set_session(reply.session);
}

void Write(const ImmutableData& data, v1::Message* out) {
  out->mutable_immutable_data()->set_device(data.device);
  out->mutable_immutable_data()->set_data(data.data);
}

void Write(const ImmutableAccepted&, v1::Message* out) {
  out->mutable_immutable_accepted();
}

void Write(const PassEnd& end, v1::Message* out) {
  out->mutable_pass_end()->set_pass(end.pass);
  out->mutable_pass_end()->set_blocks(end.blocks);
}

void Write(const PassDone& done, v1::Message* out) {
  out->mutable_pass_done()->set_pass(done.pass);
}

void Write(const MutableData& data, v1::Message* out) {
  out->mutable_mutable_data()->set_device(data.device);
  out->mutable_mutable_data()->set_data(data.data);
}

void Write(const Prepare&, v1::Message* out) { out->mutable_prepare(); }
void Write(const Prepared&, v1::Message* out) { out->mutable_prepared(); }

void Write(const Commit& commit, v1::Message* out) {
  out->mutable_commit()->set_session(commit.session);
  out->mutable_commit()->set_epoch(commit.epoch);
}

void Write(const Running&, v1::Message* out) { out->mutable_running(); }

// Protobuf's strings are UTF-8, and a reason may quote anything.
std::string Printable(absl::string_view text) {
  std::string printable(text.substr(0, kReasonSizeMax));
  for (char& c : printable) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) c = '?';
  }
  return printable;
}

void Write(const Abort& abort, v1::Message* out) {
  out->mutable_abort()->set_code(static_cast<uint32_t>(abort.reason.code()));
  out->mutable_abort()->set_reason(Printable(abort.reason.message()));
  out->mutable_abort()->set_session(abort.session);
}

// ---- Reading

absl::Status Bad(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("migration message: ", what));
}

absl::Status CheckName(absl::string_view what, absl::string_view name) {
  const bool is_printable = std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isgraph(static_cast<unsigned char>(c));
  });
  if (!name.empty() && name.size() <= kNameSizeMax && is_printable) {
    return absl::OkStatus();
  }
  return Bad(absl::StrCat(what, " must have 1 to ", kNameSizeMax,
                          " printable characters, has ", name.size()));
}

absl::Status CheckId(absl::string_view what, absl::string_view id) {
  if (id.size() == kIdSizeBytes) return absl::OkStatus();
  return Bad(absl::StrCat(what, " must have ", kIdSizeBytes, " bytes, has ",
                          id.size()));
}

absl::Status CheckBlob(const std::string& blob, const MessageLimits& limits) {
  if (blob.size() <= limits.blob_bytes_max) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("migration message: a blob of ", blob.size(),
                   " bytes, at most ", limits.blob_bytes_max));
}

absl::Status CheckSegment(const SegmentDescription& segment,
                          const MessageLimits& limits) {
  if (segment.id == 0) return Bad("segment 0: they count from 1");
  if (segment.page_size_bytes < kPageSizeMin ||
      segment.page_size_bytes > kMigratedPageSizeMax ||
      !std::has_single_bit(segment.page_size_bytes)) {
    return Bad(absl::StrCat("segment ", segment.id, ": page size ",
                            segment.page_size_bytes,
                            ", must be a power of two from ", kPageSizeMin,
                            " to ", kMigratedPageSizeMax));
  }
  if (segment.size_bytes == 0 ||
      segment.size_bytes > limits.segment_bytes_max ||
      segment.size_bytes % segment.page_size_bytes != 0) {
    return Bad(absl::StrCat("segment ", segment.id, ": ", segment.size_bytes,
                            " bytes, must be whole pages, at most ",
                            limits.segment_bytes_max, " bytes"));
  }
  return absl::OkStatus();
}

absl::StatusOr<DeviceDescription> ReadDevice(v1::Device* message,
                                             const MessageLimits& limits) {
  DeviceDescription device;
  absl::Status status = CheckName("a device's name", message->name());
  if (!status.ok()) return status;
  device.name = message->name();
  device.creation_parameters =
      std::move(*message->mutable_creation_parameters());
  if (static_cast<uint32_t>(message->segments_size()) > limits.segments_max) {
    return Bad(absl::StrCat(device.name, ": ", message->segments_size(),
                            " segments, at most ", limits.segments_max));
  }
  for (const v1::Segment& saved : message->segments()) {
    const SegmentDescription segment = {
        .id = saved.id(),
        .page_size_bytes = saved.page_size_bytes(),
        .size_bytes = saved.size_bytes(),
        .is_shared = saved.is_shared()};
    status = CheckSegment(segment, limits);
    if (!status.ok()) return status;
    for (const SegmentDescription& other : device.segments) {
      if (other.id == segment.id) {
        return Bad(absl::StrCat(device.name, ": segment ", segment.id,
                                " comes twice"));
      }
    }
    device.segments.push_back(segment);
  }
  return device;
}

absl::StatusOr<Message> Read(v1::Hello* message, const MessageLimits& limits) {
  Hello hello = {.version_min = message->version_min(),
                 .version_max = message->version_max(),
                 .migration_id = message->migration_id(),
                 .machine = message->machine(),
                 .epoch = message->epoch(),
                 .devices = {}};
  if (hello.version_min == 0 || hello.version_min > hello.version_max) {
    return Bad(absl::StrCat("versions ", hello.version_min, " to ",
                            hello.version_max));
  }
  absl::Status status = CheckId("the migration id", hello.migration_id);
  if (!status.ok()) return status;
  status = CheckName("the machine's name", hello.machine);
  if (!status.ok()) return status;
  // Its successor is counted, too.
  if (hello.epoch == 0 || hello.epoch == UINT64_MAX) {
    return Bad(absl::StrCat("epoch ", hello.epoch));
  }
  if (message->devices_size() == 0 ||
      static_cast<uint32_t>(message->devices_size()) > limits.devices_max) {
    return Bad(absl::StrCat(message->devices_size(), " devices, must be 1 to ",
                            limits.devices_max));
  }
  absl::flat_hash_set<std::string> names;
  for (v1::Device& saved : *message->mutable_devices()) {
    absl::StatusOr<DeviceDescription> device = ReadDevice(&saved, limits);
    if (!device.ok()) return device.status();
    if (!names.insert(device->name).second) {
      return Bad(absl::StrCat("two devices with the name ", device->name));
    }
    hello.devices.push_back(*std::move(device));
  }
  return hello;
}

absl::StatusOr<Message> Read(v1::HelloReply* message, const MessageLimits&) {
  absl::Status status = CheckId("the session", message->session());
  if (!status.ok()) return status;
  return HelloReply{.version = message->version(),
                    .session = message->session()};
}

absl::StatusOr<Message> Read(v1::ImmutableData* message,
                             const MessageLimits& limits) {
  absl::Status status = CheckBlob(message->data(), limits);
  if (!status.ok()) return status;
  return ImmutableData{.device = message->device(),
                       .data = std::move(*message->mutable_data())};
}

absl::StatusOr<Message> Read(v1::MutableData* message,
                             const MessageLimits& limits) {
  absl::Status status = CheckBlob(message->data(), limits);
  if (!status.ok()) return status;
  return MutableData{.device = message->device(),
                     .data = std::move(*message->mutable_data())};
}

absl::StatusOr<Message> Read(v1::Commit* message, const MessageLimits&) {
  absl::Status status = CheckId("the session", message->session());
  if (!status.ok()) return status;
  return Commit{.session = message->session(), .epoch = message->epoch()};
}

absl::StatusOr<Message> Read(v1::Abort* message, const MessageLimits&) {
  const auto code = static_cast<absl::StatusCode>(message->code());
  if (message->code() == 0 ||
      message->code() >
          static_cast<uint32_t>(absl::StatusCode::kUnauthenticated)) {
    return Bad(absl::StrCat("abort with code ", message->code()));
  }
  return Abort{.reason = absl::Status(code, Printable(message->reason())),
               .session = message->session()};
}

}  // namespace

absl::string_view MessageName(const Message& message) {
  static constexpr absl::string_view kNames[] = {
      "Hello",    "HelloReply", "ImmutableData", "ImmutableAccepted",
      "PassEnd",  "PassDone",   "MutableData",   "Prepare",
      "Prepared", "Commit",     "Running",       "Abort"};
  static_assert(std::size(kNames) == std::variant_size_v<Message>);
  return kNames[message.index()];
}

std::string SerializeMessage(const Message& message) {
  v1::Message out;
  std::visit([&](const auto& kind) { Write(kind, &out); }, message);
  std::string bytes = savestate::SerializeDeterministic(out);
  AppendChecksum(&bytes);
  return bytes;
}

absl::StatusOr<Message> ParseMessage(absl::Span<const std::byte> bytes,
                                     const MessageLimits& limits) {
  absl::StatusOr<absl::Span<const std::byte>> body =
      CheckChecksum(bytes, "migration message");
  if (!body.ok()) return body.status();
  v1::Message message;
  savestate::ProtoLimits proto_limits;
  proto_limits.bytes_max = limits.blob_bytes_max + kOverheadBytesMax;
  absl::Status status = savestate::ParseBounded(*body, proto_limits, &message,
                                                "migration message");
  if (!status.ok()) return status;
  switch (message.kind_case()) {
    case v1::Message::kHello:
      return Read(message.mutable_hello(), limits);
    case v1::Message::kHelloReply:
      return Read(message.mutable_hello_reply(), limits);
    case v1::Message::kImmutableData:
      return Read(message.mutable_immutable_data(), limits);
    case v1::Message::kImmutableAccepted:
      return ImmutableAccepted();
    case v1::Message::kPassEnd:
      return PassEnd{.pass = message.pass_end().pass(),
                     .blocks = message.pass_end().blocks()};
    case v1::Message::kPassDone:
      return PassDone{.pass = message.pass_done().pass()};
    case v1::Message::kMutableData:
      return Read(message.mutable_mutable_data(), limits);
    case v1::Message::kPrepare:
      return Prepare();
    case v1::Message::kPrepared:
      return Prepared();
    case v1::Message::kCommit:
      return Read(message.mutable_commit(), limits);
    case v1::Message::kRunning:
      return Running();
    case v1::Message::kAbort:
      return Read(message.mutable_abort(), limits);
    case v1::Message::KIND_NOT_SET:
      break;
  }
  return Bad("of no kind");
}

}  // namespace ferrybus::migration
