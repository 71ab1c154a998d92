// SPDX-License-Identifier: MIT

#include "ferrybus/tests/interleaving/actor.h"

namespace ferrybus::interleaving {

void Actor::Run(const Program& program, int choice) {
  choice_ = choice;
  state_->next = {};
  if (setjmp(stop_) == 0) program(*this);
}

uint64_t Actor::Perform(const Step& step) {
  if (replayed_ < state_->results.size()) return state_->results[replayed_++];
  if (choice_ >= 0) {
    const int choice = choice_;
    choice_ = -1;
    return Apply(step, choice);
  }
  if (options_.reduce && memory_->IsLocal(index_, step)) return Apply(step, 0);
  state_->next = step;
  Leave();
}

uint64_t Actor::Apply(const Step& step, int choice) {
  const Outcome outcome = memory_->Apply(index_, step, choice);
  if (options_.trace != nullptr) {
    options_.trace->push_back({index_, step, outcome});
  }
  if (outcome.violation != nullptr) Fail(outcome.violation);
  if (state_->results.size() == kStepsMax) Fail("the program does not end");
  state_->results.push_back(outcome.value);
  state_->log.Add(outcome.value);
  ++replayed_;
  return outcome.value;
}

void Actor::Fail(const char* what) {
  state_->failure = what;
  Leave();
}

}  // namespace ferrybus::interleaving
