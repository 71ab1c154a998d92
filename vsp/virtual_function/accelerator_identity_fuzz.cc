// SPDX-License-Identifier: MIT

// Any bytes as immutable data: refused, or read into an identity that is
// written and read back unchanged; a device takes only its like.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "ferrybus/vsp/virtual_function/accelerator_migratable.h"
#include "ferrybus/vsp/virtual_function/accelerator_state_persist.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  using namespace ferrybus::vsp;  // NOLINT
  const auto identity = ParseAcceleratorIdentity(absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(data), size_bytes));
  if (!identity.ok()) return 0;
  const std::string bytes = SerializeAcceleratorIdentity(*identity);
  const auto again = ParseAcceleratorIdentity(absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()));
  if (!again.ok() || !(*again == *identity)) std::abort();
  if (!CheckIdentity(*identity, *again).ok()) std::abort();
  const AcceleratorIdentity other = {.hardware_model = "none such",
                                     .segments = {}};
  if (identity->hardware_model != other.hardware_model &&
      CheckIdentity(*identity, other).ok()) {
    std::abort();
  }
  return 0;
}
