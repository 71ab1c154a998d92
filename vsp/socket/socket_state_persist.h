// SPDX-License-Identifier: MIT
//
// A socket's saved state as bytes (socket_state.proto).
//
// Trust: a save file may be corrupt or forged.  Parsing bounds the size before
// anything is decoded, then checks every field.  Unknown fields are ignored.
//
// The same state gives the same bytes.
//
// Errors: DataLoss, naming the field.

#ifndef FERRYBUS_VSP_SOCKET_SOCKET_STATE_PERSIST_H_
#define FERRYBUS_VSP_SOCKET_SOCKET_STATE_PERSIST_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/protocols/socket_stream.h"

namespace ferrybus::vsp {

struct SocketDeviceState {
  SocketStream::State stream;
  uint64_t queued_tag = 0;  // of the datagram that waits for room; 0: none

  friend bool operator==(const SocketDeviceState&,
                         const SocketDeviceState&) = default;
};

// Far more than it needs: room for fields of later versions.
inline constexpr size_t kSocketStateBytesMax = 4096;

std::string SerializeSocketState(const SocketDeviceState& state);
absl::StatusOr<SocketDeviceState> ParseSocketState(
    absl::Span<const std::byte> bytes);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_SOCKET_SOCKET_STATE_PERSIST_H_
