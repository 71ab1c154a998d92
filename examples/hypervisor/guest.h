// SPDX-License-Identifier: MIT
//
// A machine and the process behind its devices, in all the ways that it comes
// and goes: booted, from and into a folder, from and to another process.
//
// Thread safety: one thread; the machine's own do the rest.
// Trust: as machine_devices.h and snapshot.h.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_GUEST_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_GUEST_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ferrybus/examples/hypervisor/device_supervisor.h"
#include "ferrybus/examples/hypervisor/machine.h"
#include "ferrybus/examples/hypervisor/machine_devices.h"
#include "ferrybus/savestate/migration/migration_progress.h"
#include "ferrybus/savestate/migration/migration_target.h"
#include "ferrybus/savestate/migration/ownership.h"

namespace ferrybus::hypervisor {

class Guest final : private migration::TargetHost {
 public:
  // Opens the ledger beside the devices' checkpoints.
  static absl::StatusOr<std::unique_ptr<Guest>> Create(
      const MachineOptions& machine, const DeviceProcessOptions& devices);

  // One of them, once; it runs then.  All but the first take of the options
  // only the console.
  absl::Status Boot();
  absl::Status RestoreFrom(const std::string& folder);
  absl::Status ReceiveFrom(int socket);

  // An error: it goes on here.  Else it never runs here again.
  absl::Status SaveTo(const std::string& folder);
  migration::MigrationProgress SendTo(int socket);

  // After it began.
  Machine& machine() { return *machine_; }
  DeviceSupervisor& devices() { return *devices_; }

 private:
  Guest(const MachineOptions& machine, const DeviceProcessOptions& devices)
      : machine_options_(machine), device_options_(devices) {}

  absl::Status Make(const MachineOptions& options);
  // A machine that goes on here, by the description of where it was.
  absl::Status MakeFrom(const std::string& description);
  absl::Status Own();
  std::vector<migration::Migratable*> migratables();

  absl::StatusOr<std::vector<migration::Migratable*>> CreateDevices(
      const migration::Hello& hello, std::vector<int> descriptors,
      bool is_recovery) override;
  void DestroyDevices() override;

  const MachineOptions machine_options_;
  const DeviceProcessOptions device_options_;
  std::unique_ptr<migration::OwnershipLedger> ledger_;
  std::unique_ptr<Machine> machine_;
  std::unique_ptr<DeviceSupervisor> devices_;
  std::unique_ptr<MachineDevice> machine_device_;
  std::unique_ptr<ChannelsDevice> channels_device_;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_GUEST_H_
