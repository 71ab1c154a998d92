// SPDX-License-Identifier: MIT
//
// ServerConnection: out of the plain state and into it.
#include <algorithm>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "ferrybus/channel/message_codec.h"
#include "ferrybus/channel/server_connection.h"

namespace ferrybus {

ServerConnectionState ServerConnection::Snapshot() const {
  ServerConnectionState state;
  state.phase = phase_;
  state.contact = contact_;
  state.after_reset = after_reset_;
  state.pending_contact = pending_contact_;
  state.offers_requested = offers_requested_;
  state.next_offer_id = next_offer_id_;
  for (const auto& [id, offer] : offers_) {
    state.offers.push_back({.id = offer.id,
                            .channel_id = offer.channel_id,
                            .params = offer.params,
                            .state = offer.state,
                            .is_offered = offer.is_offered,
                            .is_rescinding = offer.is_rescinding,
                            .open = offer.open,
                            .reopen = offer.reopen,
                            .reserved = offer.reserved});
  }
  for (const auto& [key, gpadl] : gpadls_.gpadls()) {
    state.gpadls.push_back({.id = gpadl.id,
                            .channel_id = gpadl.channel_id,
                            .state = gpadl.state,
                            .byte_count = gpadl.byte_count,
                            .byte_offset = gpadl.byte_offset,
                            .pages = gpadl.pages});
  }
  state.outgoing.assign(outgoing_.begin(), outgoing_.end());
  state.outgoing.insert(state.outgoing.end(), held_.begin(), held_.end());
  state.paused = paused_;
  state.reset_while_disconnected =
      phase_ == ConnectionPhase::kResetting && !was_connected_;
  state.pending_modify = pending_modify_;
  state.tl_connects = tl_connects_;
  return state;
}

std::unique_ptr<ServerConnection> ServerConnection::Restore(
    CheckedServerConnection checked, const ServerConnectionOptions& options,
    ServerEvents* events) {
  auto connection = std::make_unique<ServerConnection>(options, events);
  ServerConnectionState state = std::move(checked.state_);
  connection->restoring_ = true;
  connection->phase_ = state.phase;
  connection->contact_ = state.contact;
  connection->after_reset_ = state.after_reset;
  connection->pending_contact_ = state.pending_contact;
  connection->was_connected_ = state.phase == ConnectionPhase::kResetting &&
                               !state.reset_while_disconnected;
  connection->offers_requested_ = state.offers_requested;
  connection->next_offer_id_ = state.next_offer_id;
  connection->pending_modify_ = state.pending_modify;
  connection->tl_connects_ = std::move(state.tl_connects);
  connection->RestoreOutgoing(state);
  std::set<ChannelId> survivors;
  for (const SavedOffer& saved : state.offers) {
    if (saved.is_survivor()) survivors.insert(saved.channel_id);
  }
  for (SavedGpadl& saved : state.gpadls) {
    connection->gpadls_.Restore(
        {.id = saved.id,
         .channel_id = saved.channel_id,
         .state = saved.state,
         .byte_count = saved.byte_count,
         .byte_offset = saved.byte_offset,
         .page_count = GpadlPageCount(saved.byte_count, saved.byte_offset),
         .pages = std::move(saved.pages),
         .is_kept = survivors.contains(saved.channel_id)});
  }
  for (const SavedOffer& saved : state.offers) {
    Offer offer{.id = saved.id,
                .channel_id = saved.channel_id,
                .params = saved.params,
                .state = saved.state,
                .is_offered = saved.is_offered,
                .is_rescinding = saved.is_rescinding,
                .open = saved.open,
                .reopen = saved.reopen,
                .reserved = saved.reserved};
    // A rescinded channel has no device any more.
    offer.is_claimed = saved.state == ServerChannelState::kRescinded;
    if (offer.open.has_value()) {
      connection->gpadls_.SetIsRing(offer.ring_key(), true);
    }
    connection->offers_by_channel_id_[offer.channel_id] = offer.id;
    connection->offers_.emplace(offer.id, offer);
  }
  return connection;
}

void ServerConnection::RestoreOutgoing(const ServerConnectionState& state) {
  paused_ = state.paused;
  auto held = state.outgoing.end();
  if (paused_) {
    const auto is_pause_response = [](const OutgoingMessage& message) {
      return message.type == MessageType::kPauseResponse;
    };
    held = std::find_if(state.outgoing.rbegin(), state.outgoing.rend(),
                        is_pause_response)
               .base();
  }
  outgoing_.assign(state.outgoing.begin(), held);
  held_.assign(held, state.outgoing.end());
}

void ServerConnection::FinishRestore() {
  if (!restoring_) return;
  // Sub-channels before their primary, which has a lower id.
  std::vector<OfferId> unclaimed = UnclaimedOffers();
  for (auto id = unclaimed.rbegin(); id != unclaimed.rend(); ++id) {
    RescindUnclaimed(*id);
  }
  restoring_ = false;

  std::vector<OfferId> opening;
  std::vector<OfferId> closing;
  for (const auto& [id, offer] : offers_) {
    if (offer.state == ServerChannelState::kOpening ||
        offer.state == ServerChannelState::kOpeningThenClose) {
      opening.push_back(id);
    } else if (offer.state == ServerChannelState::kClosing ||
               offer.state == ServerChannelState::kClosingThenOpen) {
      closing.push_back(id);
    }
  }
  std::vector<GpadlKey> tearing_down;
  for (const auto& [key, gpadl] : gpadls_.gpadls()) {
    if (gpadl.state == GpadlState::kTearingDown) tearing_down.push_back(key);
  }
  for (const GpadlKey& key : tearing_down) FinishTeardownIfUnused(key);
  for (OfferId id : opening) {
    RequestOpen(*Find(id));
  }
  for (OfferId id : closing) events_->OnCloseRequested(id);
  RequestAgain();
  FinishResetIfClosed();
}

// What the owner owed an answer to before the save.
void ServerConnection::RequestAgain() {
  if (pending_modify_.has_value()) RequestModifyConnection().IgnoreError();
  const std::vector<TlConnectRequest> connects = tl_connects_;
  for (const TlConnectRequest& request : connects) RequestTlConnect(request);
}

}  // namespace ferrybus
