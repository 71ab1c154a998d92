// SPDX-License-Identifier: MIT
//
// Channel messages over a SOCK_SEQPACKET Unix socket, in the form the
// hypervisor gives them.
//
// Guest to host is the input of HvPostMessage, host to guest a SynIC message
// slot:
//   guest to host: u32 connection_id, u32 0, u32 type, u32 size, payload
//   host to guest: u32 type, u8 size, u8 flags, u16 0, u64 sender, payload
// with type 1 for a channel message and at most 240 bytes of payload.  One
// socket message is one channel message.
//
// Ownership: borrows the descriptor.  Thread safety: none.
// Trust: the peer may send anything; what is not one well-formed message is
// refused, and the socket goes on.
//
// Source: docs/WIRE_FORMAT.md, vectors S1 and S2.

#ifndef FERRYBUS_CHANNEL_TRANSPORT_MESSAGE_SOCKET_H_
#define FERRYBUS_CHANNEL_TRANSPORT_MESSAGE_SOCKET_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ferrybus {

inline constexpr size_t kMaxMessageBytes = 240;
inline constexpr size_t kMessageHeaderBytes = 16;

struct SocketMessage {
  std::array<std::byte, kMaxMessageBytes> bytes;
  uint32_t size = 0;
  uint32_t connection_id = 0;  // guest to host only

  absl::Span<const std::byte> payload() const { return {bytes.data(), size}; }
};

// The two encodings; the decoder for each is its inverse.  `out` has room for
// kMessageHeaderBytes + payload.
size_t EncodeToHost(uint32_t connection_id, absl::Span<const std::byte> payload,
                    absl::Span<std::byte> out);
size_t EncodeToGuest(absl::Span<const std::byte> payload,
                     absl::Span<std::byte> out);
absl::StatusOr<SocketMessage> DecodeToHost(absl::Span<const std::byte> bytes);
absl::StatusOr<SocketMessage> DecodeToGuest(absl::Span<const std::byte> bytes);

class MessageSocket {
 public:
  enum class Role { kHost, kGuest };
  MessageSocket(int fd, Role role) : fd_(fd), role_(role) {}

  // The next message.  Unavailable: none is there.  InvalidArgument: what
  // came is not a message; it is gone, read on.  Aborted: the peer closed.
  absl::StatusOr<SocketMessage> Receive();

  // False: the peer's socket is full, try again when writable.
  bool Send(uint32_t connection_id, absl::Span<const std::byte> payload);

  int wait_fd() const { return fd_; }

 private:
  int fd_;
  Role role_;
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_TRANSPORT_MESSAGE_SOCKET_H_
