// SPDX-License-Identifier: MIT
//
// The access policy that makes the ring's code a program to explore: each load,
// store and fence is a step of an Actor.  One of the orderings can be weakened.
//
// What it is: as ProductionAccess, and, for rings whose two ends are armed, as
// AsymmetricAccess (asymmetric_access.h).  A copy is a step for each eight
// bytes, of more than sixteen only for the first and the last eight.
//
// Until Begin() the handles are being made, which happens before the peer
// runs: loads then give the initial indices, and stores are dropped.

#ifndef FERRYBUS_TESTS_INTERLEAVING_EXPLORED_ACCESS_H_
#define FERRYBUS_TESTS_INTERLEAVING_EXPLORED_ACCESS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/types/span.h"
#include "ferrybus/ringbuffer/ring_view.h"
#include "ferrybus/ringbuffer/wire.h"
#include "ferrybus/tests/interleaving/actor.h"

namespace ferrybus::interleaving {

inline constexpr uint32_t kDataBytes = ringbuffer::kPageBytes;

// The functions of the policy that order anything.
enum class Call : uint8_t {
  kLoadAcquire,
  kStoreRelease,
  kFullFence,
  kSleepFence,
};

enum class Fences : uint8_t { kFull, kAsymmetric };

// One ordering that the ring's code asks for.
struct Ordering {
  // "[W1] Publish: write_index".
  const char* name = "";
  int actor = kProducer;
  Call call = Call::kLoadAcquire;
  uint32_t word = 0;  // its offset; fences: 0
  // Empty: some program goes wrong without it.  Else why none does.
  const char* spare_because = "";
};

// Each ordered call of RingProducer and RingConsumer: what they call beyond
// this list ends the exploration.
absl::Span<const Ordering> AllOrderings();

struct Scene {
  Actor* actor = nullptr;
  Fences fences = Fences::kFull;
  // Null: as shipped.
  const Ordering* weakened = nullptr;
  // Of a sleep fence of the asymmetric kind: it still orders its own side.
  bool keeps_own_fence = false;
  uint32_t start_index = 0;
  bool begun = false;
};

class ExploredAccess {
 public:
  ExploredAccess() = default;
  explicit ExploredAccess(Scene* scene) : scene_(scene) {}

  // The addresses that the policy turns into locations; never accessed.
  static ringbuffer::RingView View();
  // Its data page, for BasicPagedAccess.
  static std::byte* const* DataPages();
  void Begin() { scene_->begun = true; }

  static constexpr bool kInPlace = true;

  uint32_t LoadRelaxed(const uint32_t* word) const {
    return Load(word, Order::kRelaxed);
  }
  uint32_t LoadAcquire(const uint32_t* word) const {
    return Load(word, Weak(Call::kLoadAcquire, word) ? Order::kRelaxed
                                                     : Order::kAcquire);
  }
  void StoreRelaxed(uint32_t* word, uint32_t value) const {
    Store(word, value, Order::kRelaxed);
  }
  void StoreRelease(uint32_t* word, uint32_t value) const {
    Store(word, value,
          Weak(Call::kStoreRelease, word) ? Order::kRelaxed : Order::kRelease);
  }
  void FullFence() const;
  void SleepFence() const;

  void CopyFrom(void* to, const std::byte* shared, size_t bytes) const;
  void CopyTo(std::byte* shared, const void* from, size_t bytes) const;
  void PrefetchForRead(const std::byte*) const {}
  void PrefetchForWrite(const std::byte*) const {}

 private:
  uint32_t Load(const uint32_t* word, Order order) const;
  void Store(uint32_t* word, uint32_t value, Order order) const;
  bool Weak(Call call, const uint32_t* word) const;

  Scene* scene_ = nullptr;
};

}  // namespace ferrybus::interleaving

#endif  // FERRYBUS_TESTS_INTERLEAVING_EXPLORED_ACCESS_H_
