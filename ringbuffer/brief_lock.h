// SPDX-License-Identifier: MIT
//
// A lock for a few dozen instructions, between threads that may be preempted
// while they hold it.
//
// What it is: one word, in private memory.  Who finds it taken tries again for
// about as long as it is held, then sleeps in the kernel until it is released.
// Yielding instead of sleeping would burn the time slice that a preempted
// holder needs, and never end where the waiter has the higher real-time
// priority, as threads of virtual processors may.  The lock of Abseil does the
// same in more space, and would bring the first library with locks and clocks
// into the ring.
//
// Thread safety: any thread.  Not recursive, not fair.
//
// Memory ordering: what was done before Unlock() happens-before what follows
// the next Lock().
//
// Cost: one read-modify-write each for Lock and Unlock; system calls only when
// a waiter went to sleep.
//
//   const BriefLockHolder hold(&lock_);

#ifndef FERRYBUS_RINGBUFFER_BRIEF_LOCK_H_
#define FERRYBUS_RINGBUFFER_BRIEF_LOCK_H_

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace ferrybus::ringbuffer {

class BriefLock {
 public:
  BriefLock() = default;
  BriefLock(const BriefLock&) = delete;
  BriefLock& operator=(const BriefLock&) = delete;

  void Lock() {
    for (int tries = kTries; tries > 0; --tries) {
      uint32_t expected = kFree;
      // [B1] acquire: pairs with [B2]; relaxed when nothing was taken.
      if (state_.compare_exchange_weak(expected, kHeld,
                                       std::memory_order_acquire,
                                       std::memory_order_relaxed)) {
        return;
      }
      Pause();
    }
    // Whoever slept cannot know whether others still do: it keeps the word at
    // kHeldAndAwaited, for one wake-up too many rather than one too few.
    // [B1] acquire: pairs with [B2].
    while (state_.exchange(kHeldAndAwaited, std::memory_order_acquire) !=
           kFree) {
      Futex(FUTEX_WAIT_PRIVATE, kHeldAndAwaited);
    }
  }

  void Unlock() {
    // [B2] release: pairs with [B1], the next holder's.
    if (state_.exchange(kFree, std::memory_order_release) == kHeldAndAwaited) {
      Futex(FUTEX_WAKE_PRIVATE, 1);
    }
  }

 private:
  static constexpr int kTries = 64;
  enum : uint32_t { kFree, kHeld, kHeldAndAwaited };

  static void Pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    asm volatile("" ::: "memory");
#endif
  }
  void Futex(int operation, uint32_t value) {
    syscall(SYS_futex, &state_, operation, value, nullptr, nullptr, 0);
  }

  std::atomic<uint32_t> state_{kFree};
};

class BriefLockHolder {
 public:
  explicit BriefLockHolder(BriefLock* lock) : lock_(lock) { lock_->Lock(); }
  BriefLockHolder(const BriefLockHolder&) = delete;
  BriefLockHolder& operator=(const BriefLockHolder&) = delete;
  ~BriefLockHolder() { lock_->Unlock(); }

 private:
  BriefLock* const lock_;
};

}  // namespace ferrybus::ringbuffer

#endif  // FERRYBUS_RINGBUFFER_BRIEF_LOCK_H_
