// SPDX-License-Identifier: MIT
//
// A host that can serve the machine, hand it over, take it, and fail.
//
// Ownership: borrows machine and guest.  Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_SIMULATED_HOST_H_
#define FERRYBUS_TESTS_SIMULATION_SIMULATED_HOST_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "ferrybus/savestate/migration/migration_source.h"
#include "ferrybus/savestate/migration/migration_target.h"
#include "ferrybus/savestate/migration/pending_pages.h"
#include "ferrybus/tests/simulation/host_files.h"
#include "ferrybus/tests/simulation/machine.h"
#include "ferrybus/tests/simulation/ram_migratable.h"
#include "ferrybus/tests/simulation/simulated_function.h"
#include "ferrybus/tests/simulation/simulated_guest.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/bus_migratable.h"
#include "ferrybus/vsp/storage/storage_device.h"

namespace ferrybus::simulation {

class SimulatedHost final : public vsp::BusOwner,
                            public vsp::BusObserver,
                            public migration::TargetHost {
 public:
  SimulatedHost(Machine* machine, SimulatedGuest* guest, int index);
  ~SimulatedHost() override;

  // -- Power.  A host that is down has no processes.

  bool is_up() const { return ledger_ != nullptr; }
  // Reads its ledger and does what that says.  Nothing, if the disk fails.
  void Start();
  // With `power`, memory and what was not synced is gone, too.
  void Stop(bool power);

  // -- The machine.

  // Whether this host's bus may answer the guest.
  bool Serves() const;
  bool has_bus() const { return bus_ != nullptr; }
  bool is_frozen() const { return is_frozen_; }
  // A machine that starts from nothing.
  void BootMachine();
  // Carries at most `messages` each way, and the guest's signals.
  void Poll(uint64_t messages);
  void Answer(uint64_t count);
  void Ask(uint64_t count);
  // The disk: some of its I/O happens, and is told.
  void AdvanceDisk(bool all);
  // The accelerator executes.
  void RunFunction(uint32_t steps);
  void Rescind(size_t index);
  // Offers again what was rescinded and is gone.
  void OfferAgain();
  // Whether a restored owner stands where this one does: not if it offers anew
  // what was rescinded, or finds a ring that its guest has spoilt.
  bool SavesTheSame() const;
  void ScribbleOnRings(size_t index);
  uint32_t ChannelId(size_t index) const;

  // -- A move to another owner on this host.

  void Suspend() { bus_->Suspend(); }
  bool IsQuiescent() const { return bus_->IsQuiescent(); }
  std::string Freeze();
  void Thaw();
  // The process ends; `kill`: without a chance to wait for their I/O.
  void EndBus(bool kill);
  absl::Status Restore(const std::string& saved);
  // Frozen, or restored from `saved`: the same bytes again.
  std::string SaveAgain(const std::string& saved);
  void StartRestored();
  // The processes that are frozen get a successor, beside them: it starts, or
  // ends and leaves them as they were.  `is_late`: that says no at its end.
  absl::Status StartSuccessor(const std::string& saved, bool is_late);
  // Those before it, if any, end.
  void EndPredecessor();
  absl::Span<std::byte> function_memory() { return function_memory_.bytes(); }
  HostFiles& files() { return files_; }

  // -- A move to the other host.

  migration::OwnershipLedger& ledger() { return *ledger_; }
  std::unique_ptr<migration::MigrationSource> source;
  std::unique_ptr<migration::MigrationTarget> target;
  // As a source.
  absl::Span<migration::PendingPages* const> PrepareToLeave();
  // The source or the target has ended, and so have its devices.
  void ForgetMigration();
  // It was prepared, and lost its memory: what the other host decides.
  const std::optional<migration::OwnershipRecord>& undecided() const {
    return undecided_;
  }
  void OnDecision(migration::Decision decision);
  // Its memory is in its place.
  void Enter() {
    if (machine_->ram.has(index_)) machine_->ram.Activate(index_);
  }

  std::string Describe() const;

  // vsp::BusOwner.
  vsp::Bus* bus() override { return bus_.get(); }
  void Serve() override;
  absl::Status RestoreBus(absl::Span<const std::byte> saved) override;
  void DropBus() override { EndChannels(false); }

  // vsp::BusObserver.
  void OnChannelFault(const vsp::ServerChannel& channel,
                      const std::string& reason) override;

  // migration::TargetHost.
  absl::StatusOr<std::vector<migration::Migratable*>> CreateDevices(
      const migration::Hello& hello, std::vector<int> descriptors,
      bool is_recovery) override;
  void DestroyDevices() override;

 private:
  struct Slot {
    std::unique_ptr<vsp::Device> device;
    NumberedDevice* numbered = nullptr;
    vsp::StorageDevice* storage = nullptr;
    ImageBackend* backend = nullptr;
    std::optional<OfferId> offer;
    bool is_rescinded = false;
  };

  // What ends with its process, in reverse order.
  struct Process {
    std::unique_ptr<SimulatedFunction> function;
    std::array<Slot, kChannelCount> slots;
    std::unique_ptr<vsp::Bus> bus;
  };

  static vsp::BusOptions Options();
  void MakeSlot(size_t index);
  void MakeFunction();
  void EndChannels(bool kill);
  void TakeSignals();
  void MakeMigratables();
  std::vector<migration::Migratable*> Migratables();
  bool* DrawRefusing();
  std::optional<size_t> IndexOf(OfferId offer) const;

  Machine* const machine_;
  Context* const context_;
  SimulatedGuest* const guest_;
  const int index_;
  HostFiles files_;
  std::unique_ptr<migration::FileLedger> ledger_;
  std::optional<migration::OwnershipRecord> undecided_;

  absl::Mutex mutex_;
  FunctionMemory function_memory_;
  // Null without the accelerator's channel.
  std::unique_ptr<SimulatedFunction> function_;
  std::array<Slot, kChannelCount> slots_;
  std::unique_ptr<vsp::Bus> bus_;
  std::optional<Process> predecessor_;
  bool is_frozen_ = false;
  std::unique_ptr<RamMigratable> ram_;
  std::unique_ptr<vsp::BusMigratable> channels_;
  std::vector<std::unique_ptr<migration::PendingPages>> pages_;
  std::vector<migration::PendingPages*> pages_pointers_;

 public:
  uint32_t deaf_channel = 0;  // 0: none
  bool refuses_restore = false;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_SIMULATED_HOST_H_
