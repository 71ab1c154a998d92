// SPDX-License-Identifier: MIT
//
// What an endpoint says of itself: its counters, its rings and its packets in
// flight, for people, logs and monitoring.
//
// What it is: plain values, copied at one moment.  No payload bytes.
//
// Trust: transaction ids and the fault's reason are the peer's choice: escape
// them before they are shown.
// Cost: EndpointLoad one lock; EndpointView also a copy of what it lists.

#ifndef FERRYBUS_CHANNEL_ENDPOINT_VIEW_H_
#define FERRYBUS_CHANNEL_ENDPOINT_VIEW_H_

#include <cstdint>
#include <string>
#include <vector>

#include "ferrybus/ringbuffer/ring_view.h"
#include "ferrybus/ringbuffer/wire.h"

namespace ferrybus {

enum class EndpointRunState {
  kDetached,
  kSuspended,
  kActive,
  kFrozen,
  kFaulted,
};

// Monotonic counts since Attach.
struct EndpointCounters {
  uint64_t packets_received = 0;  // without completions
  uint64_t packets_sent = 0;      // with completions
  uint64_t completions_received = 0;
  uint64_t completions_unmatched = 0;
  uint64_t doorbells_rung = 0;
  // Extensions and payloads, completions' too.
  uint64_t bytes_received = 0;
  uint64_t bytes_sent = 0;
};

struct EndpointLoad {
  EndpointCounters counters;
  uint32_t outstanding = 0;  // received and not completed
  uint32_t awaiting = 0;     // sent and not completed
  uint32_t queued = 0;       // waiting for room
};

struct EndpointView {
  struct Ring {
    uint32_t data_bytes = 0;
    // As this side sees them; both 0 while detached.
    ringbuffer::RingPosition position;
    ringbuffer::RingFault fault = ringbuffer::RingFault::kNone;
  };
  struct Incoming {
    ringbuffer::PacketType type = ringbuffer::PacketType::kDataInBand;
    uint64_t transaction_id = 0;
    uint32_t payload_bytes = 0;
    uint64_t external_bytes = 0;
    bool completion_requested = false;
    bool is_waiting = false;   // its receiver has no handle
    bool is_orphaned = false;  // the channel closed under it
  };
  struct Queued {
    ringbuffer::PacketType type = ringbuffer::PacketType::kDataInBand;
    uint64_t transaction_id = 0;
    uint32_t payload_bytes = 0;
  };
  struct Awaiting {
    uint64_t transaction_id = 0;
    uint64_t tag = 0;
    bool is_cancelled = false;
  };

  EndpointRunState run_state = EndpointRunState::kDetached;
  std::string fault_reason;
  EndpointLoad load;  // how many there are
  Ring incoming_ring;
  Ring outgoing_ring;
  // Of each the first so many: in order of arrival, in the order in which they
  // will be sent, and in no order.
  std::vector<Incoming> incoming;
  std::vector<Queued> queued;
  std::vector<Awaiting> awaiting;
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_ENDPOINT_VIEW_H_
