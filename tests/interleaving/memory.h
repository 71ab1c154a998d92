// SPDX-License-Identifier: MIT
//
// Shared memory as a model: what a load may return, and when a store becomes
// visible.  The explorer runs the ring's code over it, one step at a time.
//
// What it is: an interface with two implementations.
//   StoreBufferMemory  processors with store buffers.  In order (x86, "TSO"):
//                      a store leaves its buffer behind the earlier ones.  Out
//                      of order ("PSO"): behind those to the same word, and a
//                      release store behind all.  A load takes the newest own
//                      store, or what memory has.
//   ViewMemory         the C++ model: a load may return any store that its
//                      thread has not been overtaken by; acquire, release and
//                      fences carry knowledge from one thread to the other;
//                      packet bytes are ordinary memory, where two accesses
//                      that nothing orders are a data race.
//
// Limits: a load never returns a store that has not been made yet (no load
// buffering).  Where the ring depends on a load staying before a store, it is a
// load of packet bytes, and the data race shows it.
//
// The doorbell is part of the memory: a flag for each actor, which Ring() sets
// and a sleep takes.  If `bell_orders`, ringing and waking order as a system
// call does; if not, as nothing does.

#ifndef FERRYBUS_TESTS_INTERLEAVING_MEMORY_H_
#define FERRYBUS_TESTS_INTERLEAVING_MEMORY_H_

#include <cstdint>
#include <memory>

#include "ferrybus/tests/interleaving/fingerprint.h"

namespace ferrybus::interleaving {

inline constexpr int kActors = 2;
inline constexpr int kProducer = 0;
inline constexpr int kConsumer = 1;

// A control word is its offset in the control page / 4, the eight bytes at
// offset n of the data area are kDataLocation + n / 8.
using Location = uint16_t;
inline constexpr Location kDataLocation = 32;

enum class StepKind : uint8_t {
  kLoad,
  kStore,
  kUpdate,      // read-modify-write; returns the old value
  kFence,       // full, of this actor
  kHeavyFence,  // full, of both actors: membarrier
  kRing,        // the peer's bell
  kSleep,       // until the own bell has rung
  kChoose,      // of what the program itself may do; below `value`
  kDone,        // the program ended
};

enum class Order : uint8_t { kPlain, kRelaxed, kAcquire, kRelease, kAcqRel };

inline bool Acquires(Order order) {
  return order == Order::kAcquire || order == Order::kAcqRel;
}
inline bool Releases(Order order) {
  return order == Order::kRelease || order == Order::kAcqRel;
}

struct Step {
  StepKind kind = StepKind::kDone;
  Order order = Order::kPlain;
  Location location = 0;
  uint64_t value = 0;  // of a store
  // Of an update, which stores (old & keep) ^ value.
  uint64_t keep = 0;
};

struct Outcome {
  uint64_t value = 0;  // of a load, an update, a choice
  bool stale = false;  // a load that did not return the newest value
  // Not null: what the step broke.
  const char* violation = nullptr;
};

class Memory {
 public:
  virtual ~Memory() = default;
  virtual std::unique_ptr<Memory> Clone() const = 0;

  // Before the first step.
  virtual void Initialize(Location location, uint64_t value) = 0;

  // In how many ways `actor` can make this step now; 0: it must wait.
  virtual int Choices(int actor, const Step& step) const = 0;
  // REQUIRES: choice < Choices(actor, step).
  virtual Outcome Apply(int actor, const Step& step, int choice) = 0;
  // Whether the step can be made at once without losing a behaviour: it is
  // possible, in one way, and nothing that the other actor does, now or later,
  // depends on when it is made.
  virtual bool IsLocal(int actor, const Step& step) const = 0;

  // Steps that memory makes by itself: stores that leave `actor`'s buffer.
  virtual int InternalChoices(int actor) const = 0;
  // The store that became visible.
  virtual Step ApplyInternal(int actor, int choice) = 0;

  virtual void AddTo(Fingerprint* fingerprint) const = 0;
};

struct StoreBufferOptions {
  bool in_order = true;
  bool bell_orders = true;
};
std::unique_ptr<Memory> MakeStoreBufferMemory(
    const StoreBufferOptions& options);

struct ViewOptions {
  bool bell_orders = true;
};
std::unique_ptr<Memory> MakeViewMemory(const ViewOptions& options);

}  // namespace ferrybus::interleaving

#endif  // FERRYBUS_TESTS_INTERLEAVING_MEMORY_H_
