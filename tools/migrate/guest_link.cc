// SPDX-License-Identifier: MIT

#include "ferrybus/tools/migrate/guest_link.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"

namespace ferrybus::migrate_tool {

absl::StatusOr<std::unique_ptr<GuestLink>> GuestLink::Listen(std::string path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": too long for a socket's path, at most ",
                     sizeof(address.sun_path) - 1));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd listener(
      socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener.valid()) return absl::ErrnoToStatus(errno, "socket");
  unlink(path.c_str());
  if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&address),
           sizeof(address)) != 0 ||
      listen(listener.get(), 1) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": listen"));
  }
  return absl::WrapUnique(new GuestLink(std::move(path), std::move(listener)));
}

GuestLink::~GuestLink() { unlink(path_.c_str()); }

absl::StatusOr<Port> GuestLink::Accept(int guest_ram) {
  if (guest_.valid()) return absl::NotFoundError("there is a guest");
  UniqueFd guest(
      accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!guest.valid()) return absl::NotFoundError("nobody waits");
  absl::StatusOr<PortPair> port = CreatePort(guest_ram);
  if (!port.ok()) return port.status();
  absl::Status status = SendPort(guest.get(), port->guest);
  if (!status.ok()) return status;
  guest_ = std::move(guest);
  is_asked_ = is_paused_ = false;
  return std::move(port->host);
}

void GuestLink::Say(char command) {
  // A guest that does not read its one byte at a time is as good as gone.
  if (send(guest_.get(), &command, 1, MSG_NOSIGNAL) != 1) guest_ = UniqueFd();
}

bool GuestLink::Pause() {
  if (guest_.valid() && !is_asked_) {
    is_asked_ = true;
    is_paused_ = false;
    Say(kGuestPause);
  }
  Poll();
  return !guest_.valid() || is_paused_;
}

void GuestLink::Resume() {
  if (guest_.valid() && is_asked_) Say(kGuestResume);
  is_asked_ = is_paused_ = false;
}

void GuestLink::Poll() {
  char said = 0;
  while (guest_.valid()) {
    const ssize_t size = recv(guest_.get(), &said, 1, MSG_DONTWAIT);
    if (size == 1) {
      if (said == kGuestPaused && is_asked_) is_paused_ = true;
      continue;
    }
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    guest_ = UniqueFd();
  }
}

}  // namespace ferrybus::migrate_tool
