// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/guest.h"

#include <unistd.h>

#include <utility>

#include "absl/memory/memory.h"
#include "ferrybus/examples/hypervisor/machine_move.h"
#include "ferrybus/examples/hypervisor/snapshot.h"

namespace ferrybus::hypervisor {

absl::StatusOr<std::unique_ptr<Guest>> Guest::Create(
    const MachineOptions& machine, const DeviceProcessOptions& devices) {
  auto guest = absl::WrapUnique(new Guest(machine, devices));
  auto ledger =
      migration::FileLedger::Open(devices.checkpoint_folder + ".owner");
  if (!ledger.ok()) return ledger.status();
  guest->ledger_ = *std::move(ledger);
  return guest;
}

absl::Status Guest::Make(const MachineOptions& options) {
  absl::StatusOr<std::unique_ptr<Machine>> machine = Machine::Create(options);
  if (!machine.ok()) return machine.status();
  machine_ = *std::move(machine);
  devices_ =
      std::make_unique<DeviceSupervisor>(device_options_, machine_.get());
  machine_device_ = std::make_unique<MachineDevice>(machine_.get());
  channels_device_ =
      std::make_unique<ChannelsDevice>(machine_.get(), devices_.get());
  return absl::OkStatus();
}

absl::Status Guest::MakeFrom(const std::string& description) {
  absl::StatusOr<MachineOptions> options = ParseDescription(description);
  if (!options.ok()) return options.status();
  options->console = machine_options_.console;
  const absl::Status status = Make(*options);
  return status.ok() ? devices_->StartStandby() : status;
}

std::vector<migration::Migratable*> Guest::migratables() {
  return {machine_device_.get(), channels_device_.get()};
}

absl::Status Guest::Own() {
  return ledger_->Store({.state = migration::Ownership::kOwner, .epoch = 1});
}

absl::Status Guest::Boot() {
  absl::Status status = Make(machine_options_);
  if (status.ok()) status = Own();
  if (status.ok()) status = devices_->Start();
  if (status.ok()) machine_->Start();
  return status;
}

absl::Status Guest::RestoreFrom(const std::string& folder) {
  const absl::StatusOr<Snapshot> snapshot = Snapshot::Open(folder);
  if (!snapshot.ok()) return snapshot.status();
  absl::Status status = MakeFrom(snapshot->CreationParameters("machine"));
  if (status.ok()) status = Own();
  return status.ok() ? snapshot->Restore(migratables()) : status;
}

absl::Status Guest::ReceiveFrom(int socket) {
  return ReceiveMachine(socket, this, ledger_.get());
}

absl::Status Guest::SaveTo(const std::string& folder) {
  return SaveSnapshot(folder, migratables());
}

migration::MigrationProgress Guest::SendTo(int socket) {
  return SendMachine(socket, migratables(), ledger_.get());
}

absl::StatusOr<std::vector<migration::Migratable*>> Guest::CreateDevices(
    const migration::Hello& hello, std::vector<int> descriptors, bool) {
  for (const int descriptor : descriptors) close(descriptor);
  if (hello.devices.size() != 2) {
    return absl::InvalidArgumentError("a guest is two devices");
  }
  const absl::Status status = MakeFrom(hello.devices[0].creation_parameters);
  if (!status.ok()) return status;
  return migratables();
}

void Guest::DestroyDevices() {
  channels_device_.reset();
  machine_device_.reset();
  devices_.reset();
  machine_.reset();
}

}  // namespace ferrybus::hypervisor
