// SPDX-License-Identifier: MIT
//
// An access policy whose every control word access and fence waits for its
// turn, so that a test can run two sides of a ring in any chosen interleaving,
// or in all of them.
//
// What it is: Interleaver holds the script, a list of actors in the order of
// their steps; ScriptedAccess makes one step before each access.  Packet bytes
// are not steps: the index that covers them is.
//
// Limits: the interleavings are sequentially consistent.  That a fence is
// missing only shows on real threads; that a re-check is missing shows here.
//
// Ownership: the interleaver outlives the handles.
// Thread safety: one thread per actor.
//
//   Interleaver turns;
//   BasicRingProducer<ScriptedAccess> producer(view, {&turns, 0});
//   turns.Run({0, 1, 1, 0}, [&] { ...producer... }, [&] { ...consumer... });

#ifndef FERRYBUS_RINGBUFFER_TESTING_SCRIPTED_ACCESS_H_
#define FERRYBUS_RINGBUFFER_TESTING_SCRIPTED_ACCESS_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "ferrybus/ringbuffer/memory_access.h"

namespace ferrybus::ringbuffer::testing {

class Interleaver {
 public:
  Interleaver() = default;

  // Runs actor 0 and actor 1, each on its own thread, in the script's order.
  // Steps of an actor that is done are skipped; when the script is used up,
  // the actors run on freely.  Outside of Run() nothing waits.
  void Run(std::vector<int> script, const std::function<void()>& actor0,
           const std::function<void()>& actor1);

  // All orders of `steps0` steps of actor 0 and `steps1` of actor 1.
  static std::vector<std::vector<int>> AllScripts(int steps0, int steps1);

  // For the policy: waits for `actor`'s turn.  The turn lasts until the
  // actor's next Step(), so that the access after it is part of the step.
  void Step(int actor);

 private:
  void Done(int actor);
  void EndTurn(int actor);

  std::mutex mutex_;
  std::condition_variable moved_;
  std::vector<int> script_;
  size_t next_ = 0;
  bool holds_turn_[2] = {false, false};
  bool done_[2] = {true, true};
};

class ScriptedAccess {
 public:
  ScriptedAccess() = default;
  ScriptedAccess(Interleaver* interleaver, int actor)
      : interleaver_(interleaver), actor_(actor) {}

  uint32_t LoadRelaxed(const uint32_t* word) const {
    Step();
    return memory_.LoadRelaxed(word);
  }
  uint32_t LoadAcquire(const uint32_t* word) const {
    Step();
    return memory_.LoadAcquire(word);
  }
  void StoreRelaxed(uint32_t* word, uint32_t value) const {
    Step();
    memory_.StoreRelaxed(word, value);
  }
  void StoreRelease(uint32_t* word, uint32_t value) const {
    Step();
    memory_.StoreRelease(word, value);
  }
  static constexpr bool kInPlace = true;
  void SleepFence() const { FullFence(); }
  void FullFence() const { memory_.FullFence(); }
  void CopyFrom(void* to, const std::byte* shared, size_t bytes) const {
    memory_.CopyFrom(to, shared, bytes);
  }
  void CopyTo(std::byte* shared, const void* from, size_t bytes) const {
    memory_.CopyTo(shared, from, bytes);
  }
  void PrefetchForRead(const std::byte*) const {}
  void PrefetchForWrite(const std::byte*) const {}

 private:
  void Step() const {
    if (interleaver_ != nullptr) interleaver_->Step(actor_);
  }

  Interleaver* interleaver_ = nullptr;
  int actor_ = 0;
  ProductionAccess memory_;
};

}  // namespace ferrybus::ringbuffer::testing

#endif  // FERRYBUS_RINGBUFFER_TESTING_SCRIPTED_ACCESS_H_
