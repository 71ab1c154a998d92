// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_SIGNAL_EVENT_H_
#define FERRYBUS_CHANNEL_SIGNAL_EVENT_H_

// The input of HvSignalEvent, by which a guest signals a channel: 8 bytes, in
// a register (fast form) or in memory, the same either way.
//
// The host finds the channel by ServerConnection::FindOfferByConnectionId; a
// signal for none is ignored.
//
// Trust: any bits may come; each of the 64 has a meaning or is dropped.

#include <cstdint>

namespace ferrybus {

struct SignalEvent {
  uint32_t connection_id = 0;  // of the offer, or chosen by the guest
  uint16_t flag_number = 0;    // 0 for a channel

  friend bool operator==(const SignalEvent&, const SignalEvent&) = default;
};

constexpr uint64_t EncodeSignalEvent(const SignalEvent& event) {
  return event.connection_id | uint64_t{event.flag_number} << 32;
}

constexpr SignalEvent DecodeSignalEvent(uint64_t input) {
  return {.connection_id = static_cast<uint32_t>(input),
          .flag_number = static_cast<uint16_t>(input >> 32)};
}

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_SIGNAL_EVENT_H_
