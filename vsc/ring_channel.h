// SPDX-License-Identifier: MIT
//
// The ClientChannel that vsc::Bus makes: a PacketEndpoint on the guest's side.
// Internal to the bus; users see ClientChannel.
//
// Ownership: the bus owns it; it borrows the driver and the guest memory.
// Thread safety: one thread, the bus's.

#ifndef FERRYBUS_VSC_RING_CHANNEL_H_
#define FERRYBUS_VSC_RING_CHANNEL_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "ferrybus/channel/client_connection.h"
#include "ferrybus/channel/packet_endpoint.h"
#include "ferrybus/channel/ready_channels.h"
#include "ferrybus/vsc/client_channel.h"
#include "ferrybus/vsc/guest_pages.h"

namespace ferrybus::vsc {

class RingChannel final : public ClientChannel, private EndpointEvents {
 public:
  RingChannel(ChannelId id, Driver* driver, const EndpointLimits& limits,
              const GuestMemory* memory, Doorbell* doorbell,
              ReadyChannels* ready)
      : id_(id),
        driver_(driver),
        ready_(ready),
        endpoint_(std::make_unique<PacketEndpoint>(
            EndpointSide::kGuest, limits, memory, doorbell,
            static_cast<EndpointEvents*>(this))) {}
  ~RingChannel() override { PacketEndpoint::Retire(std::move(endpoint_)); }

  // ClientChannel.
  SendResult Send(const Request& request) override;
  void Flush() override { endpoint_->Flush(); }
  uint32_t requests_in_flight() const override { return endpoint_->awaiting(); }

  ChannelId id() const { return id_; }
  Driver& driver() { return *driver_; }
  PacketEndpoint& endpoint() { return *endpoint_; }

  // Ring memory; freed by the bus when the host has let go of it.
  PageRun ring;
  GpadlId ring_gpadl{};
  bool has_gpadl = false;   // the host has confirmed it
  bool is_open = false;     // the driver has been told
  bool is_closing = false;  // the ring's GPADL is being torn down
  bool is_rescinded = false;

 private:
  // EndpointEvents.
  void OnPacket(IncomingPacket packet) override {
    driver_->OnPacket(std::move(packet));
  }
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override {
    driver_->OnCompletion(tag, reply);
  }
  void OnBatchEnd(size_t packets) override { (void)packets; }
  void OnRoom() override { driver_->OnRoom(); }
  void OnWork() override { ready_->Set(static_cast<uint32_t>(id_)); }

  bool BuildRanges(absl::Span<const GuestBuffer> buffers);

  const ChannelId id_;
  Driver* const driver_;
  ReadyChannels* const ready_;
  std::unique_ptr<PacketEndpoint> endpoint_;
  std::vector<std::byte> ranges_;  // of the request being sent
};

}  // namespace ferrybus::vsc

#endif  // FERRYBUS_VSC_RING_CHANNEL_H_
