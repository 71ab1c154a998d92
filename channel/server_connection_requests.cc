// SPDX-License-Identifier: MIT
//
// ServerConnection: what the guest asks of the connection as a whole.
// MODIFY_CONNECTION, TL_CONNECT_REQUEST, PAUSE and RESUME.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/server_connection.h"

namespace ferrybus {

// --- Monitor pages ----------------------------------------------------------

absl::Status ServerConnection::CheckModifyConnection(
    const MonitorPages& pages) const {
  if (!AreMonitorPages(pages, options_.ram_page_count)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "MODIFY_CONNECTION with monitor pages at 0x",
        absl::Hex(pages.parent_to_child), " and 0x",
        absl::Hex(pages.child_to_parent), "; either none or two pages of RAM"));
  }
  if ((contact_.features & kFeatureServerMonitorPages) != 0) {
    return absl::FailedPreconditionError(
        "MODIFY_CONNECTION, but the monitor pages are the host's");
  }
  for (const auto& [id, offer] : offers_) {
    if (offer.state == ServerChannelState::kOpening ||
        offer.state == ServerChannelState::kOpeningThenClose) {
      return absl::FailedPreconditionError(
          absl::StrCat("MODIFY_CONNECTION while channel ",
                       static_cast<uint32_t>(offer.channel_id), " opens"));
    }
  }
  return absl::OkStatus();
}

absl::Status ServerConnection::HandleModifyConnection(
    const ModifyConnectionMessage& message) {
  if (pending_modify_.has_value()) {
    // A failure would be taken for the answer to the first.
    return absl::FailedPreconditionError(
        "MODIFY_CONNECTION before the last one was answered");
  }
  const MonitorPages pages{message.parent_to_child_monitor_page,
                           message.child_to_parent_monitor_page};
  const absl::Status allowed = CheckModifyConnection(pages);
  if (!allowed.ok()) {
    Send(MessageType::kModifyConnectionResponse, ChannelId{}, 0,
         kConnectionFailedUnknown);
    return allowed;
  }
  pending_modify_ = pages;
  return RequestModifyConnection();
}

absl::Status ServerConnection::RequestModifyConnection() {
  const MonitorPages pages = *pending_modify_;
  const ModifyConnectionAnswer answer =
      events_->OnModifyConnectionRequested(pages);
  if (answer == ModifyConnectionAnswer::kLater) return absl::OkStatus();
  const bool accepted = answer == ModifyConnectionAnswer::kAccept;
  ModifyConnectionCompleted(accepted).IgnoreError();
  if (accepted) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "MODIFY_CONNECTION was refused by the owner of the connection");
}

absl::Status ServerConnection::ModifyConnectionCompleted(bool accepted) {
  if (!pending_modify_.has_value() || restoring_) {
    return absl::FailedPreconditionError(
        "ModifyConnectionCompleted, but no request waits for it");
  }
  if (accepted) contact_.set_monitor_pages(*pending_modify_);
  pending_modify_.reset();
  Send(MessageType::kModifyConnectionResponse, ChannelId{}, 0,
       accepted ? kConnectionSuccessful : kConnectionFailedUnknown);
  return absl::OkStatus();
}

// --- Socket connects --------------------------------------------------------

absl::Status ServerConnection::CheckTlConnect(
    const TlConnectRequest& request) const {
  if (tl_connects_.size() >= options_.limits.tl_connects_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("TL_CONNECT_REQUEST while ", tl_connects_.size(),
                     " are not answered; at most ",
                     options_.limits.tl_connects_max, " allowed"));
  }
  const OfferParams answer{.interface_type = request.service_id,
                           .interface_instance = request.endpoint_id};
  if (FindPrimary(answer) != nullptr) {
    return absl::AlreadyExistsError(
        absl::StrCat("TL_CONNECT_REQUEST of endpoint ",
                     request.endpoint_id.ToString(), ", which is connected"));
  }
  return absl::OkStatus();
}

absl::Status ServerConnection::HandleTlConnect(
    const TlConnectRequestMessage& message) {
  const TlConnectRequest request{.endpoint_id = message.endpoint_id,
                                 .service_id = message.service_id,
                                 .silo_id = message.silo_id};
  for (const TlConnectRequest& other : tl_connects_) {
    if (other.Is(request.endpoint_id, request.service_id)) {
      // A refusal would be taken for the answer to the first.
      return absl::AlreadyExistsError(
          absl::StrCat("TL_CONNECT_REQUEST of endpoint ",
                       request.endpoint_id.ToString(), " a second time"));
    }
  }
  const absl::Status allowed = CheckTlConnect(request);
  tl_connects_.push_back(request);
  if (allowed.ok()) {
    RequestTlConnect(request);
  } else {
    RefuseTlConnect(request.endpoint_id, request.service_id).IgnoreError();
  }
  return allowed;
}

void ServerConnection::RequestTlConnect(const TlConnectRequest& request) {
  if (events_->OnTlConnectRequested(request)) return;
  RefuseTlConnect(request.endpoint_id, request.service_id).IgnoreError();
}

absl::Status ServerConnection::RefuseTlConnect(const Guid& endpoint_id,
                                               const Guid& service_id,
                                               uint32_t status) {
  if (status == kStatusSuccess) {
    return absl::InvalidArgumentError(
        "RefuseTlConnect with status 0; a connect succeeds by AddOffer");
  }
  const auto found = std::find_if(tl_connects_.begin(), tl_connects_.end(),
                                  [&](const TlConnectRequest& request) {
                                    return request.Is(endpoint_id, service_id);
                                  });
  if (found == tl_connects_.end() || restoring_) {
    return absl::NotFoundError(absl::StrCat("no connect of endpoint ",
                                            endpoint_id.ToString(),
                                            " waits for an answer"));
  }
  tl_connects_.erase(found);
  if (AtLeast(ProtocolVersion::kWin10Rs3)) {
    Send({.type = MessageType::kTlConnectResult,
          .status = status,
          .endpoint_id = endpoint_id,
          .service_id = service_id});
  }
  return absl::OkStatus();
}

// The offer may be the answer to a connect.
void ServerConnection::EndTlConnect(const OfferParams& offer) {
  if ((offer.flags & kOfferTlnpiProvider) == 0 ||
      offer.sub_channel_index != 0) {
    return;
  }
  std::erase_if(tl_connects_, [&offer](const TlConnectRequest& request) {
    return request.Is(offer.interface_instance, offer.interface_type);
  });
}

// --- Pause ------------------------------------------------------------------

absl::Status ServerConnection::HandlePause() {
  Send(MessageType::kPauseResponse);
  paused_ = true;
  events_->OnPaused();
  return absl::OkStatus();
}

absl::Status ServerConnection::HandleResume() {
  if (!paused_) {
    return absl::FailedPreconditionError("RESUME while not paused");
  }
  paused_ = false;
  outgoing_.insert(outgoing_.end(), held_.begin(), held_.end());
  held_.clear();
  events_->OnResumed();
  return absl::OkStatus();
}

}  // namespace ferrybus
