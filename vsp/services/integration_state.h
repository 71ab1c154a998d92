// SPDX-License-Identifier: MIT
//
// What an integration service keeps about its channel, as plain data: what a
// save takes out of a service and a restore puts into one.
//
// Trust: a value that came out of ParseIntegrationState has sound sizes; that
// its versions and bodies fit the service is for the service to check.

#ifndef FERRYBUS_VSP_SERVICES_INTEGRATION_STATE_H_
#define FERRYBUS_VSP_SERVICES_INTEGRATION_STATE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "ferrybus/channel/protocols/integration.h"

namespace ferrybus::vsp {

enum class IntegrationPhase : uint8_t {
  kClosed,       // the guest has no driver; never saved
  kNegotiating,  // the guest may take its time: Linux waits for its daemons
  kReady,
  kRefused,  // no version in common; until the channel opens again
};

// Not more can wait at a service, whatever its options say.
inline constexpr size_t kIntegrationQueueMax = 64;
// Longest body of a request.
inline constexpr size_t kIntegrationBodyBytesMax = 4096;

// A request that is not answered.
struct IntegrationRequest {
  uint64_t cookie = 0;  // its sender's
  std::vector<std::byte> body;

  friend bool operator==(const IntegrationRequest&,
                         const IntegrationRequest&) = default;
};

struct IntegrationState {
  ic::MessageType service = ic::MessageType::kNegotiate;
  IntegrationPhase phase = IntegrationPhase::kClosed;
  // Zeroes until they are agreed on.
  ic::Version framework;
  ic::Version message;
  uint8_t next_transaction = 0;
  // The negotiation, or the first request, is in the ring.
  bool is_sent = false;
  uint8_t sent_transaction = 0;
  // The first request's.
  uint64_t remaining_ns = 0;
  uint64_t next_cookie = 0;
  std::deque<IntegrationRequest> requests;  // in order

  friend bool operator==(const IntegrationState&,
                         const IntegrationState&) = default;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_SERVICES_INTEGRATION_STATE_H_
