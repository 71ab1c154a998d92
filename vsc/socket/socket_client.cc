// SPDX-License-Identifier: MIT

#include "ferrybus/vsc/socket/socket_client.h"

namespace ferrybus::vsc {
namespace {

constexpr uint32_t kRingDataPages = 5;

}  // namespace

DriverSettings SocketClient::Settings() {
  EndpointOptions endpoint;
  endpoint.limits.max_in_flight = kSocketUnreadMax;
  DriverSettings settings;
  settings.endpoint = endpoint;
  settings.outgoing_ring_pages = kRingDataPages;
  settings.incoming_ring_pages = kRingDataPages;
  return settings;
}

void SocketClient::OnStarted() {
  if (!stream_.is_connected()) stream_.Connect();
}

SocketStream::Taken SocketClient::SendDatagram(
    absl::Span<const std::byte> bytes) {
  if (channel_ == nullptr) return SocketStream::Taken::kClosed;
  Request request;
  request.payload = bytes;
  request.wants_completion = false;
  switch (channel_->Send(request)) {
    case SendResult::kOk:
      return SocketStream::Taken::kYes;
    case SendResult::kFull:
      return SocketStream::Taken::kNoRoom;
    default:
      return SocketStream::Taken::kClosed;
  }
}

void SocketClient::OnClosed() {
  channel_ = nullptr;
  if (stream_.is_connected()) stream_.Disconnect();
}

}  // namespace ferrybus::vsc
