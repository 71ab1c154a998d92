// SPDX-License-Identifier: MIT
//
// ServerConnection: the guest's buffers and the devices' pins on them.
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/server_connection.h"

namespace ferrybus {
namespace {

absl::Status NoSuchGpadl(GpadlId id, ChannelId channel_id) {
  return absl::NotFoundError(
      absl::StrCat("channel ", static_cast<uint32_t>(channel_id),
                   " has no GPADL 0x", absl::Hex(static_cast<uint32_t>(id))));
}

}  // namespace

absl::Status ServerConnection::HandleGpadlHeader(
    const DecodedGpadlHeader& header) {
  // Also for a rescinded channel: the guest may not know yet.
  absl::StatusOr<Offer*> offer = OfferedChannel(header.message.channel_id);
  if (!offer.ok()) return offer.status();
  if ((*offer)->reserved.has_value()) {
    return AnswerGpadl(
        header.message.channel_id, header.message.gpadl_id,
        absl::FailedPreconditionError("GPADL_HEADER for a reserved channel, "
                                      "which keeps those that it has"));
  }
  return AnswerGpadl(header.message.channel_id, header.message.gpadl_id,
                     gpadls_.Begin(header.message, header.range_bytes));
}

absl::Status ServerConnection::HandleGpadlBody(const DecodedGpadlBody& body) {
  const GpadlId id = body.message.gpadl_id;
  const Gpadl* gpadl = gpadls_.Find(id);
  if (gpadl == nullptr || gpadl->state != GpadlState::kInProgress) {
    // Nothing was asked for, so there is nothing to answer.
    return gpadls_.Append(id, body.range_bytes).status();
  }
  const ChannelId channel_id = gpadl->channel_id;
  return AnswerGpadl(channel_id, id, gpadls_.Append(id, body.range_bytes));
}

absl::Status ServerConnection::AnswerGpadl(
    ChannelId channel_id, GpadlId id,
    const absl::StatusOr<GpadlState>& result) {
  if (result.ok() && *result == GpadlState::kInProgress) {
    return absl::OkStatus();
  }
  Send(MessageType::kGpadlCreated, channel_id, static_cast<uint32_t>(id),
       result.ok() ? kStatusSuccess : kStatusUnsuccessful);
  return result.status();
}

absl::Status ServerConnection::HandleGpadlTeardown(
    const GpadlTeardownMessage& message) {
  const GpadlId id = message.gpadl_id;
  const Gpadl* gpadl = gpadls_.Find(id);
  if (gpadl == nullptr || gpadl->channel_id != message.channel_id) {
    return NoSuchGpadl(id, message.channel_id);
  }
  if (gpadl->state != GpadlState::kCreated) {
    return absl::FailedPreconditionError(absl::StrCat(
        "GPADL_TEARDOWN for GPADL 0x", absl::Hex(static_cast<uint32_t>(id)),
        ", which is not created or torn down already"));
  }
  gpadls_.MarkTearingDown(id);
  if (gpadl->pin_count != 0) {
    // The device releases its pin now or later; that may remove the GPADL.
    events_->OnGpadlTeardownRequested(
        offers_by_channel_id_.at(message.channel_id), id);
  }
  FinishTeardownIfUnused(id);
  return absl::OkStatus();
}

void ServerConnection::FinishTeardownIfUnused(GpadlKey key) {
  const Gpadl* gpadl = gpadls_.Find(key);
  if (gpadl == nullptr || gpadl->state != GpadlState::kTearingDown ||
      gpadl->in_use()) {
    return;
  }
  gpadls_.Remove(key);
  // The guest of now has not asked for what the one of before has.
  if (phase_ == ConnectionPhase::kConnected && key.kept_for == ChannelId{}) {
    Send(MessageType::kGpadlTorndown, ChannelId{},
         static_cast<uint32_t>(key.id));
  }
}

absl::StatusOr<GpadlView> ServerConnection::AcquireGpadl(OfferId offer_id,
                                                         GpadlId gpadl_id) {
  Offer* offer = Find(offer_id);
  if (offer == nullptr || !offer->is_claimed ||
      (offer->state != ServerChannelState::kOpening &&
       offer->state != ServerChannelState::kOpen)) {
    return absl::FailedPreconditionError(
        absl::StrCat("offer ", static_cast<uint32_t>(offer_id),
                     " is not open; only an open channel may use GPADLs"));
  }
  const Gpadl* gpadl = gpadls_.Find(offer->Key(gpadl_id));
  if (gpadl == nullptr || gpadl->channel_id != offer->channel_id ||
      gpadl->state == GpadlState::kInProgress) {
    return NoSuchGpadl(gpadl_id, offer->channel_id);
  }
  // A pin of before the save may be the reason why it is still there.
  if (gpadl->state == GpadlState::kTearingDown && !restoring_) {
    return absl::FailedPreconditionError(
        absl::StrCat("GPADL 0x", absl::Hex(static_cast<uint32_t>(gpadl_id)),
                     " was torn down by the guest"));
  }
  gpadls_.Pin(gpadl->key());
  ++offer->pin_count;
  return gpadl->view();
}

absl::Status ServerConnection::ReleaseGpadl(OfferId offer_id,
                                            GpadlId gpadl_id) {
  Offer* offer = Find(offer_id);
  const Gpadl* gpadl =
      offer == nullptr ? nullptr : gpadls_.Find(offer->Key(gpadl_id));
  if (gpadl == nullptr || gpadl->pin_count == 0 ||
      gpadl->channel_id != offer->channel_id) {
    return absl::NotFoundError(absl::StrCat(
        "offer ", static_cast<uint32_t>(offer_id), " has no pin on GPADL 0x",
        absl::Hex(static_cast<uint32_t>(gpadl_id))));
  }
  const GpadlKey key = gpadl->key();
  gpadls_.Unpin(key);
  --offer->pin_count;
  if (!restoring_) FinishTeardownIfUnused(key);
  FinishCloseIfReleased(offer_id);
  return absl::OkStatus();
}

}  // namespace ferrybus
