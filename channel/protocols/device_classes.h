// SPDX-License-Identifier: MIT
//
// Interface type GUIDs of the devices that guests know.
//
// A guest finds the driver for an offer by this GUID; the instance GUID beside
// it tells devices of one type apart and is the embedder's choice.

#ifndef FERRYBUS_CHANNEL_PROTOCOLS_DEVICE_CLASSES_H_
#define FERRYBUS_CHANNEL_PROTOCOLS_DEVICE_CLASSES_H_

#include "ferrybus/channel/guid.h"

namespace ferrybus {

inline constexpr Guid kScsiInterface =
    GuidLiteral("ba6163d9-04a1-4d29-b605-72e2ffb1dc7f");

// Integration services.
inline constexpr Guid kHeartbeatInterface =
    GuidLiteral("57164f39-9115-4e78-ab55-382f3bd5422d");
inline constexpr Guid kKeyValueInterface =
    GuidLiteral("a9a0f4e7-5a45-4d96-b827-8a841e8c03e6");
inline constexpr Guid kShutdownInterface =
    GuidLiteral("0e0b6031-5213-4934-818b-38d90ced39db");
inline constexpr Guid kTimeSyncInterface =
    GuidLiteral("9527e630-d0ae-497b-adce-e80ab0175caf");

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_PROTOCOLS_DEVICE_CLASSES_H_
