// SPDX-License-Identifier: MIT
#include "ferrybus/channel/server_connection_state.h"

#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/message_codec.h"
#include "ferrybus/channel/server_connection_state_check.h"

namespace ferrybus {
namespace {

using State = ServerChannelState;
using saved_connection::Contradiction;
using saved_connection::NotHere;
using saved_connection::TooMany;

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
  absl::Status CheckGuestMonitorPages(const MonitorPages& pages) const;
  absl::Status CheckPhase() const;
  absl::Status CheckOfferIds();
  absl::Status CheckOfferIdentities();
  absl::Status CheckOfferState(const SavedOffer& offer) const;
  absl::Status CheckGpadl(const SavedGpadl& gpadl) const;
  absl::Status CheckGpadls();
  absl::Status CheckOpenRequest(const SavedOffer& offer,
                                const OpenRequest& open) const;
  absl::Status CheckSignals(const SavedOffer& offer,
                            const OpenRequest& open) const;
  absl::Status CheckSubChannel(const SavedOffer& offer) const;
  absl::Status CheckReserved(const SavedOffer& offer) const;
  absl::Status CheckRequests() const;

  bool connected() const { return state_.phase == ConnectionPhase::kConnected; }
  const SavedOffer* FindOffer(ChannelId id) const {
    const auto found = offers_.find(id);
    return found == offers_.end() ? nullptr : found->second;
  }

  const ServerConnectionState& state_;
  const ServerConnectionOptions& options_;
  std::map<ChannelId, const SavedOffer*> offers_;
  std::map<GpadlKey, const SavedGpadl*> gpadls_;
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
    status.Update(CheckReserved(offer));
  }
  status.Update(CheckRequests());
  if (!status.ok()) return status;
  return saved_connection::CheckOutgoing(state_, options_);
}

absl::Status Checker::CheckMonitorPages(const Contact& contact) const {
  const MonitorPages pages = contact.monitor_pages();
  if ((contact.features & kFeatureServerMonitorPages) != 0) {
    if (pages == options_.server_monitor_pages) return absl::OkStatus();
    return NotHere("the host\'s monitor pages are elsewhere");
  }
  return CheckGuestMonitorPages(pages);
}

absl::Status Checker::CheckGuestMonitorPages(const MonitorPages& pages) const {
  if (!AreMonitorPages(pages, std::numeric_limits<uint64_t>::max())) {
    return Contradiction("monitor pages at ", pages.parent_to_child, " and ",
                         pages.child_to_parent);
  }
  if (!AreMonitorPages(pages, options_.ram_page_count)) {
    return NotHere("monitor pages at ", pages.parent_to_child, " and ",
                   pages.child_to_parent, " are not in guest RAM of ",
                   options_.ram_page_count, " pages");
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
  if ((contact.features & ~options_.features) != 0) {
    return NotHere("feature flags ", contact.features, "; those here are ",
                   options_.features);
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
  if ((connected() || (resetting && !state_.reset_while_disconnected)) &&
      !state_.contact.accepted()) {
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
      state_.offers_requested) {
    return Contradiction("offers requested while not connected");
  }
  if (state_.reset_while_disconnected &&
      (!resetting || state_.offers_requested)) {
    return Contradiction("a reset without a connection that has one");
  }
  if (resetting) {
    bool has_active = false;
    for (const SavedOffer& offer : state_.offers) {
      has_active =
          has_active || (IsActive(offer.state) && !offer.reserved.has_value());
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
  // What outlives a connection was reserved; a reset of the machine, while it
  // is under way, has ended that.
  const bool may_survive =
      offer.reserved.has_value() || state_.phase == ConnectionPhase::kResetting;
  if ((offer.is_survivor() && !may_survive) ||
      (offer.state == State::kRescinded && !offer.is_offered)) {
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
  if (needs_connection && !connected() && !offer.reserved.has_value()) {
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
      !offer.reserved.has_value() && !offer.is_survivor() &&
      (open.target_vp != 0 ||
       (offer.reopen.has_value() && offer.reopen->target_vp != 0))) {
    return Contradiction(Name(offer), " has a VP before version 2.4");
  }
  absl::Status signals = CheckSignals(offer, open);
  if (offer.reopen.has_value()) {
    signals.Update(CheckSignals(offer, *offer.reopen));
  }
  if (!signals.ok()) return signals;
  const auto found = gpadls_.find(
      {open.ring_gpadl, offer.is_survivor() ? offer.channel_id : ChannelId{}});
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

absl::Status Checker::CheckSignals(const SavedOffer& offer,
                                   const OpenRequest& open) const {
  const uint32_t features = offer.reserved.has_value() || offer.is_survivor()
                                ? 0
                                : state_.contact.features;
  const bool may_choose = (features & kFeatureGuestSignalParameters) != 0;
  const uint16_t flags = (features & kFeatureInterruptRedirection) != 0
                             ? kOpenRedirectInterrupt
                             : 0;
  // What a guest asks for later is checked when its turn comes.
  const bool is_checked = &open == &*offer.open;
  if ((!may_choose && (open.connection_id != 0 || open.event_flag != 0)) ||
      (is_checked &&
       (open.connection_id >> 24 != 0 || open.event_flag >= kEventFlagCount)) ||
      (open.flags & ~flags) != 0) {
    return Contradiction(Name(offer), " has connection id ", open.connection_id,
                         ", event flag ", open.event_flag, " and flags ",
                         open.flags);
  }
  return absl::OkStatus();
}

absl::Status Checker::CheckReserved(const SavedOffer& offer) const {
  if (!offer.reserved.has_value()) return absl::OkStatus();
  const ReservedChannel& reserved = *offer.reserved;
  const bool is_closing =
      offer.state == State::kClosing || offer.state == State::kOpeningThenClose;
  if (!IsActive(offer.state) || offer.state == State::kClosingThenOpen ||
      offer.params.sub_channel_index != 0 ||
      (reserved.close_target.has_value() && !is_closing) ||
      (state_.phase == ConnectionPhase::kResetting &&
       state_.after_reset == AfterReset::kNothing) ||
      (offer.is_offered && state_.contact.version < ProtocolVersion::kWin10)) {
    return Contradiction(Name(offer), " cannot be a reserved channel");
  }
  for (const auto& target :
       {std::optional(reserved.target), reserved.close_target}) {
    if (!target.has_value()) continue;
    absl::Status status = saved_connection::CheckTarget(*target, options_);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
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

// --- What the owner owes an answer to ---------------------------------------

absl::Status Checker::CheckRequests() const {
  size_t reserved_count = 0;
  for (const SavedOffer& offer : state_.offers) {
    if (offer.reserved.has_value()) ++reserved_count;
  }
  if (reserved_count > options_.limits.reserved_channels_max ||
      state_.tl_connects.size() > options_.limits.tl_connects_max) {
    return TooMany(reserved_count, " reserved channels and ",
                   state_.tl_connects.size(), " socket connects; at most ",
                   options_.limits.reserved_channels_max, " and ",
                   options_.limits.tl_connects_max, " allowed");
  }
  const uint32_t features = connected() ? state_.contact.features : 0;
  if (state_.paused && (features & kFeaturePauseResume) == 0) {
    return Contradiction("paused, which was not granted");
  }
  if (state_.pending_modify.has_value()) {
    if ((features & kFeatureModifyConnection) == 0 ||
        (features & kFeatureServerMonitorPages) != 0) {
      return Contradiction("new monitor pages, which was not granted");
    }
    absl::Status status = CheckGuestMonitorPages(*state_.pending_modify);
    if (!status.ok()) return status;
  }
  std::set<std::pair<Guid, Guid>> connects;
  for (const TlConnectRequest& request : state_.tl_connects) {
    const ProtocolVersion version = state_.contact.version;
    if (!connected() || version < ProtocolVersion::kWin10 ||
        (version < ProtocolVersion::kWin10Rs5 && request.silo_id != Guid{}) ||
        !connects.emplace(request.endpoint_id, request.service_id).second) {
      return Contradiction("socket connect of endpoint ",
                           request.endpoint_id.ToString(),
                           " cannot be, or is there twice");
    }
  }
  return absl::OkStatus();
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
  const bool is_kept = offer != nullptr && offer->is_survivor();
  if (offer == nullptr || (!offer->is_offered && !is_kept) ||
      (is_kept && gpadl.state == GpadlState::kInProgress)) {
    return Contradiction(Name(gpadl), " belongs to channel ",
                         static_cast<uint32_t>(gpadl.channel_id),
                         ", which is not offered");
  }
  if (!is_kept && state_.phase == ConnectionPhase::kDisconnected) {
    return Contradiction(Name(gpadl), " is there while not connected");
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
  for (const SavedGpadl& gpadl : state_.gpadls) {
    absl::Status status = CheckGpadl(gpadl);
    if (!status.ok()) return status;
    const bool is_kept = FindOffer(gpadl.channel_id)->is_survivor();
    const GpadlKey key(gpadl.id, is_kept ? gpadl.channel_id : ChannelId{});
    if (!gpadls_.empty() && key <= gpadls_.rbegin()->first) {
      return Contradiction(Name(gpadl), " out of order or twice");
    }
    page_count += GpadlPageCount(gpadl.byte_count, gpadl.byte_offset);
    if (gpadl.state == GpadlState::kInProgress) ++in_progress;
    gpadls_.emplace(key, &gpadl);
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

}  // namespace

absl::StatusOr<CheckedServerConnection> CheckServerConnectionState(
    ServerConnectionState state, const ServerConnectionOptions& options) {
  absl::Status status = Checker(state, options).Check();
  if (!status.ok()) return status;
  return CheckedServerConnection(std::move(state));
}

}  // namespace ferrybus
