// SPDX-License-Identifier: MIT
//
// A channel's packets and its device's state as bytes, and back.
//
// Trust: the bytes may be anything.  Parse checks all of them against the
// limits before it hands out a value: sizes, counts, packet types, ring
// indices, transaction ids.  Whether the rings in memory agree is checked by
// PacketEndpoint::Restore.
//
// Determinism: the same state gives the same bytes.

#ifndef FERRYBUS_CHANNEL_ENDPOINT_PERSIST_H_
#define FERRYBUS_CHANNEL_ENDPOINT_PERSIST_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/endpoint_state.h"

namespace ferrybus {

struct ChannelSnapshot {
  EndpointState endpoint;
  std::string device_state;
};

std::string SaveChannelSnapshot(ChannelSnapshot snapshot);

// `where` names the section in error texts.
absl::StatusOr<ChannelSnapshot> ParseChannelSnapshot(
    absl::Span<const std::byte> bytes, const EndpointLimits& limits,
    const std::string& where);

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_ENDPOINT_PERSIST_H_
