// SPDX-License-Identifier: MIT
//
// Keeps guest memory in place while a device works on it: for hypervisors
// whose guest RAM may be swapped, still on its way from another host, or
// watched for writes.  With RAM that simply is there none is needed.
//
// Ownership: borrowed by the endpoints; outlives them and their packets.
// Thread safety: any thread; never called with a lock held.
// Trust: the buffers were checked; what they are was the guest's choice.
//
// Source: KMCL's VmbChannelPacketGetExternalData, which may say "pending".

#ifndef FERRYBUS_CHANNEL_GUEST_PINS_H_
#define FERRYBUS_CHANNEL_GUEST_PINS_H_

#include <sys/uio.h>

#include <cstdint>

#include "absl/types/span.h"

namespace ferrybus {

enum class GuestAccess : uint8_t { kReadWrite, kReadOnly };

// Whether external data can be touched now.
enum class [[nodiscard]] ExternalData : uint8_t{kReady, kPending};

// What waits for a pin.  Not for users.
class PinOwner {
 public:
  virtual void OnPinned(uint32_t slot, uint32_t generation) = 0;

 protected:
  ~PinOwner() = default;
};

// To be called once when a pending pin is ready; from any thread.
class PinDone {
 public:
  PinDone(PinOwner* owner, uint32_t slot, uint32_t generation)
      : owner_(owner), slot_(slot), generation_(generation) {}
  void operator()() const { owner_->OnPinned(slot_, generation_); }

 private:
  PinOwner* owner_;
  uint32_t slot_;
  uint32_t generation_;
};

class GuestPins {
 public:
  virtual ~GuestPins() = default;
  // kReady: the bytes stay until Unpin().  kPending: `done` follows, not from
  // within this call.
  virtual ExternalData Pin(absl::Span<const iovec> buffers, GuestAccess access,
                           PinDone done) = 0;
  // Ends a pin, also a pending one: `done` is not running and is not called
  // any more when this returns.
  virtual void Unpin(absl::Span<const iovec> buffers, GuestAccess access) = 0;
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_GUEST_PINS_H_
