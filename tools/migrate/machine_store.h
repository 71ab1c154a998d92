// SPDX-License-Identifier: MIT
//
// The machines of a daemon: each with a folder under the state folder that has
// its ledger, its kind, and what the kind keeps.
//
//   STATE/NAME/ledger/   who owns it (savestate/migration/ownership.h)
//   STATE/NAME/kind      the name of its kind
//   STATE/NAME/data/     the kind's
//
// Ownership: of the machines; borrows the kinds.
// Thread safety: all methods, from any thread.
// Trust: machine names come from peers, and become names of folders: few
// characters are allowed.

#ifndef FERRYBUS_TOOLS_MIGRATE_MACHINE_STORE_H_
#define FERRYBUS_TOOLS_MIGRATE_MACHINE_STORE_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "ferrybus/savestate/migration/host/arrivals.h"
#include "ferrybus/savestate/migration/host/locked_ledger.h"
#include "ferrybus/savestate/migration/migration_target.h"
#include "ferrybus/tools/migrate/machine.h"

namespace ferrybus::migrate_tool {

class MachineStore final : public migration::MachineRegistry {
 public:
  MachineStore(const std::string& folder, std::vector<MachineKind*> kinds);
  ~MachineStore() override;

  // Those of the process before: starts what is ours.  The names of those that
  // are prepared, and must be recovered.
  absl::StatusOr<std::vector<std::string>> LoadAll();
  // A new machine, unless it is there, or went elsewhere.
  absl::Status Create(const std::string& machine, const std::string& kind,
                      const std::map<std::string, std::string>& parameters);
  // All stand still; before the process ends.
  void StopAll();

  // What leaves.  Its devices and ledger stay until EndDeparture().
  struct Departure {
    std::vector<migration::PendingPages*> devices;
    migration::OwnershipLedger* ledger = nullptr;
  };
  absl::StatusOr<Departure> BeginDeparture(const std::string& machine);
  void EndDeparture(const std::string& machine, bool is_gone);

  struct Entry {
    std::string name;
    std::string kind;
    migration::OwnershipRecord record;
    std::string status;
  };
  std::vector<Entry> List();

  // MachineRegistry.
  absl::StatusOr<Arrival> BeginArrival(const std::string& machine) override;
  void EndArrival(const std::string& machine, bool is_running) override;
  absl::StatusOr<migration::OwnershipLedger*> FindLedger(
      const std::string& machine) override;

 private:
  // One machine, here or not.
  class Slot final : public migration::TargetHost {
   public:
    Slot(MachineStore* store, std::string name, std::string folder)
        : store_(store), name_(std::move(name)), folder_(std::move(folder)) {}

    absl::Status Open();

    absl::StatusOr<std::vector<migration::Migratable*>> CreateDevices(
        const migration::Hello& hello, std::vector<int> descriptors,
        bool is_recovery) override;
    void DestroyDevices() override;

    MachineStore* const store_;
    const std::string name_;
    const std::string folder_;
    std::unique_ptr<migration::LockedLedger> ledger_;
    // Guarded by the store's mutex.
    std::string kind_;
    std::unique_ptr<Machine> machine_;
    bool is_moving_ = false;
  };

  absl::StatusOr<Slot*> FindOrMake(const std::string& machine)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  MachineKind* FindKind(const std::string& kind) const;
  absl::Status Load(Slot& slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string folder_;
  const std::vector<MachineKind*> kinds_;
  absl::Mutex mutex_;
  std::map<std::string, std::unique_ptr<Slot>> slots_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ferrybus::migrate_tool

#endif  // FERRYBUS_TOOLS_MIGRATE_MACHINE_STORE_H_
