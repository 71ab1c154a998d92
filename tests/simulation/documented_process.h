// SPDX-License-Identifier: MIT
//
// A simulated host's process whose hot update goes through the documented
// functions.
//
// Ownership: borrows context and host.  Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_DOCUMENTED_PROCESS_H_
#define FERRYBUS_TESTS_SIMULATION_DOCUMENTED_PROCESS_H_

#include <memory>

#include "ferrybus/tests/simulation/process_update.h"
#include "ferrybus/vsp/virtual_function/documented_hot_update.h"

namespace ferrybus::simulation {

class DocumentedProcess {
 public:
  static std::unique_ptr<vsp::HotUpdateDriver> Make(Context* context,
                                                    SimulatedHost* host,
                                                    UpdateEnd end);

  DocumentedProcess(Context* context, SimulatedHost* host, UpdateEnd end)
      : process_(context, host, end), end_(end) {}

 private:
  NTSTATUS Save(const DXGKARG_SAVEMEMORYFORHOTUPDATE& args);
  NTSTATUS Restore(const DXGKARG_RESTOREMEMORYFORHOTUPDATE& args);
  NTSTATUS Start();

  ProcessDriver process_;
  const UpdateEnd end_;
  vsp::DocumentedHotUpdateDriver* driver_ = nullptr;
  bool is_successor_ = false;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_DOCUMENTED_PROCESS_H_
