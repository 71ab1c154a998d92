// SPDX-License-Identifier: MIT
//
// What the channels of a bus need of a host, to and from bytes: the immutable
// data of BusMigratable.
//
// Trust: bytes may be anything: bounded, and refused with a reason.
// Thread safety: pure functions.

#ifndef FERRYBUS_VSP_BUS_IMMUTABLE_PERSIST_H_
#define FERRYBUS_VSP_BUS_IMMUTABLE_PERSIST_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/guid.h"

namespace ferrybus::vsp {

struct OfferIdentity {
  Guid interface_type;
  Guid interface_instance;
  uint32_t sub_channel_index = 0;
};

struct BusImmutable {
  uint64_t guest_pages = 0;
  std::vector<OfferIdentity> offers;
};

std::string SerializeBusImmutable(const BusImmutable& immutable);
// FailedPrecondition: another version of the format.  InvalidArgument,
// ResourceExhausted: the bytes.
absl::StatusOr<BusImmutable> ParseBusImmutable(
    absl::Span<const std::byte> bytes);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_BUS_IMMUTABLE_PERSIST_H_
