// SPDX-License-Identifier: MIT
//
// A machine and the process behind its devices, in all the ways that it comes
// and goes: booted, from and into a folder, from and to another process of this
// host (savestate/migration/unix/) or of another (savestate/migration/grpc/).
//
// Thread safety: one thread; the machine's own do the rest, and one in which a
// machine arrives.
// Trust: as machine_devices.h, snapshot_folder.h and unix_server.h.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_GUEST_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_GUEST_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "ferrybus/examples/hypervisor/device_supervisor.h"
#include "ferrybus/examples/hypervisor/machine.h"
#include "ferrybus/examples/hypervisor/machine_devices.h"
#include "ferrybus/examples/hypervisor/network_server.h"
#include "ferrybus/savestate/migration/host/arrivals.h"
#include "ferrybus/savestate/migration/host/locked_ledger.h"
#include "ferrybus/savestate/migration/host/migration_book.h"
#include "ferrybus/savestate/migration/host/outgoing_migration.h"
#include "ferrybus/savestate/migration/migration_progress.h"
#include "ferrybus/savestate/migration/migration_target.h"
#include "ferrybus/savestate/migration/ownership.h"
#include "ferrybus/savestate/migration/unix/unix_server.h"

namespace ferrybus::hypervisor {

class Guest final : private migration::TargetHost,
                    private migration::MachineRegistry {
 public:
  // Opens the ledger beside the devices' checkpoints.
  static absl::StatusOr<std::unique_ptr<Guest>> Create(
      const MachineOptions& machine, const DeviceProcessOptions& devices,
      const NetworkOptions& network);

  // One of them, once; it runs then.  All but the first take of the options
  // only the console.
  absl::Status Boot();
  absl::Status RestoreFrom(const std::string& folder);
  // Waits for a machine to come, from this host or, with a network, another;
  // calls `on_ready` once it can.
  absl::Status Receive(absl::FunctionRef<void()> on_ready);

  // An error: it goes on here.  Else it never runs here again.
  absl::Status SaveTo(const std::string& folder);
  // To a process that waits in Receive(): AddressOf() its checkpoints, or
  // HOST:PORT, which needs a network.  `take_back`, if there is one, ends that
  // process, so that the disk is free when the guest goes on here; without it
  // the disk's lock is waited for, once the target has been told.
  migration::MigrationProgress SendTo(const std::string& target,
                                      std::function<void()> take_back);
  // Where a process of this host answers that has its checkpoints there.
  static std::string AddressOf(const std::string& checkpoint_folder);

  // After it began.
  Machine& machine() { return *machine_; }
  DeviceSupervisor& devices() { return devices_; }

 private:
  Guest(const MachineOptions& machine, const DeviceProcessOptions& devices,
        const NetworkOptions& network);

  // Answers other processes: takes their machine, and tells what was decided.
  absl::Status Listen();
  absl::Status Make(const MachineOptions& options);
  // A machine that goes on here, by the description of where it was.
  absl::Status MakeFrom(const std::string& description);
  absl::Status Own();
  // Fits the options to it.
  absl::StatusOr<std::unique_ptr<migration::TargetConnection>> Connect(
      const std::string& target, migration::OutgoingOptions& options) const;
  std::vector<migration::Migratable*> migratables();

  absl::StatusOr<std::vector<migration::Migratable*>> CreateDevices(
      const migration::Hello& hello, std::vector<int> descriptors,
      bool is_recovery) override;
  void DestroyDevices() override;

  // MachineRegistry: a guest is one machine, and comes once.
  absl::StatusOr<Arrival> BeginArrival(const std::string& machine) override;
  void EndArrival(const std::string& machine, bool is_running) override;
  absl::StatusOr<migration::OwnershipLedger*> FindLedger(
      const std::string& machine) override;

  const MachineOptions machine_options_;
  const DeviceProcessOptions device_options_;
  const NetworkOptions network_;
  std::unique_ptr<migration::LockedLedger> ledger_;
  std::unique_ptr<Machine> machine_;
  DeviceSupervisor devices_;
  std::unique_ptr<MachineDevice> machine_device_;
  std::unique_ptr<ChannelsDevice> channels_device_;
  migration::MigrationBook book_;
  std::atomic<bool> is_arriving_ = false;
  absl::Notification arrived_;
  bool is_running_ = false;  // once it has arrived
  std::optional<migration::UnixServer> server_;
  std::optional<NetworkServer> network_server_;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_GUEST_H_
