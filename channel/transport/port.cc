// SPDX-License-Identifier: MIT

#include "ferrybus/channel/transport/port.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace ferrybus {
namespace {

constexpr absl::string_view kGreeting = "ferrybus port 1";
constexpr int kDescriptors = 5;
// Room for more than a port, so that surplus descriptors arrive and can be
// closed instead of being leaked by the kernel's truncation.
constexpr int kMaxDescriptors = 16;

absl::Status ErrnoStatus(absl::string_view what) {
  return absl::UnavailableError(
      absl::StrCat("port: ", what, ": ", std::strerror(errno)));
}

absl::StatusOr<UniqueFd> Duplicate(int fd) {
  UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy.valid()) return ErrnoStatus("dup");
  return copy;
}

absl::StatusOr<UniqueFd> CreateSignalPage() {
  UniqueFd fd(
      memfd_create("ferrybus-signals", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid() || ftruncate(fd.get(), 4096) != 0 ||
      fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    return ErrnoStatus("signal page");
  }
  return fd;
}

std::array<UniqueFd*, kDescriptors> Members(Port& port) {
  return {&port.guest_ram, &port.signals, &port.host_event, &port.guest_event,
          &port.messages};
}

// Takes every descriptor out of a received message.
int TakeDescriptors(msghdr& message,
                    std::array<UniqueFd, kMaxDescriptors>& out) {
  int count = 0;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr;
       c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t bytes = c->cmsg_len - CMSG_LEN(0);
    for (size_t at = 0; at + sizeof(int) <= bytes; at += sizeof(int)) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(c) + at, sizeof(fd));
      if (count < kMaxDescriptors) out[count] = UniqueFd(fd);
      ++count;
    }
  }
  return count;
}

}  // namespace

absl::StatusOr<PortPair> CreatePort(int guest_ram) {
  PortPair made;
  absl::StatusOr<UniqueFd> ram = Duplicate(guest_ram);
  if (!ram.ok()) return ram.status();
  made.guest.guest_ram = *std::move(ram);
  absl::StatusOr<UniqueFd> signals = CreateSignalPage();
  if (!signals.ok()) return signals.status();
  made.guest.signals = *std::move(signals);
  made.guest.host_event = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  made.guest.guest_event = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  int sockets[2];
  if (!made.guest.host_event.valid() || !made.guest.guest_event.valid() ||
      socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
                 sockets) != 0) {
    return ErrnoStatus("eventfd or socketpair");
  }
  made.guest.messages = UniqueFd(sockets[0]);
  UniqueFd host_messages(sockets[1]);
  absl::StatusOr<Port> host = DuplicatePort(made.guest);
  if (!host.ok()) return host.status();
  made.host = *std::move(host);
  made.host.messages = std::move(host_messages);
  return made;
}

absl::StatusOr<Port> DuplicatePort(const Port& port) {
  Port copy;
  const std::array<const UniqueFd*, kDescriptors> from = {
      &port.guest_ram, &port.signals, &port.host_event, &port.guest_event,
      &port.messages};
  const std::array<UniqueFd*, kDescriptors> to = Members(copy);
  for (int i = 0; i < kDescriptors; ++i) {
    absl::StatusOr<UniqueFd> fd = Duplicate(from[i]->get());
    if (!fd.ok()) return fd.status();
    *to[i] = *std::move(fd);
  }
  return copy;
}

absl::Status SendPort(int socket, const Port& port) {
  const int fds[kDescriptors] = {port.guest_ram.get(), port.signals.get(),
                                 port.host_event.get(), port.guest_event.get(),
                                 port.messages.get()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(fds))] = {};
  iovec greeting = {const_cast<char*>(kGreeting.data()), kGreeting.size()};
  msghdr message = {};
  message.msg_iov = &greeting;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* const c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(fds));
  std::memcpy(CMSG_DATA(c), fds, sizeof(fds));
  ssize_t sent;
  do {
    sent = sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) return ErrnoStatus("sendmsg");
  return absl::OkStatus();
}

absl::StatusOr<Port> ReceivePort(int socket) {
  char text[64];
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxDescriptors)];
  iovec data = {text, sizeof(text)};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t got;
  do {
    got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return ErrnoStatus("recvmsg");
  std::array<UniqueFd, kMaxDescriptors> fds;
  const int count = TakeDescriptors(message, fds);
  if (absl::string_view(text, static_cast<size_t>(got)) != kGreeting) {
    return absl::InvalidArgumentError(
        absl::StrCat("port: the first ", got, " bytes are not the greeting \"",
                     kGreeting, "\"; is the peer another program or version?"));
  }
  const bool is_cut = (message.msg_flags & MSG_CTRUNC) != 0;
  // There was room in the message, but none in this process.
  if (is_cut && count < kMaxDescriptors) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "port: only ", count,
        " descriptors could be received: ", std::strerror(EMFILE), "?"));
  }
  if (count != kDescriptors || is_cut) {
    return absl::InvalidArgumentError(
        absl::StrCat("port: ", count, " descriptors came, not ", kDescriptors));
  }
  Port port;
  const std::array<UniqueFd*, kDescriptors> to = Members(port);
  for (int i = 0; i < kDescriptors; ++i) *to[i] = std::move(fds[i]);
  return port;
}

}  // namespace ferrybus
