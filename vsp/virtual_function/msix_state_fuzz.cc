// SPDX-License-Identifier: MIT

// Any bytes as saved state: refused, or read into a state that is written and
// read back unchanged, and that a table of its size takes or refuses without
// harm.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "ferrybus/vsp/virtual_function/msix_state_persist.h"
#include "ferrybus/vsp/virtual_function/msix_table.h"
#include "ferrybus/vsp/virtual_function/msix_world.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  using namespace ferrybus::vsp;  // NOLINT
  const auto state = ParseMsixState(absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(data), size_bytes));
  if (!state.ok()) return 0;
  const std::string bytes = SerializeMsixState(*state);
  const auto again = ParseMsixState(absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()));
  if (!again.ok() || !(*again == *state)) std::abort();

  const auto vectors = static_cast<uint32_t>(state->entries.size());
  RecordingHost host(1, vectors);
  MsixTable table({.vectors = vectors}, &host, &host);
  if (!table.Restore(*state).ok()) return 0;
  const auto saved = table.Save();
  if (!saved.ok() || !(*saved == *state)) std::abort();
  if (!table.Resume().ok() || host.writes.size() != vectors) std::abort();
  for (const auto& [index, entry] : host.writes) {
    if (!entry.is_masked() && entry.address >> 32 == 0) std::abort();
  }
  return 0;
}
