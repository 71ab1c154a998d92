// SPDX-License-Identifier: MIT

#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/guid.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/channel/protocols/device_classes.h"
#include "ferrybus/channel/protocols/hv_sock.h"
#include "ferrybus/channel/protocols/integration.h"
#include "ferrybus/tools/state/describe.h"
#include "ferrybus/vsp/services/integration_state_persist.h"
#include "ferrybus/vsp/socket/socket_state_persist.h"
#include "ferrybus/vsp/storage/storage_state_persist.h"

namespace ferrybus::state_tool {
namespace {

using savestate::v1::OfferState;

constexpr std::pair<Guid, const char*> kServices[] = {
    {kHeartbeatInterface, "heartbeat"},
    {kKeyValueInterface, "key-value"},
    {kShutdownInterface, "shutdown"},
    {kTimeSyncInterface, "time"},
};

Guid GuidOf(const std::string& bytes) {
  Guid guid;
  if (bytes.size() == guid.bytes.size()) {
    std::memcpy(guid.bytes.data(), bytes.data(), bytes.size());
  }
  return guid;
}

absl::Span<const std::byte> AsBytes(const std::string& bytes) {
  return {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()};
}

const char* NameOf(vsp::VstorPhase phase) {
  switch (phase) {
    case vsp::VstorPhase::kStart:
      return "start";
    case vsp::VstorPhase::kBegun:
      return "begun";
    case vsp::VstorPhase::kVersionAgreed:
      return "version agreed";
    case vsp::VstorPhase::kPropertiesSent:
      return "properties sent";
    case vsp::VstorPhase::kReady:
      return "ready";
  }
  return "unknown";
}

const char* NameOf(vsp::IntegrationPhase phase) {
  switch (phase) {
    case vsp::IntegrationPhase::kClosed:
      return "closed";
    case vsp::IntegrationPhase::kNegotiating:
      return "negotiating";
    case vsp::IntegrationPhase::kReady:
      return "ready";
    case vsp::IntegrationPhase::kRefused:
      return "refused";
  }
  return "unknown";
}

std::string VersionText(const ic::Version& version) {
  return absl::StrCat(version.major, ".", version.minor);
}

Json Opaque(const std::string& bytes, const ModelOptions& options) {
  Json opaque = {{"format", "unknown"}, {"bytes", bytes.size()}};
  if (!bytes.empty()) opaque["hex"] = HexBytes(bytes, options.hex_bytes_max);
  return opaque;
}

Json Describe(const vsp::StorageDeviceState& state) {
  const vsp::DiskIdentity& disk = state.disk;
  const std::string uuid(disk.uuid.begin(), disk.uuid.end());
  return {
      {"phase", NameOf(state.phase)},
      {"version", absl::StrCat(state.version >> 8, ".", state.version & 0xff)},
      {"max_transfer_bytes", state.max_transfer_bytes},
      {"disk_bytes", disk.size_bytes},
      {"block_bytes", disk.block_bytes},
      {"read_only", disk.read_only},
      {"can_discard", disk.can_discard},
      {"serial", Escaped(disk.serial)},
      {"uuid", HexBytes(uuid, uuid.size())}};
}

Json Describe(const vsp::SocketDeviceState& state) {
  return {{"front_bytes_read", state.stream.front_bytes_read},
          {"peer_ended", state.stream.peer_ended},
          {"read_shut", state.stream.is_read_shut},
          {"write_shut", state.stream.is_write_shut},
          {"end_due", state.stream.is_end_due},
          {"queued_tag", state.queued_tag}};
}

Json Describe(const vsp::IntegrationState& state, const ModelOptions& options) {
  Budget budget(options);  // at most kIntegrationQueueMax elements
  return {
      {"service", static_cast<uint32_t>(state.service)},
      {"phase", NameOf(state.phase)},
      {"framework", VersionText(state.framework)},
      {"message", VersionText(state.message)},
      {"next_transaction", state.next_transaction},
      {"sent", state.is_sent},
      {"sent_transaction", state.sent_transaction},
      {"remaining_ns", state.remaining_ns},
      {"next_cookie", state.next_cookie},
      {"requests", budget.Listed(state.requests,
                                 [](const vsp::IntegrationRequest& request) {
                                   return Json{{"cookie", request.cookie},
                                               {"bytes", request.body.size()}};
                                 })}};
}

Json Describe(const vsp::StoragePacketState& state) {
  if (!state.done) return {{"done", false}};
  const vsp::SrbResult& result = state.result;
  return {{"done", true},
          {"srb_status", result.srb_status},
          {"scsi_status", static_cast<uint32_t>(result.scsi_status)},
          {"sense", !result.has_sense
                        ? std::string("none")
                        : absl::StrCat(result.sense.key, "/", result.sense.asc,
                                       "/", result.sense.ascq)},
          {"transferred_bytes", result.transferred_bytes}};
}

// A parsed value, or the bytes and why they are none.
template <typename State, typename... Options>
Json Decoded(const char* format, const absl::StatusOr<State>& state,
             const std::string& bytes, const ModelOptions& options,
             const Options&... describe_options) {
  if (!state.ok()) {
    Json opaque = Opaque(bytes, options);
    opaque["problem"] = Escaped(state.status());
    return opaque;
  }
  Json decoded = {{"format", format}, {"bytes", bytes.size()}};
  decoded.update(Describe(*state, describe_options...));
  return decoded;
}

}  // namespace

DeviceKind KindOf(const OfferState& offer) {
  const Guid type = GuidOf(offer.interface_type());
  if (type == kScsiInterface) return DeviceKind::kStorage;
  for (const auto& [service, name] : kServices) {
    if (type == service) return DeviceKind::kService;
  }
  if ((offer.flags() & kOfferTlnpiProvider) != 0) return DeviceKind::kSocket;
  return DeviceKind::kUnknown;
}

std::string DeviceName(const OfferState& offer) {
  const Guid type = GuidOf(offer.interface_type());
  switch (KindOf(offer)) {
    case DeviceKind::kStorage:
      return "storage (SCSI)";
    case DeviceKind::kSocket: {
      const std::optional<uint32_t> port = VsockPortOfService(type);
      return port.has_value() ? absl::StrCat("socket, vsock port ", *port)
                              : "socket";
    }
    case DeviceKind::kService:
      for (const auto& [service, name] : kServices) {
        if (type == service) return name;
      }
      break;
    case DeviceKind::kUnknown:
      break;
  }
  return "unknown";
}

absl::Status CheckDeviceState(DeviceKind kind, const std::string& bytes) {
  switch (kind) {
    case DeviceKind::kStorage:
      return vsp::ParseDeviceState(AsBytes(bytes)).status();
    case DeviceKind::kSocket:
      return vsp::ParseSocketState(AsBytes(bytes)).status();
    case DeviceKind::kService:
      return vsp::ParseIntegrationState(AsBytes(bytes)).status();
    case DeviceKind::kUnknown:
      break;
  }
  return absl::OkStatus();
}

absl::Status CheckPacketBlob(DeviceKind kind, const std::string& bytes) {
  if (kind != DeviceKind::kStorage) return absl::OkStatus();
  return vsp::ParsePacketState(AsBytes(bytes)).status();
}

Json DescribeDeviceState(DeviceKind kind, const std::string& bytes,
                         const ModelOptions& options) {
  switch (kind) {
    case DeviceKind::kStorage:
      return Decoded("storage", vsp::ParseDeviceState(AsBytes(bytes)), bytes,
                     options);
    case DeviceKind::kSocket:
      return Decoded("socket", vsp::ParseSocketState(AsBytes(bytes)), bytes,
                     options);
    case DeviceKind::kService:
      return Decoded("service", vsp::ParseIntegrationState(AsBytes(bytes)),
                     bytes, options, options);
    case DeviceKind::kUnknown:
      break;
  }
  return Opaque(bytes, options);
}

Json DescribePacketBlob(DeviceKind kind, const std::string& bytes,
                        const ModelOptions& options) {
  if (kind != DeviceKind::kStorage || bytes.empty()) {
    return Opaque(bytes, options);
  }
  return Decoded("storage", vsp::ParsePacketState(AsBytes(bytes)), bytes,
                 options);
}

}  // namespace ferrybus::state_tool
