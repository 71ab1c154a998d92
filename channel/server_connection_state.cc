// SPDX-License-Identifier: MIT
#include "ferrybus/channel/server_connection_state.h"

#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/message_codec.h"

namespace ferrybus {
namespace {

using State = ServerChannelState;

template <typename... Args>
absl::Status Contradiction(const Args&... what) {
  return absl::InvalidArgumentError(
      absl::StrCat("saved connection: ", what...));
}

template <typename... Args>
absl::Status NotHere(const Args&... what) {
  return absl::FailedPreconditionError(
      absl::StrCat("saved connection: ", what...));
}

template <typename... Args>
absl::Status TooMany(const Args&... what) {
  return absl::ResourceExhaustedError(
      absl::StrCat("saved connection: ", what...));
}

std::string Name(const SavedOffer& offer) {
  return absl::StrCat("channel ", static_cast<uint32_t>(offer.channel_id));
}

std::string Name(const SavedGpadl& gpadl) {
  return absl::StrCat("GPADL 0x", absl::Hex(static_cast<uint32_t>(gpadl.id)));
}

// Known to the guest, or about to be.
bool IsLive(const SavedOffer& offer) {
  return offer.state != State::kRescinded && !offer.is_rescinding;
}

// Each member function checks one part, later ones relying on earlier ones.
class Checker {
 public:
  Checker(const ServerConnectionState& state,
          const ServerConnectionOptions& options)
      : state_(state), options_(options) {}

  absl::Status Check();

 private:
  absl::Status CheckContact(const Contact& contact) const;
  absl::Status CheckMonitorPages(const Contact& contact) const;
  absl::Status CheckPhase() const;
  absl::Status CheckOfferIds();
  absl::Status CheckOfferIdentities();
  absl::Status CheckOfferState(const SavedOffer& offer) const;
  absl::Status CheckGpadl(const SavedGpadl& gpadl) const;
  absl::Status CheckGpadls();
  absl::Status CheckOpenRequest(const SavedOffer& offer,
                                const OpenRequest& open) const;
  absl::Status CheckSubChannel(const SavedOffer& offer) const;
  absl::Status CheckOutgoing();
  absl::Status CheckMessage(const OutgoingMessage& message, size_t index);
  absl::Status CheckOfferMessage(const OutgoingMessage& message,
                                 const SavedOffer* offer);

  bool connected() const { return state_.phase == ConnectionPhase::kConnected; }
  const SavedOffer* FindOffer(ChannelId id) const {
    const auto found = offers_.find(id);
    return found == offers_.end() ? nullptr : found->second;
  }

  const ServerConnectionState& state_;
  const ServerConnectionOptions& options_;
  std::map<ChannelId, const SavedOffer*> offers_;
  std::map<GpadlId, const SavedGpadl*> gpadls_;
  std::set<ChannelId> offer_messages_;
  std::set<ChannelId> rescind_messages_;
  bool has_all_offers_message_ = false;
};

absl::Status Checker::Check() {
  absl::Status status = CheckContact(state_.contact);
  status.Update(CheckContact(state_.pending_contact));
  status.Update(CheckPhase());
  status.Update(CheckOfferIds());
  status.Update(CheckOfferIdentities());
  if (!status.ok()) return status;
  status = CheckGpadls();
  if (!status.ok()) return status;
  for (const SavedOffer& offer : state_.offers) {
    status.Update(CheckOfferState(offer));
    if (offer.open.has_value()) {
      status.Update(CheckOpenRequest(offer, *offer.open));
    }
    status.Update(CheckSubChannel(offer));
  }
  if (!status.ok()) return status;
  return CheckOutgoing();
}

absl::Status Checker::CheckMonitorPages(const Contact& contact) const {
  const uint64_t pages[] = {contact.parent_to_child_monitor_page,
                            contact.child_to_parent_monitor_page};
  if (pages[0] == 0 && pages[1] == 0) return absl::OkStatus();
  for (uint64_t page : pages) {
    if (page == 0 || page % kGpadlPageSizeBytes != 0) {
      return Contradiction("monitor page at ", page);
    }
    if (page / kGpadlPageSizeBytes >= options_.ram_page_count) {
      return NotHere("monitor page at ", page, " is not in guest RAM of ",
                     options_.ram_page_count, " pages");
    }
  }
  return absl::OkStatus();
}

absl::Status Checker::CheckContact(const Contact& contact) const {
  Contact plain;  // what a contact that was not accepted may say
  plain.version = contact.version;
  plain.supported = contact.supported;
  plain.connection_state = contact.connection_state;
  plain.target_message_vp = contact.target_message_vp;
  if (!contact.supported) {
    plain.connection_state = kConnectionSuccessful;
    plain.target_message_vp = 0;
  }
  if (!contact.accepted() && !(contact == plain)) {
    return Contradiction("a refused contact has been granted something");
  }
  if (!contact.supported) return absl::OkStatus();

  const uint32_t version = static_cast<uint32_t>(contact.version);
  if (!IsKnownProtocolVersion(version) ||
      contact.version > options_.max_version) {
    return NotHere("version ", ProtocolVersionToString(contact.version),
                   "; the highest here is ",
                   ProtocolVersionToString(options_.max_version));
  }
  if (contact.connection_state != kConnectionSuccessful &&
      (contact.connection_state != kConnectionFailedUnknown ||
       contact.version < ProtocolVersion::kWin8)) {
    return Contradiction("connection state ", contact.connection_state);
  }
  if ((contact.features & ~kGrantedFeatures) != 0) {
    return NotHere("feature flags ", contact.features, "; those here are ",
                   kGrantedFeatures);
  }
  const bool has_client_id = (contact.features & kFeatureClientId) != 0;
  if ((contact.features != 0 && contact.version < ProtocolVersion::kCopper) ||
      (!has_client_id && contact.client_id != Guid{})) {
    return Contradiction("feature flags or a client id at version ",
                         ProtocolVersionToString(contact.version));
  }
  if (contact.target_message_vp > options_.max_vp) {
    return NotHere("messages go to VP ", contact.target_message_vp,
                   "; the highest here is ", options_.max_vp);
  }
  if (contact.target_message_vp != 0 &&
      contact.version < ProtocolVersion::kWin81) {
    return Contradiction("a message VP at version ",
                         ProtocolVersionToString(contact.version));
  }
  return CheckMonitorPages(contact);
}

absl::Status Checker::CheckPhase() const {
  const bool resetting = state_.phase == ConnectionPhase::kResetting;
  if ((connected() || resetting) && !state_.contact.accepted()) {
    return Contradiction("connected without an accepted contact");
  }
  if (!resetting && state_.after_reset != AfterReset::kNothing) {
    return Contradiction("an answer to a reset that is not under way");
  }
  if (state_.after_reset != AfterReset::kVersionResponse &&
      !(state_.pending_contact == Contact{})) {
    return Contradiction("a pending contact that nothing waits for");
  }
  if (state_.phase == ConnectionPhase::kDisconnected &&
      (state_.offers_requested || !state_.gpadls.empty())) {
    return Contradiction("offers requested or GPADLs while not connected");
  }
  if (resetting) {
    bool has_active = false;
    for (const SavedOffer& offer : state_.offers) {
      has_active = has_active || IsActive(offer.state);
    }
    if (!has_active) return Contradiction("a reset that waits for nothing");
  }
  return absl::OkStatus();
}

// --- Offers -----------------------------------------------------------------

absl::Status Checker::CheckOfferIds() {
  if (state_.offers.size() > options_.limits.channels_max) {
    return TooMany(state_.offers.size(), " channels; at most ",
                   options_.limits.channels_max, " allowed");
  }
  const SavedOffer* previous = nullptr;
  for (const SavedOffer& offer : state_.offers) {
    const uint32_t id = static_cast<uint32_t>(offer.id);
    if (id >= state_.next_offer_id ||
        (previous != nullptr && offer.id <= previous->id)) {
      return Contradiction("offer id ", id, " out of order");
    }
    const uint32_t channel_id = static_cast<uint32_t>(offer.channel_id);
    if (channel_id == 0 || channel_id > kMaxChannelId) {
      return Contradiction(Name(offer), " is not in 1...", kMaxChannelId);
    }
    if (!offers_.emplace(offer.channel_id, &offer).second) {
      return Contradiction(Name(offer), " twice");
    }
    previous = &offer;
  }
  return absl::OkStatus();
}

absl::Status Checker::CheckOfferIdentities() {
  std::set<std::pair<std::pair<Guid, Guid>, uint16_t>> identities;
  std::set<uint8_t> monitors;
  for (const SavedOffer& offer : state_.offers) {
    const OfferParams& params = offer.params;
    if (params.monitor_id != kNoMonitorId && params.monitor_id > 127) {
      return Contradiction(Name(offer), " has monitor id ", params.monitor_id);
    }
    if (!IsLive(offer)) continue;
    const std::pair device(params.interface_type, params.interface_instance);
    if (!identities.emplace(device, params.sub_channel_index).second) {
      return Contradiction("device ", params.interface_instance.ToString(),
                           " sub-channel ", params.sub_channel_index, " twice");
    }
    if (params.monitor_id != kNoMonitorId &&
        !monitors.insert(params.monitor_id).second) {
      return Contradiction("monitor id ", params.monitor_id, " twice");
    }
    // Offers are in order of id, and a primary is offered first.
    if (params.sub_channel_index != 0 && !identities.contains({device, 0})) {
      return Contradiction(Name(offer), " is a sub-channel without primary");
    }
  }
  return absl::OkStatus();
}

absl::Status Checker::CheckOfferState(const SavedOffer& offer) const {
  const bool active = IsActive(offer.state);
  if (active != offer.open.has_value() ||
      (offer.state == State::kClosingThenOpen) != offer.reopen.has_value()) {
    return Contradiction(Name(offer), " with an open request too many or few");
  }
  if ((active || offer.state == State::kRescinded) && !offer.is_offered) {
    return Contradiction(Name(offer), " is in use but was never offered");
  }
  if (offer.is_offered && !state_.offers_requested) {
    return Contradiction(Name(offer), " was offered without being asked for");
  }
  if (offer.is_rescinding && offer.state != State::kOpeningThenClose &&
      offer.state != State::kClosing) {
    return Contradiction(Name(offer), " is being rescinded but not closed");
  }
  const bool needs_connection = offer.state == State::kOpening ||
                                offer.state == State::kOpen ||
                                offer.state == State::kClosingThenOpen;
  if (needs_connection && !connected()) {
    return Contradiction(Name(offer), " is open while not connected");
  }
  return absl::OkStatus();
}

absl::Status Checker::CheckOpenRequest(const SavedOffer& offer,
                                       const OpenRequest& open) const {
  if (open.target_vp > options_.max_vp && open.target_vp != kNoInterruptVp) {
    return NotHere(Name(offer), " interrupts VP ", open.target_vp,
                   "; the highest here is ", options_.max_vp);
  }
  if (state_.contact.version < ProtocolVersion::kWin8 &&
      (open.target_vp != 0 ||
       (offer.reopen.has_value() && offer.reopen->target_vp != 0))) {
    return Contradiction(Name(offer), " has a VP before version 2.4");
  }
  const auto found = gpadls_.find(open.ring_gpadl);
  if (found == gpadls_.end() || found->second->channel_id != offer.channel_id ||
      found->second->state == GpadlState::kInProgress) {
    return Contradiction(Name(offer), " has no GPADL for its ring");
  }
  const SavedGpadl& gpadl = *found->second;
  return CheckRingGeometry({gpadl.id, gpadl.channel_id, gpadl.byte_count,
                            gpadl.byte_offset, gpadl.pages},
                           open.downstream_page_offset,
                           options_.limits.ring_pages_max);
}

absl::Status Checker::CheckSubChannel(const SavedOffer& offer) const {
  if (offer.params.sub_channel_index == 0 || !offer.is_offered) {
    return absl::OkStatus();
  }
  if (state_.contact.version < ProtocolVersion::kWin8) {
    return Contradiction(Name(offer), " is a sub-channel before version 2.4");
  }
  if (offer.state != State::kOpening && offer.state != State::kOpen) {
    return absl::OkStatus();
  }
  OfferParams primary = offer.params;
  primary.sub_channel_index = 0;
  for (const SavedOffer& other : state_.offers) {
    if (IsLive(other) && other.state == State::kOpen &&
        other.params.HasIdentityOf(primary)) {
      return absl::OkStatus();
    }
  }
  return Contradiction(Name(offer), " is open and its primary is not");
}

// --- GPADLs -----------------------------------------------------------------

absl::Status Checker::CheckGpadl(const SavedGpadl& gpadl) const {
  const uint32_t page_count =
      GpadlPageCount(gpadl.byte_count, gpadl.byte_offset);
  const bool complete = gpadl.pages.size() == page_count;
  if (page_count == 0 || gpadl.pages.size() > page_count ||
      complete != (gpadl.state != GpadlState::kInProgress)) {
    return Contradiction(Name(gpadl), " of ", gpadl.byte_count, " bytes has ",
                         gpadl.pages.size(), " pages");
  }
  for (uint64_t page : gpadl.pages) {
    if (page == 0 || page >= options_.ram_page_count) {
      return NotHere(Name(gpadl), " names page ", page, "; guest RAM here has ",
                     options_.ram_page_count);
    }
  }
  const SavedOffer* offer = FindOffer(gpadl.channel_id);
  if (offer == nullptr || !offer->is_offered) {
    return Contradiction(Name(gpadl), " belongs to channel ",
                         static_cast<uint32_t>(gpadl.channel_id),
                         ", which is not offered");
  }
  if (gpadl.state == GpadlState::kTearingDown && !IsActive(offer->state)) {
    return Contradiction(Name(gpadl), " is torn down but still there");
  }
  return absl::OkStatus();
}

absl::Status Checker::CheckGpadls() {
  const ServerLimits& limits = options_.limits;
  uint64_t page_count = 0;
  size_t in_progress = 0;
  const SavedGpadl* previous = nullptr;
  for (const SavedGpadl& gpadl : state_.gpadls) {
    if (previous != nullptr && gpadl.id <= previous->id) {
      return Contradiction(Name(gpadl), " out of order or twice");
    }
    previous = &gpadl;
    absl::Status status = CheckGpadl(gpadl);
    if (!status.ok()) return status;
    page_count += GpadlPageCount(gpadl.byte_count, gpadl.byte_offset);
    if (gpadl.state == GpadlState::kInProgress) ++in_progress;
    gpadls_.emplace(gpadl.id, &gpadl);
  }
  if (state_.gpadls.size() > limits.gpadls_max ||
      in_progress > limits.gpadls_in_progress_max ||
      page_count > limits.gpadl_pages_max) {
    return TooMany(state_.gpadls.size(), " GPADLs, ", in_progress,
                   " unfinished, of ", page_count, " pages; at most ",
                   limits.gpadls_max, ", ", limits.gpadls_in_progress_max,
                   " and ", limits.gpadl_pages_max, " allowed");
  }
  return absl::OkStatus();
}

// --- Outgoing messages ------------------------------------------------------

absl::Status Checker::CheckOutgoing() {
  const size_t count_max =
      OutgoingMessagesMax(options_.limits) + 2 * options_.limits.channels_max;
  if (state_.outgoing.size() > count_max) {
    return TooMany(state_.outgoing.size(), " outgoing messages; at most ",
                   count_max, " allowed");
  }
  for (size_t i = 0; i < state_.outgoing.size(); ++i) {
    absl::Status status = CheckMessage(state_.outgoing[i], i);
    if (!status.ok()) return status;
  }
  // The number of a rescinded channel is offered again only after the guest
  // has released it, which drops what is queued for it.
  for (const auto& [channel_id, offer] : offers_) {
    if (offer->state == State::kRescinded &&
        offer_messages_.contains(channel_id) &&
        !rescind_messages_.contains(channel_id)) {
      return Contradiction("OFFERCHANNEL for rescinded ", Name(*offer));
    }
  }
  return absl::OkStatus();
}

absl::Status Checker::CheckMessage(const OutgoingMessage& message,
                                   size_t index) {
  const OutgoingMessage bare{.type = message.type};
  bool valid = connected();
  const SavedOffer* offer = FindOffer(message.channel_id);
  const bool is_offered = offer != nullptr && offer->is_offered;
  switch (message.type) {
    case MessageType::kVersionResponse:
      // The queue is emptied for it.
      valid = message == bare && index == 0 &&
              state_.phase != ConnectionPhase::kResetting &&
              connected() == state_.contact.accepted();
      break;
    case MessageType::kUnloadResponse:
      valid = message == bare && state_.outgoing.size() == 1 &&
              state_.phase == ConnectionPhase::kDisconnected;
      break;
    case MessageType::kOfferChannel:
    case MessageType::kRescindChannelOffer:
      return CheckOfferMessage(message, offer);
    case MessageType::kAllOffersDelivered:
      valid = valid && message == bare && state_.offers_requested &&
              !has_all_offers_message_;
      has_all_offers_message_ = true;
      break;
    case MessageType::kOpenChannelResult:
      // A refused open may have named any channel.
      valid = valid && (is_offered || message.status != kStatusSuccess);
      break;
    case MessageType::kGpadlCreated:
      valid = valid && is_offered;
      break;
    case MessageType::kGpadlTorndown:
      valid = valid && message.channel_id == ChannelId{} &&
              message.status == kStatusSuccess;
      break;
    case MessageType::kModifyChannelResponse:
      valid = valid && message.id == 0 &&
              state_.contact.version >= ProtocolVersion::kIron &&
              (is_offered || message.status != kStatusSuccess);
      break;
    default:
      valid = false;
  }
  if (valid) return absl::OkStatus();
  return Contradiction("outgoing message ", index, " of type ",
                       static_cast<uint32_t>(message.type),
                       " cannot be due here");
}

absl::Status Checker::CheckOfferMessage(const OutgoingMessage& message,
                                        const SavedOffer* offer) {
  const bool is_offer = message.type == MessageType::kOfferChannel;
  auto& seen = is_offer ? offer_messages_ : rescind_messages_;
  const OutgoingMessage plain{.type = message.type,
                              .channel_id = message.channel_id};
  bool valid = connected() && message == plain && offer != nullptr &&
               offer->is_offered && seen.insert(message.channel_id).second;
  if (is_offer) {
    valid = valid && !rescind_messages_.contains(message.channel_id);
  } else {
    valid = valid && offer->state == State::kRescinded;
  }
  if (valid) return absl::OkStatus();
  return Contradiction(
      is_offer ? "OFFERCHANNEL" : "RESCIND_CHANNELOFFER", " for channel ",
      static_cast<uint32_t>(message.channel_id), " cannot be due here");
}

}  // namespace

absl::StatusOr<CheckedServerConnection> CheckServerConnectionState(
    ServerConnectionState state, const ServerConnectionOptions& options) {
  absl::Status status = Checker(state, options).Check();
  if (!status.ok()) return status;
  return CheckedServerConnection(std::move(state));
}

}  // namespace ferrybus
