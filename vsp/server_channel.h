// SPDX-License-Identifier: MIT
//
// A device's view of its channel: what it may do besides completing packets.
//
// Ownership: the bus owns it; valid from Device::OnOpened (or OnRestored) to
// the end of Device::OnClosed.
// Thread safety: Send(), Flush() and BatchScope from any thread.
//
// Source: KMCL's VMBCHANNEL on the server side.

#ifndef FERRYBUS_VSP_SERVER_CHANNEL_H_
#define FERRYBUS_VSP_SERVER_CHANNEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ferrybus/channel/packet_endpoint.h"
#include "ferrybus/channel/server_connection_types.h"
#include "ferrybus/vsp/device.h"

namespace ferrybus::vsp {

class Bus;

class ServerChannel final : private EndpointEvents {
 public:
  // The bus makes channels.  `ready` is told, from any thread, when the
  // channel wants to be polled.
  class Wake {
   public:
    virtual void OnChannelWork(ServerChannel& channel) = 0;

   protected:
    ~Wake() = default;
  };
  ServerChannel(OfferId offer, ChannelId channel_id, Device* device,
                const EndpointLimits& limits, const GuestMemory* memory,
                Doorbell* doorbell, Wake* wake);
  ~ServerChannel();

  // Sends a packet to the guest; on a full ring it is queued in order.  A
  // packet with `wants_completion` ends in Device::OnCompletion.  Guests refuse
  // packets above the maximum of their driver (docs/WIRE_FORMAT.md).
  SendStatus Send(const OutgoingPacket& packet) {
    OutgoingPacket queued = packet;
    queued.may_queue = true;
    return endpoint_->Send(queued);
  }
  void Flush() { endpoint_->Flush(); }

  // While one lives, completions are published together at its end.
  class BatchScope {
   public:
    explicit BatchScope(ServerChannel& channel) : scope_(*channel.endpoint_) {}

   private:
    PacketEndpoint::BatchScope scope_;
  };

  OfferId offer() const { return offer_; }
  ChannelId channel_id() const { return channel_id_; }
  const PacketEndpoint& endpoint() const { return *endpoint_; }

 private:
  friend class Bus;

  // EndpointEvents.
  void OnPacket(IncomingPacket packet) override {
    device_->ProcessPacket(std::move(packet));
  }
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override {
    device_->OnCompletion(tag, reply);
  }
  void OnBatchEnd(size_t packets) override {
    device_->ProcessingComplete(packets);
  }
  void OnRoom() override {}
  void OnWork() override { wake_->OnChannelWork(*this); }

  bool WaitsForReissue(const PacketInfo& packet) const;

  const OfferId offer_;
  const ChannelId channel_id_;
  Device* const device_;
  Wake* const wake_;
  std::unique_ptr<PacketEndpoint> endpoint_;
  bool is_up_ = false;       // the device was told OnOpened or OnRestored
  bool is_started_ = false;  // ... and OnStarted
  // The bus owes the connection a CloseCompleted once nothing is in flight.
  bool closing_ = false;
  // Restored packets that the device gets again when it starts.
  std::vector<IncomingPacket> reissue_;
  bool fault_reported_ = false;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_SERVER_CHANNEL_H_
