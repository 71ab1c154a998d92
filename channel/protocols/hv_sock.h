// SPDX-License-Identifier: MIT
//
// Sockets between host and guest (hv_sock) as their offers name them: a
// service is a GUID, a connection a channel of that interface type.
//
// Plain values.
// Source: docs/WIRE_FORMAT.md, "Sockets".

#ifndef FERRYBUS_CHANNEL_PROTOCOLS_HV_SOCK_H_
#define FERRYBUS_CHANNEL_PROTOCOLS_HV_SOCK_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "ferrybus/channel/guid.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/channel/protocols/pipe_offer.h"

namespace ferrybus {

// The service that stands for a Linux vsock port, and back.
constexpr Guid ServiceOfVsockPort(uint32_t port) {
  Guid service = GuidLiteral("00000000-facb-11e6-bd58-64006a7986d3");
  for (size_t i = 0; i < 4; ++i) {
    service.bytes[i] = static_cast<uint8_t>(port >> (8 * i));
  }
  return service;
}
constexpr std::optional<uint32_t> VsockPortOfService(const Guid& service) {
  uint32_t port = 0;
  for (size_t i = 0; i < 4; ++i) port |= uint32_t{service.bytes[i]} << (8 * i);
  if (service != ServiceOfVsockPort(port)) return std::nullopt;
  return port;
}

inline constexpr uint16_t kSocketOfferFlags =
    kOfferTlnpiProvider | kOfferNamedPipeMode | kOfferEnumerateDeviceInterface;

// `for_guest_accept`: the host connects to a service that listens in the
// guest; otherwise it answers the guest's connect.
constexpr std::array<std::byte, kUserDataSizeBytes> SocketOfferUserData(
    bool for_guest_accept) {
  auto user_data = PipeOfferUserData(PipeType::kByte);
  user_data[4] = std::byte{for_guest_accept};
  return user_data;
}

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_PROTOCOLS_HV_SOCK_H_
