// SPDX-License-Identifier: MIT

#include "ferrybus/tests/migration/tcp_relay.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {
namespace {

sockaddr_in Loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

bool SendAll(int socket, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t sent = send(socket, data, size, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    data += sent;
    size -= static_cast<size_t>(sent);
  }
  return true;
}

}  // namespace

TcpRelay::TcpRelay(int target_port, const RelayPlan& plan)
    : target_port_(target_port), plan_(plan) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(listen(listener_, 64), 0);
  getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

TcpRelay::~TcpRelay() {
  Cut();
  acceptor_.join();
  std::vector<std::thread> pumps;
  {
    absl::MutexLock lock(&mutex_);
    pumps.swap(pumps_);
  }
  for (std::thread& pump : pumps) pump.join();
  for (Connection& connection : connections_) {
    for (int socket : connection.sockets) close(socket);
  }
  close(listener_);
}

std::string TcpRelay::address() const {
  return absl::StrCat("127.0.0.1:", port_);
}

void TcpRelay::Accept() {
  while (true) {
    const int source = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (source < 0) return;
    const int target = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = Loopback(target_port_);
    (void)connect(target, reinterpret_cast<sockaddr*>(&address),
                  sizeof(address));
    for (int socket : {source, target}) {
      const int yes = 1;
      setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    }
    absl::MutexLock lock(&mutex_);
    if (is_cut_) {
      close(source);
      close(target);
      return;
    }
    const int connection = static_cast<int>(connections_.size());
    connections_.push_back({.sockets = {source, target}});
    for (int direction : {0, 1}) {
      pumps_.emplace_back([=, this] { Pump(connection, direction); });
    }
  }
}

void TcpRelay::Pump(int connection, int direction) {
  int from = -1;
  int to = -1;
  {
    absl::MutexLock lock(&mutex_);
    from = connections_[connection].sockets[direction];
    to = connections_[connection].sockets[1 - direction];
  }
  std::string buffer(1 << 14, '\0');
  while (true) {
    const ssize_t size = recv(from, buffer.data(), buffer.size(), 0);
    if (size <= 0) break;
    if (!Forward(connection, direction,
                 buffer.substr(0, static_cast<size_t>(size)))) {
      break;
    }
  }
  shutdown(from, SHUT_RD);
  shutdown(to, SHUT_WR);
}

// Whether the plan is about this, and how many bytes there were before.
bool TcpRelay::Meets(int connection, int direction, uint64_t* before) {
  absl::MutexLock lock(&mutex_);
  *before = plan_.connection < 0 ? bytes_[direction]
                                 : connections_[connection].bytes[direction];
  return plan_.fault != RelayFault::kNone &&
         direction == (plan_.to_target ? 0 : 1) &&
         (plan_.connection < 0 || plan_.connection == connection);
}

bool TcpRelay::Forward(int connection, int direction, std::string bytes) {
  uint64_t before = 0;
  const bool is_meant = Meets(connection, direction, &before);
  const uint64_t left =
      plan_.after_bytes > before ? plan_.after_bytes - before : 0;
  const bool is_due = is_meant && left < bytes.size();
  int to = -1;
  {
    absl::MutexLock lock(&mutex_);
    to = connections_[connection].sockets[1 - direction];
    bytes_[direction] += bytes.size();
    connections_[connection].bytes[direction] += bytes.size();
    if (is_due) is_fault_done_ = true;
  }
  if (!is_due) return SendAll(to, bytes.data(), bytes.size());
  if (plan_.fault == RelayFault::kCorrupt) {
    if (before <= plan_.after_bytes) bytes[left] ^= 0x10;
    return SendAll(to, bytes.data(), bytes.size());
  }
  if (plan_.fault == RelayFault::kDelay) {
    absl::SleepFor(plan_.delay);
    return SendAll(to, bytes.data(), bytes.size());
  }
  if (!SendAll(to, bytes.data(), left)) return false;
  switch (plan_.fault) {
    case RelayFault::kCut:
      Cut();
      return false;
    case RelayFault::kCutOne: {
      absl::MutexLock lock(&mutex_);
      for (int socket : connections_[connection].sockets) {
        shutdown(socket, SHUT_RDWR);
      }
      return false;
    }
    case RelayFault::kTrickle:
      for (size_t i = left; i < bytes.size(); ++i) {
        for (int wait = 0; wait < 100; ++wait) {
          absl::SleepFor(absl::Milliseconds(10));
          absl::MutexLock lock(&mutex_);
          if (is_cut_) return false;
        }
        if (!SendAll(to, &bytes[i], 1)) return false;
      }
      return true;
    default:
      AwaitCut();
      return false;
  }
}

void TcpRelay::AwaitCut() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&is_cut_));
}

void TcpRelay::Cut() {
  absl::MutexLock lock(&mutex_);
  CutAll();
}

void TcpRelay::CutAll() {
  if (is_cut_) return;
  is_cut_ = true;
  shutdown(listener_, SHUT_RDWR);
  for (const Connection& connection : connections_) {
    for (int socket : connection.sockets) shutdown(socket, SHUT_RDWR);
  }
}

uint64_t TcpRelay::Bytes(int direction) const {
  absl::MutexLock lock(&mutex_);
  return bytes_[direction];
}

int TcpRelay::connections() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(connections_.size());
}

bool TcpRelay::is_fault_done() const {
  absl::MutexLock lock(&mutex_);
  return is_fault_done_;
}

}  // namespace ferrybus::migration
