// SPDX-License-Identifier: MIT
//
// The two rings of an open channel, mapped into this process.
//
// A channel's rings lie in one GPADL, the guest-to-host ring first; the
// host-to-guest ring starts at page `downstream_page_offset`.
//
// Ownership: owns the mappings.
// Trust: page numbers must be below the memory's page_count (the GPADL table
// checks them); the rings' contents are the peer's.

#ifndef FERRYBUS_CHANNEL_RING_PAIR_H_
#define FERRYBUS_CHANNEL_RING_PAIR_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/ringbuffer/ring_mapping.h"

namespace ferrybus {

struct RingPair {
  ringbuffer::RingMapping guest_to_host;
  ringbuffer::RingMapping host_to_guest;

  // InvalidArgument: the offset leaves a ring without a data page, or a page
  // is not RAM.  ResourceExhausted: the process has no room for mappings.
  static absl::StatusOr<RingPair> Map(const GuestMemory& memory,
                                      absl::Span<const uint64_t> page_numbers,
                                      uint32_t downstream_page_offset);
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_RING_PAIR_H_
