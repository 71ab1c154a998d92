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

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_PROTOCOLS_DEVICE_CLASSES_H_
