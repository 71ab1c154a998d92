// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/host_port.h"

#include <utility>

#include "absl/status/status.h"

namespace ferrybus::vsp {
namespace {

// A guest that floods messages does not keep the host from its rings.
constexpr int kMessagesPerPump = 64;

}  // namespace

absl::StatusOr<std::unique_ptr<HostPort>> HostPort::Open(Port port) {
  absl::StatusOr<std::unique_ptr<MemfdGuestMemory>> memory =
      MemfdGuestMemory::Map(std::move(port.guest_ram));
  if (!memory.ok()) return memory.status();
  absl::StatusOr<SignalPage> signals = SignalPage::Map(port.signals.get());
  if (!signals.ok()) return signals.status();
  return std::unique_ptr<HostPort>(
      new HostPort(std::move(port), *std::move(memory), *std::move(signals)));
}

HostPort::HostPort(Port port, std::unique_ptr<MemfdGuestMemory> memory,
                   SignalPage signals)
    : port_(std::move(port)),
      memory_(std::move(memory)),
      signals_(std::move(signals)),
      sender_(signals_, SignalDirection::kHostToGuest, port_.guest_event.get()),
      receiver_(signals_, SignalDirection::kGuestToHost,
                port_.host_event.get()),
      messages_(port_.messages.get(), MessageSocket::Role::kHost) {}

bool HostPort::Pump(Bus& bus) {
  ReceiveMessages(bus);
  receiver_.Take([&bus](uint32_t channel_id) { bus.Signal(channel_id); });
  bool more = bus.Poll();
  more |= SendMessages(bus);
  return more;
}

void HostPort::ReceiveMessages(Bus& bus) {
  for (int i = 0; i < kMessagesPerPump && !peer_gone_; ++i) {
    // What is not taken stays in the socket: the guest is held back, and the
    // next owner of the port finds it there.
    if (!bus.can_accept_message()) return;
    const absl::StatusOr<SocketMessage> message = messages_.Receive();
    absl::Status status = message.status();
    if (message.ok()) {
      status = bus.HandleMessage(message->payload(), message->connection_id);
    } else if (absl::IsUnavailable(status)) {
      return;
    } else if (absl::IsAborted(status)) {
      peer_gone_ = true;
    }
    if (!status.ok()) {
      ++refused_messages_;
      last_refusal_ = status;
    }
  }
}

// True: the guest's socket is full and messages wait.
bool HostPort::SendMessages(Bus& bus) {
  while (bus.has_outgoing()) {
    if (!messages_.Send(0, bus.outgoing_front())) return true;
    bus.PopOutgoing();
  }
  return false;
}

}  // namespace ferrybus::vsp
