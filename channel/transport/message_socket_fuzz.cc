// SPDX-License-Identifier: MIT
//
// Socket messages of any bytes: decoded by both sides; what is taken encodes
// to what was read.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ferrybus/channel/check.h"
#include "ferrybus/channel/transport/message_socket.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  using ferrybus::kMaxMessageBytes;
  using ferrybus::kMessageHeaderBytes;
  const absl::Span<const std::byte> bytes(
      reinterpret_cast<const std::byte*>(data), size_bytes);
  std::array<std::byte, kMessageHeaderBytes + kMaxMessageBytes> again;
  const auto to_host = ferrybus::DecodeToHost(bytes);
  if (to_host.ok()) {
    const size_t size = ferrybus::EncodeToHost(
        to_host->connection_id, to_host->payload(), absl::MakeSpan(again));
    // All but the reserved word.
    FERRYBUS_CHECK(
        size <= size_bytes && std::memcmp(&again[8], data + 8, size - 8) == 0,
        "not the message that was read");
  }
  const auto to_guest = ferrybus::DecodeToGuest(bytes);
  if (to_guest.ok()) {
    const size_t size =
        ferrybus::EncodeToGuest(to_guest->payload(), absl::MakeSpan(again));
    FERRYBUS_CHECK(
        size <= size_bytes &&
            std::memcmp(&again[kMessageHeaderBytes], data + kMessageHeaderBytes,
                        size - kMessageHeaderBytes) == 0,
        "not the message that was read");
  }
  return 0;
}
