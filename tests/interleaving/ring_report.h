// SPDX-License-Identifier: MIT
//
// What the exploration of the ring's programs gives, as tables to read.

#ifndef FERRYBUS_TESTS_INTERLEAVING_RING_REPORT_H_
#define FERRYBUS_TESTS_INTERLEAVING_RING_REPORT_H_

#include <ostream>

#include "ferrybus/tests/interleaving/ring_programs.h"

namespace ferrybus::interleaving {

struct ReportOptions {
  // The long scenes as well, and all once more without reduction.
  bool deep = false;
  // For each weakened ordering a schedule that goes wrong.
  bool schedules = false;
};

// Where a weakened ordering is first missed; a null scene: nowhere.
struct Miss {
  const RingScene* scene = nullptr;
  Exploration exploration;
};
Miss FindMiss(const Variant& variant, Model model, bool deep,
              const ExploreOptions& options = {});

// False: something is not as it should be.
bool ReportRing(const ReportOptions& options, std::ostream& out);

}  // namespace ferrybus::interleaving

#endif  // FERRYBUS_TESTS_INTERLEAVING_RING_REPORT_H_
