// SPDX-License-Identifier: MIT

// Any bytes as saved state: refused, or read into a state that is written and
// read back unchanged.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "ferrybus/vsp/socket/socket_state_persist.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  using namespace ferrybus::vsp;  // NOLINT
  const auto state = ParseSocketState(absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(data), size_bytes));
  if (!state.ok()) return 0;
  const std::string bytes = SerializeSocketState(*state);
  const auto again = ParseSocketState(absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()));
  if (!again.ok() || !(*again == *state)) std::abort();
  return 0;
}
