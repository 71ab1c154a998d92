// SPDX-License-Identifier: MIT
//
// What a waiting side of a ring sleeps on (see waiting.h), and who ends its
// wait early.
//
//   EventFdSleeper   an eventfd that the peer writes.  Also for peers that are
//                    not trusted.
//   FutexSleeper     a 32-bit word in memory shared with the peer, not part of
//                    a control page: both ends are ours, on one host.
//
// Ownership: the eventfd and the word are borrowed.
//
// Thread safety: one thread sleeps; RequestStop() may be called by any thread,
// FutexSleeper::Ring() by any thread of any process.
//
// Memory ordering: what was stored before RequestStop() is visible to the
// thread whose wait it ended ([W5], [R5]); what was stored before Ring() is
// visible after the Sleep() that it ended ([W6], [R6]).  Rings do not need the
// latter, their indices order their packets.
//
// Trust: a peer may leave the eventfd blocking or not, full or empty, and may
// write the word at any time.  It can make a wait look again in vain, and can
// lose its own signals.  A deadline always ends a wait.  A stop request does
// so on an EventFdSleeper; on a FutexSleeper a peer that keeps clearing the
// word can hold it off until the next signal.
//
// Not for the eventfd of a port: its other half is the bits of the signal
// page, which whoever waits must take (channel/transport/signal_page.h).

#ifndef FERRYBUS_RINGBUFFER_SLEEPERS_H_
#define FERRYBUS_RINGBUFFER_SLEEPERS_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "ferrybus/ringbuffer/waiting.h"

namespace ferrybus::ringbuffer {

// `ms` from now.
int64_t DeadlineAfterMs(int64_t ms);

// What both have in common: a stop request, for good, and the clock.
class StoppableSleeper {
 public:
  StoppableSleeper(const StoppableSleeper&) = delete;
  StoppableSleeper& operator=(const StoppableSleeper&) = delete;

  WaitResult Check(int64_t deadline_ns) const;

 protected:
  StoppableSleeper() = default;
  ~StoppableSleeper() = default;
  void SetStopped() {
    // [W5] release: pairs with [R5] in Check().
    stopped_.store(true, std::memory_order_release);
  }

 private:
  std::atomic<bool> stopped_{false};
};

class EventFdSleeper final : public StoppableSleeper {
 public:
  // `bell`: the eventfd that the peer writes to wake this side.
  // ResourceExhausted: no descriptor for the stop request.
  static absl::StatusOr<std::unique_ptr<EventFdSleeper>> Create(int bell);
  ~EventFdSleeper();

  void Sleep(int64_t deadline_ns);
  // Ends this wait and all later ones.
  void RequestStop();

 private:
  EventFdSleeper(int bell, int stop) : bell_(bell), stop_(stop) {}

  const int bell_;
  const int stop_;  // an eventfd of our own: written once, never read
};

class FutexSleeper final : public StoppableSleeper {
 public:
  // `word`: zero at first, 4-byte aligned, the same memory in both processes.
  explicit FutexSleeper(uint32_t* word) : word_(word) {}

  void Sleep(int64_t deadline_ns);
  // Ends this wait and all later ones.
  void RequestStop();

  // Wakes the side that sleeps on `word`; stays until taken if none does.
  static void Ring(uint32_t* word);

 private:
  uint32_t* const word_;
};

}  // namespace ferrybus::ringbuffer

#endif  // FERRYBUS_RINGBUFFER_SLEEPERS_H_
