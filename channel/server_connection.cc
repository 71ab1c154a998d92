// SPDX-License-Identifier: MIT
//
// ServerConnection: which handler gets a message, the outgoing queue, lookups.
// The handlers are in server_connection_{contact,channels,gpadls}.cc; offers
// and restore have their own files too.
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

// The flags that a version defines; a guest of an older one must not see
// others.
uint16_t OfferFlagsMask(ProtocolVersion version) {
  return version < ProtocolVersion::kWin10 ? 0x0011 : 0x2011;
}

}  // namespace

ServerConnection::ServerConnection(const ServerConnectionOptions& options,
                                   ServerEvents* events)
    : options_(options), events_(events), gpadls_(MakeGpadlLimits(options)) {}

// --- The outgoing queue -----------------------------------------------------

void ServerConnection::Send(MessageType type, ChannelId channel_id, uint32_t id,
                            uint32_t status) {
  outgoing_.push_back({type, channel_id, id, status});
}

void ServerConnection::SendOffer(Offer& offer) {
  // Older guests take a second offer of the same instance for a new device.
  if (offer.params.sub_channel_index != 0 && !AtLeast(ProtocolVersion::kWin8)) {
    return;
  }
  offer.is_offered = true;
  Send(MessageType::kOfferChannel, offer.channel_id);
}

EncodedMessage ServerConnection::EncodeOffer(const Offer& offer) const {
  const OfferParams& params = offer.params;
  OfferChannelMessage message;
  message.interface_type = params.interface_type;
  message.interface_instance = params.interface_instance;
  message.flags = params.flags & OfferFlagsMask(contact_.version);
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
    default:
      return EncodeMessage(UnloadResponseMessage{});
  }
}

absl::Span<const std::byte> ServerConnection::outgoing_front() {
  front_ = Encode(outgoing_.front());
  return front_.bytes();
}

void ServerConnection::PopOutgoing() { outgoing_.pop_front(); }

size_t ServerConnection::AnswersDue() const {
  size_t due = gpadls_.tearing_down_count();
  if (phase_ == ConnectionPhase::kResetting) ++due;
  for (const auto& [id, offer] : offers_) {
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
  // REQUESTOFFERS, once, brings all offers; any other message one answer.
  const size_t next = offers_requested_ ? 1 : offers_.size() + 1;
  return outgoing_.size() + AnswersDue() + next <=
         OutgoingMessagesMax(options_.limits);
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
  if (phase_ != ConnectionPhase::kConnected) {
    return absl::FailedPreconditionError(
        "channel message while not connected; INITIATE_CONTACT comes first");
  }
  if (std::holds_alternative<RequestOffersMessage>(message)) {
    return HandleRequestOffers();
  }
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
  return absl::UnimplementedError(
      "reserved channels, hv_sock connects, MODIFY_CONNECTION and PAUSE are "
      "not served");
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
  return OfferInfo{.channel_id = offer->channel_id,
                   .connection_id = EventConnectionId(offer->channel_id),
                   .state = offer->state,
                   .is_offered = offer->is_offered,
                   .target_vp = offer->open.has_value() ? offer->open->target_vp
                                                        : kNoInterruptVp};
}

std::optional<OfferId> ServerConnection::FindOfferByChannelId(
    ChannelId channel_id) const {
  const auto found = offers_by_channel_id_.find(channel_id);
  if (found == offers_by_channel_id_.end()) return std::nullopt;
  return found->second;
}

const OpenRequest* ServerConnection::open_request(OfferId id) const {
  const Offer* offer = Find(id);
  if (offer == nullptr || !offer->open.has_value()) return nullptr;
  return &*offer->open;
}

absl::StatusOr<GpadlView> ServerConnection::RingGpadl(OfferId id) const {
  const OpenRequest* open = open_request(id);
  if (open == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "offer ", static_cast<uint32_t>(id), " has no open channel"));
  }
  return gpadls_.Find(open->ring_gpadl)->view();
}

}  // namespace ferrybus
