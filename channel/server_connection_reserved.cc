// SPDX-License-Identifier: MIT
//
// ServerConnection: channels for the time when the guest crashes.  They are
// ordinary offers, opened and closed by their own messages, and no reset but
// that of the machine touches them.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/server_connection.h"

namespace ferrybus {
namespace {

using State = ServerChannelState;

}  // namespace

bool ServerConnection::IsTarget(uint32_t vp, uint32_t sint) const {
  return vp <= options_.max_vp && sint < kSintCount;
}

absl::Status ServerConnection::CheckOpenReserved(
    const Offer& offer, const OpenRequest& request) const {
  if (offer.state != State::kClosed || offer.is_rescinding) {
    return absl::FailedPreconditionError(
        absl::StrCat("OPEN_RESERVED_CHANNEL for channel ",
                     static_cast<uint32_t>(offer.channel_id), " in state ",
                     static_cast<int>(offer.state)));
  }
  if (offer.params.sub_channel_index != 0) {
    return absl::InvalidArgumentError(
        "OPEN_RESERVED_CHANNEL for a sub-channel, which cannot outlive its "
        "primary channel");
  }
  const auto reserved_count = static_cast<size_t>(std::count_if(
      offers_.begin(), offers_.end(),
      [](const auto& other) { return other.second.reserved.has_value(); }));
  if (reserved_count >= options_.limits.reserved_channels_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(reserved_count, " reserved channels are open; at most ",
                     options_.limits.reserved_channels_max, " allowed"));
  }
  return CheckOpen(offer, request);
}

absl::Status ServerConnection::HandleOpenReserved(
    const OpenReservedChannelMessage& message) {
  if (!IsTarget(message.target_vp, message.target_sint)) {
    // There is nowhere to send a failure to.
    return absl::InvalidArgumentError(absl::StrCat(
        "OPEN_RESERVED_CHANNEL with VP ", message.target_vp, " and SINT ",
        message.target_sint, " for the answer, which do not exist"));
  }
  const MessageTarget target{.vp = message.target_vp,
                             .sint = static_cast<uint8_t>(message.target_sint)};
  const OpenRequest request{
      .ring_gpadl = message.ring_gpadl,
      .downstream_page_offset = message.downstream_page_offset,
      .target_vp = message.target_vp};
  absl::StatusOr<Offer*> offer = OfferedChannel(message.channel_id);
  const absl::Status allowed =
      offer.ok() ? CheckOpenReserved(**offer, request) : offer.status();
  if (!allowed.ok()) {
    Send({.type = MessageType::kOpenChannelResult,
          .channel_id = message.channel_id,
          .status = kStatusUnsuccessful,
          .target = target});
    return allowed;
  }
  (*offer)->reserved = {.target = target, .close_target = {}};
  BeginOpen(**offer, request);
  return absl::OkStatus();
}

absl::Status ServerConnection::HandleCloseReserved(
    const CloseReservedChannelMessage& message) {
  const std::optional<OfferId> id = FindOfferByChannelId(message.channel_id);
  Offer* offer = id.has_value() ? Find(*id) : nullptr;
  if (offer == nullptr || !offer->reserved.has_value() ||
      offer->reserved->close_target.has_value()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "CLOSE_RESERVED_CHANNEL for channel ",
        static_cast<uint32_t>(message.channel_id),
        ", which is not open as a reserved channel, or is being closed"));
  }
  const bool is_target = IsTarget(message.target_vp, message.target_sint);
  if (is_target) {
    offer->reserved->close_target = {
        .vp = message.target_vp,
        .sint = static_cast<uint8_t>(message.target_sint)};
  }
  StartCloseWithSubChannels(*offer);
  if (is_target) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("CLOSE_RESERVED_CHANNEL with VP ", message.target_vp,
                   " and SINT ", message.target_sint,
                   " for the answer, which do not exist; closed "
                   "without an answer"));
}

}  // namespace ferrybus
