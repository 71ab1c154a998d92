// SPDX-License-Identifier: MIT

#include "ferrybus/vsc/guest_port.h"

#include <utility>

namespace ferrybus::vsc {
namespace {

// So that a host that floods cannot keep the guest from its channels.
constexpr int kMessagesPerPump = 64;

}  // namespace

absl::StatusOr<std::unique_ptr<GuestPort>> GuestPort::Open(Port port) {
  absl::StatusOr<SignalPage> signals = SignalPage::Map(port.signals.get());
  if (!signals.ok()) return signals.status();
  return std::unique_ptr<GuestPort>(
      new GuestPort(std::move(port), *std::move(signals)));
}

GuestPort::GuestPort(Port port, SignalPage signals)
    : port_(std::move(port)),
      signals_(std::move(signals)),
      sender_(signals_, SignalDirection::kGuestToHost, port_.host_event.get()),
      receiver_(signals_, SignalDirection::kHostToGuest,
                port_.guest_event.get()),
      messages_(port_.messages.get(), MessageSocket::Role::kGuest) {}

bool GuestPort::Pump(Bus& bus) {
  int taken = 0;
  for (; taken < kMessagesPerPump && !peer_gone_; ++taken) {
    const absl::StatusOr<SocketMessage> message = messages_.Receive();
    if (message.ok()) {
      // A refusal is counted by the connection.
      (void)bus.HandleMessage(message->payload());
    } else if (absl::IsUnavailable(message.status())) {
      break;
    } else if (absl::IsAborted(message.status())) {
      peer_gone_ = true;
    }
  }
  receiver_.Take([&bus](uint32_t channel_id) { bus.Signal(channel_id); });
  bool more = bus.Poll() || taken == kMessagesPerPump;
  while (bus.has_outgoing()) {
    if (!messages_.Send(bus.message_connection(), bus.outgoing_front())) {
      more = true;
      break;
    }
    bus.PopOutgoing();
  }
  return more;
}

}  // namespace ferrybus::vsc
