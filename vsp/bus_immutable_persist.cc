// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/bus_immutable_persist.h"

#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/proto_limits.h"
#include "ferrybus/vsp/bus_immutable.pb.h"

namespace ferrybus::vsp {
namespace {

constexpr uint32_t kVersion = 1;
constexpr uint64_t kBytesMax = uint64_t{1} << 20;

std::string Bytes(const Guid& guid) {
  return std::string(reinterpret_cast<const char*>(guid.bytes.data()),
                     guid.bytes.size());
}

absl::StatusOr<Guid> ReadGuid(const std::string& bytes) {
  Guid guid;
  if (bytes.size() != guid.bytes.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "immutable data of a bus: a GUID of ", bytes.size(), " bytes"));
  }
  std::memcpy(guid.bytes.data(), bytes.data(), bytes.size());
  return guid;
}

}  // namespace

std::string SerializeBusImmutable(const BusImmutable& immutable) {
  v1::BusImmutable message;
  message.set_version(kVersion);
  message.set_guest_pages(immutable.guest_pages);
  for (const OfferIdentity& offer : immutable.offers) {
    v1::OfferIdentity* added = message.add_offers();
    added->set_interface_type(Bytes(offer.interface_type));
    added->set_interface_instance(Bytes(offer.interface_instance));
    added->set_sub_channel_index(offer.sub_channel_index);
  }
  return savestate::SerializeDeterministic(message);
}

absl::StatusOr<BusImmutable> ParseBusImmutable(
    absl::Span<const std::byte> bytes) {
  v1::BusImmutable message;
  savestate::ProtoLimits limits;
  limits.bytes_max = kBytesMax;
  absl::Status status = savestate::ParseBounded(bytes, limits, &message,
                                                "immutable data of a bus");
  if (!status.ok()) return status;
  if (message.version() != kVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("immutable data of a bus: format version ",
                     message.version(), ", this host has ", kVersion));
  }
  BusImmutable immutable = {.guest_pages = message.guest_pages(), .offers = {}};
  for (const v1::OfferIdentity& offer : message.offers()) {
    absl::StatusOr<Guid> type = ReadGuid(offer.interface_type());
    if (!type.ok()) return type.status();
    absl::StatusOr<Guid> instance = ReadGuid(offer.interface_instance());
    if (!instance.ok()) return instance.status();
    immutable.offers.push_back(
        {.interface_type = *type,
         .interface_instance = *instance,
         .sub_channel_index = offer.sub_channel_index()});
  }
  return immutable;
}

}  // namespace ferrybus::vsp
