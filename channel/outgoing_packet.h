// SPDX-License-Identifier: MIT
//
// What an endpoint is asked to send, and what becomes of it.
//
// Ownership: borrows the bytes for the call, and the reply's room until the
// answer is there or Cancel().

#ifndef FERRYBUS_CHANNEL_OUTGOING_PACKET_H_
#define FERRYBUS_CHANNEL_OUTGOING_PACKET_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "ferrybus/ringbuffer/wire.h"

namespace ferrybus {

// Where the answer to a packet goes whose sender waits for it, instead of to
// OnCompletion.  The polling thread's.
struct ReplyRoom {
  enum class State : uint8_t {
    kWaiting,
    kDone,  // answered; or in the ring, if no completion was wanted
    kGone,  // the channel closed
  };
  State state = State::kWaiting;
  absl::Span<std::byte> room;
  size_t bytes = 0;  // of the answer; what does not fit is cut off
};

// What may be sent, and how.
struct OutgoingPacket {
  ringbuffer::PacketType type = ringbuffer::PacketType::kDataInBand;
  absl::Span<const std::byte> extension;
  absl::Span<const std::byte> payload;
  bool wants_completion = false;
  uint64_t tag = 0;  // for OnCompletion
  // On a full ring: true queues the packet (kOk), false answers kFull and
  // OnRoom follows.
  bool may_queue = false;
  // With may_queue: a closed channel takes the packet, too, and sends it when
  // it opens.
  bool may_wait_for_open = false;
  // OnSent(tag) follows when the packet is in the ring.
  bool wants_sent = false;
  ReplyRoom* reply = nullptr;  // Cancel() before it ends
};

// clang-format off
enum class [[nodiscard]] SendStatus : uint8_t {
  kOk,
  kFull,
  kTooLarge,
  kClosed,
  // A pipe has no completions and no external data, a host sends no external
  // data.
  kNotSupported,
};
// clang-format on

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_OUTGOING_PACKET_H_
