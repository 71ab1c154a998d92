// SPDX-License-Identifier: MIT
//
// How a client names a buffer to its server: the GPADL's id, and a hint that
// the buffer was made read-only.  The hint is between the two users: no channel
// message carries it, and it protects nothing.
//
// Source: KMCL's VMBUS_CHANNEL_GPADL_FLAG_READ_ONLY.

#ifndef FERRYBUS_CHANNEL_GPADL_HANDLE_H_
#define FERRYBUS_CHANNEL_GPADL_HANDLE_H_

#include <cstdint>

#include "ferrybus/channel/guest_pins.h"
#include "ferrybus/channel/messages.h"

namespace ferrybus {

enum class GpadlHandle : uint32_t {};

inline constexpr uint32_t kReadOnlyGpadlHint = 0x80000000;

constexpr GpadlHandle MakeGpadlHandle(GpadlId id, GuestAccess access) {
  return GpadlHandle{
      static_cast<uint32_t>(id) |
      (access == GuestAccess::kReadOnly ? kReadOnlyGpadlHint : 0)};
}

constexpr GpadlId IdOf(GpadlHandle handle) {
  return GpadlId{static_cast<uint32_t>(handle) & ~kReadOnlyGpadlHint};
}

constexpr GuestAccess AccessOf(GpadlHandle handle) {
  return (static_cast<uint32_t>(handle) & kReadOnlyGpadlHint) != 0
             ? GuestAccess::kReadOnly
             : GuestAccess::kReadWrite;
}

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_GPADL_HANDLE_H_
