// SPDX-License-Identifier: MIT
//
// ClientConnection: what the host says, which is believed only as far as it
// was asked for.
#include <variant>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/client_connection.h"

namespace ferrybus {
namespace {

absl::Status NotAskedFor(const char* message) {
  return absl::FailedPreconditionError(
      absl::StrCat(message, " was not asked for"));
}

}  // namespace

ProtocolContext ClientConnection::protocol() const {
  if (phase_ != ClientPhase::kConnected) return {};
  return {version_, features_};
}

absl::Status ClientConnection::HandleMessage(
    absl::Span<const std::byte> payload) {
  ++counters_.messages_handled;
  absl::StatusOr<HostMessage> message = DecodeHostMessage(payload, protocol());
  absl::Status status =
      message.ok() ? Dispatch(*message, payload.size()) : message.status();
  if (!status.ok()) ++counters_.messages_refused;
  return status;
}

absl::Status ClientConnection::Dispatch(const HostMessage& message,
                                        size_t size_bytes) {
  if (const auto* response = std::get_if<VersionResponseMessage>(&message)) {
    return HandleVersionResponse(*response, size_bytes);
  }
  if (std::holds_alternative<UnloadResponseMessage>(message)) {
    return HandleUnloadResponse();
  }
  if (phase_ != ClientPhase::kConnected) {
    // The host had not seen yet that the connection ended.
    ++counters_.messages_ignored;
    return absl::OkStatus();
  }
  return std::visit([this](const auto& m) { return Handle(m); }, message);
}

absl::Status ClientConnection::HandleVersionResponse(
    const VersionResponseMessage& message, size_t size_bytes) {
  if (phase_ != ClientPhase::kConnecting) {
    return NotAskedFor("VERSION_RESPONSE");
  }
  ClientVersion result{.version = version_};
  if (message.version_supported == 0) {
    if (++version_index_ < options_.versions.size()) {
      SendContact();
      return absl::OkStatus();
    }
    phase_ = ClientPhase::kDisconnected;
    events_->OnVersion(result);
    return absl::OkStatus();
  }
  // Before 2.4 the state byte may be anything.
  if (version_ >= ProtocolVersion::kWin8 &&
      message.connection_state != kConnectionSuccessful) {
    result.connection_state = message.connection_state;
    phase_ = ClientPhase::kDisconnected;
    events_->OnVersion(result);
    return absl::OkStatus();
  }
  if (version_ >= ProtocolVersion::kCopper) {
    const uint32_t asked =
        options_.client_id.has_value() ? kFeatureClientId : 0;
    if (size_bytes < 20 || (message.supported_features & ~asked) != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "VERSION_RESPONSE of ", size_bytes, " bytes grants features ",
          message.supported_features, "; asked for were ", asked));
    }
    features_ = message.supported_features;
  }
  if (version_ >= ProtocolVersion::kWin10Rs3Plus) {
    message_connection_ = message.version_or_connection_id;
  }
  phase_ = ClientPhase::kConnected;
  result.accepted = true;
  result.features = features_;
  events_->OnVersion(result);
  return absl::OkStatus();
}

absl::Status ClientConnection::HandleUnloadResponse() {
  if (phase_ != ClientPhase::kUnloading) return NotAskedFor("UNLOAD_RESPONSE");
  Forget();
  events_->OnUnloaded();
  return absl::OkStatus();
}

absl::Status ClientConnection::Handle(const OfferChannelMessage& message) {
  const ChannelId id = message.channel_id;
  const uint32_t number = static_cast<uint32_t>(id);
  if (!offers_requested_) return NotAskedFor("OFFERCHANNEL");
  if (number == 0 || number > kMaxChannelId) {
    return absl::InvalidArgumentError(absl::StrCat(
        "OFFERCHANNEL of channel ", number, ", not in 1...", kMaxChannelId));
  }
  if (channels_.contains(id)) {
    return absl::AlreadyExistsError(
        absl::StrCat("OFFERCHANNEL of channel ", number, " a second time"));
  }
  if (channels_.size() >= options_.limits.channels_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the host has offered ", channels_.size(),
                     " channels; no more allowed"));
  }
  ClientOffer offer{.channel_id = id,
                    .interface_type = message.interface_type,
                    .interface_instance = message.interface_instance,
                    .sub_channel_index = message.sub_channel_index,
                    .flags = message.flags,
                    .mmio_megabytes = message.mmio_megabytes,
                    .mmio_megabytes_optional = message.mmio_megabytes_optional,
                    .monitor_id = (message.monitor_allocated & 1) != 0
                                      ? message.monitor_id
                                      : kNoMonitorId,
                    .connection_id = message.connection_id,
                    .user_data = message.user_data};
  channels_[id].offer = offer;
  events_->OnOffer(offer);
  return absl::OkStatus();
}

absl::Status ClientConnection::Handle(const AllOffersDeliveredMessage&) {
  if (!offers_requested_ || offers_delivered_) {
    return NotAskedFor("ALLOFFERS_DELIVERED");
  }
  offers_delivered_ = true;
  events_->OnAllOffersDelivered();
  return absl::OkStatus();
}

absl::Status ClientConnection::Handle(
    const RescindChannelOfferMessage& message) {
  const auto found = channels_.find(message.channel_id);
  if (found == channels_.end()) return NoSuchChannel(message.channel_id);
  Channel& channel = found->second;
  if (channel.state == ClientChannelState::kRescinded) {
    return WrongState("RESCIND_CHANNELOFFER", message.channel_id,
                      channel.state);
  }
  channel.state = ClientChannelState::kRescinded;
  channel.is_modifying = false;
  events_->OnRescind(message.channel_id);
  return absl::OkStatus();
}

absl::Status ClientConnection::Handle(const OpenChannelResultMessage& message) {
  const auto found = channels_.find(message.channel_id);
  if (found == channels_.end() ||
      found->second.state != ClientChannelState::kOpening ||
      message.open_id != static_cast<uint32_t>(message.channel_id)) {
    return NotAskedFor("OPENCHANNEL_RESULT");
  }
  found->second.state = message.status == kStatusSuccess
                            ? ClientChannelState::kOpen
                            : ClientChannelState::kClosed;
  events_->OnOpenResult(message.channel_id, message.status);
  return absl::OkStatus();
}

absl::Status ClientConnection::Handle(const GpadlCreatedMessage& message) {
  const auto found = gpadls_.find(message.gpadl_id);
  if (found == gpadls_.end() || found->second.phase != GpadlPhase::kCreating ||
      found->second.channel != message.channel_id) {
    return NotAskedFor("GPADL_CREATED");
  }
  if (message.status == kStatusSuccess) {
    found->second.phase = GpadlPhase::kCreated;
  } else {
    gpadls_.erase(found);
  }
  events_->OnGpadlCreated(message.channel_id, message.gpadl_id, message.status);
  return absl::OkStatus();
}

absl::Status ClientConnection::Handle(const GpadlTorndownMessage& message) {
  const auto found = gpadls_.find(message.gpadl_id);
  if (found == gpadls_.end() ||
      found->second.phase != GpadlPhase::kTearingDown) {
    return NotAskedFor("GPADL_TORNDOWN");
  }
  const ChannelId channel = found->second.channel;
  gpadls_.erase(found);
  events_->OnGpadlTorndown(channel, message.gpadl_id);
  return absl::OkStatus();
}

absl::Status ClientConnection::Handle(
    const ModifyChannelResponseMessage& message) {
  const auto found = channels_.find(message.channel_id);
  if (found == channels_.end() || !found->second.is_modifying) {
    return NotAskedFor("MODIFYCHANNEL_RESPONSE");
  }
  found->second.is_modifying = false;
  events_->OnModifyResponse(message.channel_id, message.status);
  return absl::OkStatus();
}

}  // namespace ferrybus
