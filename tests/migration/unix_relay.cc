// SPDX-License-Identifier: MIT

#include "ferrybus/tests/migration/unix_relay.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {
namespace {

sockaddr_un AddressOf(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

savestate::UniqueFd Copy(int fd) {
  return savestate::UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

}  // namespace

UnixRelay::UnixRelay(const std::string& path, const std::string& target_path,
                     const FramePlan& plan)
    : path_(path),
      target_path_(target_path),
      plan_(plan),
      listener_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  const sockaddr_un address = AddressOf(path);
  unlink(path.c_str());
  EXPECT_EQ(bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address),
                 sizeof(address)),
            0)
      << path;
  EXPECT_EQ(listen(listener_.get(), 4), 0);
  acceptor_ = std::thread([this] { Accept(); });
}

UnixRelay::~UnixRelay() {
  shutdown(listener_.get(), SHUT_RDWR);
  acceptor_.join();
  absl::ReleasableMutexLock lock(&mutex_);
  is_ending_ = true;
  for (Connection& each : connections_) {
    for (auto& socket : each.sockets) socket->Shutdown();
  }
  std::list<Connection> connections;
  connections.swap(connections_);
  lock.Release();
  for (Connection& each : connections) {
    for (std::thread& pump : each.pumps) pump.join();
  }
  unlink(path_.c_str());
}

std::string UnixRelay::address() const {
  return absl::StrCat(kUnixPrefix, path_);
}

int UnixRelay::frames(bool to_target) const {
  absl::MutexLock lock(&mutex_);
  return frames_[to_target ? 0 : 1];
}

bool UnixRelay::is_fault_done() const {
  absl::MutexLock lock(&mutex_);
  return is_fault_done_;
}

void UnixRelay::Accept() {
  while (true) {
    savestate::UniqueFd fd(
        accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd.valid()) return;
    savestate::UniqueFd there(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_un address = AddressOf(target_path_);
    if (connect(there.get(), reinterpret_cast<const sockaddr*>(&address),
                sizeof(address)) != 0) {
      continue;
    }
    savestate::UniqueFd raw[] = {Copy(fd.get()), Copy(there.get())};
    auto source = UnixSocket::Adopt(std::move(fd));
    auto target = UnixSocket::Adopt(std::move(there));
    if (!source.ok() || !target.ok()) continue;
    absl::MutexLock lock(&mutex_);
    Connection& connection = connections_.emplace_back();
    for (int i : {0, 1}) connection.raw[i] = std::move(raw[i]);
    connection.sockets[0] = *std::move(source);
    connection.sockets[1] = *std::move(target);
    for (bool to_target : {true, false}) {
      connection.pumps[to_target ? 0 : 1] = std::thread(
          [this, &connection, to_target] { Pump(connection, to_target); });
    }
  }
}

void UnixRelay::Pump(Connection& connection, bool to_target) {
  UnixSocket& from = *connection.sockets[to_target ? 0 : 1];
  UnixSocket& to = *connection.sockets[to_target ? 1 : 0];
  while (true) {
    absl::StatusOr<Frame> frame = from.Receive({}, absl::InfiniteFuture());
    if (!frame.ok()) {
      absl::MutexLock lock(&mutex_);
      // Stalled links do not tell that they end.
      auto may_end = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return !is_stalled_ || is_ending_;
      };
      mutex_.Await(absl::Condition(&may_end));
      to.EndSending();
      return;
    }
    if (!Forward(connection, to_target, *std::move(frame))) return;
  }
}

bool UnixRelay::Forward(Connection& connection, bool to_target, Frame frame) {
  bool is_due = false;
  {
    absl::MutexLock lock(&mutex_);
    auto may_go = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return !is_stalled_ || is_ending_;
    };
    mutex_.Await(absl::Condition(&may_go));
    is_due = plan_.fault != FrameFault::kNone && plan_.to_target == to_target &&
             frames_[to_target ? 0 : 1] == plan_.frame;
    ++frames_[to_target ? 0 : 1];
    if (is_due) is_fault_done_ = true;
  }
  if (is_due) return Fail(connection, to_target, std::move(frame));
  return connection.sockets[to_target ? 1 : 0]
      ->Send(frame.kind, frame.bytes, frame.descriptors)
      .ok();
}

bool UnixRelay::Fail(Connection& connection, bool to_target, Frame frame) {
  UnixSocket& from = *connection.sockets[to_target ? 0 : 1];
  UnixSocket& to = *connection.sockets[to_target ? 1 : 0];
  switch (plan_.fault) {
    case FrameFault::kNone:
      break;
    case FrameFault::kTear:
    case FrameFault::kCut:
      if (plan_.fault == FrameFault::kTear) {
        const auto header = SerializeFrameHeader(
            {.kind = frame.kind,
             .size_bytes = static_cast<uint32_t>(frame.bytes.size())});
        const int raw = connection.raw[to_target ? 1 : 0].get();
        (void)send(raw, header.data(), header.size(), MSG_NOSIGNAL);
        (void)send(raw, frame.bytes.data(), frame.bytes.size() / 2,
                   MSG_NOSIGNAL);
      }
      for (auto& socket : connection.sockets) socket->Shutdown();
      return false;
    case FrameFault::kStall: {
      absl::MutexLock lock(&mutex_);
      is_stalled_ = true;
      return true;
    }
    case FrameFault::kCorrupt: {
      const auto at = static_cast<size_t>(plan_.frame) * 31;
      frame.bytes[at % frame.bytes.size()] ^= static_cast<char>(1 << at % 8);
      break;
    }
    case FrameFault::kSwap: {
      absl::StatusOr<Frame> next =
          from.Receive({}, absl::Now() + absl::Milliseconds(200));
      if (next.ok()) (void)to.Send(next->kind, next->bytes, next->descriptors);
      break;
    }
    case FrameFault::kTwice:
      (void)to.Send(frame.kind, frame.bytes, frame.descriptors);
      break;
    case FrameFault::kCall:
      plan_.act();
      break;
  }
  return to.Send(frame.kind, frame.bytes, frame.descriptors).ok();
}

}  // namespace ferrybus::migration
