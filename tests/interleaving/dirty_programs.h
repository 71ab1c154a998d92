// SPDX-License-Identifier: MIT
//
// Small programs over the words of a dirty bitmap (dirty_words.h): a device
// that writes pages and marks them beside a source that starts to track, copies
// pages and takes bits; and two devices.
//
// What they check: once the device is paused and the last bits are taken, the
// copies are what the device wrote; whoever got a page's bit sees the write.

#ifndef FERRYBUS_TESTS_INTERLEAVING_DIRTY_PROGRAMS_H_
#define FERRYBUS_TESTS_INTERLEAVING_DIRTY_PROGRAMS_H_

#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "ferrybus/tests/interleaving/explorer.h"
#include "ferrybus/tests/interleaving/ring_programs.h"

namespace ferrybus::interleaving {

struct DirtyScene {
  std::string name;
  // The pages that the device writes, in this order.
  absl::Span<const uint32_t> writes;
  // From the start; else the source begins to track while the device writes.
  bool is_tracked = false;
  // Takes and copies before the device is paused.
  int rounds = 1;
  // In rounds; the last take clears always.
  bool clears = true;
  // A whole word of bits at once, or a part of one.
  bool whole_word = true;
  // Instead of a source, a second device that writes page 1.
  bool two_devices = false;
};

absl::Span<const DirtyScene> AllDirtyScenes();

enum class DirtyCall : uint8_t { kLoad, kAdd, kOr, kAnd, kExchange };

enum class Without : uint8_t {
  kAcquire,
  kRelease,
  // A load and a store instead of a read-modify-write; of an addition of 0
  // only the load.
  kAtomicity,
};

// One property of one call.
struct DirtyWeakening {
  const char* name = "";
  DirtyCall call = DirtyCall::kLoad;
  bool of_tracked = false;  // else of the pages' bits
  Without without = Without::kAcquire;
  // Whether x86 goes wrong without it.
  bool shows_in_order = false;
};

absl::Span<const DirtyWeakening> AllDirtyWeakenings();

// `weakened`: null: as shipped.
Exploration ExploreDirty(const DirtyScene& scene, Model model,
                         const DirtyWeakening* weakened,
                         const ExploreOptions& options = {});

}  // namespace ferrybus::interleaving

#endif  // FERRYBUS_TESTS_INTERLEAVING_DIRTY_PROGRAMS_H_
