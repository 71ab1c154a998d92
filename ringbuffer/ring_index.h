// SPDX-License-Identifier: MIT
//
// Arithmetic on ring indices: byte offsets into a data area, multiples of 8,
// equal when the ring is empty.
//
// Cost: no division; sizes need not be powers of two.

#ifndef FERRYBUS_RINGBUFFER_RING_INDEX_H_
#define FERRYBUS_RINGBUFFER_RING_INDEX_H_

#include <cstdint>

#include "ferrybus/ringbuffer/wire.h"

namespace ferrybus::ringbuffer {

// A ring's data area: at least one page, whole pages, at most this.  The cap
// keeps index sums within 32 bits.
inline constexpr uint32_t kMaxDataBytes = 1u << 30;

constexpr bool IsValidDataSize(uint64_t data_bytes) {
  return data_bytes >= kPageBytes && data_bytes <= kMaxDataBytes &&
         data_bytes % kPageBytes == 0;
}

constexpr bool IsValidIndex(uint32_t index, uint32_t data_bytes) {
  return index < data_bytes && index % 8 == 0;
}

// Bytes written and not yet read.  Both indices valid.
constexpr uint32_t UsedBytes(uint32_t write, uint32_t read,
                             uint32_t data_bytes) {
  return write >= read ? write - read : data_bytes - read + write;
}

// Bytes not used.  A packet fits when its total is strictly below this: a
// write must never make the indices equal.
constexpr uint32_t FreeBytes(uint32_t write, uint32_t read,
                             uint32_t data_bytes) {
  return data_bytes - UsedBytes(write, read, data_bytes);
}

constexpr uint32_t Advance(uint32_t index, uint32_t bytes,
                           uint32_t data_bytes) {
  const uint32_t next = index + bytes;
  return next >= data_bytes ? next - data_bytes : next;
}

constexpr uint64_t AlignUp8(uint64_t bytes) {
  return (bytes + 7) & ~uint64_t{7};
}

// Ring bytes that a packet takes, padding and trailer included.
constexpr uint64_t PacketRingBytes(uint64_t header_bytes,
                                   uint64_t payload_bytes) {
  return AlignUp8(header_bytes + payload_bytes) + kTrailerBytes;
}

// The most a sender may take: some peers refuse one unit more
// (docs/WIRE_FORMAT.md, quirk D2).  Readers accept data_bytes - 8.
constexpr uint32_t MaxSendRingBytes(uint32_t data_bytes) {
  return data_bytes - 16;
}

// The same, also within the 16-bit length of a descriptor.
constexpr uint64_t MaxPacketRingBytes(uint32_t data_bytes) {
  const uint64_t by_length = 0xffff * uint64_t{8} + kTrailerBytes;
  const uint64_t by_ring = MaxSendRingBytes(data_bytes);
  return by_length < by_ring ? by_length : by_ring;
}

}  // namespace ferrybus::ringbuffer

#endif  // FERRYBUS_RINGBUFFER_RING_INDEX_H_
