// SPDX-License-Identifier: MIT
//
// The guest's end of an hv_sock connection: one byte stream over one channel.
//
// What it is: a Driver around a SocketStream (channel/protocols/
// socket_stream.h), which says how to read and write.  One driver is one
// connection.  It takes the offer of its service: the host's answer to a
// connect, or the host's own connect to a service that listens here.
//
// Ownership: borrows the events.  Borrowed by its bus.
// Thread safety: one thread, the bus's.
// Trust: the host may send anything; a datagram that cannot be faults the
// channel.
//
//   SocketClient socket(&events);
//   bus.ConnectSocket(ServiceOfVsockPort(1024), endpoint, &socket,
//                     SocketClient::Settings());
//   // or, to be connected to:
//   bus.AddDriver(ServiceOfVsockPort(1024), &socket, SocketClient::Settings());

#ifndef FERRYBUS_VSC_SOCKET_SOCKET_CLIENT_H_
#define FERRYBUS_VSC_SOCKET_SOCKET_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ferrybus/channel/protocols/socket_stream.h"
#include "ferrybus/vsc/client_channel.h"
#include "ferrybus/vsc/ring_channel.h"

namespace ferrybus::vsc {

class SocketClient final : public Driver, private SocketStream::Sink {
 public:
  explicit SocketClient(SocketStream::Events* events) : stream_(this, events) {}

  // Bounds what is not read, and makes the rings as large as Linux does.
  static DriverSettings Settings();

  SocketStream& stream() { return stream_; }

  // -- Driver --------------------------------------------------------------
  void OnOpened(ClientChannel& channel) override { channel_ = &channel; }
  void OnStarted() override;
  void OnOpenFailed(const absl::Status&) override { stream_.Refuse(); }
  void OnCompletion(uint64_t, absl::Span<const std::byte>) override {}
  void OnPacket(IncomingPacket packet) override {
    stream_.TakeDatagram(std::move(packet));
  }
  void OnRoom() override { stream_.OnRoom(); }
  void OnClosed() override;

 private:
  // SocketStream::Sink.
  SocketStream::Taken SendDatagram(absl::Span<const std::byte> bytes) override;
  void PublishDatagrams() override { channel_->Flush(); }

  SocketStream stream_;
  ClientChannel* channel_ = nullptr;
};

}  // namespace ferrybus::vsc

#endif  // FERRYBUS_VSC_SOCKET_SOCKET_CLIENT_H_
