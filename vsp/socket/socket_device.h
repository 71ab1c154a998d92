// SPDX-License-Identifier: MIT
//
// The host's end of an hv_sock connection: one byte stream behind one channel.
//
// What it is: a Device around a SocketStream (channel/protocols/
// socket_stream.h), which says how to read and write.  One device is one
// connection; it is offered when the guest connects to a service that the host
// has, or to connect to a service of the guest.
//
// Buffers: what the host has not read stays in the channel's packets, at most
// kSocketUnreadMax of 16 KiB; what it writes goes into the ring, and when that
// is full one datagram more waits in the channel's queue.
//
// Ownership: borrows the events.  Borrowed by its channel's bus.
// Thread safety: one thread, the bus's.
//
// Trust: the guest may send anything; a datagram that cannot be faults the
// channel.
//
// Moving (IncomingPolicy::kResume): bytes that were not read, and both ends of
// stream, move along; the next owner's user reads on at the same byte.
//
//   // BusObserver::OnTlConnectRequested says service and endpoint.
//   SocketDevice socket(&events);
//   bus.Offer(SocketDevice::Params(service, endpoint, false), &socket);
//   ... OnReadable: socket.stream().Read(room)

#ifndef FERRYBUS_VSP_SOCKET_SOCKET_DEVICE_H_
#define FERRYBUS_VSP_SOCKET_SOCKET_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/guid.h"
#include "ferrybus/channel/incoming_packet.h"
#include "ferrybus/channel/protocols/socket_stream.h"
#include "ferrybus/channel/server_connection_types.h"
#include "ferrybus/savestate/size_negotiation.h"
#include "ferrybus/vsp/device.h"

namespace ferrybus::vsp {

class SocketDevice final : public Device, private SocketStream::Sink {
 public:
  explicit SocketDevice(SocketStream::Events* events) : stream_(this, events) {}

  // What to offer it as.  `endpoint` names the connection: of the guest's
  // choice if it connects, else any that is unique.
  static OfferParams Params(const Guid& service, const Guid& endpoint,
                            bool for_guest_accept);

  SocketStream& stream() { return stream_; }

  // -- Device --------------------------------------------------------------
  absl::Status OnOpened(ServerChannel& channel,
                        absl::Span<const std::byte> user_data) override;
  void OnStarted() override;
  void OnClosed() override;
  void ProcessPacket(IncomingPacket packet) override;
  void OnSent(uint64_t tag) override;
  IncomingPolicy incoming_policy() const override {
    return IncomingPolicy::kResume;
  }
  absl::StatusOr<std::string> SaveDevice() override;
  absl::Status OnRestored(ServerChannel& channel,
                          absl::Span<const std::byte> bytes) override;
  absl::Status RestorePacket(IncomingPacket packet,
                             absl::Span<const std::byte> blob) override;

 private:
  // SocketStream::Sink.
  SocketStream::Taken SendDatagram(absl::Span<const std::byte> bytes) override;

  SocketStream stream_;
  ServerChannel* channel_ = nullptr;
  // The datagram that waits in the channel's queue; 0: none does.
  uint64_t queued_tag_ = 0;
  uint64_t next_tag_ = 1;
  bool is_restored_ = false;  // and not started
  bool is_announced_ = false;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_SOCKET_SOCKET_DEVICE_H_
