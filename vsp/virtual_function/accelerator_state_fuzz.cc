// SPDX-License-Identifier: MIT

// Any bytes as a virtual function's mutable data: refused, and then nothing
// happened; or taken, written back unchanged, and run without harm.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "ferrybus/vsp/virtual_function/accelerator_state_persist.h"
#include "ferrybus/vsp/virtual_function/accelerator_world.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  using namespace ferrybus::vsp;  // NOLINT
  using ferrybus::migration::Role;
  const auto bytes =
      absl::MakeConstSpan(reinterpret_cast<const std::byte*>(data), size_bytes);
  static const std::string* const identity = [] {
    AcceleratorHost host(1);
    if (!host.migratable.Prepare(Role::kSource).ok()) std::abort();
    return new std::string(*SaveImmutableOf(host.migratable));
  }();
  const auto parsed = ParseVirtualFunctionState(bytes);
  if (!parsed.ok()) return 0;
  const std::string written = SerializeVirtualFunctionState(*parsed);
  const auto again = ParseVirtualFunctionState(BlobBytes(written));
  if (!again.ok() || !(*again == *parsed)) std::abort();

  AcceleratorHost host(2);
  if (!host.migratable.Prepare(Role::kTarget).ok() ||
      !host.migratable.RestoreImmutable(BlobBytes(*identity)).ok()) {
    std::abort();
  }
  if (!host.migratable.RestoreMutable(bytes).ok()) {
    if (!host.accelerator.is_new()) std::abort();
    return 0;
  }
  (void)host.migratable.RewriteInterrupts();
  if (!(*host.accelerator.Save() == parsed->accelerator)) std::abort();
  host.migratable.End();
  host.migratable.Resume();
  host.accelerator.Run(2000);
  if (host.migratable.Prepare(Role::kSource).ok() &&
      host.migratable.Pause().ok()) {
    if (!SaveMutableOf(host.migratable).ok()) std::abort();
  }
  return 0;
}
