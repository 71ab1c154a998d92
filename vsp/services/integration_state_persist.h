// SPDX-License-Identifier: MIT
//
// An integration service's saved state as bytes (integration_state.proto).
//
// Trust: a save file may be corrupt or forged.  Parsing bounds the size before
// anything is decoded, then checks every field.  Unknown fields are ignored.
//
// The same state gives the same bytes.
//
// Errors: DataLoss, naming the field.

#ifndef FERRYBUS_VSP_SERVICES_INTEGRATION_STATE_PERSIST_H_
#define FERRYBUS_VSP_SERVICES_INTEGRATION_STATE_PERSIST_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/vsp/services/integration_state.h"

namespace ferrybus::vsp {

// A full queue, and room for fields of later versions.
inline constexpr size_t kIntegrationStateBytesMax =
    kIntegrationQueueMax * (kIntegrationBodyBytesMax + 64) + 4096;

// REQUIRES: the state's phase is not kClosed.
std::string SerializeIntegrationState(const IntegrationState& state);
absl::StatusOr<IntegrationState> ParseIntegrationState(
    absl::Span<const std::byte> bytes);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_SERVICES_INTEGRATION_STATE_PERSIST_H_
