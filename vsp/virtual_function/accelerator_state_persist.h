// SPDX-License-Identifier: MIT
//
// A virtual function's immutable and mutable data as bytes
// (accelerator_state.proto).
//
// Trust: what comes from another host may be corrupt or forged.  Parsing bounds
// everything before it is decoded, then checks what it can by itself; what the
// device at hand allows, Accelerator, MsixTable and ConfigSpace check.
//
// The same state gives the same bytes.
//
// Errors: DataLoss, naming the field; ResourceExhausted for too many bytes;
// FailedPrecondition for a format of a later version, naming both.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_STATE_PERSIST_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_STATE_PERSIST_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/vsp/virtual_function/accelerator_state.h"

namespace ferrybus::vsp {

inline constexpr uint32_t kAcceleratorFormatVersion = 1;
inline constexpr size_t kAcceleratorIdentityBytesMax = 16384;
// A full queue and a full interrupt table need less than 90 KiB.
inline constexpr size_t kVirtualFunctionStateBytesMax = 131072;
inline constexpr size_t kAcceleratorNameBytesMax = 256;

std::string SerializeAcceleratorIdentity(const AcceleratorIdentity& identity);
absl::StatusOr<AcceleratorIdentity> ParseAcceleratorIdentity(
    absl::Span<const std::byte> bytes);

std::string SerializeVirtualFunctionState(const VirtualFunctionState& state);
absl::StatusOr<VirtualFunctionState> ParseVirtualFunctionState(
    absl::Span<const std::byte> bytes);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_STATE_PERSIST_H_
