// SPDX-License-Identifier: MIT
//
// CheckServerConnectionState: the messages that the guest has not taken.
#include <map>
#include <set>

#include "ferrybus/channel/server_connection_state_check.h"

namespace ferrybus::saved_connection {
namespace {

using State = ServerChannelState;

class OutgoingChecker {
 public:
  OutgoingChecker(const ServerConnectionState& state,
                  const ServerConnectionOptions& options)
      : state_(state), options_(options) {
    for (const SavedOffer& offer : state.offers) {
      offers_.emplace(offer.channel_id, &offer);
    }
  }

  absl::Status Check();

 private:
  bool connected() const { return state_.phase == ConnectionPhase::kConnected; }
  bool AtLeast(ProtocolVersion version) const {
    return connected() && state_.contact.version >= version;
  }
  bool Granted(uint32_t feature) const {
    return connected() && (state_.contact.features & feature) != 0;
  }
  const SavedOffer* FindOffer(ChannelId id) const {
    const auto found = offers_.find(id);
    return found == offers_.end() ? nullptr : found->second;
  }

  absl::Status CheckMessage(const OutgoingMessage& message);
  bool IsPossible(const OutgoingMessage& message);
  bool IsPossibleOffer(const OutgoingMessage& message, const SavedOffer* offer);
  bool IsPossibleForReserved(const OutgoingMessage& message) const;

  const ServerConnectionState& state_;
  const ServerConnectionOptions& options_;
  std::map<ChannelId, const SavedOffer*> offers_;
  std::set<ChannelId> offer_messages_;
  std::set<ChannelId> rescind_messages_;
  bool has_all_offers_message_ = false;
  size_t index_ = 0;  // of those that end with the connection
};

absl::Status OutgoingChecker::Check() {
  const size_t count_max =
      OutgoingMessagesMax(options_.limits) + 2 * options_.limits.channels_max;
  if (state_.outgoing.size() > count_max) {
    return TooMany(state_.outgoing.size(), " outgoing messages; at most ",
                   count_max, " allowed");
  }
  for (const OutgoingMessage& message : state_.outgoing) {
    absl::Status status = CheckMessage(message);
    if (!status.ok()) return status;
  }
  // The number of a rescinded channel is offered again only after the guest
  // has released it, which drops what is queued for it.
  for (const auto& [channel_id, offer] : offers_) {
    if (offer->state == State::kRescinded &&
        offer_messages_.contains(channel_id) &&
        !rescind_messages_.contains(channel_id)) {
      return Contradiction("OFFERCHANNEL for rescinded channel ",
                           static_cast<uint32_t>(channel_id));
    }
  }
  return absl::OkStatus();
}

absl::Status OutgoingChecker::CheckMessage(const OutgoingMessage& message) {
  if (message.target.has_value()) {
    absl::Status status = CheckTarget(*message.target, options_);
    if (!status.ok()) return status;
    if (IsPossibleForReserved(message)) return absl::OkStatus();
  } else if (IsPossible(message)) {
    ++index_;
    return absl::OkStatus();
  }
  return Contradiction("outgoing message of type ",
                       static_cast<uint32_t>(message.type), " for channel ",
                       static_cast<uint32_t>(message.channel_id),
                       " cannot be due here");
}

bool OutgoingChecker::IsPossible(const OutgoingMessage& message) {
  const SavedOffer* offer = FindOffer(message.channel_id);
  const bool is_offered = offer != nullptr && offer->is_offered;
  OutgoingMessage of_type{.type = message.type};
  switch (message.type) {
    case MessageType::kVersionResponse:
      // The queue is emptied for it.
      return message == of_type && index_ == 0 &&
             state_.phase != ConnectionPhase::kResetting &&
             connected() == state_.contact.accepted();
    case MessageType::kUnloadResponse:
      return message == of_type && index_ == 0 &&
             state_.phase == ConnectionPhase::kDisconnected;
    case MessageType::kOfferChannel:
    case MessageType::kRescindChannelOffer:
      return connected() && IsPossibleOffer(message, offer);
    case MessageType::kAllOffersDelivered:
      if (has_all_offers_message_) return false;
      has_all_offers_message_ = true;
      return connected() && message == of_type && state_.offers_requested;
    case MessageType::kOpenChannelResult:
      // A refused open may have named any channel.
      return connected() && (is_offered || message.status != kStatusSuccess);
    case MessageType::kGpadlCreated:
      return connected() && is_offered;
    case MessageType::kGpadlTorndown:
      of_type.id = message.id;
      return connected() && message == of_type;
    case MessageType::kModifyChannelResponse:
      return AtLeast(ProtocolVersion::kIron) && message.id == 0 &&
             (is_offered || message.status != kStatusSuccess);
    case MessageType::kModifyConnectionResponse:
      of_type.status = message.status;
      return Granted(kFeatureModifyConnection) && message == of_type &&
             (message.status == kConnectionSuccessful ||
              message.status == kConnectionFailedUnknown);
    case MessageType::kPauseResponse:
      return Granted(kFeaturePauseResume) && message == of_type;
    case MessageType::kTlConnectResult:
      of_type.endpoint_id = message.endpoint_id;
      of_type.service_id = message.service_id;
      of_type.status = message.status;
      return AtLeast(ProtocolVersion::kWin10Rs3) && message == of_type &&
             message.status != kStatusSuccess;
    default:
      return false;
  }
}

bool OutgoingChecker::IsPossibleOffer(const OutgoingMessage& message,
                                      const SavedOffer* offer) {
  const bool is_offer = message.type == MessageType::kOfferChannel;
  auto& seen = is_offer ? offer_messages_ : rescind_messages_;
  const OutgoingMessage plain{.type = message.type,
                              .channel_id = message.channel_id};
  if (!(message == plain) || offer == nullptr || !offer->is_offered ||
      !seen.insert(message.channel_id).second) {
    return false;
  }
  return is_offer ? !rescind_messages_.contains(message.channel_id)
                  : offer->state == State::kRescinded;
}

bool OutgoingChecker::IsPossibleForReserved(
    const OutgoingMessage& message) const {
  const OutgoingMessage plain{.type = message.type,
                              .channel_id = message.channel_id,
                              .target = message.target};
  if (message.type == MessageType::kCloseReservedResponse) {
    return message == plain;
  }
  OutgoingMessage answered = plain;
  answered.status = message.status;
  return message.type == MessageType::kOpenChannelResult && message == answered;
}

}  // namespace

absl::Status CheckTarget(const MessageTarget& target,
                         const ServerConnectionOptions& options) {
  if (target.sint >= kSintCount) return Contradiction("SINT ", target.sint);
  if (target.vp > options.max_vp) {
    return NotHere("an answer goes to VP ", target.vp, "; the highest here is ",
                   options.max_vp);
  }
  return absl::OkStatus();
}

absl::Status CheckOutgoing(const ServerConnectionState& state,
                           const ServerConnectionOptions& options) {
  return OutgoingChecker(state, options).Check();
}

}  // namespace ferrybus::saved_connection
