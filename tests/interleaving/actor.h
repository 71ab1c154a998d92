// SPDX-License-Identifier: MIT
//
// One of the two programs whose interleavings are explored.
//
// What it is: a program is an ordinary function that touches shared memory only
// through Perform().  What it does next depends on nothing but what its steps
// returned so far, so a log of these results is the program's whole state: to
// go on from a state, the function is run again from its beginning, with the
// log's results, up to the first step that the log does not have.
//
// REQUIRES of a program: no memory of its own beyond its run, no clock, no
// chance; nothing on its stack whose destructor matters, since a step that has
// to wait leaves the function by longjmp.
//
// Thread safety: one thread.

#ifndef FERRYBUS_TESTS_INTERLEAVING_ACTOR_H_
#define FERRYBUS_TESTS_INTERLEAVING_ACTOR_H_

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "ferrybus/tests/interleaving/memory.h"

namespace ferrybus::interleaving {

class Actor;
using Program = std::function<void(Actor&)>;

// For a trace.
struct Performed {
  int actor = 0;
  Step step;
  Outcome outcome;
  // Made by memory; a sleep: still going on.
  bool by_memory = false;
};

// A program between two steps.
struct ActorState {
  std::vector<uint64_t> results;
  Fingerprint log;
  // What it does next; kDone: nothing.
  Step next;
  // Not null: what it found wrong.
  const char* failure = nullptr;
};

class Actor {
 public:
  struct Options {
    // Whether steps of no consequence are made at once.
    bool reduce = true;
    std::vector<Performed>* trace = nullptr;
  };

  // Runs `program` from its start to its first step.
  static void Start(int index, const Program& program, const Options& options,
                    Memory* memory, ActorState* state) {
    Actor(index, options, memory, state).Run(program, -1);
  }
  // Makes the step state->next in the way `choice`, and goes on to the one
  // after it.
  static void Continue(int index, const Program& program,
                       const Options& options, int choice, Memory* memory,
                       ActorState* state) {
    Actor(index, options, memory, state).Run(program, choice);
  }

  // For programs.
  int index() const { return index_; }
  uint64_t Perform(const Step& step);
  void Ring() { (void)Perform({StepKind::kRing}); }
  void Sleep() { (void)Perform({StepKind::kSleep}); }
  // Ends the exploration: what should not be has been seen.
  [[noreturn]] void Fail(const char* what);

 private:
  // More steps than any of the programs needs: it does not end.
  static constexpr size_t kStepsMax = 400;

  Actor(int index, const Options& options, Memory* memory, ActorState* state)
      : index_(index), options_(options), memory_(memory), state_(state) {}

  void Run(const Program& program, int choice);
  uint64_t Apply(const Step& step, int choice);
  [[noreturn]] void Leave() { std::longjmp(stop_, 1); }

  const int index_;
  const Options& options_;
  Memory* const memory_;
  ActorState* const state_;
  size_t replayed_ = 0;
  // Of the step after the log; below 0: it is not to be made.
  int choice_ = -1;
  std::jmp_buf stop_;
};

}  // namespace ferrybus::interleaving

#endif  // FERRYBUS_TESTS_INTERLEAVING_ACTOR_H_
