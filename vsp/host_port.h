// SPDX-License-Identifier: MIT
//
// Connects a vsp::Bus to the guest's process through a Port: guest RAM mapped,
// signals and messages carried.
//
// What it is: the serving process's end of a port, without a thread: wait for
// its descriptors, then Pump().
//
// Ownership: owns the port's descriptors and the mapping of guest RAM.  It
// must outlive the bus, and every packet a device holds.
// Thread safety: one thread, the one that polls the bus.
// Trust: everything that comes through the port is the guest's.
//
//   auto port = vsp::HostPort::Open(*std::move(received));
//   vsp::Bus bus(options, (*port)->memory(), (*port)->doorbell());
//   while (running) { poll((*port)->wait_fds()...); (*port)->Pump(bus); }

#ifndef FERRYBUS_VSP_HOST_PORT_H_
#define FERRYBUS_VSP_HOST_PORT_H_

#include <array>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/transport/message_socket.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/channel/transport/signal_page.h"
#include "ferrybus/vsp/bus.h"

namespace ferrybus::vsp {

struct HostPortOptions {
  // The host's event is also written by one who does not say which channel is
  // meant: a KVM that has been told to (KVM_HYPERV_EVENTFD).  Each time, all
  // channels are polled.
  bool unnamed_signals = false;
};

class HostPort {
 public:
  // FailedPrecondition: the descriptors are not what a port has.
  static absl::StatusOr<std::unique_ptr<HostPort>> Open(
      Port port, const HostPortOptions& options = {});

  const GuestMemory* memory() const { return memory_.get(); }
  Doorbell* doorbell() { return &sender_; }

  // Becomes readable when Pump() has something to do; the bus's own wake_fd
  // is to be waited on as well.
  std::array<int, 2> wait_fds() const {
    return {receiver_.wait_fd(), wait_messages_.get()};
  }

  // Carries messages and signals both ways and polls the bus once.  True: call
  // again without waiting.
  bool Pump(Bus& bus);

  // The guest's process closed its end.
  bool peer_gone() const { return peer_gone_; }
  // Messages that were refused since Open, and why the last one was.
  uint64_t refused_messages() const { return refused_messages_; }
  const absl::Status& last_refusal() const { return last_refusal_; }

 private:
  HostPort(const HostPortOptions& options, Port port,
           std::unique_ptr<MemfdGuestMemory> memory, SignalPage signals,
           UniqueFd wait_messages);
  void ReceiveMessages(Bus& bus);
  bool SendMessages(Bus& bus);
  void WaitFor(uint32_t events);

  const HostPortOptions options_;
  Port port_;
  std::unique_ptr<MemfdGuestMemory> memory_;
  SignalPage signals_;
  SignalSender sender_;
  SignalReceiver receiver_;
  MessageSocket messages_;
  // An epoll instance on the message socket: ready when messages can be taken,
  // or sent if some wait.
  UniqueFd wait_messages_;
  uint32_t waiting_for_ = 0;
  bool peer_gone_ = false;
  uint64_t refused_messages_ = 0;
  absl::Status last_refusal_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_HOST_PORT_H_
