// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/machine_move.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ferrybus/savestate/migration/host/random_id.h"
#include "ferrybus/savestate/migration/page_block.h"
#include "ferrybus/savestate/migration/pending_pages.h"

namespace ferrybus::hypervisor {
namespace {

using migration::MigrationSource;
using migration::MigrationTarget;
using migration::PendingPages;
using migration::TargetPhase;

constexpr char kMachine[] = "guest";
constexpr char kMessage = 'm';
constexpr char kBlock = 'b';
constexpr size_t kHeaderBytes = 5;
constexpr uint32_t kSizeMax = 40u << 20;  // MessageLimits, and a block's
constexpr time_t kSendPatienceSeconds = 30;
// A processor that emulates another is slow.
constexpr absl::Duration kDowntime = absl::Seconds(1);

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

class Link {
 public:
  // A peer that stopped reading is gone, or a machine that stands still for its
  // sake would stand still for ever.
  explicit Link(int socket) : socket_(socket) {
    const timeval patience = {kSendPatienceSeconds, 0};
    setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  }

  // False: the peer is gone.
  bool Send(char kind, const std::string& bytes) {
    char header[kHeaderBytes] = {kind};
    for (size_t i = 1; i < kHeaderBytes; ++i) {
      header[i] = static_cast<char>(bytes.size() >> 8 * (i - 1));
    }
    return SendAll(header, sizeof(header)) &&
           SendAll(bytes.data(), bytes.size());
  }

  // Waits a moment for something that is whole.  False: the peer is gone, or
  // sends what cannot be.
  bool Receive(int wait_ms) {
    pollfd wanted = {socket_, POLLIN, 0};
    if (poll(&wanted, 1, wait_ms) <= 0) return true;
    char buffer[65536];
    const ssize_t got = recv(socket_, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    input_.append(buffer, static_cast<size_t>(got));
    return got > 0 && NextSize() <= kSizeMax;
  }

  // What has come.
  std::optional<std::pair<char, std::string>> Take() {
    if (input_.size() < kHeaderBytes) return std::nullopt;
    const uint32_t size = NextSize();
    if (input_.size() - kHeaderBytes < size) return std::nullopt;
    std::pair<char, std::string> taken = {input_[0],
                                          input_.substr(kHeaderBytes, size)};
    input_.erase(0, kHeaderBytes + size);
    return taken;
  }

 private:
  uint32_t NextSize() const {
    uint32_t size = 0;
    for (size_t i = 1; i < kHeaderBytes && input_.size() >= kHeaderBytes; ++i) {
      size |= uint32_t{static_cast<uint8_t>(input_[i])} << 8 * (i - 1);
    }
    return size;
  }

  bool SendAll(const char* bytes, size_t size) {
    while (size > 0) {
      const ssize_t sent = send(socket_, bytes, size, MSG_NOSIGNAL);
      if (sent < 0 && errno != EINTR) return false;
      bytes += std::max<ssize_t>(sent, 0);
      size -= static_cast<size_t>(std::max<ssize_t>(sent, 0));
    }
    return true;
  }

  const int socket_;
  std::string input_;
};

const absl::Status& PeerGone() {
  static const auto* const status =
      new absl::Status(absl::UnavailableError("the other process is gone"));
  return *status;
}

}  // namespace

migration::MigrationProgress SendMachine(
    int socket, absl::Span<migration::Migratable* const> devices,
    migration::OwnershipLedger* ledger) {
  std::vector<std::unique_ptr<PendingPages>> pages;
  std::vector<PendingPages*> borrowed;
  for (migration::Migratable* device : devices) {
    auto created =
        PendingPages::Create(device, migration::MemoryOrigin::kZeros);
    if (!created.ok()) {
      migration::MigrationProgress failed;
      failed.status = created.status();
      return failed;
    }
    pages.push_back(*std::move(created));
    borrowed.push_back(pages.back().get());
  }
  MigrationSource source({.machine = kMachine,
                          .migration_id = migration::NewRandomId(),
                          .peer = "another process",
                          .downtime_limit = kDowntime},
                         borrowed, ledger);
  Link link(socket);
  migration::PageEncoder encoder;
  source.Start(absl::Now());
  while (!source.is_finished()) {
    bool is_there = true;
    while (auto message = source.TakeMessage()) {
      is_there = is_there && link.Send(kMessage, message->bytes);
    }
    const std::string block = source.TakeBlock(encoder, absl::Now()).bytes;
    if (!block.empty()) is_there = is_there && link.Send(kBlock, block);
    is_there = link.Receive(block.empty() ? 5 : 0) && is_there;
    while (const auto received = link.Take()) {
      source.OnMessage(AsBytes(received->second), absl::Now());
    }
    if (!is_there) source.OnDisconnected(PeerGone(), absl::Now());
    source.Poll(absl::Now());
  }
  // It may have something to say about its end.
  while (auto message = source.TakeMessage()) {
    (void)link.Send(kMessage, message->bytes);
  }
  return source.progress();
}

absl::Status ReceiveMachine(int socket, migration::TargetHost* host,
                            migration::OwnershipLedger* ledger) {
  MigrationTarget target({.machine = kMachine,
                          .session = migration::NewRandomId(),
                          .peer = "another process"},
                         host, ledger);
  Link link(socket);
  while (!target.is_finished()) {
    const bool is_there = link.Receive(20);
    while (const auto received = link.Take()) {
      if (received->first == kBlock) {
        target.OnBlock(AsBytes(received->second), absl::Now());
      } else {
        target.OnMessage(AsBytes(received->second), {}, absl::Now());
      }
    }
    if (!is_there) target.OnDisconnected(PeerGone(), absl::Now());
    target.Poll(absl::Now());
    while (const auto message = target.TakeMessage()) {
      (void)link.Send(kMessage, *message);
    }
    if (target.phase() == TargetPhase::kUndecided) {
      return absl::AbortedError("the source ended undecided");
    }
  }
  return target.phase() == TargetPhase::kRunning ? absl::OkStatus()
                                                 : target.status();
}

}  // namespace ferrybus::hypervisor
