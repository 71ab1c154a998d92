// SPDX-License-Identifier: MIT
//
// The simplest machine: one piece of memory in a file, and a writer that
// changes it at a given rate, in a way that can be checked (pattern_memory.h).
// For trying out and measuring links.
//
//   kind=memory,size=1GiB,dirty=50MiB/s,fill=yes
//
// Ownership: a machine has its file mapped.  Thread safety: as machine.h says.

#ifndef FERRYBUS_TOOLS_MIGRATE_MEMORY_MACHINE_H_
#define FERRYBUS_TOOLS_MIGRATE_MEMORY_MACHINE_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "ferrybus/tools/migrate/machine.h"

namespace ferrybus::migrate_tool {

class MemoryMachineKind final : public MachineKind {
 public:
  std::string name() const override { return "memory"; }
  absl::StatusOr<std::unique_ptr<Machine>> CreateNew(
      const std::string& machine, const std::string& folder,
      const std::map<std::string, std::string>& parameters) override;
  absl::StatusOr<std::unique_ptr<Machine>> Attach(
      const std::string& machine, const std::string& folder) override;
  bool Takes(const migration::Hello& hello) const override;
  absl::StatusOr<std::unique_ptr<Machine>> CreateTarget(
      const std::string& folder, const migration::Hello& hello,
      std::vector<UniqueFd> shared, bool is_recovery) override;
};

}  // namespace ferrybus::migrate_tool

#endif  // FERRYBUS_TOOLS_MIGRATE_MEMORY_MACHINE_H_
