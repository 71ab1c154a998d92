// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/host_port.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>

#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ferrybus::vsp {
namespace {

// A guest that floods messages does not keep the host from its rings.
constexpr int kMessagesPerPump = 64;

}  // namespace

absl::StatusOr<std::unique_ptr<HostPort>> HostPort::Open(
    Port port, const HostPortOptions& options) {
  absl::StatusOr<std::unique_ptr<MemfdGuestMemory>> memory =
      MemfdGuestMemory::Map(std::move(port.guest_ram));
  if (!memory.ok()) return memory.status();
  absl::StatusOr<SignalPage> signals = SignalPage::Map(port.signals.get());
  if (!signals.ok()) return signals.status();
  // A wake-up is never to be waited for.
  for (const int fd : {port.host_event.get(), port.guest_event.get()}) {
    const int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("port: event: fcntl: ", std::strerror(errno)));
    }
  }
  UniqueFd wait_messages(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event = {};
  if (!wait_messages.valid() || epoll_ctl(wait_messages.get(), EPOLL_CTL_ADD,
                                          port.messages.get(), &event) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "port: messages cannot be waited for: ", std::strerror(errno)));
  }
  return std::unique_ptr<HostPort>(
      new HostPort(options, std::move(port), *std::move(memory),
                   *std::move(signals), std::move(wait_messages)));
}

HostPort::HostPort(const HostPortOptions& options, Port port,
                   std::unique_ptr<MemfdGuestMemory> memory, SignalPage signals,
                   UniqueFd wait_messages)
    : options_(options),
      port_(std::move(port)),
      memory_(std::move(memory)),
      signals_(std::move(signals)),
      sender_(signals_, SignalDirection::kHostToGuest, port_.guest_event.get()),
      receiver_(signals_, SignalDirection::kGuestToHost,
                port_.host_event.get()),
      messages_(port_.messages.get(), MessageSocket::Role::kHost),
      wait_messages_(std::move(wait_messages)) {
  WaitFor(EPOLLIN);
}

// A guest that does not read its messages must not make the host spin, neither
// on those nor on the ones it goes on sending.
void HostPort::WaitFor(uint32_t events) {
  if (events == waiting_for_) return;
  waiting_for_ = events;
  epoll_event event = {};
  event.events = events;
  (void)epoll_ctl(wait_messages_.get(), EPOLL_CTL_MOD, port_.messages.get(),
                  &event);
}

bool HostPort::Pump(Bus& bus) {
  ReceiveMessages(bus);
  receiver_.Take([&bus](uint32_t channel_id) { bus.Signal(channel_id); });
  if (options_.unnamed_signals && receiver_.was_woken()) bus.SignalAll();
  const bool more = bus.Poll();
  const bool full = SendMessages(bus);
  // A bus that is frozen or full takes none; its wake_fd() or a message that
  // was sent ends that.
  const bool takes = bus.can_accept_message();
  WaitFor((takes ? uint32_t{EPOLLIN} : 0) | (full ? uint32_t{EPOLLOUT} : 0));
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
