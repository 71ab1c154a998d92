// SPDX-License-Identifier: MIT

// Any bytes as a function's data, as they are and with their checksums made
// right: refused before the driver is called, or its parts reach the driver and
// the DLL as they are in the frame, the driver's first.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

#include "ferrybus/savestate/frame_fixup.h"
#include "ferrybus/vsp/virtual_function/documented_driver.h"
#include "ferrybus/vsp/virtual_function/documented_migration.h"
#include "ferrybus/vsp/virtual_function/migration_parts.h"

namespace ferrybus::vsp {
namespace {

constexpr uint64_t kPartBytesMax = 4096;

void Check(bool condition) {
  if (!condition) std::abort();
}

absl::Span<const std::byte> Bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string Text(absl::Span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct Target {
  explicit Target(bool has_umed) {
    DocumentedMigrationOptions options;
    options.part_bytes_max = kPartBytesMax;
    if (has_umed) {
      options.umed = &umed;
      options.umed_state = &umed.state;
    }
    device = *DocumentedMigratable::Create(driver.functions(), options);
    driver.adapter = device->adapter();
    Check(device->Prepare(migration::Role::kTarget).ok());
    driver.calls.clear();
  }

  DocumentedDriver driver;
  DocumentedUmed umed;
  std::unique_ptr<DocumentedMigratable> device;
};

void Restore(const std::string& blob, bool has_umed) {
  const auto parts = ReadMigrationParts(MigrationPartsKind::kImmutable,
                                        Bytes(blob), kPartBytesMax);
  Target target(has_umed);
  const absl::Status status = target.device->RestoreImmutable(Bytes(blob));
  const bool reaches_driver = parts.ok() && parts->umed.has_value() == has_umed;
  Check(target.driver.calls.size() == (reaches_driver ? 1 : 0));
  Check(!status.ok() || reaches_driver);
  if (parts.ok()) Check(parts->driver.size() <= kPartBytesMax);
  if (status.ok() && has_umed)
    Check(target.umed.restored == Text(*parts->umed));

  // The same as mutable data, of a target that got this far.
  Target other(has_umed);
  std::optional<std::string> umed;
  if (has_umed) umed = "";
  const std::string good =
      *WriteMigrationParts(MigrationPartsKind::kImmutable,
                           {other.driver.immutable, umed}, kPartBytesMax);
  Check(other.device->RestoreImmutable(Bytes(good)).ok());
  const auto state = ReadMigrationParts(MigrationPartsKind::kMutable,
                                        Bytes(blob), kPartBytesMax);
  if (!other.device->RestoreMutable(Bytes(blob)).ok()) return;
  Check(other.driver.restored_mutable == Text(state->driver));
}

}  // namespace
}  // namespace ferrybus::vsp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  std::string blob(reinterpret_cast<const char*>(data), size_bytes);
  ferrybus::vsp::Restore(blob, false);
  ferrybus::vsp::Restore(blob, true);
  ferrybus::savestate::FixChecksums(&blob);
  ferrybus::vsp::Restore(blob, false);
  ferrybus::vsp::Restore(blob, true);
  return 0;
}
