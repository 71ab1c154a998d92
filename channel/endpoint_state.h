// SPDX-License-Identifier: MIT
//
// A channel side's packets as plain data: what a save takes out of a
// PacketEndpoint and a restore puts into one.
//
// Trust: a value of this type that came out of ParseEndpointState was checked
// against EndpointLimits; one that was filled by hand was not.

#ifndef FERRYBUS_CHANNEL_ENDPOINT_STATE_H_
#define FERRYBUS_CHANNEL_ENDPOINT_STATE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ferrybus/ringbuffer/ring_view.h"
#include "ferrybus/ringbuffer/wire.h"

namespace ferrybus {

// Caps on everything the peer can make grow.
struct EndpointLimits {
  // Packets received and not completed, or whose completions wait for room;
  // more stay in the ring.
  uint32_t max_in_flight = 256;
  // Packets sent with "completion requested" and not completed.
  uint32_t max_awaiting = 256;
  // Packets of our own that wait for room.  On the host, completions that wait
  // count as packets in flight.
  uint32_t max_queued = 256;
  // Descriptor, extension and payload of a received packet.  16 KiB of
  // payload (the pipe maximum) and a page list fit.
  uint32_t max_packet_bytes = 32 * 1024;
  // Completions that answer nothing, before the channel faults.
  uint32_t max_bad_completions = 64;
};

// A fault's reason is cut to this.  It may quote the peer: any bytes.
inline constexpr size_t kMaxFaultReasonBytes = 512;

struct EndpointState {
  struct Incoming {
    ringbuffer::PacketType type = ringbuffer::PacketType::kDataInBand;
    bool completion_requested = false;
    uint64_t transaction_id = 0;
    std::string extension;
    std::string payload;
    std::string blob;  // what the device saved
    // Not given to the device yet, or given back: has no blob.
    bool is_waiting = false;
  };
  // Waits for room in the outgoing ring.
  struct Queued {
    ringbuffer::PacketType type = ringbuffer::PacketType::kDataInBand;
    uint16_t flags = 0;
    uint64_t transaction_id = 0;
    std::string extension;
    std::string payload;
    uint64_t tag = 0;  // for OnSent
    bool wants_sent = false;
  };
  // Sent, or queued, with "completion requested".
  struct Awaiting {
    uint64_t transaction_id = 0;
    uint64_t tag = 0;
    std::string blob;
    // Nobody waits any more; the id stays taken until the completion comes.
    bool is_cancelled = false;
  };

  // This side's private ring indices; compared with shared memory at restore.
  ringbuffer::RingPosition incoming_ring;
  ringbuffer::RingPosition outgoing_ring;
  uint32_t incoming_data_bytes = 0;
  uint32_t outgoing_data_bytes = 0;

  std::vector<Incoming> incoming;  // in the order they were received
  std::vector<Queued> queued;      // in the order they are to be sent
  std::vector<Awaiting> awaiting;
  // Not empty: the channel was faulted when it was saved, and restores so.
  std::string fault_reason;
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_ENDPOINT_STATE_H_
