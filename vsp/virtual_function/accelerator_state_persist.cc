// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/accelerator_state_persist.h"

#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/proto_limits.h"
#include "ferrybus/vsp/virtual_function/accelerator_memory.h"
#include "ferrybus/vsp/virtual_function/accelerator_state.pb.h"
#include "ferrybus/vsp/virtual_function/config_space.h"
#include "ferrybus/vsp/virtual_function/msix_state_persist.h"

namespace ferrybus::vsp {
namespace {

namespace pb = ::ferrybus::vsp::virtual_function::v1;

constexpr char kImmutable[] = "accelerator's immutable data";
constexpr char kMutable[] = "virtual function's mutable data";

absl::Status Corrupt(absl::string_view where, absl::string_view what) {
  return absl::DataLossError(
      absl::StrCat(where, ": ", what, ": the saved state is corrupt"));
}

absl::Status ParseLimited(absl::Span<const std::byte> bytes,
                          const savestate::ProtoLimits& limits,
                          const char* where,
                          google::protobuf::Message* message) {
  absl::Status status = savestate::ParseBounded(bytes, limits, message, where);
  if (absl::IsInvalidArgument(status)) {
    return absl::DataLossError(status.message());
  }
  return status;
}

absl::Status CheckVersion(uint32_t version, absl::string_view where) {
  if (version == 0) return Corrupt(where, "it has no format_version");
  if (version <= kAcceleratorFormatVersion) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      where, ": format_version is ", version, ", and this host knows up to ",
      kAcceleratorFormatVersion, ": update it first"));
}

std::string BytesOf(const accelerator::Command& command) {
  return std::string(reinterpret_cast<const char*>(&command), sizeof(command));
}

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

absl::Status ParseQueue(const pb::VirtualFunctionMutable& message,
                        std::deque<AcceleratorQueueEntry>* queue) {
  for (const pb::AcceleratorCommand& saved : message.queue()) {
    AcceleratorQueueEntry entry;
    if (saved.command().size() != sizeof(entry.command)) {
      return Corrupt(kMutable,
                     absl::StrCat("a command has ", saved.command().size(),
                                  " bytes, must have ", sizeof(entry.command)));
    }
    std::memcpy(&entry.command, saved.command().data(), sizeof(entry.command));
    entry.data_bytes = saved.data_bytes();
    queue->push_back(entry);
  }
  return absl::OkStatus();
}

}  // namespace

std::string SerializeAcceleratorIdentity(const AcceleratorIdentity& identity) {
  pb::AcceleratorImmutable message;
  message.set_format_version(kAcceleratorFormatVersion);
  message.set_hardware_model(identity.hardware_model);
  message.set_firmware(identity.firmware);
  message.set_driver_major(identity.driver_major);
  message.set_driver_minor(identity.driver_minor);
  message.set_architecture(identity.architecture);
  message.set_vectors(identity.vectors);
  for (const AcceleratorSegmentShape& segment : identity.segments) {
    pb::AcceleratorSegment* saved = message.add_segments();
    saved->set_id(segment.id);
    saved->set_size_bytes(segment.size_bytes);
    saved->set_page_size_bytes(segment.page_size_bytes);
  }
  return savestate::SerializeDeterministic(message);
}

absl::StatusOr<AcceleratorIdentity> ParseAcceleratorIdentity(
    absl::Span<const std::byte> bytes) {
  savestate::ProtoLimits limits;
  limits.bytes_max = kAcceleratorIdentityBytesMax;
  limits.fields_max = 256;
  limits.depth_max = 1;
  limits.unknown_fields = savestate::UnknownFields::kDiscard;
  pb::AcceleratorImmutable message;
  if (absl::Status status = ParseLimited(bytes, limits, kImmutable, &message);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckVersion(message.format_version(), kImmutable);
      !status.ok()) {
    return status;
  }
  for (const std::string* name :
       {&message.hardware_model(), &message.firmware(),
        &message.architecture()}) {
    if (name->size() > kAcceleratorNameBytesMax) {
      return Corrupt(kImmutable, absl::StrCat("a name of ", name->size(),
                                              " bytes, at most ",
                                              kAcceleratorNameBytesMax));
    }
  }
  if (static_cast<size_t>(message.segments_size()) > kAcceleratorSegmentsMax) {
    return Corrupt(kImmutable,
                   absl::StrCat(message.segments_size(), " segments, at most ",
                                kAcceleratorSegmentsMax));
  }
  AcceleratorIdentity identity;
  identity.hardware_model = message.hardware_model();
  identity.firmware = message.firmware();
  identity.driver_major = message.driver_major();
  identity.driver_minor = message.driver_minor();
  identity.architecture = message.architecture();
  identity.vectors = message.vectors();
  for (const pb::AcceleratorSegment& saved : message.segments()) {
    identity.segments.push_back(
        {saved.id(), saved.size_bytes(), saved.page_size_bytes()});
  }
  return identity;
}

std::string SerializeVirtualFunctionState(const VirtualFunctionState& state) {
  pb::VirtualFunctionMutable message;
  message.set_format_version(kAcceleratorFormatVersion);
  for (uint64_t value : state.accelerator.registers) {
    message.add_registers(value);
  }
  for (const AcceleratorQueueEntry& entry : state.accelerator.queue) {
    pb::AcceleratorCommand* saved = message.add_queue();
    saved->set_command(BytesOf(entry.command));
    saved->set_data_bytes(entry.data_bytes);
  }
  message.set_progress(state.accelerator.progress);
  message.set_partial_value(state.accelerator.partial_value);
  message.set_is_powered(state.accelerator.is_powered);
  if (state.interrupts.has_value()) {
    message.set_interrupts(SerializeMsixState(*state.interrupts));
  }
  message.set_config(state.config);
  return savestate::SerializeDeterministic(message);
}

absl::StatusOr<VirtualFunctionState> ParseVirtualFunctionState(
    absl::Span<const std::byte> bytes) {
  savestate::ProtoLimits limits;
  limits.bytes_max = kVirtualFunctionStateBytesMax;
  limits.fields_max = 3 * accelerator::kCommandsMax + 64;
  limits.depth_max = 1;
  pb::VirtualFunctionMutable message;
  if (absl::Status status = ParseLimited(bytes, limits, kMutable, &message);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckVersion(message.format_version(), kMutable);
      !status.ok()) {
    return status;
  }
  if (message.registers_size() != accelerator::kRegisters) {
    return Corrupt(
        kMutable, absl::StrCat(message.registers_size(), " registers, must be ",
                               accelerator::kRegisters));
  }
  if (!message.config().empty() && message.config().size() != kConfigBytes) {
    return Corrupt(
        kMutable,
        absl::StrCat("config has ", message.config().size(),
                     " bytes, must have ", kConfigBytes, ", or none"));
  }
  VirtualFunctionState state;
  for (int i = 0; i < message.registers_size(); ++i) {
    state.accelerator.registers[static_cast<size_t>(i)] = message.registers(i);
  }
  if (absl::Status status = ParseQueue(message, &state.accelerator.queue);
      !status.ok()) {
    return status;
  }
  state.accelerator.progress = message.progress();
  state.accelerator.partial_value = message.partial_value();
  state.accelerator.is_powered = message.is_powered();
  if (!message.interrupts().empty()) {
    absl::StatusOr<MsixTableState> interrupts =
        ParseMsixState(AsBytes(message.interrupts()));
    if (!interrupts.ok()) return interrupts.status();
    state.interrupts = *std::move(interrupts);
  }
  state.config = message.config();
  return state;
}

}  // namespace ferrybus::vsp
