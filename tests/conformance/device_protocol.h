// SPDX-License-Identifier: MIT
//
// The reference device: what an endpoint under test offers, and what the kit
// asks of it.  README.md has the same in a table.
//
// Four devices, numbers 1 to 4, all of interface type kInterfaceType, device n
// with the instance whose first byte is n and whose others are 0; offer flags
// 0, user data n in each of the 120 bytes.  They differ only in what becomes of
// the requests that they hold when the endpoint is saved:
//   1, 2  they are held again after the restore, and the order is kept
//   3     they are answered before the save is taken ("drain")
//   4     they are delivered again after the restore, and held again
// A device that cannot do one of these may do one of the others; a guest can
// tell drain from the rest only.
//
// Requests are in-band packets, or external data packets where that is said,
// whose payload is a DeviceHeader and data.  Each is completed with a payload
// that begins with a DeviceHeader: command and number as in the request,
// argument 0 for success.  Numbers are little-endian.
//
// Trust: a guest may send anything; what is no request is answered with
// argument 1.

#ifndef FERRYBUS_TESTS_CONFORMANCE_DEVICE_PROTOCOL_H_
#define FERRYBUS_TESTS_CONFORMANCE_DEVICE_PROTOCOL_H_

#include <cstdint>

#include "ferrybus/channel/guid.h"

namespace ferrybus::conformance {

inline constexpr Guid kInterfaceType =
    GuidLiteral("5e7f0c3a-90d1-4c55-8a1e-fe2217b05c01");
inline constexpr uint32_t kDevices = 4;
inline constexpr uint32_t kDrainDevice = 3;
inline constexpr uint32_t kReissueDevice = 4;
// What a device must take at least: requests held at once, own packets that
// wait for room.
inline constexpr uint32_t kHeldMin = 64;
inline constexpr uint32_t kQueuedMin = 64;

// OPEN's user data begins with this byte: the device refuses.
inline constexpr uint8_t kRefuseOpen = 0xfe;

enum class Command : uint32_t {
  // Completed with the first `argument` bytes of its own payload, all of it if
  // 0: not rounded up.
  kEcho = 1,
  // Kept; completed with its own payload when kRelease says so.
  kHold = 2,
  // Completes `argument` held ones (0: all), the oldest first, or, with data
  // 1 (u64), the newest first.  Then itself.
  kRelease = 3,
  // Sends `argument` packets to the guest that want a completion, each a
  // header with kSend, argument 0 and a number counting up from `number`.
  // Then completes itself.
  kSend = 4,
  // The same without completions.
  kNotify = 5,
  // Completed with a DeviceReport.
  kReport = 6,
  // The device calls this packet malformed beyond repair: the queue stops.
  kFail = 7,
  // External data: completed with a header and the first bytes of the guest
  // memory that the packet describes, at most kExternalMax.  Argument 1 if it
  // is not memory.
  kReadExternal = 8,
  // External data: writes `number` into each 8 bytes of it.
  kWriteExternal = 9,
  // Maps GPADL `argument`; completed with a header and its first 8 bytes.
  kMap = 10,
  kUnmap = 11,
  // At most `argument` requests are to be outstanding from now on.
  kQuota = 12,
};

inline constexpr uint32_t kExternalMax = 16384;

struct DeviceHeader {
  Command command{};
  uint32_t argument = 0;
  uint64_t number = 0;
};
static_assert(sizeof(DeviceHeader) == 16);

struct DeviceReport {
  DeviceHeader header;
  uint64_t held = 0;
  uint64_t awaiting = 0;     // own packets that the guest has not completed
  uint64_t completions = 0;  // of own packets, since the opening
  // Over their numbers as the completions came: d = d * 31 + number.
  uint64_t digest = 0;
};
static_assert(sizeof(DeviceReport) == 48);

}  // namespace ferrybus::conformance

#endif  // FERRYBUS_TESTS_CONFORMANCE_DEVICE_PROTOCOL_H_
