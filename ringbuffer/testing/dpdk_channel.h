// SPDX-License-Identifier: MIT
//
// A channel as DPDK 22.11 keeps it, for use with its own send and receive
// functions, which need nothing else of DPDK.  Its headers only name the
// structure; were the layout another one, the first packet would show it.
//
// Ownership: borrows the rings.
// Thread safety: sending and receiving may be two threads.

#ifndef FERRYBUS_RINGBUFFER_TESTING_DPDK_CHANNEL_H_
#define FERRYBUS_RINGBUFFER_TESTING_DPDK_CHANNEL_H_

#include <rte_bus_vmbus.h>
#include <rte_vmbus_reg.h>

#include <cstddef>
#include <cstdint>

#include "ferrybus/ringbuffer/ring_view.h"
#include "ferrybus/ringbuffer/wire.h"

// One direction of a channel.
struct DpdkRing {
  vmbus_bufring* ring;  // the data follows the control page
  uint32_t data_bytes;
  uint32_t write_index;  // of the writer: reserved so far
};

struct vmbus_channel {
  void* lists[3];
  const rte_vmbus_device* device;
  DpdkRing incoming;
  DpdkRing outgoing;
  uint16_t relid;
  uint16_t subchannel;
  uint8_t monitor_id;
  vmbus_mon_page* monitor;
};
static_assert(offsetof(vmbus_channel, incoming) == 0x20);
static_assert(offsetof(vmbus_channel, outgoing) == 0x30);
static_assert(offsetof(vmbus_channel, monitor_id) == 0x44);
static_assert(offsetof(vmbus_channel, monitor) == 0x48);

namespace ferrybus::ringbuffer::testing {

// Goes on at the index that the ring has.
inline DpdkRing AttachDpdkRing(const RingView& view) {
  return {reinterpret_cast<vmbus_bufring*>(view.control), view.data_bytes,
          *view.word(kWriteIndexOffset)};
}

}  // namespace ferrybus::ringbuffer::testing

#endif  // FERRYBUS_RINGBUFFER_TESTING_DPDK_CHANNEL_H_
