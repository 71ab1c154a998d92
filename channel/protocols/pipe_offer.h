// SPDX-License-Identifier: MIT
//
// User data of an offer in pipe mode (kOfferNamedPipeMode): what kind of pipe
// it is.
//
// A plain value.
// Source: docs/WIRE_FORMAT.md, "Pipe mode".

#ifndef FERRYBUS_CHANNEL_PROTOCOLS_PIPE_OFFER_H_
#define FERRYBUS_CHANNEL_PROTOCOLS_PIPE_OFFER_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "ferrybus/channel/messages.h"

namespace ferrybus {

enum class PipeType : uint8_t {
  kByte = 0,     // where a datagram ends carries no meaning
  kMessage = 4,  // a datagram is a message
};

// The type is the first word; what follows is the device's.
constexpr std::array<std::byte, kUserDataSizeBytes> PipeOfferUserData(
    PipeType type) {
  std::array<std::byte, kUserDataSizeBytes> user_data{};
  user_data[0] = static_cast<std::byte>(type);
  return user_data;
}

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_PROTOCOLS_PIPE_OFFER_H_
