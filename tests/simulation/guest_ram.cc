// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/guest_ram.h"

#include <algorithm>
#include <cstring>

#include "ferrybus/channel/check.h"

namespace ferrybus::simulation {

GuestRam::GuestRam(uint64_t pages) {
  auto memory = MemfdGuestMemory::Create(pages * 4096);
  FERRYBUS_CHECK(memory.ok(), "no memory for the guest");
  memory_ = *std::move(memory);
  live_ = memory_->Translate(0, pages * 4096);
}

void GuestRam::Create(int host, std::byte fill) {
  has_[host] = true;
  if (active_ == host) {
    std::fill(live_.begin(), live_.end(), fill);
  } else {
    copies_[host].assign(live_.size(), fill);
  }
}

void GuestRam::Activate(int host) {
  FERRYBUS_CHECK(has_[host], "the host has no memory of the guest");
  if (active_ == host) return;
  if (active_ >= 0 && has_[active_]) {
    copies_[active_].assign(live_.begin(), live_.end());
  }
  std::memcpy(live_.data(), copies_[host].data(), live_.size());
  active_ = host;
}

void GuestRam::Write(int host, uint64_t offset,
                     absl::Span<const std::byte> data) {
  FERRYBUS_CHECK(has_[host], "the host has no memory of the guest");
  std::byte* const base = active_ == host ? live_.data() : copies_[host].data();
  std::memcpy(base + offset, data.data(), data.size());
}

}  // namespace ferrybus::simulation
