// SPDX-License-Identifier: MIT
//
// A connection from the host to a port of the guest's (hv_sock) whose far end
// sends back what it gets: every byte is known, so that one that is lost,
// doubled or changed is seen, also over a replacement of this process.
//
// Thread safety: one thread, the bus's.
// Trust: the guest may send anything; what is not an echo is counted.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_SOCKET_PROBE_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_SOCKET_PROBE_H_

#include <cstdint>

#include "ferrybus/channel/protocols/socket_stream.h"
#include "ferrybus/examples/hypervisor/machine_state.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/socket/socket_device.h"

namespace ferrybus::hypervisor {

class SocketProbe final : public SocketStream::Events {
 public:
  // Where the guest listens, as vsock counts.
  static constexpr uint32_t kGuestPort = 1024;

  SocketProbe() : device_(this) {}

  vsp::DeviceOffer Offer();
  // Goes on where the probe of another process was.
  void Continue(const ProbeState& state);
  // Sends some more; a few times a second.
  void Tick();
  ProbeState State() const;

 private:
  void OnReadable() override;

  vsp::SocketDevice device_;
  ProbeState is_ = {.is_open = 1};
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_SOCKET_PROBE_H_
