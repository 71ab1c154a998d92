// SPDX-License-Identifier: MIT
//
// Pipe mode: what stands before the bytes of each datagram.  The ring rounds
// payloads up to 8 bytes; the header says the true length.
//
// Trust: Parse() takes any bytes.
// Source: the documented named-pipe mode.

#ifndef FERRYBUS_CHANNEL_PIPE_HEADER_H_
#define FERRYBUS_CHANNEL_PIPE_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/types/span.h"

namespace ferrybus {

inline constexpr uint32_t kPipePacketData = 1;
inline constexpr uint32_t kMaxPipeDataBytes = 16384;

struct PipeHeader {
  uint32_t packet_type = kPipePacketData;
  uint32_t data_bytes = 0;
};
static_assert(sizeof(PipeHeader) == 8);

// The datagram in a packet's payload.  False: it is none.
inline bool ParsePipePayload(absl::Span<const std::byte> payload,
                             absl::Span<const std::byte>* data) {
  PipeHeader header;
  if (payload.size() < sizeof(header)) return false;
  std::memcpy(&header, payload.data(), sizeof(header));
  if (header.packet_type != kPipePacketData ||
      header.data_bytes > kMaxPipeDataBytes ||
      header.data_bytes > payload.size() - sizeof(header)) {
    return false;
  }
  *data = payload.subspan(sizeof(header), header.data_bytes);
  return true;
}

// Header and data in `out`, whose memory is used again.
inline void BuildPipePayload(absl::Span<const std::byte> data,
                             std::vector<std::byte>* out) {
  const PipeHeader header = {kPipePacketData,
                             static_cast<uint32_t>(data.size())};
  out->resize(sizeof(header) + data.size());
  std::memcpy(out->data(), &header, sizeof(header));
  if (!data.empty()) {
    std::memcpy(out->data() + sizeof(header), data.data(), data.size());
  }
}

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_PIPE_HEADER_H_
