// SPDX-License-Identifier: MIT
//
// The payload of a scene's packets: each word says whose it is.

#ifndef FERRYBUS_TESTS_INTERLEAVING_PACKET_BYTES_H_
#define FERRYBUS_TESTS_INTERLEAVING_PACKET_BYTES_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "ferrybus/tests/interleaving/explored_access.h"

namespace ferrybus::interleaving {

using Payload = std::array<uint64_t, kDataBytes / 8>;

inline uint64_t PayloadWord(uint32_t packet) { return 0x5a00 + packet; }

inline absl::Span<const std::byte> PayloadOf(uint32_t bytes, uint32_t packet,
                                             Payload* payload) {
  payload->fill(PayloadWord(packet));
  return {reinterpret_cast<const std::byte*>(payload->data()), bytes};
}

}  // namespace ferrybus::interleaving

#endif  // FERRYBUS_TESTS_INTERLEAVING_PACKET_BYTES_H_
