// SPDX-License-Identifier: MIT
//
// ServerConnection: the life of a channel.  docs/WIRE_FORMAT.md, "Channel
// states", has the table that this file follows.
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/server_connection.h"

namespace ferrybus {
namespace {

using State = ServerChannelState;

absl::Status WrongState(const char* message, ChannelId channel_id,
                        State state) {
  return absl::FailedPreconditionError(
      absl::StrCat(message, " for channel ", static_cast<uint32_t>(channel_id),
                   " in state ", static_cast<int>(state)));
}

absl::Status NotAsked(const char* answer, OfferId offer) {
  return absl::FailedPreconditionError(
      absl::StrCat(answer, " for offer ", static_cast<uint32_t>(offer),
                   ", of which that was not asked"));
}

}  // namespace

// --- Open -------------------------------------------------------------------

absl::Status ServerConnection::CheckOpen(const Offer& offer,
                                         const OpenRequest& request) const {
  if (request.target_vp > options_.max_vp &&
      request.target_vp != kNoInterruptVp) {
    return absl::InvalidArgumentError(
        absl::StrCat("OPENCHANNEL for VP ", request.target_vp,
                     "; the highest is ", options_.max_vp));
  }
  if (offer.params.sub_channel_index != 0) {
    const Offer* primary = FindPrimary(offer.params);
    if (primary == nullptr || primary->state != State::kOpen) {
      return absl::FailedPreconditionError(
          "OPENCHANNEL for a sub-channel whose primary channel is not open");
    }
  }
  const Gpadl* gpadl = gpadls_.Find(request.ring_gpadl);
  if (gpadl == nullptr || gpadl->channel_id != offer.channel_id ||
      gpadl->state != GpadlState::kCreated) {
    return absl::FailedPreconditionError(
        absl::StrCat("OPENCHANNEL with GPADL 0x",
                     absl::Hex(static_cast<uint32_t>(request.ring_gpadl)),
                     ", which is not a created GPADL of channel ",
                     static_cast<uint32_t>(offer.channel_id)));
  }
  if (request.connection_id >> 24 != 0 ||
      request.event_flag >= kEventFlagCount) {
    return absl::InvalidArgumentError(
        absl::StrCat("OPENCHANNEL with connection id ", request.connection_id,
                     " of 24 bits and event flag ", request.event_flag,
                     ", which is not below ", kEventFlagCount));
  }
  return CheckRingGeometry(gpadl->view(), request.downstream_page_offset,
                           options_.limits.ring_pages_max);
}

absl::Status ServerConnection::HandleOpen(const OpenChannelMessage& message) {
  OpenRequest request{.open_id = message.open_id,
                      .ring_gpadl = message.ring_gpadl,
                      .downstream_page_offset = message.downstream_page_offset,
                      .target_vp = message.target_vp,
                      .user_data = message.user_data};
  // Before 2.4 the field is not defined, and all goes to VP 0.
  if (!AtLeast(ProtocolVersion::kWin8)) request.target_vp = 0;
  if ((contact_.features & kFeatureGuestSignalParameters) != 0) {
    request.connection_id = message.connection_id;
    request.event_flag = message.event_flag;
  }
  if ((contact_.features & kFeatureInterruptRedirection) != 0) {
    request.flags = message.flags & kOpenRedirectInterrupt;
  }

  absl::StatusOr<Offer*> offer = OfferedChannel(message.channel_id);
  absl::Status refused = offer.status();
  if (offer.ok()) {
    const State state = (*offer)->state;
    if (state == State::kRescinded || (*offer)->is_rescinding) return Ignore();
    if (state == State::kClosed) return StartOpen(**offer, request);
    if (state == State::kClosing && !(*offer)->reserved.has_value()) {
      // There is no message that tells a guest that its close is complete, so
      // it may open again before it is.
      (*offer)->state = State::kClosingThenOpen;
      (*offer)->reopen = request;
      return absl::OkStatus();
    }
    refused = WrongState("OPENCHANNEL", message.channel_id, state);
  }
  Send(MessageType::kOpenChannelResult, message.channel_id, message.open_id,
       kStatusUnsuccessful);
  return refused;
}

absl::Status ServerConnection::StartOpen(Offer& offer,
                                         const OpenRequest& request) {
  absl::Status allowed = CheckOpen(offer, request);
  if (!allowed.ok()) {
    Send(MessageType::kOpenChannelResult, offer.channel_id, request.open_id,
         kStatusUnsuccessful);
    return allowed;
  }
  BeginOpen(offer, request);
  return absl::OkStatus();
}

void ServerConnection::BeginOpen(Offer& offer, const OpenRequest& request) {
  offer.state = State::kOpening;
  offer.open = request;
  gpadls_.SetIsRing(request.ring_gpadl, true);
  RequestOpen(offer);
}

void ServerConnection::RequestOpen(const Offer& offer) {
  // Copies: the callee may answer at once, and close the channel.
  const OpenRequest request = *offer.open;
  events_->OnOpenRequested(offer.id, request,
                           gpadls_.Find(offer.ring_key())->view());
}

absl::Status ServerConnection::OpenCompleted(OfferId id, uint32_t status) {
  Offer* offer = Find(id);
  if (offer == nullptr || restoring_ ||
      (offer->state != State::kOpening &&
       offer->state != State::kOpeningThenClose)) {
    return NotAsked("OpenCompleted", id);
  }
  if (offer->reserved.has_value()) {
    Send({.type = MessageType::kOpenChannelResult,
          .channel_id = offer->channel_id,
          .id = offer->open->open_id,
          .status = status,
          .target = offer->reserved->target});
  } else if (phase_ == ConnectionPhase::kConnected) {
    Send(MessageType::kOpenChannelResult, offer->channel_id,
         offer->open->open_id, status);
  }
  if (status != kStatusSuccess) {
    offer->state = State::kClosing;
    offer->is_device_done = true;
    FinishCloseIfReleased(id);
  } else if (offer->state == State::kOpening) {
    offer->state = State::kOpen;
  } else {
    offer->state = State::kClosing;
    events_->OnCloseRequested(id);
  }
  return absl::OkStatus();
}

// --- Close ------------------------------------------------------------------

// Moves a channel towards kClosed.  True if the device has to be asked.
bool ServerConnection::StartClose(Offer& offer) {
  switch (offer.state) {
    case State::kOpening:
      offer.state = State::kOpeningThenClose;
      return false;
    case State::kOpen:
      offer.state = State::kClosing;
      return true;
    case State::kClosingThenOpen:
      offer.state = State::kClosing;
      offer.reopen.reset();
      return false;
    default:
      return false;
  }
}

void ServerConnection::StartCloseAll(const std::vector<OfferId>& offers) {
  // All states first, so that no device sees half a change.
  std::vector<OfferId> ask;
  for (OfferId id : offers) {
    if (StartClose(*Find(id))) ask.push_back(id);
  }
  for (OfferId id : ask) events_->OnCloseRequested(id);
}

absl::Status ServerConnection::HandleClose(ChannelId channel_id) {
  absl::StatusOr<Offer*> offer = OfferedChannel(channel_id);
  if (!offer.ok()) return offer.status();
  const State state = (*offer)->state;
  if (state == State::kRescinded || (*offer)->is_rescinding) return Ignore();
  if ((state != State::kOpening && state != State::kOpen &&
       state != State::kClosingThenOpen) ||
      (*offer)->reserved.has_value()) {
    return WrongState("CLOSECHANNEL", channel_id, state);
  }
  if (state == State::kClosingThenOpen) {
    Send(MessageType::kOpenChannelResult, channel_id, (*offer)->reopen->open_id,
         kStatusUnsuccessful);
  }
  StartCloseWithSubChannels(**offer);
  return absl::OkStatus();
}

// A primary channel takes its sub-channels with it, and they go first.
void ServerConnection::StartCloseWithSubChannels(const Offer& offer) {
  std::vector<OfferId> closing;
  if (offer.params.sub_channel_index == 0) {
    for (const auto& [id, other] : offers_) {
      if (other.params.IsSubChannelOf(offer.params)) closing.push_back(id);
    }
  }
  closing.push_back(offer.id);
  StartCloseAll(closing);
}

absl::Status ServerConnection::CloseCompleted(OfferId id) {
  Offer* offer = Find(id);
  if (offer == nullptr || restoring_ || offer->is_device_done ||
      (offer->state != State::kClosing &&
       offer->state != State::kClosingThenOpen)) {
    return NotAsked("CloseCompleted", id);
  }
  offer->is_device_done = true;
  FinishCloseIfReleased(id);
  return absl::OkStatus();
}

// The channel is closed once its device has said so and has no pin left.
void ServerConnection::FinishCloseIfReleased(OfferId id) {
  Offer& offer = *Find(id);
  if (!offer.is_device_done || offer.pin_count != 0) return;
  const GpadlKey ring = offer.ring_key();
  const bool was_survivor = offer.is_survivor();
  const auto reopen = std::exchange(offer.reopen, std::nullopt);
  const auto reserved = std::exchange(offer.reserved, std::nullopt);
  offer.state = State::kClosed;
  offer.is_device_done = false;
  offer.open.reset();
  gpadls_.SetIsRing(ring, false);
  // The guest of now cannot tear down what the one of before has made.
  if (was_survivor) gpadls_.RemoveAllOfChannel(offer.channel_id);
  FinishTeardownIfUnused(ring);
  if (reserved.has_value() && reserved->close_target.has_value()) {
    Send({.type = MessageType::kCloseReservedResponse,
          .channel_id = offer.channel_id,
          .target = reserved->close_target});
  }
  if (offer.is_rescinding) {
    FinishRescind(offer);
  } else if (reopen.has_value()) {
    // Its failure is answered to the guest; nobody else waits for it.
    StartOpen(offer, *reopen).IgnoreError();
  } else if (was_survivor) {
    SendHeldOffer(offer);
  }
  FinishResetIfClosed();
}

// --- Modify, release --------------------------------------------------------

absl::Status ServerConnection::HandleModify(
    const ModifyChannelMessage& message) {
  absl::StatusOr<Offer*> offer = OfferedChannel(message.channel_id);
  if (offer.ok() &&
      ((*offer)->state == State::kRescinded || (*offer)->is_rescinding)) {
    return Ignore();
  }
  absl::Status status =
      offer.ok() ? Modify(**offer, message.target_vp) : offer.status();
  if (AtLeast(ProtocolVersion::kIron)) {
    Send(MessageType::kModifyChannelResponse, message.channel_id, 0,
         status.ok() ? kStatusSuccess : kStatusUnsuccessful);
  }
  return status;
}

absl::Status ServerConnection::Modify(Offer& offer, uint32_t target_vp) {
  if (offer.state != State::kOpen || offer.reserved.has_value()) {
    return WrongState("MODIFYCHANNEL", offer.channel_id, offer.state);
  }
  // "No interrupts" is chosen at open and stays.
  if (target_vp > options_.max_vp || offer.open->target_vp == kNoInterruptVp) {
    return absl::InvalidArgumentError(
        absl::StrCat("MODIFYCHANNEL from VP ", offer.open->target_vp, " to ",
                     target_vp, "; the highest is ", options_.max_vp));
  }
  if (!events_->OnModifyRequested(offer.id, target_vp)) {
    return absl::FailedPreconditionError(
        "MODIFYCHANNEL was refused by the owner of the channel");
  }
  // The owner may have closed the channel from inside the event.
  if (offer.open.has_value()) offer.open->target_vp = target_vp;
  return absl::OkStatus();
}

absl::Status ServerConnection::HandleRelidReleased(ChannelId channel_id) {
  absl::StatusOr<Offer*> offer = OfferedChannel(channel_id);
  if (!offer.ok()) return offer.status();
  if ((*offer)->state != State::kRescinded) {
    return WrongState("RELID_RELEASED", channel_id, (*offer)->state);
  }
  const OfferParams released = (*offer)->params;
  ForgetOffer((*offer)->id);
  for (auto& [id, other] : offers_) {
    if (other.params.HasIdentityOf(released)) SendHeldOffer(other);
  }
  return absl::OkStatus();
}

}  // namespace ferrybus
