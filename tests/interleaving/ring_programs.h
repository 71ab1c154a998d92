// SPDX-License-Identifier: MIT
//
// Small programs over one ring of a page: the real RingProducer, RingConsumer
// and waiting functions, used as the library's users do.
//
// What they check: the consumer gets each packet once, in order, with its
// bytes, and nothing behind the last; nobody faults; both ends are reached.

#ifndef FERRYBUS_TESTS_INTERLEAVING_RING_PROGRAMS_H_
#define FERRYBUS_TESTS_INTERLEAVING_RING_PROGRAMS_H_

#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "ferrybus/tests/interleaving/explored_access.h"
#include "ferrybus/tests/interleaving/explorer.h"

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
};

absl::Span<const RingScene> AllScenes();

enum class Model : uint8_t {
  kInOrder,     // store buffers, in order: x86
  kOutOfOrder,  // store buffers, out of order
  kCpp,         // the C++ memory model
};
inline constexpr Model kModels[] = {Model::kInOrder, Model::kOutOfOrder,
                                    Model::kCpp};
const char* ModelName(Model model);

struct Variant {
  Fences fences = Fences::kFull;
  // Null: as shipped.
  const Ordering* weakened = nullptr;
  bool keeps_own_fence = false;
  // Whether ringing and waking order memory, as system calls do.  The ring
  // does not need it, but a weakening must be found with it.
  bool bell_orders = true;
};

Exploration ExploreRing(const RingScene& scene, Model model,
                        const Variant& variant, const ExploreOptions& options);

}  // namespace ferrybus::interleaving

#endif  // FERRYBUS_TESTS_INTERLEAVING_RING_PROGRAMS_H_
