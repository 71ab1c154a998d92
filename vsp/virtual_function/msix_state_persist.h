// SPDX-License-Identifier: MIT
//
// An MSI-X table's saved state as bytes (msix_state.proto).
//
// Trust: a save file may be corrupt or forged.  Parsing bounds everything
// before it is decoded, then checks what the table's size allows.  Whether the
// size is the device's, and the values those that a guest could have written,
// MsixTable::Restore checks.
//
// The same state gives the same bytes.
//
// Errors: DataLoss, naming the field; ResourceExhausted for too many bytes.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_STATE_PERSIST_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_STATE_PERSIST_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/vsp/virtual_function/msix_state.h"

namespace ferrybus::vsp {

// A full table needs less than 50 KiB.
inline constexpr size_t kMsixStateBytesMax = 65536;

// REQUIRES: at most kMsixVectorsMax entries.
std::string SerializeMsixState(const MsixTableState& state);
absl::StatusOr<MsixTableState> ParseMsixState(
    absl::Span<const std::byte> bytes);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_MSIX_STATE_PERSIST_H_
