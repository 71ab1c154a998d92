// SPDX-License-Identifier: MIT
//
// ClientConnection: reserved channels, socket connects, monitor pages, pause.
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/client_connection.h"

namespace ferrybus {

absl::Status ClientConnection::CheckNeeds(const char* message,
                                          ProtocolVersion version,
                                          uint32_t feature) const {
  if (version_ >= version && (features_ & feature) == feature) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      message, " needs version ", ProtocolVersionToString(version),
      " and feature flags ", feature, "; the connection has version ",
      ProtocolVersionToString(version_), " and flags ", features_));
}

// --- Reserved channels ------------------------------------------------------

absl::Status ClientConnection::OpenReserved(ChannelId channel_id,
                                            const OpenReservedParams& params) {
  absl::StatusOr<Channel*> channel = ReadyToOpen(channel_id, params.ring_gpadl);
  if (!channel.ok()) return channel.status();
  absl::Status status =
      CheckNeeds("OPEN_RESERVED_CHANNEL", ProtocolVersion::kWin10);
  if (!status.ok()) return status;
  (*channel)->state = ClientChannelState::kOpening;
  (*channel)->is_reserved = true;
  outgoing_.push_back(EncodeMessage(OpenReservedChannelMessage{
      .channel_id = channel_id,
      .target_vp = params.target.vp,
      .target_sint = params.target.sint,
      .ring_gpadl = params.ring_gpadl,
      .downstream_page_offset = params.downstream_page_offset}));
  return absl::OkStatus();
}

absl::Status ClientConnection::CloseReserved(ChannelId channel_id,
                                             const MessageTarget& target) {
  absl::Status status =
      phase_ == ClientPhase::kConnected ? CheckConnected() : absl::OkStatus();
  status.Update(CheckRoom(1));
  if (!status.ok()) return status;
  const uint32_t number = static_cast<uint32_t>(channel_id);
  if (number == 0 || number > kMaxChannelId) return NoSuchChannel(channel_id);
  if (closing_reserved_.contains(channel_id)) {
    return absl::FailedPreconditionError(
        absl::StrCat("CloseReserved for channel ", number, " a second time"));
  }
  const auto found = channels_.find(channel_id);
  if (found != channels_.end()) {
    Channel& channel = found->second;
    if (channel.state != ClientChannelState::kOpen || !channel.is_reserved) {
      return WrongState("CloseReserved", channel_id, channel.state);
    }
    channel.state = ClientChannelState::kClosingReserved;
  }
  closing_reserved_.insert(channel_id);
  outgoing_.push_back(
      EncodeMessage(CloseReservedChannelMessage{.channel_id = channel_id,
                                                .target_vp = target.vp,
                                                .target_sint = target.sint}));
  return absl::OkStatus();
}

// --- Socket connects --------------------------------------------------------

absl::Status ClientConnection::TlConnect(const Guid& endpoint_id,
                                         const Guid& service_id,
                                         const Guid& silo_id) {
  absl::Status status = CheckConnected();
  status.Update(CheckRoom(1));
  status.Update(CheckNeeds("TL_CONNECT_REQUEST", ProtocolVersion::kWin10));
  if (!status.ok()) return status;
  if (!offers_requested_) {
    return absl::FailedPreconditionError(
        "TlConnect is answered by an offer; RequestOffers first");
  }
  const std::pair key(endpoint_id, service_id);
  if (tl_connects_.contains(key)) {
    return absl::AlreadyExistsError(absl::StrCat(
        "endpoint ", endpoint_id.ToString(), " is being connected already"));
  }
  if (tl_connects_.size() >= options_.limits.tl_connects_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(tl_connects_.size(), " connects wait for the host"));
  }
  tl_connects_.insert(key);
  outgoing_.push_back(EncodeTlConnectRequest({.endpoint_id = endpoint_id,
                                              .service_id = service_id,
                                              .silo_id = silo_id},
                                             version_));
  return absl::OkStatus();
}

absl::Status ClientConnection::AbandonTlConnect(const Guid& endpoint_id,
                                                const Guid& service_id) {
  if (tl_connects_.erase({endpoint_id, service_id}) == 1) {
    return absl::OkStatus();
  }
  return absl::NotFoundError(absl::StrCat("endpoint ", endpoint_id.ToString(),
                                          " is not being connected"));
}

// --- Monitor pages ----------------------------------------------------------

absl::Status ClientConnection::ModifyConnection(const MonitorPages& pages) {
  absl::Status status = CheckConnected();
  status.Update(CheckRoom(1));
  status.Update(CheckNeeds("MODIFY_CONNECTION", ProtocolVersion::kCopper,
                           kFeatureModifyConnection));
  if (!status.ok()) return status;
  if (pending_modify_.has_value()) {
    return absl::FailedPreconditionError(
        "ModifyConnection before the last one was answered");
  }
  pending_modify_ = pages;
  outgoing_.push_back(EncodeMessage(ModifyConnectionMessage{
      .parent_to_child_monitor_page = pages.parent_to_child,
      .child_to_parent_monitor_page = pages.child_to_parent}));
  return absl::OkStatus();
}

// --- Pause ------------------------------------------------------------------

absl::Status ClientConnection::Pause() {
  absl::Status status = CheckConnected();
  status.Update(CheckRoom(1));
  status.Update(
      CheckNeeds("PAUSE", ProtocolVersion::kCopper, kFeaturePauseResume));
  if (!status.ok()) return status;
  pause_ = PausePhase::kPausing;
  outgoing_.push_back(EncodeMessage(PauseMessage{}));
  return absl::OkStatus();
}

absl::Status ClientConnection::Resume() {
  absl::Status status = CheckRoom(1);
  if (!status.ok()) return status;
  if (pause_ != PausePhase::kPaused) {
    return absl::FailedPreconditionError("Resume, but OnPaused was not told");
  }
  pause_ = PausePhase::kRunning;
  outgoing_.push_back(EncodeMessage(ResumeMessage{}));
  return absl::OkStatus();
}

}  // namespace ferrybus
