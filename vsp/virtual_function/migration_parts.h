// SPDX-License-Identifier: MIT
//
// What a driver and its user-mode DLL save, as one blob: a frame with a section
// for each, of a name, a version and a checksum of its own.
//
// Ownership: views borrow the bytes they were read from.
// Thread safety: free functions.
// Trust: the bytes that are read may be hostile.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_MIGRATION_PARTS_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_MIGRATION_PARTS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ferrybus::vsp {

enum class MigrationPartsKind { kImmutable, kMutable };

// Of the sections.  Those before 1 never were; newer ones are refused.
inline constexpr uint32_t kMigrationPartsVersion = 1;

struct MigrationParts {
  std::string driver;
  std::optional<std::string> umed;  // none: there is no DLL
};

struct MigrationPartViews {
  absl::Span<const std::byte> driver;
  std::optional<absl::Span<const std::byte>> umed;
};

// ResourceExhausted: one of them has more than `part_bytes_max`.
absl::StatusOr<std::string> WriteMigrationParts(MigrationPartsKind kind,
                                                MigrationParts parts,
                                                uint64_t part_bytes_max);

// DataLoss, InvalidArgument: the bytes, or no part of the driver.
// Unimplemented: a newer version, or an unknown part that is required; unknown
// optional ones are left out.
absl::StatusOr<MigrationPartViews> ReadMigrationParts(
    MigrationPartsKind kind, absl::Span<const std::byte> bytes,
    uint64_t part_bytes_max);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_MIGRATION_PARTS_H_
