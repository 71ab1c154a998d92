// SPDX-License-Identifier: MIT
//
// The parts of a simulation and what may happen to them: see simulation.h.
//
// Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_WORLD_H_
#define FERRYBUS_TESTS_SIMULATION_WORLD_H_

#include <array>
#include <cstdint>
#include <string>

#include "ferrybus/tests/simulation/local_move.h"
#include "ferrybus/tests/simulation/machine.h"
#include "ferrybus/tests/simulation/migration_run.h"
#include "ferrybus/tests/simulation/process_update.h"
#include "ferrybus/tests/simulation/simulated_guest.h"
#include "ferrybus/tests/simulation/simulated_host.h"

namespace ferrybus::simulation {

class World {
 public:
  World(Context* context, const RunOptions& options);

  // Before the first step.
  void Begin();
  // One part does a little, faults happen, all is checked.
  void Step();
  // Faults off.
  void Heal();
  // Every part does something.
  void Round();
  // Once Wants() is empty: the machine must be able to move once more.
  void BeginLastMove();
  bool HasMoved() const { return machine_.runs_at != last_host_; }
  // Then: reads all of the disk and of the accelerator.
  void BeginVerify() { guest_.BeginVerify(); }
  bool ContinueVerify();
  // Empty: nothing is owed, nothing is under way.
  std::string Wants();

  std::string Describe();

 private:
  enum class Part : uint64_t {
    kGuest,
    kGuestAsks,
    kGuestAnswers,
    kHost,
    kHostAnswers,
    kHostAsks,
    kDisk,
    kMigration,
    kLocalMove,
    kBeginMove,
    kGuestTidies,
    kHostTidies,
    kAccelerator,
  };

  SimulatedHost& machine_host();
  Part DrawPart();
  void Do(Part part);
  void BeginMove();
  bool IsMoving() const;
  bool CanMigrate() const;
  void BeginUpdate();
  void Faults();
  void Do(Fault fault);
  void DoToMigration(Fault fault);
  void StopHost(SimulatedHost& host, bool power);
  void ResetGuest();
  void EndDeafness();
  void Check();

  Context* const context_;
  const FaultPlan plan_;
  Machine machine_;
  SimulatedGuest guest_;
  SimulatedHost host_a_;
  SimulatedHost host_b_;
  const std::array<SimulatedHost*, 2> hosts_;
  MigrationRun migration_;
  LocalMove local_move_;
  ProcessUpdate update_;
  uint64_t deaf_until_ = 0;
  uint64_t slow_until_ = 0;
  int last_host_ = -1;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_WORLD_H_
