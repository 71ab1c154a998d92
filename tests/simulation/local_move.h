// SPDX-License-Identifier: MIT
//
// A move to another owner on the same host, step by step, with everything else
// going on between the steps: suspend, freeze and save, then go on after all,
// or end and restore, over the disk or directly.
//
// Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_LOCAL_MOVE_H_
#define FERRYBUS_TESTS_SIMULATION_LOCAL_MOVE_H_

#include <string>

#include "ferrybus/tests/simulation/simulated_host.h"

namespace ferrybus::simulation {

class LocalMove {
 public:
  LocalMove(Context* context, const FaultPlan* plan)
      : context_(context), plan_(plan) {}

  bool is_under_way() const { return state_ != State::kNone; }
  // REQUIRES: the host serves, and neither leaves nor is left.
  void Begin(SimulatedHost* host);
  void Step();
  // What is to be moved is gone.
  void Forget() { state_ = State::kNone; }
  // From now on without faults.
  void Heal() { is_healed_ = true; }

 private:
  enum class State { kNone, kSuspended, kFrozen, kEnded };

  bool Draws(Fault fault);
  void Decide();
  bool WriteCheckpoint();
  void Restore(bool is_at_once);

  Context* const context_;
  const FaultPlan* const plan_;
  SimulatedHost* host_ = nullptr;
  State state_ = State::kNone;
  bool is_healed_ = false;
  bool is_on_disk_ = false;
  std::string saved_;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_LOCAL_MOVE_H_
