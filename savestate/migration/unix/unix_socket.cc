// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/unix/unix_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ferrybus/savestate/steady_clock.h"

namespace ferrybus::migration {
namespace {

using savestate::UniqueFd;

constexpr absl::Duration kConnectAgainAfter = absl::Milliseconds(10);
// Of a frame, before it has come.
constexpr size_t kGrowBytes = size_t{1} << 20;

// Takes what came with a message, all of it.
void TakeDescriptors(msghdr& message, std::vector<UniqueFd>* descriptors) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
      descriptors->emplace_back(fd);
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<UnixSocket>> UnixSocket::Connect(
    const std::string& path, absl::Duration timeout) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() > kSocketPathMax) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": too long"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return absl::ErrnoToStatus(errno, "socket");
  const absl::Time until = savestate::SteadyNow() + timeout;
  while (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                 sizeof(address)) != 0) {
    // EAGAIN: as many as it lets wait do so.
    if (errno != EAGAIN && errno != EINTR) {
      return absl::UnavailableError(
          absl::StrCat(path, ": ", std::strerror(errno)));
    }
    if (savestate::SteadyNow() > until) {
      return absl::DeadlineExceededError(
          absl::StrCat(path, ": who listens there does not accept"));
    }
    absl::SleepFor(kConnectAgainAfter);
  }
  if (fcntl(fd.get(), F_SETFL, 0) != 0) {
    return absl::ErrnoToStatus(errno, "socket");
  }
  return Adopt(std::move(fd));
}

absl::StatusOr<std::unique_ptr<UnixSocket>> UnixSocket::Adopt(UniqueFd fd) {
  auto socket = absl::WrapUnique(new UnixSocket(std::move(fd)));
  absl::Status status = socket->CheckPeer();
  if (!status.ok()) return status;
  return socket;
}

absl::Status UnixSocket::CheckPeer() const {
  ucred peer = {};
  socklen_t size = sizeof(peer);
  if (getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return absl::ErrnoToStatus(errno, "who the peer is");
  }
  if (peer.uid == 0 || peer.uid == geteuid()) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("the process at the other end is user ", peer.uid,
                   "'s; this one is user ", geteuid(), "'s"));
}

// ---- Sending

absl::Status UnixSocket::Send(FrameKind kind, absl::string_view bytes,
                              absl::Span<const UniqueFd> descriptors) {
  if (descriptors.size() > kFrameDescriptorsMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat(descriptors.size(), " descriptors, at most ",
                     kFrameDescriptorsMax, " go at a time"));
  }
  const auto header = SerializeFrameHeader(
      {.kind = kind,
       .descriptors = static_cast<uint8_t>(descriptors.size()),
       .size_bytes = static_cast<uint32_t>(bytes.size())});
  absl::MutexLock lock(&send_mutex_);
  absl::Status status = SendAll({header.data(), header.size()}, descriptors);
  return status.ok() ? SendAll(bytes, {}) : status;
}

absl::Status UnixSocket::SendAll(absl::string_view bytes,
                                 absl::Span<const UniqueFd> descriptors) {
  alignas(cmsghdr) char control[CMSG_SPACE(kFrameDescriptorsMax * sizeof(int))];
  while (!bytes.empty()) {
    iovec part = {const_cast<char*>(bytes.data()), bytes.size()};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!descriptors.empty()) {
      std::memset(control, 0, sizeof(control));
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
      cmsghdr* rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
      for (size_t i = 0; i < descriptors.size(); ++i) {
        const int fd = descriptors[i].get();
        std::memcpy(CMSG_DATA(rights) + i * sizeof(int), &fd, sizeof(int));
      }
    }
    const ssize_t sent = sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return absl::UnavailableError(std::strerror(errno));
    descriptors = {};  // they went with the first byte
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return absl::OkStatus();
}

void UnixSocket::EndSending() { shutdown(fd_.get(), SHUT_WR); }
void UnixSocket::Shutdown() { shutdown(fd_.get(), SHUT_RDWR); }

// ---- Receiving

absl::Status UnixSocket::AwaitReadable(absl::Time deadline) const {
  if (deadline == absl::InfiniteFuture()) return absl::OkStatus();
  while (true) {
    const int64_t left =
        absl::ToInt64Milliseconds(deadline - savestate::SteadyNow());
    pollfd wanted = {fd_.get(), POLLIN, 0};
    const int ready =
        poll(&wanted, 1, static_cast<int>(std::clamp<int64_t>(left, 0, 60000)));
    if (ready > 0) return absl::OkStatus();
    if (ready == 0 && savestate::SteadyNow() >= deadline) {
      return absl::DeadlineExceededError("the peer says nothing");
    }
  }
}

absl::Status UnixSocket::ReceiveAll(absl::Span<char> out,
                                    size_t descriptors_max, absl::Time deadline,
                                    std::vector<UniqueFd>* descriptors) {
  const size_t wanted = out.size();
  alignas(cmsghdr) char control[CMSG_SPACE(kFrameDescriptorsMax * sizeof(int))];
  while (!out.empty()) {
    absl::Status status = AwaitReadable(deadline);
    if (!status.ok()) return status;
    iovec part = {out.data(), out.size()};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t size = recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return absl::UnavailableError(std::strerror(errno));
    TakeDescriptors(message, descriptors);
    // `control` has room for all that can be sent.
    if ((message.msg_flags & MSG_CTRUNC) != 0) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "only ", descriptors->size(),
          " descriptors could be received: ", std::strerror(EMFILE), "?"));
    }
    if (descriptors->size() > descriptors_max) {
      return absl::InvalidArgumentError("more descriptors than announced");
    }
    if (size == 0) {
      return out.size() == wanted
                 ? absl::OutOfRangeError("the peer ended it")
                 : absl::UnavailableError("the peer ended in a frame");
    }
    out.remove_prefix(static_cast<size_t>(size));
  }
  return absl::OkStatus();
}

absl::StatusOr<Frame> UnixSocket::Receive(const MessageLimits& limits,
                                          absl::Time deadline) {
  std::array<char, kFrameHeaderBytes> bytes = {};
  Frame frame;
  absl::Status status = ReceiveAll(absl::MakeSpan(bytes), kFrameDescriptorsMax,
                                   deadline, &frame.descriptors);
  if (!status.ok()) return status;
  absl::StatusOr<FrameHeader> header = ParseFrameHeader(bytes, limits);
  if (!header.ok()) return header.status();
  if (frame.descriptors.size() != header->descriptors) {
    return absl::InvalidArgumentError(
        absl::StrCat(header->descriptors, " descriptors announced, ",
                     frame.descriptors.size(), " came"));
  }
  frame.kind = header->kind;
  while (frame.bytes.size() < header->size_bytes) {
    const size_t begin = frame.bytes.size();
    frame.bytes.resize(
        std::min<size_t>(header->size_bytes, begin + kGrowBytes));
    status = ReceiveAll(absl::MakeSpan(frame.bytes).subspan(begin),
                        header->descriptors, deadline, &frame.descriptors);
    if (absl::IsOutOfRange(status)) {
      return absl::UnavailableError("the peer ended in a frame");
    }
    if (!status.ok()) return status;
  }
  return frame;
}

}  // namespace ferrybus::migration
