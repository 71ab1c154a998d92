// SPDX-License-Identifier: MIT
//
// Small programs over one ring of a page: the real RingProducer,
// SharedProducer, RingConsumer, policy of PagedRing and waiting functions, used
// as the library's users do.
//
// What they check: the consumer gets each packet once, in order, with its
// bytes, and nothing behind the last; nobody faults; both ends are reached.

#ifndef FERRYBUS_TESTS_INTERLEAVING_RING_PROGRAMS_H_
#define FERRYBUS_TESTS_INTERLEAVING_RING_PROGRAMS_H_

#include <cstdint>
#include <memory>

#include "absl/types/span.h"
#include "ferrybus/tests/interleaving/explorer.h"
#include "ferrybus/tests/interleaving/ring_scene.h"

namespace ferrybus::interleaving {

absl::Span<const RingScene> AllScenes();

enum class Model : uint8_t {
  kInOrder,     // store buffers, in order: x86
  kOutOfOrder,  // store buffers, out of order
  kCpp,         // the C++ memory model
};
inline constexpr Model kModels[] = {Model::kInOrder, Model::kOutOfOrder,
                                    Model::kCpp};
const char* ModelName(Model model);
std::unique_ptr<Memory> MakeMemory(Model model, bool bell_orders);

Exploration ExploreRing(const RingScene& scene, Model model,
                        const Variant& variant, const ExploreOptions& options);

}  // namespace ferrybus::interleaving

#endif  // FERRYBUS_TESTS_INTERLEAVING_RING_PROGRAMS_H_
