// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/socket/socket_device.h"

#include <utility>

#include "ferrybus/channel/protocols/hv_sock.h"
#include "ferrybus/vsp/server_channel.h"
#include "ferrybus/vsp/socket/socket_state_persist.h"

namespace ferrybus::vsp {

using Taken = SocketStream::Taken;

OfferParams SocketDevice::Params(const Guid& service, const Guid& endpoint,
                                 bool for_guest_accept) {
  OfferParams params;
  params.interface_type = service;
  params.interface_instance = endpoint;
  params.flags = kSocketOfferFlags;
  params.user_data = SocketOfferUserData(for_guest_accept);
  return params;
}

absl::Status SocketDevice::OnOpened(ServerChannel& channel,
                                    absl::Span<const std::byte>) {
  channel_ = &channel;
  channel.SetQuota(kSocketUnreadMax);
  queued_tag_ = 0;
  is_restored_ = false;
  is_announced_ = false;
  return absl::OkStatus();
}

// Also after a pause.
void SocketDevice::OnStarted() {
  if (std::exchange(is_restored_, false)) {
    // A forged state may wait for what is not there.
    if (channel_->endpoint().queued() == 0) queued_tag_ = 0;
    stream_.Resume();
  } else if (!std::exchange(is_announced_, true)) {
    stream_.Connect();
  }
}

void SocketDevice::OnClosed() {
  channel_ = nullptr;
  if (is_announced_) stream_.Disconnect();
  is_announced_ = false;
}

void SocketDevice::ProcessPacket(IncomingPacket packet) {
  stream_.TakeDatagram(std::move(packet));
}

// A host hears of room only by a packet that waited for it.
Taken SocketDevice::SendDatagram(absl::Span<const std::byte> bytes) {
  if (channel_ == nullptr) return Taken::kClosed;
  if (queued_tag_ != 0) return Taken::kNoRoom;
  OutgoingPacket packet;
  packet.payload = bytes;
  SendStatus status = channel_->SendNow(packet);
  if (status == SendStatus::kFull) {
    packet.wants_sent = true;
    packet.tag = next_tag_;
    status = channel_->Send(packet);
    if (status == SendStatus::kOk) queued_tag_ = next_tag_++;
  }
  return status == SendStatus::kOk ? Taken::kYes : Taken::kClosed;
}

void SocketDevice::OnSent(uint64_t tag) {
  if (tag != queued_tag_) return;
  queued_tag_ = 0;
  stream_.OnRoom();
}

// -- Moving ------------------------------------------------------------------

absl::StatusOr<std::string> SocketDevice::SaveDevice() {
  return SerializeSocketState({stream_.state(), queued_tag_});
}

absl::Status SocketDevice::OnRestored(ServerChannel& channel,
                                      absl::Span<const std::byte> bytes) {
  const absl::StatusOr<SocketDeviceState> state = ParseSocketState(bytes);
  if (!state.ok()) return state.status();
  channel_ = &channel;
  channel.SetQuota(kSocketUnreadMax);
  queued_tag_ = state->queued_tag;
  next_tag_ = queued_tag_ + 1;
  stream_.Restore(state->stream);
  is_restored_ = true;
  is_announced_ = true;
  return absl::OkStatus();
}

absl::Status SocketDevice::RestorePacket(IncomingPacket packet,
                                         absl::Span<const std::byte>) {
  return stream_.RestoreDatagram(std::move(packet));
}

}  // namespace ferrybus::vsp
