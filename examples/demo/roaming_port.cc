// SPDX-License-Identifier: MIT

#include "ferrybus/examples/demo/roaming_port.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ferrybus/tools/migrate/guest_link.h"

namespace ferrybus::demo {
namespace {

UniqueFd Connect(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return UniqueFd();
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd.valid() ||
      connect(fd.get(), reinterpret_cast<const sockaddr*>(&address),
              sizeof(address)) != 0) {
    return UniqueFd();
  }
  return fd;
}

bool IsReadable(int fd) {
  pollfd wanted = {fd, POLLIN, 0};
  return poll(&wanted, 1, 0) == 1;
}

// Puts the pages of `to` where those of `from` are mapped, and `to` in the
// place of the descriptor `from`.
absl::Status ReplaceFile(int from, int to) {
  struct stat old = {};
  if (fstat(from, &old) != 0) return absl::ErrnoToStatus(errno, "fstat");
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    uint64_t begin = 0, end = 0, offset = 0, inode = 0;
    unsigned major = 0, minor = 0;
    char access[5] = {};
    if (std::sscanf(line.c_str(),
                    "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64,
                    &begin, &end, access, &offset, &major, &minor,
                    &inode) != 7 ||
        inode != old.st_ino || makedev(major, minor) != old.st_dev) {
      continue;
    }
    const int protection = (access[0] == 'r' ? PROT_READ : 0) |
                           (access[1] == 'w' ? PROT_WRITE : 0);
    if (mmap(reinterpret_cast<void*>(begin), end - begin, protection,
             MAP_SHARED | MAP_FIXED, to,
             static_cast<off_t>(offset)) == MAP_FAILED) {
      return absl::ErrnoToStatus(errno, absl::StrCat("mapping ", line));
    }
  }
  if (dup3(to, from, O_CLOEXEC) < 0) return absl::ErrnoToStatus(errno, "dup3");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<RoamingPort>> RoamingPort::Open(
    std::vector<std::string> sockets, absl::Duration patience) {
  auto port = absl::WrapUnique(new RoamingPort(std::move(sockets), patience));
  const absl::Time deadline = absl::Now() + patience;
  while (true) {
    absl::StatusOr<bool> found = port->LookForHome();
    if (!found.ok()) return found.status();
    if (*found) return port;
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError("no machine at any of the sockets");
    }
    absl::SleepFor(absl::Milliseconds(10));
  }
}

absl::StatusOr<bool> RoamingPort::LookForHome() {
  for (size_t i = 0; i < sockets_.size(); ++i) {
    if (!candidates_[i].valid()) candidates_[i] = Connect(sockets_[i]);
    if (!candidates_[i].valid() || !IsReadable(candidates_[i].get())) continue;
    absl::StatusOr<Port> port = ReceivePort(candidates_[i].get());
    if (!port.ok()) {  // it closed: not here, or not any more
      candidates_[i] = UniqueFd();
      continue;
    }
    home_ = std::move(candidates_[i]);
    candidates_ = std::vector<UniqueFd>(sockets_.size());
    absl::Status status = MoveIn(*std::move(port));
    if (!status.ok()) return status;
    return true;
  }
  return false;
}

absl::Status RoamingPort::MoveIn(Port port) {
  UniqueFd ram(fcntl(port.guest_ram.get(), F_DUPFD_CLOEXEC, 0));
  if (memory_ == nullptr) {
    absl::StatusOr<std::unique_ptr<MemfdGuestMemory>> memory =
        MemfdGuestMemory::Map(std::move(ram));
    if (!memory.ok()) return memory.status();
    memory_ = *std::move(memory);
  } else {
    absl::Status status = ReplaceFile(memory_->file(), ram.get());
    if (!status.ok()) return status;
    ++moves_;
  }
  absl::StatusOr<std::unique_ptr<vsc::GuestPort>> opened =
      vsc::GuestPort::Open(std::move(port));
  if (!opened.ok()) return opened.status();
  doorbell_.now = (*opened)->doorbell();
  port_ = *std::move(opened);
  stands_still_ = false;
  return absl::OkStatus();
}

void RoamingPort::ListenToHome() {
  char said = 0;
  while (home_.valid()) {
    const ssize_t size = recv(home_.get(), &said, 1, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size == 1 && said == migrate_tool::kGuestPause) {
      still_since_ = absl::Now();
      stands_still_ = true;
      said = migrate_tool::kGuestPaused;
      (void)send(home_.get(), &said, 1, MSG_NOSIGNAL);
    } else if (size == 1 && said == migrate_tool::kGuestResume) {
      stands_still_ = false;
    } else if (size <= 0) {
      if (!stands_still_) still_since_ = absl::Now();
      stands_still_ = true;
      home_ = UniqueFd();
    }
  }
}

bool RoamingPort::Pump(vsc::Bus& bus) {
  ListenToHome();
  if (!stands_still_) return port_->Pump(bus);
  if (home_.valid()) return false;
  const absl::StatusOr<bool> found = LookForHome();
  if (found.ok() && *found) return true;
  is_lost_ = !found.ok() || absl::Now() - still_since_ > patience_;
  return false;
}

void RoamingPort::Wait() {
  std::vector<pollfd> fds = {{home_.get(), POLLIN, 0}};
  for (const UniqueFd& candidate : candidates_) {
    fds.push_back({candidate.get(), POLLIN, 0});
  }
  if (!stands_still_) {
    for (int fd : port_->wait_fds()) fds.push_back({fd, POLLIN, 0});
  }
  poll(fds.data(), fds.size(), 1);
}

}  // namespace ferrybus::demo
