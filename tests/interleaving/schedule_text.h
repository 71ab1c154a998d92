// SPDX-License-Identifier: MIT
//
// A schedule to read: the producer's steps on the left, the consumer's on the
// right, time downwards.

#ifndef FERRYBUS_TESTS_INTERLEAVING_SCHEDULE_TEXT_H_
#define FERRYBUS_TESTS_INTERLEAVING_SCHEDULE_TEXT_H_

#include <string>
#include <vector>

#include "ferrybus/tests/interleaving/actor.h"

namespace ferrybus::interleaving {

std::string ScheduleText(const std::vector<Performed>& trace,
                         const char* violation);

}  // namespace ferrybus::interleaving

#endif  // FERRYBUS_TESTS_INTERLEAVING_SCHEDULE_TEXT_H_
