// SPDX-License-Identifier: MIT
//
// An access policy that takes the full fence off the hot side of a ring: the
// side that is about to sleep pays for both.
//
// What it is: ProductionAccess, but once Register() has armed it, FullFence()
// (each Publish and Release) only keeps the compiler in order, and SleepFence()
// (UnmaskSignals, ArmPendingSend) is membarrier(2), which makes every thread
// that may be in the middle of the other half execute a full barrier.  A
// default constructed AsymmetricAccess is not armed and is ProductionAccess.
//
// Why it loses no wake-up.  Both handshakes are Dekker's: each side stores,
// then loads what the other one stores, and at least one must see the other.
//
//   producer, Publish                    consumer, UnmaskSignals
//     write_index = new                    interrupt_mask = 0
//     FullFence()                          SleepFence()
//     interrupt_mask, read_index?          write_index?
//
//   consumer, Release                    producer, ArmPendingSend
//     read_index = new                     pending_send_size = wanted
//     FullFence()                          SleepFence()
//     pending_send_size?                   read_index?
//
// Between its start and its end membarrier puts a full barrier into the left
// side, wherever that is at the time (a thread that does not run passes one
// when it is switched in).  If the barrier comes after the left store, that
// store is visible to the right load: the sleeper sees it and does not sleep.
// If it comes before the left store, it comes before the left loads as well,
// which therefore see the right store, and all that the sleeper stored before
// (its read_index): the left side signals.  There is no third place, as long as
// the compiler leaves the left store before the left loads.
//
// Only the side that is about to sleep pays: some microseconds, and an
// interrupt to the processors on which registered processes run.  A side that
// never runs dry never pays.
//
// Who must do what:
//   - Every process that has a hot side registers, before it first publishes:
//     membarrier leaves out the others.  Register() is the only way to get an
//     armed policy.  fork() keeps a registration, exec() does not.
//   - BOTH ends of a ring must be armed, with a scope that covers both.  A peer
//     that is not ours, a stock guest say, executes an ordinary fence before it
//     sleeps, and that does nothing for a hot side without one.  So this is
//     agreed on outside of the wire, which does not show it
//     (docs/decisions/0005).
//
// When membarrier fails: Register() calls it, and says so if it does not work.
// Should it fail later (a seccomp filter, no memory), SleepFence() waits for a
// millisecond instead.  The store that it could miss leaves a processor's store
// buffer in much less; that is how processors are built, not what the memory
// model promises.  failed_fences() counts; a process that sees it grow should
// reopen its channels without this policy.
//
// Thread safety: as ProductionAccess; Register() from any thread.
// Trust: a peer that lies about being armed loses its own wake-ups.  But it
// decides how often this side goes to sleep, and with it how often all
// processes registered on the host are interrupted: for peers that are trusted
// that far.

#ifndef FERRYBUS_RINGBUFFER_ASYMMETRIC_ACCESS_H_
#define FERRYBUS_RINGBUFFER_ASYMMETRIC_ACCESS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "ferrybus/ringbuffer/memory_access.h"

namespace ferrybus::ringbuffer {

// Between whom the fence works.
enum class FenceScope : uint8_t {
  kNobody,   // not armed: both fences are full
  kProcess,  // threads of one process
  kHost,     // processes of one host, each of which has registered
};

class AsymmetricAccess : public ProductionAccess {
 public:
  AsymmetricAccess() = default;

  // Registers this process and tries the call.  Unimplemented: the kernel has
  // no membarrier, or not this one; Unavailable: it has, and it fails.  Use
  // full fences then, on both ends.  May be called again.
  static absl::StatusOr<AsymmetricAccess> Register(FenceScope scope);

  FenceScope scope() const { return scope_; }

  void FullFence() const {
#if !defined(__SANITIZE_THREAD__)
    if (scope_ != FenceScope::kNobody) [[likely]] {
      // [F1] for the compiler; pairs with [F1] in SleepFence() of the peer,
      // which brings the processor's half.
      asm volatile("" ::: "memory");
      return;
    }
#endif
    ProductionAccess::FullFence();
  }

  void SleepFence() const {
#if !defined(__SANITIZE_THREAD__)
    if (scope_ != FenceScope::kNobody) {
      // [F1] pairs with [F1] in FullFence() of the peer.
      HeavyFence(scope_);
      return;
    }
#endif
    ProductionAccess::FullFence();
  }

  // How often membarrier has failed in this process since it was registered.
  static uint64_t failed_fences();

 private:
  explicit AsymmetricAccess(FenceScope scope) : scope_(scope) {}
  static void HeavyFence(FenceScope scope);

  FenceScope scope_ = FenceScope::kNobody;
};

}  // namespace ferrybus::ringbuffer

#endif  // FERRYBUS_RINGBUFFER_ASYMMETRIC_ACCESS_H_
