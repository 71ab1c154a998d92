// SPDX-License-Identifier: MIT

// Any bytes as saved state: refused, or read into a state that is written and
// read back unchanged.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "ferrybus/vsp/storage/storage_state.h"
#include "ferrybus/vsp/storage/storage_state_persist.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  using namespace ferrybus::vsp;  // NOLINT
  const auto as_bytes = [](const std::string& text) {
    return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                               text.size());
  };
  const auto bytes =
      absl::MakeConstSpan(reinterpret_cast<const std::byte*>(data), size_bytes);
  if (const auto device = ParseDeviceState(bytes); device.ok()) {
    const auto again =
        ParseDeviceState(as_bytes(SerializeDeviceState(*device)));
    if (!again.ok() || !(*again == *device)) std::abort();
  }
  if (const auto packet = ParsePacketState(bytes); packet.ok()) {
    const auto again =
        ParsePacketState(as_bytes(SerializePacketState(*packet)));
    if (!again.ok() || !(*again == *packet)) std::abort();
  }
  return 0;
}
