// SPDX-License-Identifier: MIT
//
// Channel signals between two processes: a bit per channel in a shared page,
// and an eventfd to wake the other side.
//
// What it is: VMBus's interrupt page with eventfds in place of interrupts.
// Bytes 0..2047 of the page are host to guest, 2048..4095 guest to host; bit n
// is channel id n.  A sender sets the bit, and writes the eventfd only if the
// bit was clear: idle channels cost nothing, a busy one costs one system call
// per wake-up.
//
// A bit stays set until a receiver takes it, whichever process that is: a
// signal sent while no host process runs is not lost.
//
// Ownership: owns its mapping, borrows the eventfd.
// Thread safety: SignalSender from any thread; SignalReceiver from one.
// Ordering: what was stored before Ring() is visible after the Take() that
// reports it.
// Trust: the peer can set any bit at any time; that costs one poll of that
// channel, or nothing if there is no such channel.  One thing it can do with an
// eventfd: switch it to blocking and keep it full, so that Ring() waits.  A
// host that serves peers it does not trust on one thread gives each its own.

#ifndef FERRYBUS_CHANNEL_TRANSPORT_SIGNAL_PAGE_H_
#define FERRYBUS_CHANNEL_TRANSPORT_SIGNAL_PAGE_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "ferrybus/channel/doorbell.h"

namespace ferrybus {

enum class SignalDirection { kHostToGuest, kGuestToHost };

class SignalPage {
 public:
  // Maps `fd`: one page, sealed against shrinking.
  static absl::StatusOr<SignalPage> Map(int fd);
  SignalPage(SignalPage&& other) noexcept;
  SignalPage& operator=(SignalPage&& other) noexcept;
  ~SignalPage();

  uint64_t* words(SignalDirection direction) const;

 private:
  explicit SignalPage(void* base) : base_(base) {}
  void* base_ = nullptr;
};

class SignalSender final : public Doorbell {
 public:
  SignalSender(const SignalPage& page, SignalDirection direction, int eventfd)
      : words_(page.words(direction)), eventfd_(eventfd) {}
  void Ring(uint32_t channel_id) override;

 private:
  uint64_t* words_;
  int eventfd_;
};

class SignalReceiver {
 public:
  SignalReceiver(const SignalPage& page, SignalDirection direction, int eventfd)
      : words_(page.words(direction)), eventfd_(eventfd) {}

  // Clears the eventfd and calls `signalled` for each channel whose bit is
  // set.  True if there was one.
  bool Take(absl::FunctionRef<void(uint32_t channel_id)> signalled);

  // Somebody had written the eventfd before the last Take().
  bool was_woken() const { return was_woken_; }

  // Becomes readable when there is something to take.
  int wait_fd() const { return eventfd_; }

 private:
  uint64_t* words_;
  int eventfd_;
  bool was_woken_ = false;
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_TRANSPORT_SIGNAL_PAGE_H_
