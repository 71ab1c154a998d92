// SPDX-License-Identifier: MIT
//
// The storage device's saved state as bytes (storage_state.proto).
//
// Trust: a save file may be corrupt or forged.  Parsing bounds the size before
// anything is decoded, then checks every field; what it returns could have
// been saved by a live device.  Unknown fields are ignored.
//
// The same state gives the same bytes.
//
// Errors: DataLoss, naming the field.

#ifndef FERRYBUS_VSP_STORAGE_STORAGE_STATE_PERSIST_H_
#define FERRYBUS_VSP_STORAGE_STORAGE_STATE_PERSIST_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/vsp/storage/storage_state.h"

namespace ferrybus::vsp {

// Far more than either needs: room for fields of later versions.
inline constexpr size_t kStorageStateBytesMax = 4096;

std::string SerializeDeviceState(const StorageDeviceState& state);
absl::StatusOr<StorageDeviceState> ParseDeviceState(
    absl::Span<const std::byte> bytes);

std::string SerializePacketState(const StoragePacketState& state);
absl::StatusOr<StoragePacketState> ParsePacketState(
    absl::Span<const std::byte> bytes);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_STORAGE_STORAGE_STATE_PERSIST_H_
