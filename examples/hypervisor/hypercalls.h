// SPDX-License-Identifier: MIT
//
// The two hypercalls that VMBus is made of: post a message, signal an event.
//
// Thread safety: any thread.
// Trust: registers and memory are the guest's.  The input is copied once, then
// checked, then used; a wrong one gets a status and nothing else.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_HYPERCALLS_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_HYPERCALLS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/examples/hypervisor/hyperv.h"

namespace ferrybus::hypervisor {

// Where they go.
class HypercallSink {
 public:
  virtual ~HypercallSink() = default;
  // `payload` is a private copy of at most 240 bytes.
  virtual HypercallStatus PostMessage(uint32_t connection_id,
                                      absl::Span<const std::byte> payload) = 0;
  virtual HypercallStatus SignalEvent(uint64_t input) = 0;
};

// The guest's registers: what to do, and where or what the input is.
struct Hypercall {
  uint64_t control = 0;
  uint64_t input = 0;
};

HypercallStatus HandleHypercall(const Hypercall& call,
                                const GuestMemory& memory, HypercallSink* sink);

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_HYPERCALLS_H_
