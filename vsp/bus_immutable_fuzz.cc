// SPDX-License-Identifier: MIT
//
// What a migration's source says of its bus: refused, or written again and read
// again as the same.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "absl/types/span.h"
#include "ferrybus/vsp/bus_immutable_persist.h"

namespace {

void Need(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  using ferrybus::vsp::ParseBusImmutable;
  using ferrybus::vsp::SerializeBusImmutable;
  const auto read =
      ParseBusImmutable({reinterpret_cast<const std::byte*>(data), size_bytes});
  if (!read.ok()) return 0;
  const std::string written = SerializeBusImmutable(*read);
  const auto again = ParseBusImmutable(
      {reinterpret_cast<const std::byte*>(written.data()), written.size()});
  Need(again.ok());
  Need(again->guest_pages == read->guest_pages);
  Need(again->offers.size() == read->offers.size());
  for (size_t i = 0; i < read->offers.size(); ++i) {
    const auto& offer = again->offers[i];
    const auto& expected = read->offers[i];
    Need(offer.interface_type == expected.interface_type &&
         offer.interface_instance == expected.interface_instance &&
         offer.sub_channel_index == expected.sub_channel_index);
  }
  Need(SerializeBusImmutable(*again) == written);
  return 0;
}
