// SPDX-License-Identifier: MIT
//
// A kind of machine that ferrybus-migrated can have: what the daemon asks of
// it.  The daemon keeps the ledgers; a kind keeps what else must survive a
// restart in the folder that it is given.
//
// Ownership: the daemon owns machines; a kind outlives its machines.
// Thread safety: a kind from any thread; a machine from one at a time, but for
// Status().

#ifndef FERRYBUS_TOOLS_MIGRATE_MACHINE_H_
#define FERRYBUS_TOOLS_MIGRATE_MACHINE_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/savestate/migration/migration_messages.h"
#include "ferrybus/savestate/migration/pending_pages.h"

namespace ferrybus::migrate_tool {

class Machine {
 public:
  virtual ~Machine() = default;

  // What moves, in the order in which it is paused.
  virtual std::vector<migration::PendingPages*> devices() = 0;
  // Runs it: a new one, or one that ran in the process before.  Not after a
  // move: its devices are resumed by that.
  virtual absl::Status Start() = 0;
  // Stands still when it returns; before the process ends.
  virtual void Stop() = 0;
  // One line for an operator; from any thread.
  virtual std::string Status() const = 0;
};

class MachineKind {
 public:
  virtual ~MachineKind() = default;

  // As in --machine kind=NAME.
  virtual std::string name() const = 0;
  virtual absl::StatusOr<std::unique_ptr<Machine>> CreateNew(
      const std::string& machine, const std::string& folder,
      const std::map<std::string, std::string>& parameters) = 0;
  // One that was here when the process before ended, from what the folder has.
  virtual absl::StatusOr<std::unique_ptr<Machine>> Attach(
      const std::string& machine, const std::string& folder) = 0;
  // Whether a machine that wants to come is of this kind.
  virtual bool Takes(const migration::Hello& hello) const = 0;
  // One that comes: never ran.  `shared`: the memory of the segments that are
  // shared, in their order, checked.  `is_recovery`: its memory is in the
  // folder.
  virtual absl::StatusOr<std::unique_ptr<Machine>> CreateTarget(
      const std::string& folder, const migration::Hello& hello,
      std::vector<UniqueFd> shared, bool is_recovery) = 0;
};

}  // namespace ferrybus::migrate_tool

#endif  // FERRYBUS_TOOLS_MIGRATE_MACHINE_H_
