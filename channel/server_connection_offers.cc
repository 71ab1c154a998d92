// SPDX-License-Identifier: MIT
//
// ServerConnection: what the embedder offers and takes back.
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/server_connection.h"

namespace ferrybus {
namespace {

absl::Status NoSuchOffer(OfferId offer) {
  return absl::NotFoundError(
      absl::StrCat("offer ", static_cast<uint32_t>(offer), " does not exist"));
}

}  // namespace

absl::Status ServerConnection::CheckNewOffer(const OfferParams& params) const {
  if (params.monitor_id != kNoMonitorId && params.monitor_id > 127) {
    return absl::InvalidArgumentError(
        absl::StrCat("monitor id ", params.monitor_id, " is not in 0...127"));
  }
  for (const auto& [id, other] : offers_) {
    if (other.state == ServerChannelState::kRescinded || other.is_rescinding) {
      continue;
    }
    if (other.params.HasIdentityOf(params)) {
      return absl::AlreadyExistsError(absl::StrCat(
          "channel ", params.interface_instance.ToString(), " sub-channel ",
          params.sub_channel_index, " is offered already"));
    }
    if (params.monitor_id != kNoMonitorId &&
        other.params.monitor_id == params.monitor_id) {
      return absl::AlreadyExistsError(
          absl::StrCat("monitor id ", params.monitor_id, " is taken"));
    }
  }
  if (params.sub_channel_index != 0 && FindPrimary(params) == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("sub-channel ", params.sub_channel_index, " of ",
                     params.interface_instance.ToString(),
                     " has no primary channel; offer that first"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ChannelId> ServerConnection::FreeChannelId() const {
  // The lowest that is free: the map is in order of the numbers.
  uint32_t free = 1;
  for (const auto& [id, offer] : offers_by_channel_id_) {
    if (id != ChannelId{free}) break;
    ++free;
  }
  if (offers_.size() < options_.limits.channels_max && free <= kMaxChannelId) {
    return ChannelId{free};
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("all ", offers_.size(), " channel numbers are in use"));
}

// --- What the guest sees ----------------------------------------------------

bool ServerConnection::CanBeOffered(const Offer& offer) const {
  // Still in use by the guest that there was before.
  if (offer.is_survivor()) return false;
  if (offer.params.sub_channel_index == 0) return true;
  // Older guests take a second offer of the same instance for a new device.
  if (!AtLeast(ProtocolVersion::kWin8)) return false;
  const Offer* primary = FindPrimary(offer.params);
  return primary == nullptr || (primary->is_offered && !primary->is_survivor());
}

// A guest knows channels by their instance: it must have let go of the one that
// was rescinded, or it takes this for a second offer of the same.
bool ServerConnection::IsHeld(const Offer& offer) const {
  return std::any_of(offers_.begin(), offers_.end(), [&](const auto& other) {
    return other.second.state == ServerChannelState::kRescinded &&
           other.second.params.HasIdentityOf(offer.params);
  });
}

void ServerConnection::SendOffer(Offer& offer) {
  if (offer.is_offered || !CanBeOffered(offer)) return;
  offer.is_offered = true;
  Send(MessageType::kOfferChannel, offer.channel_id);
}

// What stood in an offer's way is gone: as a hot add, with the sub-channels
// that had to wait for it.
void ServerConnection::SendHeldOffer(Offer& offer) {
  if (!offers_requested_ || phase_ != ConnectionPhase::kConnected ||
      IsHeld(offer)) {
    return;
  }
  SendOffer(offer);
  for (auto& [id, other] : offers_) {
    if (other.params.IsSubChannelOf(offer.params) && !IsHeld(other)) {
      SendOffer(other);
    }
  }
}

// --- What the embedder offers -----------------------------------------------

absl::StatusOr<OfferId> ServerConnection::ClaimOffer(
    Offer& offer, const OfferParams& params) {
  if (params.sub_channel_index != 0 && !FindPrimary(params)->is_claimed) {
    return absl::FailedPreconditionError(
        absl::StrCat("sub-channel ", params.sub_channel_index, " of ",
                     params.interface_instance.ToString(),
                     " is claimed before its primary channel"));
  }
  if (offer.is_offered && !(offer.params == params)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "channel ", params.interface_instance.ToString(),
        " was offered to the guest with other flags, MMIO size, monitor or "
        "user data; a running guest cannot be told of a change"));
  }
  offer.params = params;
  offer.is_claimed = true;
  return offer.id;
}

absl::StatusOr<OfferId> ServerConnection::AddOffer(const OfferParams& params) {
  if (restoring_) {
    for (auto& [id, offer] : offers_) {
      if (!offer.is_claimed && !offer.is_rescinding &&
          offer.params.HasIdentityOf(params)) {
        return ClaimOffer(offer, params);
      }
    }
  }
  absl::Status allowed = CheckNewOffer(params);
  if (!allowed.ok()) return allowed;
  absl::StatusOr<ChannelId> channel_id = FreeChannelId();
  if (!channel_id.ok()) return channel_id.status();

  const OfferId id{next_offer_id_++};
  offers_by_channel_id_[*channel_id] = id;
  Offer& offer = offers_[id];
  offer.id = id;
  offer.channel_id = *channel_id;
  offer.params = params;
  EndTlConnect(params);
  if (offers_requested_ && phase_ == ConnectionPhase::kConnected &&
      !IsHeld(offer)) {
    SendOffer(offer);
  }
  return id;
}

void ServerConnection::AbandonSaved(const OfferParams& params) {
  if (!restoring_) return;
  std::vector<OfferId> abandoned;
  for (const auto& [id, offer] : offers_) {
    if (offer.is_claimed || !(offer.params.HasIdentityOf(params) ||
                              offer.params.IsSubChannelOf(params))) {
      continue;
    }
    abandoned.push_back(id);
  }
  // Sub-channels before their primary, which has a lower id.
  for (auto id = abandoned.rbegin(); id != abandoned.rend(); ++id) {
    RescindUnclaimed(*id);
  }
}

absl::Status ServerConnection::RescindOffer(OfferId id) {
  Offer* offer = Find(id);
  if (offer == nullptr || offer->is_rescinding ||
      offer->state == ServerChannelState::kRescinded) {
    return NoSuchOffer(id);
  }
  if (offer->params.sub_channel_index == 0) {
    for (const auto& [unused, other] : offers_) {
      if (other.params.IsSubChannelOf(offer->params) &&
          other.state != ServerChannelState::kRescinded &&
          !other.is_rescinding) {
        return absl::FailedPreconditionError(absl::StrCat(
            "offer ", static_cast<uint32_t>(id), " has sub-channel ",
            other.params.sub_channel_index, "; rescind that first"));
      }
    }
  }
  if (!offer->is_claimed) {
    RescindUnclaimed(id);
    return absl::OkStatus();
  }
  if (!IsActive(offer->state)) {
    FinishRescind(*offer);
    return absl::OkStatus();
  }
  offer->is_rescinding = true;
  if (StartClose(*offer) && !restoring_) events_->OnCloseRequested(id);
  return absl::OkStatus();
}

std::vector<OfferId> ServerConnection::UnclaimedOffers() const {
  std::vector<OfferId> unclaimed;
  for (const auto& [id, offer] : offers_) {
    if (!offer.is_claimed) unclaimed.push_back(id);
  }
  return unclaimed;
}

// The channel is closed and its device gone: tell the guest, if there is one
// that knows the channel.
void ServerConnection::FinishRescind(Offer& offer) {
  if (phase_ == ConnectionPhase::kConnected && offer.is_offered) {
    offer.state = ServerChannelState::kRescinded;
    offer.is_rescinding = false;
    Send(MessageType::kRescindChannelOffer, offer.channel_id);
    return;
  }
  ForgetOffer(offer.id);
}

// A saved offer for which there is no device: nothing to ask for, and what
// the file said about it must not reach the guest.
void ServerConnection::RescindUnclaimed(OfferId id) {
  Offer& offer = *Find(id);
  offer.is_claimed = true;
  offer.is_rescinding = false;
  offer.reopen.reset();
  if (offer.open.has_value()) {
    const GpadlKey ring = offer.ring_key();
    offer.open.reset();
    gpadls_.SetIsRing(ring, false);
    FinishTeardownIfUnused(ring);
  }
  if (offer.reserved.has_value() && offer.reserved->close_target) {
    Send({.type = MessageType::kCloseReservedResponse,
          .channel_id = offer.channel_id,
          .target = offer.reserved->close_target});
  }
  offer.reserved.reset();
  offer.state = ServerChannelState::kClosed;
  const OutgoingMessage message{.type = MessageType::kOfferChannel,
                                .channel_id = offer.channel_id};
  const bool guest_has_not_seen_it =
      std::find(outgoing_.begin(), outgoing_.end(), message) !=
          outgoing_.end() ||
      std::find(held_.begin(), held_.end(), message) != held_.end();
  if (guest_has_not_seen_it) {
    ForgetOffer(id);
    return;
  }
  FinishRescind(offer);
}

// Forgets an offer with its GPADLs and unsent messages; its number is free.
void ServerConnection::ForgetOffer(OfferId id) {
  const auto found = offers_.find(id);
  if (found == offers_.end()) return;
  const ChannelId channel_id = found->second.channel_id;
  gpadls_.RemoveAllOfChannel(channel_id);
  const auto is_of_channel = [channel_id](const OutgoingMessage& message) {
    return message.channel_id == channel_id && !message.target.has_value();
  };
  std::erase_if(outgoing_, is_of_channel);
  std::erase_if(held_, is_of_channel);
  offers_by_channel_id_.erase(channel_id);
  offers_.erase(found);
}

}  // namespace ferrybus
