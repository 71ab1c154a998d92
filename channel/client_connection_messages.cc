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
  if (pause_ == PausePhase::kPaused) {
    return absl::FailedPreconditionError(
        "a message of the host between PAUSE_RESPONSE and RESUME");
  }
  if (const auto* response =
          std::get_if<CloseReservedResponseMessage>(&message)) {
    return HandleCloseReservedResponse(*response);
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
    absl::Status granted = CheckGrant(message, size_bytes);
    if (!granted.ok()) return granted;
    features_ = message.supported_features;
    if ((features_ & kFeatureServerMonitorPages) != 0) {
      monitor_pages_ = {message.parent_to_child_monitor_page,
                        message.child_to_parent_monitor_page};
    }
  }
  if (version_ >= ProtocolVersion::kWin10Rs3Plus) {
    message_connection_ = message.version_or_connection_id;
  }
  phase_ = ClientPhase::kConnected;
  result.accepted = true;
  result.features = features_;
  result.monitor_pages = monitor_pages_;
  events_->OnVersion(result);
  return absl::OkStatus();
}

absl::Status ClientConnection::CheckGrant(const VersionResponseMessage& message,
                                          size_t size_bytes) const {
  const uint32_t asked = FeaturesToAsk();
  const bool has_pages =
      (message.supported_features & kFeatureServerMonitorPages) != 0;
  if (size_bytes < (has_pages ? 40 : 20) ||
      (message.supported_features & ~asked) != 0 ||
      (has_pages && (message.parent_to_child_monitor_page == 0 ||
                     message.child_to_parent_monitor_page == 0))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "VERSION_RESPONSE of ", size_bytes, " bytes grants features ",
        message.supported_features, "; asked for were ", asked));
  }
  return absl::OkStatus();
}

absl::Status ClientConnection::HandleUnloadResponse() {
  if (phase_ != ClientPhase::kUnloading) return NotAskedFor("UNLOAD_RESPONSE");
  Forget();
  events_->OnUnloaded();
  return absl::OkStatus();
}

absl::Status ClientConnection::CheckOffer(
    const OfferChannelMessage& message) const {
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
  return absl::OkStatus();
}

absl::Status ClientConnection::Handle(const OfferChannelMessage& message) {
  absl::Status allowed = CheckOffer(message);
  if (!allowed.ok()) return allowed;
  const ChannelId id = message.channel_id;
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
  const Guid& endpoint = offer.interface_instance;
  const Guid& service = offer.interface_type;
  const bool is_answer = (offer.flags & kOfferTlnpiProvider) != 0 &&
                         offer.sub_channel_index == 0 &&
                         tl_connects_.erase({endpoint, service}) == 1;
  events_->OnOffer(offer);
  if (is_answer) {
    events_->OnTlConnectResult(endpoint, service, kStatusSuccess);
  }
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
  channel.is_reserved = false;
  events_->OnRescind(message.channel_id);
  return absl::OkStatus();
}

absl::Status ClientConnection::Handle(const OpenChannelResultMessage& message) {
  const auto found = channels_.find(message.channel_id);
  if (found == channels_.end() ||
      found->second.state != ClientChannelState::kOpening) {
    return NotAskedFor("OPENCHANNEL_RESULT");
  }
  Channel& channel = found->second;
  // OPEN_RESERVED_CHANNEL has no id to return.
  const uint32_t open_id =
      channel.is_reserved ? 0 : static_cast<uint32_t>(message.channel_id);
  if (message.open_id != open_id) return NotAskedFor("OPENCHANNEL_RESULT");
  const bool is_open = message.status == kStatusSuccess;
  channel.state =
      is_open ? ClientChannelState::kOpen : ClientChannelState::kClosed;
  channel.is_reserved = channel.is_reserved && is_open;
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

// --- Requests of the connection as a whole ----------------------------------

absl::Status ClientConnection::HandleCloseReservedResponse(
    const CloseReservedResponseMessage& message) {
  const ChannelId id = message.channel_id;
  if (closing_reserved_.erase(id) == 0) {
    return NotAskedFor("CLOSE_RESERVED_RESPONSE");
  }
  const auto found = channels_.find(id);
  if (found != channels_.end() &&
      found->second.state == ClientChannelState::kClosingReserved) {
    found->second.state = ClientChannelState::kClosed;
    found->second.is_reserved = false;
  }
  events_->OnReservedClosed(id);
  return absl::OkStatus();
}

absl::Status ClientConnection::Handle(const TlConnectResultMessage& message) {
  // Success is an offer.
  if (message.status == kStatusSuccess ||
      tl_connects_.erase({message.endpoint_id, message.service_id}) == 0) {
    return NotAskedFor("TL_CONNECT_RESULT");
  }
  events_->OnTlConnectResult(message.endpoint_id, message.service_id,
                             message.status);
  return absl::OkStatus();
}

absl::Status ClientConnection::Handle(
    const ModifyConnectionResponseMessage& message) {
  if (!pending_modify_.has_value()) {
    return NotAskedFor("MODIFY_CONNECTION_RESPONSE");
  }
  if (message.connection_state == kConnectionSuccessful) {
    monitor_pages_ = *pending_modify_;
  }
  pending_modify_.reset();
  events_->OnModifyConnectionResponse(message.connection_state);
  return absl::OkStatus();
}

absl::Status ClientConnection::Handle(const PauseResponseMessage&) {
  if (pause_ != PausePhase::kPausing) return NotAskedFor("PAUSE_RESPONSE");
  pause_ = PausePhase::kPaused;
  events_->OnPaused();
  return absl::OkStatus();
}

}  // namespace ferrybus
