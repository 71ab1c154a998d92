// SPDX-License-Identifier: MIT
//
// ServerConnection: which handler gets a message, the outgoing queue, lookups.
// The handlers are in server_connection_{contact,channels,reserved,gpadls,
// requests}.cc; offers and restore have their own files too.
#include "ferrybus/channel/server_connection.h"

#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"

namespace ferrybus {
namespace {

GpadlLimits MakeGpadlLimits(const ServerConnectionOptions& options) {
  return {.count_max = options.limits.gpadls_max,
          .in_progress_max = options.limits.gpadls_in_progress_max,
          .pages_max = options.limits.gpadl_pages_max,
          .ram_page_count = options.ram_page_count};
}

// The flags that the guest knows; it must not see others.  To Linux 0x2 and
// 0x4 once meant something else.
uint16_t OfferFlagsMask(const Contact& contact) {
  uint16_t mask = kOfferEnumerateDeviceInterface | kOfferNamedPipeMode;
  if (contact.version >= ProtocolVersion::kWin10) mask |= kOfferTlnpiProvider;
  if ((contact.features & kFeatureConfidentialChannels) != 0) {
    mask |= kOfferConfidentialRing | kOfferConfidentialExternalMemory;
  }
  if ((contact.features & kFeatureGpaPinning) != 0) {
    mask |= kOfferPinnedExternalMemory;
  }
  return mask;
}

}  // namespace

ServerConnection::ServerConnection(const ServerConnectionOptions& options,
                                   ServerEvents* events)
    : options_(options), events_(events), gpadls_(MakeGpadlLimits(options)) {}

// --- The outgoing queue -----------------------------------------------------

void ServerConnection::Send(const OutgoingMessage& message) {
  (paused_ ? held_ : outgoing_).push_back(message);
}

EncodedMessage ServerConnection::EncodeOffer(const Offer& offer) const {
  const OfferParams& params = offer.params;
  OfferChannelMessage message;
  message.interface_type = params.interface_type;
  message.interface_instance = params.interface_instance;
  message.flags = params.flags & OfferFlagsMask(contact_);
  message.mmio_megabytes = params.mmio_megabytes;
  message.user_data = params.user_data;
  message.sub_channel_index = params.sub_channel_index;
  message.mmio_megabytes_optional = params.mmio_megabytes_optional;
  message.channel_id = offer.channel_id;
  message.monitor_id = params.monitor_id;
  message.monitor_allocated = params.monitor_id == kNoMonitorId ? 0 : 1;
  message.is_dedicated_interrupt = 1;
  message.connection_id = EventConnectionId(offer.channel_id);
  return EncodeOfferChannel(message, contact_.version);
}

EncodedMessage ServerConnection::EncodeContactAnswer() const {
  VersionResponseMessage message;
  if (contact_.supported) {
    message.version_supported = 1;
    message.connection_state = contact_.connection_state;
    message.version_or_connection_id =
        contact_.version >= ProtocolVersion::kWin10Rs3Plus
            ? kMessageConnectionClassic
            : static_cast<uint32_t>(contact_.version);
    message.supported_features = contact_.features;
    if ((contact_.features & kFeatureServerMonitorPages) != 0) {
      message.parent_to_child_monitor_page =
          contact_.parent_to_child_monitor_page;
      message.child_to_parent_monitor_page =
          contact_.child_to_parent_monitor_page;
    }
  }
  return EncodeVersionResponse(message, contact_.version);
}

EncodedMessage ServerConnection::Encode(const OutgoingMessage& message) const {
  switch (message.type) {
    case MessageType::kOfferChannel:
      return EncodeOffer(
          offers_.at(offers_by_channel_id_.at(message.channel_id)));
    case MessageType::kRescindChannelOffer:
      return EncodeMessage(
          RescindChannelOfferMessage{.channel_id = message.channel_id});
    case MessageType::kAllOffersDelivered:
      return EncodeMessage(AllOffersDeliveredMessage{});
    case MessageType::kOpenChannelResult:
      return EncodeMessage(
          OpenChannelResultMessage{.channel_id = message.channel_id,
                                   .open_id = message.id,
                                   .status = message.status});
    case MessageType::kGpadlCreated:
      return EncodeMessage(GpadlCreatedMessage{.channel_id = message.channel_id,
                                               .gpadl_id = GpadlId{message.id},
                                               .status = message.status});
    case MessageType::kGpadlTorndown:
      return EncodeMessage(
          GpadlTorndownMessage{.gpadl_id = GpadlId{message.id}});
    case MessageType::kVersionResponse:
      return EncodeContactAnswer();
    case MessageType::kModifyChannelResponse:
      return EncodeMessage(ModifyChannelResponseMessage{
          .channel_id = message.channel_id, .status = message.status});
    case MessageType::kCloseReservedResponse:
      return EncodeMessage(
          CloseReservedResponseMessage{.channel_id = message.channel_id});
    case MessageType::kTlConnectResult:
      return EncodeMessage(
          TlConnectResultMessage{.endpoint_id = message.endpoint_id,
                                 .service_id = message.service_id,
                                 .status = message.status});
    case MessageType::kModifyConnectionResponse:
      return EncodeModifyConnectionResponse(
          {.connection_state = static_cast<uint8_t>(message.status)});
    case MessageType::kPauseResponse:
      return EncodeMessage(PauseResponseMessage{});
    default:
      return EncodeMessage(UnloadResponseMessage{});
  }
}

absl::Span<const std::byte> ServerConnection::outgoing_front() {
  front_ = Encode(outgoing_.front());
  return front_.bytes();
}

MessageTarget ServerConnection::outgoing_target() const {
  return outgoing_.front().target.value_or(
      MessageTarget{.vp = contact_.target_message_vp});
}

void ServerConnection::PopOutgoing() { outgoing_.pop_front(); }

size_t ServerConnection::AnswersDue() const {
  size_t due = gpadls_.tearing_down_count() + tl_connects_.size();
  if (phase_ == ConnectionPhase::kResetting) ++due;
  if (pending_modify_.has_value()) ++due;
  for (const auto& [id, offer] : offers_) {
    if (offer.reserved.has_value() && offer.reserved->close_target) ++due;
    if (offer.state == ServerChannelState::kOpening ||
        offer.state == ServerChannelState::kOpeningThenClose ||
        offer.state == ServerChannelState::kClosingThenOpen) {
      ++due;
    }
  }
  return due;
}

bool ServerConnection::can_accept_message() const {
  if (restoring_) return false;
  // Nothing is taken from the queue until the guest resumes, so that must get
  // through; what is accepted meanwhile brings no answer, or drops the queue.
  if (paused_) return true;
  // REQUESTOFFERS, once, brings all offers; any other message one answer.
  const size_t next = offers_requested_ ? 1 : offers_.size() + 1;
  const size_t messages_max = OutgoingMessagesMax(options_.limits);
  // A channel has at most two answers due: mostly that need not be counted,
  // and a message costs the same whatever the number of channels.
  const size_t due_max = gpadls_.tearing_down_count() + tl_connects_.size() +
                         2 + 2 * offers_.size();
  if (outgoing_.size() + due_max + next <= messages_max) return true;
  return outgoing_.size() + AnswersDue() + next <= messages_max;
}

// --- Messages ---------------------------------------------------------------

ProtocolContext ServerConnection::protocol() const {
  if (phase_ != ConnectionPhase::kConnected) return {};
  return {contact_.version, contact_.features};
}

absl::Status ServerConnection::Ignore() {
  ++counters_.messages_ignored;
  return absl::OkStatus();
}

absl::Status ServerConnection::HandleMessage(
    absl::Span<const std::byte> payload, uint32_t message_connection) {
  if (handling_message_) {
    return absl::FailedPreconditionError(
        "HandleMessage was called from inside one of its own events");
  }
  if (!can_accept_message()) {
    return absl::UnavailableError(
        "the guest has to take its messages before it can send another");
  }
  handling_message_ = true;
  ++counters_.messages_handled;
  absl::StatusOr<GuestMessage> message =
      DecodeGuestMessage(payload, protocol());
  absl::Status status =
      message.ok() ? Dispatch(*message, message_connection) : message.status();
  if (!status.ok()) ++counters_.messages_refused;
  handling_message_ = false;
  return status;
}

absl::Status ServerConnection::Dispatch(const GuestMessage& message,
                                        uint32_t message_connection) {
  if (const auto* contact = std::get_if<InitiateContactMessage>(&message)) {
    return HandleInitiateContact(*contact, message_connection);
  }
  if (std::holds_alternative<UnloadMessage>(message)) return HandleUnload();
  if (paused_ && !std::holds_alternative<ResumeMessage>(message)) {
    return absl::FailedPreconditionError(
        "channel message while paused; RESUME comes first");
  }
  // A crashing guest does not connect, and may have unloaded.
  if (const auto* close = std::get_if<CloseReservedChannelMessage>(&message)) {
    return HandleCloseReserved(*close);
  }
  if (phase_ != ConnectionPhase::kConnected) {
    return absl::FailedPreconditionError(
        "channel message while not connected; INITIATE_CONTACT comes first");
  }
  if (std::holds_alternative<RequestOffersMessage>(message)) {
    return HandleRequestOffers();
  }
  if (const auto* connect = std::get_if<TlConnectRequestMessage>(&message)) {
    return HandleTlConnect(*connect);
  }
  if (const auto* modify = std::get_if<ModifyConnectionMessage>(&message)) {
    return HandleModifyConnection(*modify);
  }
  if (std::holds_alternative<PauseMessage>(message)) return HandlePause();
  if (std::holds_alternative<ResumeMessage>(message)) return HandleResume();
  return DispatchToChannel(message);
}

absl::Status ServerConnection::DispatchToChannel(const GuestMessage& message) {
  if (const auto* open = std::get_if<OpenChannelMessage>(&message)) {
    return HandleOpen(*open);
  }
  if (const auto* close = std::get_if<CloseChannelMessage>(&message)) {
    return HandleClose(close->channel_id);
  }
  if (const auto* header = std::get_if<DecodedGpadlHeader>(&message)) {
    return HandleGpadlHeader(*header);
  }
  if (const auto* body = std::get_if<DecodedGpadlBody>(&message)) {
    return HandleGpadlBody(*body);
  }
  if (const auto* teardown = std::get_if<GpadlTeardownMessage>(&message)) {
    return HandleGpadlTeardown(*teardown);
  }
  if (const auto* released = std::get_if<RelidReleasedMessage>(&message)) {
    return HandleRelidReleased(released->channel_id);
  }
  if (const auto* modify = std::get_if<ModifyChannelMessage>(&message)) {
    return HandleModify(*modify);
  }
  if (const auto* open = std::get_if<OpenReservedChannelMessage>(&message)) {
    return HandleOpenReserved(*open);
  }
  return absl::InternalError("guest message without a handler");
}

// --- Lookups ----------------------------------------------------------------

ServerConnection::Offer* ServerConnection::Find(OfferId id) {
  const auto found = offers_.find(id);
  return found == offers_.end() ? nullptr : &found->second;
}

const ServerConnection::Offer* ServerConnection::Find(OfferId id) const {
  const auto found = offers_.find(id);
  return found == offers_.end() ? nullptr : &found->second;
}

absl::StatusOr<ServerConnection::Offer*> ServerConnection::OfferedChannel(
    ChannelId channel_id) {
  const auto found = offers_by_channel_id_.find(channel_id);
  Offer* offer =
      found == offers_by_channel_id_.end() ? nullptr : Find(found->second);
  if (offer == nullptr || !offer->is_offered) {
    return absl::NotFoundError(absl::StrCat("channel ",
                                            static_cast<uint32_t>(channel_id),
                                            " is not offered to the guest"));
  }
  return offer;
}

const ServerConnection::Offer* ServerConnection::FindPrimary(
    const OfferParams& params) const {
  OfferParams primary = params;
  primary.sub_channel_index = 0;
  for (const auto& [id, offer] : offers_) {
    if (offer.state != ServerChannelState::kRescinded && !offer.is_rescinding &&
        offer.params.HasIdentityOf(primary)) {
      return &offer;
    }
  }
  return nullptr;
}

std::optional<OfferInfo> ServerConnection::FindOffer(OfferId id) const {
  const Offer* offer = Find(id);
  if (offer == nullptr) return std::nullopt;
  OfferInfo info{.channel_id = offer->channel_id,
                 .connection_id = EventConnectionId(offer->channel_id),
                 .event_flag = static_cast<uint32_t>(offer->channel_id),
                 .state = offer->state,
                 .is_offered = offer->is_offered,
                 .is_reserved = offer->reserved.has_value()};
  if (!offer->open.has_value()) return info;
  info.target_vp = offer->open->target_vp;
  if (!info.is_reserved &&
      (contact_.features & kFeatureGuestSignalParameters) != 0) {
    info.connection_id = offer->open->connection_id;
    info.event_flag = offer->open->event_flag;
  }
  return info;
}

std::optional<OfferId> ServerConnection::FindOfferByChannelId(
    ChannelId channel_id) const {
  const auto found = offers_by_channel_id_.find(channel_id);
  if (found == offers_by_channel_id_.end()) return std::nullopt;
  return found->second;
}

std::optional<OfferId> ServerConnection::FindOfferByConnectionId(
    uint32_t connection_id) const {
  const auto is_signalled_by = [&](OfferId id) {
    const std::optional<OfferInfo> info = FindOffer(id);
    return IsActive(info->state) && info->connection_id == connection_id;
  };
  const std::optional<OfferId> usual =
      FindOfferByChannelId(ChannelId{connection_id & kMaxChannelId});
  if (usual.has_value() && is_signalled_by(*usual)) return usual;
  if ((contact_.features & kFeatureGuestSignalParameters) == 0) {
    return std::nullopt;
  }
  for (const auto& [id, offer] : offers_) {
    if (is_signalled_by(id)) return id;
  }
  return std::nullopt;
}

std::optional<OfferId> ServerConnection::FindOfferByMonitorId(
    uint8_t monitor_id) const {
  for (const auto& [id, offer] : offers_) {
    if (IsActive(offer.state) && monitor_id != kNoMonitorId &&
        offer.params.monitor_id == monitor_id) {
      return id;
    }
  }
  return std::nullopt;
}

const OpenRequest* ServerConnection::open_request(OfferId id) const {
  const Offer* offer = Find(id);
  if (offer == nullptr || !offer->open.has_value()) return nullptr;
  return &*offer->open;
}

absl::StatusOr<GpadlView> ServerConnection::RingGpadl(OfferId id) const {
  const Offer* offer = Find(id);
  if (offer == nullptr || !offer->open.has_value()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "offer ", static_cast<uint32_t>(id), " has no open channel"));
  }
  return gpadls_.Find(offer->ring_key())->view();
}

}  // namespace ferrybus
