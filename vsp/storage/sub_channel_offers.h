// SPDX-License-Identifier: MIT
//
// Offers a storage device's sub-channels when the guest asks for them, and
// takes them back when it has closed the disk: what whoever has device and bus
// does between two polls.
//
// Ownership: borrows the device.
// Thread safety: one thread, that of the bus.
// Trust: a guest asks for at most StorageDeviceOptions::sub_channels_max.
//
//   SubChannelOffers more(&disk, disk_params);
//   for (;;) { ... bus.Poll(); more.Update(bus); }
//
// To move: count() goes to the next owner, whose Offers(count) belong to those
// of Bus::Restore().

#ifndef FERRYBUS_VSP_STORAGE_SUB_CHANNEL_OFFERS_H_
#define FERRYBUS_VSP_STORAGE_SUB_CHANNEL_OFFERS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "ferrybus/channel/server_connection_types.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/storage/storage_device.h"

namespace ferrybus::vsp {

class SubChannelOffers {
 public:
  // `primary`: what the device itself is offered as.
  SubChannelOffers(StorageDevice* device, const OfferParams& primary)
      : device_(device), primary_(primary) {}

  // How many are offered.
  uint16_t count() const { return count_; }
  // Those that a bus to be restored offers already; more than the device can
  // have are left out.
  std::vector<DeviceOffer> Offers(uint64_t count);
  // An error is Bus::Offer's or Bus::Rescind's.
  absl::Status Update(Bus& bus);

 private:
  DeviceOffer OfferOf(uint16_t index) const;

  StorageDevice* const device_;
  const OfferParams primary_;
  uint16_t count_ = 0;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_SUB_CHANNEL_OFFERS_H_
