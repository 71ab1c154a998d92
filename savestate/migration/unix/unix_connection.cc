// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/unix/unix_connection.h"

#include <atomic>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "ferrybus/savestate/migration/unix/socket_frame.h"
#include "ferrybus/savestate/migration/unix/unix_socket.h"
#include "ferrybus/savestate/steady_clock.h"

namespace ferrybus::migration {
namespace {

constexpr absl::Duration kConnectTime = absl::Seconds(5);

absl::StatusOr<std::unique_ptr<UnixSocket>> ConnectTo(
    const std::string& address, absl::Duration timeout) {
  absl::StatusOr<std::string> path = ParseUnixAddress(address);
  if (!path.ok()) return path.status();
  return UnixSocket::Connect(*path, timeout);
}

// Blocks go over the connection's own socket.
class SocketBlocks final : public BlockStream {
 public:
  explicit SocketBlocks(UnixSocket* socket) : socket_(socket) {}

  void Open() override {}
  bool Write(std::string block) override {
    const absl::Status status = socket_->Send(FrameKind::kBlock, block);
    if (!status.ok()) is_broken_ = true;
    return status.ok();
  }
  // The messages' stream notices.
  bool IsConnected() const override { return !is_broken_; }
  absl::Status Finish() override { return absl::OkStatus(); }
  void Cancel() override { socket_->Shutdown(); }

 private:
  UnixSocket* const socket_;
  std::atomic<bool> is_broken_{false};
};

class UnixConnection final : public TargetConnection {
 public:
  UnixConnection(const std::string& target, const std::string& own_address,
                 const MessageLimits& limits)
      : target_(target), own_address_(own_address), limits_(limits) {}

  ControlLink::Stream Control() override {
    return {.open = [this] { SetEnd(Open()); },
            .read = [this](LinkMessage* message) { return Read(message); },
            .write =
                [this](const LinkMessage& message) {
                  return socket_ != nullptr &&
                         socket_
                             ->Send(FrameKind::kMessage, message.bytes,
                                    message.descriptors)
                             .ok();
                },
            .writes_done =
                [this] {
                  if (socket_ != nullptr) socket_->EndSending();
                },
            .cancel = [this] { Cancel(); }};
  }
  std::unique_ptr<BlockStream> NewBlockStream() override {
    return std::make_unique<SocketBlocks>(socket_.get());
  }
  absl::Status End(bool /*was_heard*/) override {
    absl::MutexLock lock(&mutex_);
    return end_.ok() ? absl::UnavailableError("the target ended it") : end_;
  }

 private:
  absl::Status Open() {
    absl::StatusOr<std::unique_ptr<UnixSocket>> socket =
        ConnectTo(target_, kConnectTime);
    if (!socket.ok()) return socket.status();
    {
      absl::MutexLock lock(&mutex_);
      if (is_cancelled_) return absl::CancelledError("cancelled");
      socket_ = *std::move(socket);
    }
    return socket_->Send(FrameKind::kGreeting, SerializeGreeting(own_address_));
  }

  bool Read(LinkMessage* message) {
    if (socket_ == nullptr) return false;
    absl::StatusOr<Frame> frame =
        socket_->Receive(limits_, absl::InfiniteFuture());
    if (frame.ok() && frame->kind == FrameKind::kMessage) {
      *message = {.bytes = std::move(frame->bytes),
                  .descriptors = std::move(frame->descriptors)};
      return true;
    }
    if (frame.ok()) {
      SetEnd(absl::InvalidArgumentError("a target sends only messages"));
    } else if (!absl::IsOutOfRange(frame.status())) {
      SetEnd(frame.status());
    }
    return false;
  }

  void Cancel() {
    absl::MutexLock lock(&mutex_);
    is_cancelled_ = true;
    if (socket_ != nullptr) socket_->Shutdown();
  }

  void SetEnd(const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    end_.Update(status);
  }

  const std::string target_;
  const std::string own_address_;
  const MessageLimits limits_;
  absl::Mutex mutex_;
  bool is_cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
  // Set by the reader before anybody else looks, but Cancel().
  std::unique_ptr<UnixSocket> socket_;
};

}  // namespace

std::unique_ptr<TargetConnection> MakeUnixConnection(
    const std::string& target, const std::string& own_address,
    const MessageLimits& limits) {
  return std::make_unique<UnixConnection>(target, own_address, limits);
}

absl::StatusOr<Decision> AskDecisionOverUnix(const std::string& peer,
                                             const std::string& machine,
                                             const std::string& migration_id,
                                             absl::Duration timeout) {
  const absl::Time until = savestate::SteadyNow() + timeout;
  absl::StatusOr<std::unique_ptr<UnixSocket>> socket = ConnectTo(peer, timeout);
  if (!socket.ok()) return socket.status();
  absl::Status status = (*socket)->Send(
      FrameKind::kQuestion, SerializeQuestion({machine, migration_id}));
  if (!status.ok()) return status;
  absl::StatusOr<Frame> frame = (*socket)->Receive({}, until);
  if (!frame.ok()) return frame.status();
  if (frame->kind != FrameKind::kAnswer) {
    return absl::InvalidArgumentError("no answer to a question");
  }
  return ParseAnswer(frame->bytes);
}

}  // namespace ferrybus::migration
