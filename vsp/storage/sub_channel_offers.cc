// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/sub_channel_offers.h"

#include <algorithm>
#include <optional>

#include "absl/status/statusor.h"

namespace ferrybus::vsp {

DeviceOffer SubChannelOffers::OfferOf(uint16_t index) const {
  DeviceOffer offer = {.params = primary_,
                       .device = device_->sub_channel(index)};
  offer.params.sub_channel_index = index;
  return offer;
}

std::vector<DeviceOffer> SubChannelOffers::Offers(uint64_t count) {
  count_ = static_cast<uint16_t>(
      std::min<uint64_t>(count, device_->sub_channels_max()));
  std::vector<DeviceOffer> offers;
  for (uint16_t i = 1; i <= count_; ++i) offers.push_back(OfferOf(i));
  return offers;
}

absl::Status SubChannelOffers::Update(Bus& bus) {
  const uint16_t wanted = device_->sub_channels_wanted();
  while (count_ < wanted) {
    const auto index = static_cast<uint16_t>(count_ + 1);
    const DeviceOffer offer = OfferOf(index);
    const absl::StatusOr<OfferId> offered =
        bus.Offer(offer.params, offer.device);
    // The guest has not let go of the one before.
    if (absl::IsAlreadyExists(offered.status())) return absl::OkStatus();
    if (!offered.ok()) return offered.status();
    count_ = index;
  }
  // The guest has closed the disk, and begins anew.
  for (; wanted == 0 && count_ > 0; --count_) {
    const std::optional<OfferId> offer =
        bus.FindOffer(*device_->sub_channel(count_));
    if (!offer.has_value()) continue;
    const absl::Status status = bus.Rescind(*offer);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace ferrybus::vsp
