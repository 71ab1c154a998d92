// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/server_channel.h"

#include <utility>

namespace ferrybus::vsp {

ServerChannel::ServerChannel(OfferId offer, ChannelId channel_id,
                             Device* device, const EndpointLimits& limits,
                             const GuestMemory* memory, Doorbell* doorbell,
                             Wake* wake)
    : offer_(offer),
      channel_id_(channel_id),
      device_(device),
      wake_(wake),
      endpoint_(std::make_unique<PacketEndpoint>(
          EndpointSide::kHost, limits, memory, doorbell,
          static_cast<EndpointEvents*>(this))) {}

ServerChannel::~ServerChannel() {
  PacketEndpoint::Retire(std::move(endpoint_));
}

bool ServerChannel::WaitsForReissue(const PacketInfo& packet) const {
  for (const IncomingPacket& waiting : reissue_) {
    if (waiting.info().slot == packet.slot) return true;
  }
  return false;
}

}  // namespace ferrybus::vsp
