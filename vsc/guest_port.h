// SPDX-License-Identifier: MIT
//
// Connects a vsc::Bus to the serving process through the guest's end of a
// Port.
//
// Ownership: owns the port's descriptors; borrows the guest memory.
// Thread safety: one thread, the one that polls the bus.

#ifndef FERRYBUS_VSC_GUEST_PORT_H_
#define FERRYBUS_VSC_GUEST_PORT_H_

#include <array>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "ferrybus/channel/transport/message_socket.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/channel/transport/signal_page.h"
#include "ferrybus/vsc/bus.h"

namespace ferrybus::vsc {

class GuestPort {
 public:
  static absl::StatusOr<std::unique_ptr<GuestPort>> Open(Port port);

  Doorbell* doorbell() { return &sender_; }
  // Readable when Pump() has something to do.
  std::array<int, 2> wait_fds() const {
    return {receiver_.wait_fd(), messages_.wait_fd()};
  }
  // Carries messages and signals both ways and polls the bus once.  True: call
  // again without waiting.
  bool Pump(Bus& bus);

  bool peer_gone() const { return peer_gone_; }

 private:
  GuestPort(Port port, SignalPage signals);

  Port port_;
  SignalPage signals_;
  SignalSender sender_;
  SignalReceiver receiver_;
  MessageSocket messages_;
  bool peer_gone_ = false;
};

}  // namespace ferrybus::vsc

#endif  // FERRYBUS_VSC_GUEST_PORT_H_
