// SPDX-License-Identifier: MIT
//
// A migration between the two simulated hosts, step by step, and what becomes
// of it when hosts and link fail.
//
// Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_MIGRATION_RUN_H_
#define FERRYBUS_TESTS_SIMULATION_MIGRATION_RUN_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "ferrybus/savestate/migration/page_block.h"
#include "ferrybus/tests/simulation/simulated_host.h"
#include "ferrybus/tests/simulation/virtual_network.h"

namespace ferrybus::simulation {

class MigrationRun {
 public:
  MigrationRun(Context* context, std::array<SimulatedHost*, 2> hosts)
      : context_(context), hosts_(hosts), network_(context) {}

  bool is_under_way() const { return is_under_way_; }
  // REQUIRES: that host serves, the other one could.
  void Begin(int from, bool is_hurried);
  // One of the parts does one thing.
  void Step(uint64_t what);
  static constexpr uint64_t kSteps = 10;
  // A host was stopped.
  void OnHostStopped() { network_.Cut(); }
  // Whoever is undecided asks.
  void Ask();

  VirtualNetwork& network() { return network_; }
  SimulatedHost& source_host() { return *hosts_[from_]; }

 private:
  SimulatedHost& target_host() { return *hosts_[1 - from_]; }
  void StepSource();
  void StepTarget();
  void ToTarget();
  void ToSource();
  void TakeBlock();
  void GiveBlock(size_t stream);
  void FinishIfOver();

  Context* const context_;
  const std::array<SimulatedHost*, 2> hosts_;
  VirtualNetwork network_;
  int from_ = 0;
  bool is_under_way_ = false;
  uint64_t number_ = 0;
  migration::PageEncoder encoder_;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_MIGRATION_RUN_H_
