// SPDX-License-Identifier: MIT

#include "ferrybus/channel/transport/message_socket.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"

namespace ferrybus {
namespace {

constexpr uint32_t kChannelMessageType = 1;

struct ToHostHeader {
  uint32_t connection_id;
  uint32_t reserved;
  uint32_t message_type;
  uint32_t payload_size;
};
static_assert(sizeof(ToHostHeader) == kMessageHeaderBytes);

struct ToGuestHeader {
  uint32_t message_type;
  uint8_t payload_size;
  uint8_t flags;
  uint16_t reserved;
  uint64_t sender;
};
static_assert(sizeof(ToGuestHeader) == kMessageHeaderBytes);

template <typename Header>
size_t Encode(const Header& header, absl::Span<const std::byte> payload,
              absl::Span<std::byte> out) {
  FERRYBUS_CHECK(payload.size() <= kMaxMessageBytes &&
                     out.size() >= kMessageHeaderBytes + payload.size(),
                 "channel message too long");
  std::memcpy(out.data(), &header, sizeof(header));
  if (!payload.empty()) {
    std::memcpy(out.data() + sizeof(header), payload.data(), payload.size());
  }
  return sizeof(header) + payload.size();
}

template <typename Header>
absl::StatusOr<SocketMessage> Decode(absl::Span<const std::byte> bytes) {
  Header header;
  if (bytes.size() < sizeof(header)) {
    return absl::InvalidArgumentError(
        absl::StrCat("message of ", bytes.size(), " bytes, shorter than its ",
                     sizeof(header), " byte header"));
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  const size_t size = header.payload_size;
  if (header.message_type != kChannelMessageType || size > kMaxMessageBytes ||
      bytes.size() - sizeof(header) < size) {
    return absl::InvalidArgumentError(
        absl::StrCat("message of type ", header.message_type, " with ", size,
                     " bytes of payload in ", bytes.size(), "; expected type ",
                     kChannelMessageType, " and at most ", kMaxMessageBytes));
  }
  SocketMessage message;
  message.size = static_cast<uint32_t>(size);
  std::memcpy(message.bytes.data(), bytes.data() + sizeof(header), size);
  if constexpr (sizeof(header.payload_size) == 4) {
    message.connection_id = header.connection_id;
  }
  return message;
}

// What recv says is 0 both for the end and for a message of no bytes.
bool PeerClosed(int fd) {
  pollfd poll_fd = {fd, POLLIN, 0};
  if (poll(&poll_fd, 1, 0) <= 0 || (poll_fd.revents & POLLHUP) == 0) {
    return false;
  }
  std::byte next;
  return recv(fd, &next, sizeof(next), MSG_DONTWAIT | MSG_PEEK) <= 0;
}

}  // namespace

size_t EncodeToHost(uint32_t connection_id, absl::Span<const std::byte> payload,
                    absl::Span<std::byte> out) {
  const ToHostHeader header = {connection_id, 0, kChannelMessageType,
                               static_cast<uint32_t>(payload.size())};
  return Encode(header, payload, out);
}

size_t EncodeToGuest(absl::Span<const std::byte> payload,
                     absl::Span<std::byte> out) {
  const ToGuestHeader header = {kChannelMessageType,
                                static_cast<uint8_t>(payload.size()), 0, 0, 0};
  return Encode(header, payload, out);
}

absl::StatusOr<SocketMessage> DecodeToHost(absl::Span<const std::byte> bytes) {
  return Decode<ToHostHeader>(bytes);
}

absl::StatusOr<SocketMessage> DecodeToGuest(absl::Span<const std::byte> bytes) {
  return Decode<ToGuestHeader>(bytes);
}

absl::StatusOr<SocketMessage> MessageSocket::Receive() {
  std::array<std::byte, kMessageHeaderBytes + kMaxMessageBytes + 1> bytes;
  ssize_t got;
  do {
    got = recv(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    return absl::UnavailableError("no message");
  }
  if (got < 0 || (got == 0 && PeerClosed(fd_))) {
    return absl::AbortedError("the peer closed its socket");
  }
  const absl::Span<const std::byte> all(bytes.data(), static_cast<size_t>(got));
  return role_ == Role::kHost ? DecodeToHost(all) : DecodeToGuest(all);
}

bool MessageSocket::Send(uint32_t connection_id,
                         absl::Span<const std::byte> payload) {
  std::array<std::byte, kMessageHeaderBytes + kMaxMessageBytes> bytes;
  const size_t size =
      role_ == Role::kHost
          ? EncodeToGuest(payload, absl::MakeSpan(bytes))
          : EncodeToHost(connection_id, payload, absl::MakeSpan(bytes));
  ssize_t sent;
  do {
    sent = send(fd_, bytes.data(), size, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  // A peer that is gone takes no messages; the receiving side finds out.
  return sent >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

}  // namespace ferrybus
