// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/storage_state_persist.h"

#include <algorithm>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/vsp/storage/scsi_pages.h"
#include "ferrybus/vsp/storage/storage_state.pb.h"

namespace ferrybus::vsp {
namespace {

namespace pb = ::ferrybus::vsp::storage::v1;

template <typename Found, typename Allowed>
absl::Status Corrupt(absl::string_view field, const Found& found,
                     const Allowed& allowed) {
  return absl::DataLossError(absl::StrCat("storage state: ", field, " is ",
                                          found, ", must be ", allowed,
                                          ": the saved state is corrupt"));
}

template <typename Message>
absl::Status Decode(absl::Span<const std::byte> bytes, Message* message) {
  if (bytes.size() > kStorageStateBytesMax) {
    return Corrupt("size in bytes", bytes.size(),
                   absl::StrCat("at most ", kStorageStateBytesMax));
  }
  if (!message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::DataLossError(
        "storage state: not a valid message: the saved state is corrupt");
  }
  return absl::OkStatus();
}

pb::SessionPhase ToProto(VstorPhase phase) {
  switch (phase) {
    case VstorPhase::kStart:
      return pb::SESSION_PHASE_START;
    case VstorPhase::kBegun:
      return pb::SESSION_PHASE_BEGUN;
    case VstorPhase::kVersionAgreed:
      return pb::SESSION_PHASE_VERSION_AGREED;
    case VstorPhase::kPropertiesSent:
      return pb::SESSION_PHASE_PROPERTIES_SENT;
    case VstorPhase::kReady:
      return pb::SESSION_PHASE_READY;
  }
  return pb::SESSION_PHASE_UNSPECIFIED;
}

std::optional<VstorPhase> FromProto(pb::SessionPhase phase) {
  switch (phase) {
    case pb::SESSION_PHASE_START:
      return VstorPhase::kStart;
    case pb::SESSION_PHASE_BEGUN:
      return VstorPhase::kBegun;
    case pb::SESSION_PHASE_VERSION_AGREED:
      return VstorPhase::kVersionAgreed;
    case pb::SESSION_PHASE_PROPERTIES_SENT:
      return VstorPhase::kPropertiesSent;
    case pb::SESSION_PHASE_READY:
      return VstorPhase::kReady;
    default:
      return std::nullopt;
  }
}

absl::Status CheckIdentity(const pb::DiskIdentity& disk) {
  if (disk.block_bytes() == 0)
    return Corrupt("disk.block_bytes", 0, "positive");
  if (disk.serial().size() > kSerialBytesMax) {
    return Corrupt("disk.serial length", disk.serial().size(),
                   absl::StrCat("at most ", kSerialBytesMax));
  }
  if (disk.uuid().size() != sizeof(DiskIdentity::uuid)) {
    return Corrupt("disk.uuid length", disk.uuid().size(),
                   sizeof(DiskIdentity::uuid));
  }
  return absl::OkStatus();
}

absl::Status ParseResult(const pb::SrbResult& from, SrbResult* to) {
  if (from.srb_status() == 0 || from.srb_status() > vstor::kSrbCodeMask) {
    return Corrupt("result.srb_status", from.srb_status(),
                   absl::StrCat("1 to ", vstor::kSrbCodeMask));
  }
  const scsi::Status status{static_cast<uint8_t>(from.scsi_status())};
  const bool known = status == scsi::Status::kGood ||
                     status == scsi::Status::kCheckCondition ||
                     status == scsi::Status::kBusy;
  if (from.scsi_status() > 0xff || !known) {
    return Corrupt("result.scsi_status", from.scsi_status(), "0, 2 or 8");
  }
  if (from.sense_key() > 0xf || from.sense_asc() > 0xff ||
      from.sense_ascq() > 0xff) {
    return Corrupt("result.sense_*",
                   absl::StrCat(from.sense_key(), "/", from.sense_asc(), "/",
                                from.sense_ascq()),
                   "at most 15/255/255");
  }
  to->srb_status = static_cast<uint8_t>(from.srb_status());
  to->scsi_status = status;
  to->has_sense = from.has_sense();
  to->sense = {static_cast<uint8_t>(from.sense_key()),
               static_cast<uint8_t>(from.sense_asc()),
               static_cast<uint8_t>(from.sense_ascq())};
  to->transferred_bytes = from.transferred_bytes();
  return absl::OkStatus();
}

}  // namespace

std::string SerializeDeviceState(const StorageDeviceState& state) {
  pb::DeviceState message;
  message.set_phase(ToProto(state.phase));
  message.set_protocol_version(state.version);
  message.set_max_transfer_bytes(state.max_transfer_bytes);
  pb::DiskIdentity& disk = *message.mutable_disk();
  disk.set_size_bytes(state.disk.size_bytes);
  disk.set_block_bytes(state.disk.block_bytes);
  disk.set_read_only(state.disk.read_only);
  disk.set_can_discard(state.disk.can_discard);
  disk.set_serial(state.disk.serial);
  disk.set_uuid(state.disk.uuid.data(), state.disk.uuid.size());
  message.set_sub_channels(state.sub_channels);
  return message.SerializeAsString();
}

absl::StatusOr<StorageDeviceState> ParseDeviceState(
    absl::Span<const std::byte> bytes) {
  pb::DeviceState message;
  if (absl::Status status = Decode(bytes, &message); !status.ok()) {
    return status;
  }
  const std::optional<VstorPhase> phase = FromProto(message.phase());
  if (!phase.has_value()) return Corrupt("phase", message.phase(), "1 to 5");
  const uint32_t version = message.protocol_version();
  const bool agreed = *phase >= VstorPhase::kVersionAgreed;
  if (version > 0xffff ||
      agreed != VstorSession::IsSupported(static_cast<uint16_t>(version)) ||
      (!agreed && version != 0)) {
    return Corrupt(
        "protocol_version", version,
        agreed ? "a supported one in this phase" : "0 before it was agreed on");
  }
  if (absl::Status status = CheckIdentity(message.disk()); !status.ok()) {
    return status;
  }
  if (message.sub_channels() > kSubChannelsMax ||
      (message.sub_channels() > 0 && *phase != VstorPhase::kReady)) {
    return Corrupt("sub_channels", message.sub_channels(),
                   absl::StrCat("at most ", kSubChannelsMax,
                                ", and 0 before the handshake ended"));
  }
  StorageDeviceState state;
  state.phase = *phase;
  state.sub_channels = static_cast<uint16_t>(message.sub_channels());
  state.version = static_cast<uint16_t>(version);
  state.max_transfer_bytes = message.max_transfer_bytes();
  state.disk.size_bytes = message.disk().size_bytes();
  state.disk.block_bytes = message.disk().block_bytes();
  state.disk.read_only = message.disk().read_only();
  state.disk.can_discard = message.disk().can_discard();
  state.disk.serial = message.disk().serial();
  std::copy_n(message.disk().uuid().begin(), state.disk.uuid.size(),
              state.disk.uuid.begin());
  return state;
}

std::string SerializePacketState(const StoragePacketState& state) {
  pb::PacketState message;
  message.set_phase(state.done ? pb::PACKET_PHASE_DONE
                               : pb::PACKET_PHASE_PENDING);
  if (state.done) {
    pb::SrbResult& result = *message.mutable_result();
    result.set_srb_status(state.result.srb_status);
    result.set_scsi_status(static_cast<uint8_t>(state.result.scsi_status));
    result.set_has_sense(state.result.has_sense);
    result.set_sense_key(state.result.sense.key);
    result.set_sense_asc(state.result.sense.asc);
    result.set_sense_ascq(state.result.sense.ascq);
    result.set_transferred_bytes(state.result.transferred_bytes);
  }
  return message.SerializeAsString();
}

absl::StatusOr<StoragePacketState> ParsePacketState(
    absl::Span<const std::byte> bytes) {
  pb::PacketState message;
  if (absl::Status status = Decode(bytes, &message); !status.ok()) {
    return status;
  }
  StoragePacketState state;
  switch (message.phase()) {
    case pb::PACKET_PHASE_PENDING:
      if (message.has_result()) {
        return Corrupt("result", "present", "absent while pending");
      }
      return state;
    case pb::PACKET_PHASE_DONE:
      state.done = true;
      if (absl::Status status = ParseResult(message.result(), &state.result);
          !status.ok()) {
        return status;
      }
      return state;
    default:
      return Corrupt("packet phase", message.phase(), "1 or 2");
  }
}

}  // namespace ferrybus::vsp
