// SPDX-License-Identifier: MIT
//
// ServerConnection: the messages that begin and end a connection.
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/server_connection.h"

namespace ferrybus {
// Before 6.0 the field does not exist, or is part of another.
void ServerConnection::GrantFeatures(const InitiateContactMessage& message,
                                     Contact& contact) const {
  if (contact.version < ProtocolVersion::kCopper) return;
  contact.features = message.feature_flags & options_.features;
  if ((contact.features & kFeatureClientId) != 0) {
    contact.client_id = message.client_id;
  }
  if (contact.monitor_pages() == MonitorPages{} &&
      (contact.features & kFeatureServerMonitorPages) != 0) {
    contact.set_monitor_pages(options_.server_monitor_pages);
  } else {
    contact.features &= ~kFeatureServerMonitorPages;
  }
}

Contact ServerConnection::JudgeContact(const InitiateContactMessage& message,
                                       uint32_t message_connection) const {
  Contact contact;
  contact.version = ProtocolVersion{message.version};
  if (!IsKnownProtocolVersion(message.version) ||
      contact.version > options_.max_version) {
    return contact;
  }
  contact.supported = true;
  bool valid = true;
  if (contact.version >= ProtocolVersion::kWin81) {
    valid = message.target_message_vp <= options_.max_vp;
    if (valid) contact.target_message_vp = message.target_message_vp;
  }
  // On the classic connection both fields are whatever the guest left there.
  if (contact.version >= ProtocolVersion::kWin10Rs3Plus &&
      message_connection != kMessageConnectionClassic) {
    valid = valid && message.target_sint == kVmbusSint;
    valid = valid && (contact.version < ProtocolVersion::kWin10Rs4 ||
                      message.target_vtl == 0);
  }
  contact.parent_to_child_monitor_page = message.parent_to_child_monitor_page;
  contact.child_to_parent_monitor_page = message.child_to_parent_monitor_page;
  valid = valid &&
          AreMonitorPages(contact.monitor_pages(), options_.ram_page_count);
  if (valid) {
    GrantFeatures(message, contact);
  } else {
    contact.set_monitor_pages({});
    // Older guests do not read the state.
    contact.supported = contact.version >= ProtocolVersion::kWin8;
    contact.connection_state =
        contact.supported ? kConnectionFailedUnknown : kConnectionSuccessful;
  }
  return contact;
}

absl::Status ServerConnection::HandleInitiateContact(
    const InitiateContactMessage& message, uint32_t message_connection) {
  const Contact contact = JudgeContact(message, message_connection);
  pending_contact_ = contact;
  BeginReset(AfterReset::kVersionResponse);
  if (contact.accepted()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "INITIATE_CONTACT with version ",
      ProtocolVersionToString(contact.version),
      contact.supported || IsKnownProtocolVersion(message.version)
          ? ", VP, SINT, VTL or monitor pages that do not exist here"
          : ", which does not exist"));
}

absl::Status ServerConnection::HandleUnload() {
  // A guest that gives up while its contact is still to be answered gets the
  // answer to its last message only.
  const bool unloading = phase_ == ConnectionPhase::kResetting &&
                         after_reset_ != AfterReset::kVersionResponse;
  if (phase_ == ConnectionPhase::kDisconnected || unloading) {
    return absl::FailedPreconditionError("UNLOAD while not connected");
  }
  BeginReset(AfterReset::kUnloadResponse);
  return absl::OkStatus();
}

void ServerConnection::Disconnect() {
  FinishRestore();
  BeginReset(AfterReset::kNothing);
}

absl::Status ServerConnection::HandleRequestOffers() {
  if (offers_requested_) {
    return absl::FailedPreconditionError(
        "REQUESTOFFERS a second time on one connection");
  }
  offers_requested_ = true;
  // Twice: a sub-channel comes after its primary, but may have a lower number.
  for (int i = 0; i < 2; ++i) {
    for (const auto& [channel_id, id] : offers_by_channel_id_) {
      SendOffer(*Find(id));
    }
  }
  Send(MessageType::kAllOffersDelivered);
  return absl::OkStatus();
}

// Messages that the guest has not taken are void: it no longer waits for them,
// and a new kernel must not see them.  It is another who waits for those about
// reserved channels.
void ServerConnection::DropOutgoing(bool with_reserved) {
  outgoing_.insert(outgoing_.end(), held_.begin(), held_.end());
  held_.clear();
  paused_ = false;
  std::erase_if(outgoing_, [with_reserved](const OutgoingMessage& message) {
    return with_reserved || !message.target.has_value();
  });
}

// Closes all channels; when the devices have let go, the connection is as if
// new and `after_reset` is answered.  Reserved channels stay, unless the
// machine is reset.
void ServerConnection::BeginReset(AfterReset after_reset) {
  ++counters_.resets;
  was_connected_ = phase_ == ConnectionPhase::kConnected ||
                   (phase_ == ConnectionPhase::kResetting && was_connected_);
  const bool with_reserved = after_reset == AfterReset::kNothing;
  DropOutgoing(with_reserved);
  pending_modify_.reset();
  tl_connects_.clear();
  phase_ = ConnectionPhase::kResetting;
  after_reset_ = after_reset;
  if (after_reset != AfterReset::kVersionResponse) pending_contact_ = {};
  std::vector<OfferId> all;
  for (auto& [id, offer] : offers_) {
    if (with_reserved) offer.reserved.reset();
    if (!offer.reserved.has_value()) all.push_back(id);
  }
  StartCloseAll(all);
  FinishResetIfClosed();
}

void ServerConnection::FinishResetIfClosed() {
  if (phase_ != ConnectionPhase::kResetting || restoring_) return;
  std::vector<OfferId> gone;
  std::set<ChannelId> reserved;
  for (const auto& [id, offer] : offers_) {
    if (offer.reserved.has_value()) {
      reserved.insert(offer.channel_id);
    } else if (IsActive(offer.state)) {
      return;
    }
    if (offer.state == ServerChannelState::kRescinded) gone.push_back(id);
  }
  for (OfferId id : gone) ForgetOffer(id);
  for (auto& [id, offer] : offers_) offer.is_offered = false;
  gpadls_.EndConnection(reserved);
  offers_requested_ = false;
  phase_ = ConnectionPhase::kDisconnected;

  const AfterReset after_reset = after_reset_;
  after_reset_ = AfterReset::kNothing;
  const bool was_connected = was_connected_;
  was_connected_ = false;
  if (after_reset == AfterReset::kVersionResponse) {
    contact_ = pending_contact_;
    pending_contact_ = {};
    if (contact_.accepted()) phase_ = ConnectionPhase::kConnected;
    Send(MessageType::kVersionResponse);
  } else if (after_reset == AfterReset::kUnloadResponse) {
    Send(MessageType::kUnloadResponse);
  }
  if (was_connected) events_->OnDisconnected();
  if (phase_ == ConnectionPhase::kConnected) events_->OnConnected(contact_);
}

}  // namespace ferrybus
