// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_MONITOR_PAGE_H_
#define FERRYBUS_CHANNEL_MONITOR_PAGE_H_

// Signals without a hypercall: the guest sets a bit in a page, and the host
// looks at the page when it finds time.
//
// A guest has two monitor pages (ServerConnection::contact()); it sets bits in
// the one named child to parent, one bit for each channel that was offered with
// a monitor id.  Who polls, and how often, is the owner's choice; channels
// without monitor are signalled as usual.
//
// Thread safety: any thread, if the memory has it.
// Ordering: what the guest wrote before it set a bit is visible to whoever
// takes the bit.
// Trust: the guest may set any bit at any time, and may have given a page of
// anything; more than a signal for nothing cannot come of it.
// Cost: four loads when no bit is set.
//
//   TakeMonitorTriggers(memory, contact.child_to_parent_monitor_page,
//                       [&](uint8_t monitor_id) {
//     if (auto offer = connection.FindOfferByMonitorId(monitor_id)) ...
//   });

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "ferrybus/channel/guest_memory.h"

namespace ferrybus {

inline constexpr uint32_t kMonitorCount = 128;

// Clears the bits that are set and calls `triggered` for each.  False: the
// address is not that of a page of RAM.
bool TakeMonitorTriggers(const GuestMemory& memory, uint64_t page_address,
                         absl::FunctionRef<void(uint8_t monitor_id)> triggered);

// The guest's half.  False also: no such monitor.
bool SetMonitorTrigger(const GuestMemory& memory, uint64_t page_address,
                       uint8_t monitor_id);

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_MONITOR_PAGE_H_
