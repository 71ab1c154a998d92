// SPDX-License-Identifier: MIT
//
// A schedule to read: the first actor's steps on the left, the second's on the
// right, time downwards.

#ifndef FERRYBUS_TESTS_INTERLEAVING_SCHEDULE_TEXT_H_
#define FERRYBUS_TESTS_INTERLEAVING_SCHEDULE_TEXT_H_

#include <string>
#include <vector>

#include "ferrybus/tests/interleaving/actor.h"

namespace ferrybus::interleaving {

struct Labels {
  const char* actors[kActors] = {"producer", "consumer"};
  // Of the locations from 0 on.
  const char* words[5] = {"write_index", "read_index", "interrupt_mask",
                          "pending_send_size", "feature_bits"};
};

std::string ScheduleText(const std::vector<Performed>& trace,
                         const char* violation, const Labels& labels);

}  // namespace ferrybus::interleaving

#endif  // FERRYBUS_TESTS_INTERLEAVING_SCHEDULE_TEXT_H_
