// SPDX-License-Identifier: MIT
//
// Runs two programs in every interleaving of their steps, over every behaviour
// of a memory, and says what goes wrong in one of them.
//
// What it is: a breadth-first search over states.  States that have the same
// memory, and whose programs have seen the same, are one: so all interleavings
// are covered, though their number is far beyond what could be run one by one.
// The first violation found is one with the fewest steps.
//
// A violation is what a program reports, a data race, or a state from which
// nothing goes on though a program has not ended: somebody sleeps, and nobody
// will ring.
//
// Cost: some microseconds per transition; memory for two levels of states, and
// eight bytes for each other one.
//
//   Exploration found = Explore(producer, consumer, memory, {});
//   if (found.violation != nullptr) std::cout << found.schedule;

#ifndef FERRYBUS_TESTS_INTERLEAVING_EXPLORER_H_
#define FERRYBUS_TESTS_INTERLEAVING_EXPLORER_H_

#include <cstdint>
#include <string>

#include "ferrybus/tests/interleaving/actor.h"
#include "ferrybus/tests/interleaving/memory.h"
#include "ferrybus/tests/interleaving/schedule_text.h"

namespace ferrybus::interleaving {

struct ExploreOptions {
  // Steps that commute with everything are made at once.  Off: each is a turn,
  // which says the same and takes longer.
  bool reduce = true;
  // Gives up above this; a test then fails.
  uint64_t states_max = 20'000'000;
  // Of the printed schedule.
  Labels labels = {};
};

struct Exploration {
  // Null: none in any interleaving.
  const char* violation = nullptr;
  // How it comes to that: one line for each step, a column for each program.
  std::string schedule;
  uint64_t states = 0;
  uint64_t transitions = 0;
  // Complete interleavings that these states stand for.
  double schedules = 0;
  bool complete = true;
};

// `memory`: as it is before the first step.
Exploration Explore(const Program& producer, const Program& consumer,
                    const Memory& memory, const ExploreOptions& options);

}  // namespace ferrybus::interleaving

#endif  // FERRYBUS_TESTS_INTERLEAVING_EXPLORER_H_
