// SPDX-License-Identifier: MIT
//
// How a side of a ring waits: a consumer for packets, a producer for room.
//
// What it is: a policy, which says for how long to look at the ring again and
// again before the thread sleeps, if ever; and two functions that wait by it
// and keep the rules which make sleeping safe.  What a thread sleeps on, and
// what ends a wait early, is the sleeper (sleepers.h has two).
//
// No wake-up is lost.  A side goes to sleep in this order:
//   1. it asks for a signal (interrupt_mask 0, or pending_send_size), fence;
//   2. it looks once more, and does not sleep if there is something;
//   3. it sleeps until the bell rings.
// The peer stores its index, fence, then looks whether a signal was asked for.
// Of the two looks at least one sees the other side's store ([F1]).  A signal
// between 2 and 3 stays in the bell.  A signal without a cause costs one look.
//
// Ownership: borrows everything for the time of the call.
// Thread safety: the calling thread is the one that owns the ring handle.
// Trust: a peer can ring for ever, or never: the first costs a look each time,
// the second is what deadlines and stop requests are for; both end a wait
// whatever the peer does.
// Cost: with the ring ready, one look.  While looking, one load per look.
//
//   consumer.MaskSignals();
//   while (WaitForPackets(consumer, kSleep, sleeper) == WaitResult::kReady) {
//     while (consumer.Next(&packet) == ReadResult::kOk) Use(packet);
//     if (consumer.Release()) doorbell.Signal();
//     if (consumer.fault() != RingFault::kNone) break;
//   }

#ifndef FERRYBUS_RINGBUFFER_WAITING_H_
#define FERRYBUS_RINGBUFFER_WAITING_H_

#include <sched.h>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>

#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_index.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/wire.h"

namespace ferrybus::ringbuffer {

// First `spins` looks with pauses between them, then `yields` looks with the
// processor given away in between, then sleep.  A policy that never sleeps
// goes on yielding if it has any yields, else pausing.
struct WaitPolicy {
  uint32_t spins = 0;
  // Pause instructions between two looks: one, then twice as many each time,
  // up to this.
  uint32_t pauses_max = 1;
  uint32_t yields = 0;
  bool sleep = false;
};

// Lowest latency; for a thread with a processor of its own.
inline constexpr WaitPolicy kSpin = {};
// The same, gentler to the cache line and to a sibling hyper-thread.
inline constexpr WaitPolicy kBackOff = {.pauses_max = 64};
// For more threads than processors.
inline constexpr WaitPolicy kYield = {.spins = 64, .yields = 1};
// Costs nothing while idle.  Spins for about as long as a wake-up takes.
inline constexpr WaitPolicy kSleep = {
    .spins = 64, .pauses_max = 8, .sleep = true};

enum class [[nodiscard]] WaitResult : uint8_t{
    kReady,
    kTimeout,
    kStopped,
};

// Deadlines are nanoseconds of the sleeper's clock.
inline constexpr int64_t kNoDeadline = std::numeric_limits<int64_t>::max();

template <class T>
concept Sleeper = requires(T& sleeper, int64_t deadline_ns) {
  // Whether the wait must end: kStopped or kTimeout; kReady to go on.
  { sleeper.Check(deadline_ns) } -> std::same_as<WaitResult>;
  // Returns when the bell rang, or has rung since the last Sleep(); when the
  // deadline passed or a stop was requested, also before the call; or without
  // a cause.  Taking the ring of the bell happens before the return.
  { sleeper.Sleep(deadline_ns) } -> std::same_as<void>;
};

namespace waiting_internal {

// How often a wait that does not sleep asks the sleeper whether to end.
inline constexpr uint32_t kLooksPerCheck = 32;

inline void Pause(uint32_t times) {
  for (; times != 0; --times) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield" ::: "memory");
#endif
  }
}

// `look`: true, ready.  `arm`: asks for a signal and looks again; true, ready.
// `awake`: takes the question back, where that is of use.
template <Sleeper S, class Look, class Arm, class Awake>
WaitResult Wait(const WaitPolicy& policy, S& sleeper, int64_t deadline_ns,
                Look look, Arm arm, Awake awake) {
  const uint64_t looks_max = uint64_t{policy.spins} + policy.yields;
  uint32_t pauses = 1;
  for (uint64_t looks = 1; !look(); ++looks) {
    const bool sleeps = policy.sleep && looks > looks_max;
    if (sleeps || looks % kLooksPerCheck == 0) {
      const WaitResult check = sleeper.Check(deadline_ns);
      if (check != WaitResult::kReady) return check;
    }
    if (sleeps) {
      if (!arm()) sleeper.Sleep(deadline_ns);
      awake();
    } else if (looks <= policy.spins || policy.yields == 0) {
      Pause(pauses);
      pauses = std::min(2 * pauses, policy.pauses_max);
    } else {
      sched_yield();
    }
  }
  return WaitResult::kReady;
}

}  // namespace waiting_internal

// Waits until Next() has something to say: a packet, or kCorrupt.  Leaves
// signals masked if it waited at all, so look again, or unmask, before
// sleeping on anything else.
//
// REQUIRES: everything taken was released, and the peer signalled if
// Release() said so.
template <class Access, Sleeper S>
WaitResult WaitForPackets(BasicRingConsumer<Access>& consumer,
                          const WaitPolicy& policy, S& sleeper,
                          int64_t deadline_ns = kNoDeadline) {
  const auto look = [&consumer] {
    // Takes nothing, and believes nothing: the descriptor is fetched again.
    BasicPacketView<Access> packet;
    const ReadResult result = consumer.Next(&packet);
    consumer.Rollback();
    return result != ReadResult::kEmpty;
  };
  if (look()) return WaitResult::kReady;
  // From here on this side looks by itself.
  consumer.MaskSignals();
  return waiting_internal::Wait(
      policy, sleeper, deadline_ns, look,
      [&consumer] { return consumer.UnmaskSignals(); },
      [&consumer] { consumer.MaskSignals(); });
}

// Waits until a packet of `ring_bytes` (PacketRingBytes) can be written, or
// until the write has another answer than kFull.
//
// REQUIRES: nothing staged and unpublished, and the peer signalled if
// Publish() said so.
template <class Access, Sleeper S>
WaitResult WaitForRoom(BasicRingProducer<Access>& producer, uint64_t ring_bytes,
                       const WaitPolicy& policy, S& sleeper,
                       int64_t deadline_ns = kNoDeadline) {
  // A ring has no room for more than itself, however long it is waited for.
  const uint64_t most =
      std::min<uint64_t>(ring_bytes, producer.ring().data_bytes);
  const uint64_t wanted = PacketRingBytes(
      kDescriptorBytes,
      std::max<uint64_t>(most, kMinPacketBytes) - kMinPacketBytes);
  const auto look = [&producer, wanted] {
    return producer.RoomFor(wanted) != WriteResult::kFull;
  };
  // A request for room stands until the next Publish(): it costs nothing.
  return waiting_internal::Wait(
      policy, sleeper, deadline_ns, look,
      [&producer, wanted] { return producer.ArmPendingSend(wanted); }, [] {});
}

}  // namespace ferrybus::ringbuffer

#endif  // FERRYBUS_RINGBUFFER_WAITING_H_
