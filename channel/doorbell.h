// SPDX-License-Identifier: MIT
//
// How one side of a channel wakes the other.
//
// What it is: the single output of a ring that is not shared memory.  A
// transport implements it with eventfds, a hypervisor with interrupts.
//
// Thread safety: Ring() may be called from any thread.
// Cost: a system call in most implementations; rings call it only when the
// protocol asks for a signal.

#ifndef FERRYBUS_CHANNEL_DOORBELL_H_
#define FERRYBUS_CHANNEL_DOORBELL_H_

#include <cstdint>

namespace ferrybus {

class Doorbell {
 public:
  virtual ~Doorbell() = default;
  // Signals channel `channel_id` (its relid, 1..2047) to the peer.
  virtual void Ring(uint32_t channel_id) = 0;
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_DOORBELL_H_
