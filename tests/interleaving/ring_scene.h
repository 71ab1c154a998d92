// SPDX-License-Identifier: MIT
//
// What the programs over one ring are made of: who sends and receives how, and
// what is weakened.

#ifndef FERRYBUS_TESTS_INTERLEAVING_RING_SCENE_H_
#define FERRYBUS_TESTS_INTERLEAVING_RING_SCENE_H_

#include <cstdint>
#include <string>

#include "ferrybus/tests/interleaving/explored_access.h"

namespace ferrybus::interleaving {

enum class Sending : uint8_t {
  kEach,      // Write and Publish each packet
  kTogether,  // one Publish, or as soon as the ring is full
  kIfDue,     // PublishIfDue, then Publish
  kBatch,     // WriteBatch
};

enum class Receiving : uint8_t {
  kWait,       // WaitForPackets; signals masked while awake
  kUnmask,     // drain, Release, UnmaskSignals, sleep: as PacketEndpoint does
  kBatch,      // TakeBatch, ReleaseIfDue
  kSuccessor,  // as kUnmask, and each packet has a new consumer
};

struct RingScene {
  std::string name;
  uint32_t packets = 1;
  uint32_t payload_bytes = 8;  // a multiple of 8
  // Where both indices are at first.
  uint32_t start_index = 0;
  Sending sending = Sending::kEach;
  Receiving receiving = Receiving::kWait;
  // More than the tests have time for.
  bool deep = false;
  // Threads that share the producer; `sending` does not matter then.
  uint32_t threads = 1;
  // Over a PagedRing's policy, at both ends.
  bool paged = false;
};

struct Variant {
  Fences fences = Fences::kFull;
  // Null: as shipped.
  const Ordering* weakened = nullptr;
  bool keeps_own_fence = false;
  // Whether ringing and waking order memory, as system calls do.  The ring
  // does not need it, but a weakening must be found with it.
  bool bell_orders = true;
  // Threads of a shared producer do not wake each other, as they must.
  bool threads_do_not_wake = false;
};

}  // namespace ferrybus::interleaving

#endif  // FERRYBUS_TESTS_INTERLEAVING_RING_SCENE_H_
