// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/guest.h"

#include <unistd.h>

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/migration/grpc/grpc_connection.h"
#include "ferrybus/savestate/migration/host/random_id.h"
#include "ferrybus/savestate/migration/pending_pages.h"
#include "ferrybus/savestate/migration/snapshot_folder.h"
#include "ferrybus/savestate/migration/unix/socket_frame.h"
#include "ferrybus/savestate/migration/unix/unix_connection.h"

namespace ferrybus::hypervisor {
namespace {

constexpr char kMachine[] = "guest";
// A processor that emulates another is slow.
constexpr absl::Duration kDowntime = absl::Seconds(1);
// A target that is gone without a word still has the disk; as long as it takes
// to notice.
constexpr absl::Duration kDiskPatience = absl::Minutes(1);

}  // namespace

std::string Guest::AddressOf(const std::string& checkpoint_folder) {
  return absl::StrCat(migration::kUnixPrefix, checkpoint_folder, ".socket");
}

Guest::Guest(const MachineOptions& machine, const DeviceProcessOptions& devices,
             const NetworkOptions& network)
    : machine_options_(machine),
      device_options_(devices),
      network_(network),
      devices_(devices) {}

absl::StatusOr<std::unique_ptr<Guest>> Guest::Create(
    const MachineOptions& machine, const DeviceProcessOptions& devices,
    const NetworkOptions& network) {
  auto guest = absl::WrapUnique(new Guest(machine, devices, network));
  auto ledger =
      migration::FileLedger::Open(devices.checkpoint_folder + ".owner");
  if (!ledger.ok()) return ledger.status();
  guest->ledger_ =
      std::make_unique<migration::LockedLedger>(*std::move(ledger));
  return guest;
}

absl::Status Guest::Make(const MachineOptions& options) {
  absl::StatusOr<std::unique_ptr<Machine>> machine = Machine::Create(options);
  if (!machine.ok()) return machine.status();
  machine_ = *std::move(machine);
  devices_.SetMachine(machine_.get());
  machine_device_ = std::make_unique<MachineDevice>(machine_.get());
  channels_device_ =
      std::make_unique<ChannelsDevice>(machine_.get(), &devices_);
  return absl::OkStatus();
}

absl::Status Guest::MakeFrom(const std::string& description) {
  absl::StatusOr<MachineOptions> options = ParseDescription(description);
  if (!options.ok()) return options.status();
  options->console = machine_options_.console;
  return Make(*options);
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
  if (status.ok()) status = devices_.Start();
  if (status.ok()) machine_->Start();
  return status;
}

absl::Status Guest::RestoreFrom(const std::string& folder) {
  const auto snapshot = migration::Snapshot::Open(folder);
  if (!snapshot.ok()) return snapshot.status();
  absl::Status status = devices_.StartStandby();
  if (status.ok()) status = MakeFrom(snapshot->CreationParameters("machine"));
  if (status.ok()) status = Own();
  return status.ok() ? snapshot->Restore(migratables()) : status;
}

absl::Status Guest::Listen() {
  if (server_.has_value()) return absl::OkStatus();
  migration::MachineRegistry* const registry = this;
  server_.emplace(
      migration::UnixServerOptions{
          .address = AddressOf(device_options_.checkpoint_folder)},
      registry, &book_);
  const absl::Status status = server_->Start();
  if (!status.ok() || network_.listen.empty()) return status;
  network_server_.emplace(network_, registry, &book_);
  return network_server_->Start();
}

absl::Status Guest::Receive(absl::FunctionRef<void()> on_ready) {
  // In this thread, which lives as long as the process (DeviceSupervisor).
  absl::Status status = devices_.StartStandby();
  if (status.ok()) status = Listen();
  if (!status.ok()) return status;
  on_ready();
  arrived_.WaitForNotification();
  if (is_running_) return absl::OkStatus();
  const auto report = book_.Query({.machine = kMachine});
  return report.ok() ? report->status : report.status();
}

absl::Status Guest::SaveTo(const std::string& folder) {
  return migration::SaveSnapshot(folder, migratables());
}

absl::StatusOr<std::unique_ptr<migration::TargetConnection>> Guest::Connect(
    const std::string& target, migration::OutgoingOptions& options) const {
  if (absl::StartsWith(target, migration::kUnixPrefix)) {
    // Memory stays on this host.
    options.streams = 1;
    options.source.compress = false;
    return migration::MakeUnixConnection(
        target, AddressOf(device_options_.checkpoint_folder),
        options.source.limits);
  }
  if (network_.listen.empty()) {
    return absl::FailedPreconditionError(
        "this process does not listen where other hosts could ask what was "
        "decided");
  }
  return migration::MakeGrpcConnection({target, network_.channel_credentials},
                                       network_.own_address(),
                                       options.source.limits);
}

migration::MigrationProgress Guest::SendTo(const std::string& target,
                                           std::function<void()> take_back) {
  migration::MigrationProgress failed;
  failed.status = Listen();
  std::vector<std::unique_ptr<migration::PendingPages>> pages;
  std::vector<migration::PendingPages*> borrowed;
  for (migration::Migratable* device : migratables()) {
    auto created = migration::PendingPages::Create(
        device, migration::MemoryOrigin::kZeros);
    failed.status.Update(created.status());
    if (!failed.status.ok()) return failed;
    pages.push_back(*std::move(created));
    borrowed.push_back(pages.back().get());
  }
  migration::OutgoingOptions options;
  options.source.machine = kMachine;
  options.source.migration_id = migration::NewRandomId();
  options.source.peer = target;
  options.source.downtime_limit = kDowntime;
  // One that writes faster than can be copied waits longer.
  options.source.on_timeout = migration::OnTimeout::kForce;
  auto connection = Connect(target, options);
  failed.status.Update(connection.status());
  if (!failed.status.ok()) return failed;
  migration::OutgoingMigration outgoing(options, *std::move(connection),
                                        borrowed, ledger_.get(), &book_);
  channels_device_->SetTakeBack(std::move(take_back));
  migration::MigrationProgress result = outgoing.Run();
  channels_device_->SetTakeBack(nullptr);
  const absl::Status resumed = channels_device_->ResumeHere(kDiskPatience);
  if (!resumed.ok()) {
    result.status = absl::Status(
        resumed.code(), absl::StrCat(result.status.message(),
                                     "; and the guest has no devices here: ",
                                     resumed.message()));
  }
  return result;
}

absl::StatusOr<migration::MachineRegistry::Arrival> Guest::BeginArrival(
    const std::string& machine) {
  if (machine != kMachine || is_arriving_.exchange(true) ||
      machine_ != nullptr) {
    return absl::FailedPreconditionError("no such guest is expected here");
  }
  return Arrival{.host = this, .ledger = ledger_.get()};
}

void Guest::EndArrival(const std::string&, bool is_running) {
  is_running_ = is_running;
  arrived_.Notify();
}

absl::StatusOr<migration::OwnershipLedger*> Guest::FindLedger(
    const std::string& machine) {
  if (machine != kMachine) return absl::NotFoundError(machine);
  return ledger_.get();
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
  devices_.Abandon();
  machine_.reset();
}

}  // namespace ferrybus::hypervisor
