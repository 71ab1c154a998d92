// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/unix/unix_server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ferrybus/savestate/migration/host/control_link.h"
#include "ferrybus/savestate/migration/host/random_id.h"
#include "ferrybus/savestate/migration/unix/socket_frame.h"
#include "ferrybus/savestate/migration/unix/unix_connection.h"
#include "ferrybus/savestate/steady_clock.h"

namespace ferrybus::migration {
namespace {

using savestate::UniqueFd;

constexpr absl::Duration kAskTime = absl::Seconds(5);
constexpr absl::Duration kClosePatience = absl::Seconds(1);
constexpr absl::Duration kProbeTime = absl::Milliseconds(200);
constexpr absl::Duration kAcceptAgainAfter = absl::Milliseconds(50);
constexpr int kBacklog = 16;

// A socket that the process before left has nobody who listens.
absl::Status RemoveStale(const std::string& path) {
  struct stat info = {};
  if (lstat(path.c_str(), &info) != 0) return absl::OkStatus();
  if (!S_ISSOCK(info.st_mode)) {
    return absl::AlreadyExistsError(path + ": there is something else");
  }
  const absl::Status probe = UnixSocket::Connect(path, kProbeTime).status();
  if (probe.ok()) {
    return absl::AlreadyExistsError(path + ": another process listens there");
  }
  // Else it is not known: no descriptor to look with, or one who listens has no
  // time.
  if (!absl::IsUnavailable(probe)) return probe;
  unlink(path.c_str());
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> Listen(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // The path gets the socket's access, at once.
  if (!fd.valid() || fchmod(fd.get(), S_IRUSR | S_IWUSR) != 0 ||
      bind(fd.get(), reinterpret_cast<const sockaddr*>(&address),
           sizeof(address)) != 0 ||
      listen(fd.get(), kBacklog) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": listen"));
  }
  return fd;
}

}  // namespace

UnixServer::UnixServer(const UnixServerOptions& options,
                       MachineRegistry* registry, MigrationBook* book)
    : options_(options),
      arrivals_({.ask =
                     [](const std::string& peer, const std::string& machine,
                        const std::string& migration_id) {
                       return AskDecisionOverUnix(peer, machine, migration_id,
                                                  kAskTime);
                     },
                 .silence_max = options.silence_max,
                 .arrivals_max = options.arrivals_max,
                 .limits = options.limits,
                 .shared_memory = options.shared_memory},
                registry, book) {}

UnixServer::~UnixServer() { Stop(); }

absl::Status UnixServer::Start() {
  absl::StatusOr<std::string> path = ParseUnixAddress(options_.address);
  absl::Status status = path.ok() ? RemoveStale(*path) : path.status();
  if (!status.ok()) return status;
  stop_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop_.valid()) {
    return absl::ErrnoToStatus(errno, absl::StrCat(*path, ": eventfd"));
  }
  absl::StatusOr<UniqueFd> listener = Listen(*path);
  if (!listener.ok()) return listener.status();
  listener_ = *std::move(listener);
  path_ = *std::move(path);
  acceptor_ = std::thread([this] { AcceptAll(); });
  return absl::OkStatus();
}

void UnixServer::Stop() {
  if (acceptor_.joinable()) {
    eventfd_write(stop_.get(), 1);
    acceptor_.join();
    unlink(path_.c_str());
    listener_ = UniqueFd();
  }
  arrivals_.Stop();
  std::list<Connection> connections;
  {
    absl::MutexLock lock(&mutex_);
    is_stopping_ = true;
    connections.swap(connections_);
    for (Connection& each : connections) {
      if (each.socket != nullptr) each.socket->Shutdown();
    }
  }
  for (Connection& each : connections) each.thread.join();
}

// ---- Connections

void UnixServer::AcceptAll() {
  while (true) {
    pollfd wanted[] = {{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (poll(wanted, 2, -1) < 0 && errno != EINTR) return;
    if (wanted[1].revents != 0) return;
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (fd.valid()) {
      Accept(std::move(fd));
    } else if (errno != EAGAIN && errno != EINTR) {
      absl::SleepFor(kAcceptAgainAfter);  // as when descriptors are out
    }
  }
}

void UnixServer::Accept(UniqueFd fd) {
  absl::StatusOr<std::unique_ptr<UnixSocket>> socket =
      UnixSocket::Adopt(std::move(fd));
  if (!socket.ok()) return;  // another user's
  absl::MutexLock lock(&mutex_);
  connections_.remove_if([](Connection& each) {
    if (each.is_over) each.thread.join();
    return each.is_over;
  });
  if (is_stopping_ || connections_.size() >= options_.connections_max) return;
  Connection& connection = connections_.emplace_back();
  connection.socket = *std::move(socket);
  connection.thread = std::thread([this, &connection] {
    Serve(*connection.socket);
    absl::MutexLock ended(&mutex_);
    connection.socket = nullptr;
    connection.is_over = true;
  });
}

void UnixServer::Serve(UnixSocket& socket) {
  absl::StatusOr<Frame> first = socket.Receive(
      options_.limits, savestate::SteadyNow() + options_.silence_max);
  if (!first.ok()) return;
  if (first->kind == FrameKind::kGreeting) {
    TakeMachine(socket, first->bytes);
  } else if (first->kind == FrameKind::kQuestion) {
    absl::StatusOr<DecisionQuestion> question = ParseQuestion(first->bytes);
    if (!question.ok()) return;
    (void)socket.Send(FrameKind::kAnswer,
                      SerializeAnswer(arrivals_.Decide(
                          question->machine, question->migration_id)));
  }
}

void UnixServer::TakeMachine(UnixSocket& socket, const std::string& greeting) {
  const std::string ticket = NewRandomId();
  ControlLink link(
      {.open = [] {},
       .read =
           [&](LinkMessage* message) { return Read(socket, ticket, message); },
       .write =
           [&](const LinkMessage& message) {
             return socket.Send(FrameKind::kMessage, message.bytes).ok();
           },
       .writes_done = [&] { socket.EndSending(); },
       .cancel = [&] { socket.Shutdown(); }});
  absl::StatusOr<std::string> peer = ParseGreeting(greeting);
  if (peer.ok()) {
    (void)arrivals_.Serve(link, *peer, ticket);  // the source heard why
    return;
  }
  link.Send({.bytes = SerializeMessage(Abort{.reason = peer.status()})});
  link.Close(kClosePatience);
}

// The next message; blocks go to the machine.
bool UnixServer::Read(UnixSocket& socket, const std::string& ticket,
                      LinkMessage* message) {
  while (true) {
    absl::StatusOr<Frame> frame =
        socket.Receive(options_.limits, absl::InfiniteFuture());
    if (!frame.ok()) {
      // Of a machine that has not begun to come, nobody else says why.
      if (!absl::IsOutOfRange(frame.status()) &&
          arrivals_.Find(ticket) == nullptr) {
        (void)socket.Send(FrameKind::kMessage,
                          SerializeMessage(Abort{.reason = frame.status()}));
      }
      return false;
    }
    if (frame->kind == FrameKind::kMessage) {
      *message = {.bytes = std::move(frame->bytes),
                  .descriptors = std::move(frame->descriptors)};
      return true;
    }
    const Arrivals::Incoming incoming = arrivals_.Find(ticket);
    if (frame->kind != FrameKind::kBlock || incoming == nullptr) return false;
    incoming->OnBlock(frame->bytes);
  }
}

}  // namespace ferrybus::migration
