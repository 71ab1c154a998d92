// SPDX-License-Identifier: MIT
//
// Where a ring lies in this process's address space, and what can go wrong
// with it.
//
// Ownership: a view owns nothing; RingMapping does.

#ifndef FERRYBUS_RINGBUFFER_RING_VIEW_H_
#define FERRYBUS_RINGBUFFER_RING_VIEW_H_

#include <cstddef>
#include <cstdint>

#include "ferrybus/ringbuffer/wire.h"

namespace ferrybus::ringbuffer {

struct RingView {
  std::byte* control = nullptr;  // one page
  // The data area, mapped twice in a row: [data, data + 2 * data_bytes), so
  // that no packet ever wraps for the code that reads or writes it.
  std::byte* data = nullptr;
  uint32_t data_bytes = 0;

  uint32_t* word(uint32_t offset) const {
    // The control page is page aligned and `offset` one of wire.h's words.
    return reinterpret_cast<uint32_t*>(control + offset);
  }
};

// Why a ring handle stopped.  Sticky: a peer that broke the protocol once is
// not believed again.
enum class RingFault : uint8_t {
  kNone,
  kDataSize,         // not whole pages, none, or above kMaxDataBytes
  kIndexRange,       // the peer's index is not below the data size
  kIndexAlignment,   // the peer's index is not a multiple of 8
  kIndexBackwards,   // the peer's index moved outside what it may do
  kTruncatedPacket,  // fewer bytes present than the packet claims
  kPacketType,       // not one of PacketType
  kPacketFlags,      // bits other than "completion requested"
  kHeaderLength,     // header shorter than its type needs, or than 16
  kPacketLength,     // packet shorter than its header
  kPacketTooLong,    // above the agreed maximum packet size
};

// A short text for logs and status messages.
constexpr const char* RingFaultName(RingFault fault) {
  switch (fault) {
    case RingFault::kNone:
      return "none";
    case RingFault::kDataSize:
      return "data area is not a positive number of whole pages";
    case RingFault::kIndexRange:
      return "peer's index is beyond the data area";
    case RingFault::kIndexAlignment:
      return "peer's index is not a multiple of 8";
    case RingFault::kIndexBackwards:
      return "peer's index moved outside the room it was given";
    case RingFault::kTruncatedPacket:
      return "packet is longer than the bytes written";
    case RingFault::kPacketType:
      return "unknown packet type";
    case RingFault::kPacketFlags:
      return "unknown packet flags";
    case RingFault::kHeaderLength:
      return "packet header is too short for its type";
    case RingFault::kPacketLength:
      return "packet is shorter than its header";
    case RingFault::kPacketTooLong:
      return "packet is longer than the channel's maximum";
  }
  return "unknown";
}

// When a batch is full: whichever is reached first.
struct BatchBound {
  uint32_t bytes = 16384;
  uint32_t packets = UINT32_MAX;
};

// One side's own idea of a ring: what a save stores, and what a restore
// compares with the words in shared memory.
struct RingPosition {
  // This side's index: write_index for a producer, read_index for a consumer.
  uint32_t own_index = 0;
  // The last value of the peer's index that passed the checks.
  uint32_t peer_index = 0;

  friend bool operator==(const RingPosition&, const RingPosition&) = default;
};

}  // namespace ferrybus::ringbuffer

#endif  // FERRYBUS_RINGBUFFER_RING_VIEW_H_
