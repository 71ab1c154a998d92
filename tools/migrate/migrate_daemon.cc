// SPDX-License-Identifier: MIT

#include "ferrybus/tools/migrate/migrate_daemon.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "ferrybus/savestate/migration/grpc/channel.h"
#include "ferrybus/savestate/migration/grpc/grpc_connection.h"
#include "ferrybus/savestate/migration/grpc/migration_server.h"
#include "ferrybus/savestate/migration/grpc/report_proto.h"
#include "ferrybus/savestate/migration/host/migration_book.h"
#include "ferrybus/savestate/migration/host/outgoing_migration.h"
#include "ferrybus/savestate/migration/host/random_id.h"
#include "ferrybus/savestate/migration/unix/unix_connection.h"
#include "ferrybus/savestate/migration/unix/unix_server.h"
#include "ferrybus/tools/migrate/control.grpc.pb.h"
#include "ferrybus/tools/migrate/machine_store.h"

namespace ferrybus::migrate_tool {
namespace {

using migration::FromGrpc;
using migration::MigrationProgress;
using migration::OutgoingMigration;
using migration::OutgoingOptions;
using migration::ToGrpc;

constexpr absl::Duration kShutdownTime = absl::Seconds(2);

bool IsUnix(absl::string_view address) {
  return absl::StartsWith(address, migration::kUnixPrefix);
}

OutgoingOptions ReadRequest(const v1::StartRequest& request) {
  OutgoingOptions options;
  migration::SourceOptions& source = options.source;
  source.machine = request.machine();
  source.migration_id = migration::NewRandomId();
  source.peer = request.to();
  source.quick = request.quick();
  source.compress = !request.no_compression();
  source.bandwidth_max_bytes = request.bandwidth_max_bytes();
  if (request.downtime_limit_us() != 0) {
    source.downtime_limit = absl::Microseconds(request.downtime_limit_us());
  }
  if (request.timeout_us() != 0) {
    source.timeout = absl::Microseconds(request.timeout_us());
  }
  source.on_timeout = request.force_on_timeout()
                          ? migration::OnTimeout::kForce
                          : migration::OnTimeout::kCancel;
  if (request.streams() != 0) {
    options.streams = static_cast<int>(
        std::min<uint32_t>(request.streams(), migration::kStreamsMax + 1));
  }
  return options;
}

}  // namespace

class MigrateDaemon::Service final : public v1::MigrateControl::Service {
 public:
  explicit Service(const DaemonOptions& options)
      : options_(options),
        store_(options.state_folder, options.kinds),
        server_({.credentials = options.channel_credentials,
                 .silence_max = options.silence_max,
                 .limits = {}},
                &store_, &book_),
        unix_server_({.address = options.listen_unix,
                      .silence_max = options.silence_max,
                      .shared_memory = migration::SharedMemoryRule::kFiles},
                     &store_, &book_) {}

  absl::Status Begin();
  void End();
  std::string address() const { return address_; }

  grpc::Status Start(grpc::ServerContext* context,
                     const v1::StartRequest* request,
                     v1::StartReply* reply) override;
  grpc::Status List(grpc::ServerContext* context,
                    const v1::ListRequest* request,
                    v1::ListReply* reply) override;
  grpc::Status Resolve(grpc::ServerContext* context,
                       const v1::ResolveRequest* request,
                       v1::ResolveReply* reply) override;

 private:
  struct Outgoing {
    std::unique_ptr<OutgoingMigration> migration;
    std::thread thread;
    bool is_over = false;
  };

  absl::Status Listen();
  absl::Status Recover(const std::string& machine);
  absl::StatusOr<std::unique_ptr<migration::TargetConnection>> Connect(
      OutgoingOptions& options) const;
  absl::Status StartOutgoing(OutgoingOptions options);
  void JoinFinished();

  const DaemonOptions options_;
  MachineStore store_;
  migration::MigrationBook book_;
  migration::MigrationServer server_;
  migration::UnixServer unix_server_;
  std::unique_ptr<grpc::Server> grpc_;
  std::string address_;
  std::string advertised_;
  absl::Mutex mutex_;
  bool is_ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::unique_ptr<Outgoing>> outgoing_ ABSL_GUARDED_BY(mutex_);
};

absl::Status MigrateDaemon::Service::Begin() {
  absl::StatusOr<std::vector<std::string>> prepared = store_.LoadAll();
  if (!prepared.ok()) return prepared.status();
  // Who asks for decisions finds all records.
  for (const NewMachine& machine : options_.machines) {
    absl::Status status =
        store_.Create(machine.name, machine.kind, machine.parameters);
    if (!status.ok()) return status;
  }
  absl::Status status = Listen();
  if (!status.ok()) return status;
  for (const std::string& machine : *prepared) {
    status = Recover(machine);
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat(machine, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

// Asks over the transport that it came by.
absl::Status MigrateDaemon::Service::Recover(const std::string& machine) {
  absl::StatusOr<migration::OwnershipLedger*> ledger =
      store_.FindLedger(machine);
  if (!ledger.ok()) return ledger.status();
  absl::StatusOr<migration::OwnershipRecord> record = (*ledger)->Load();
  if (!record.ok()) return record.status();
  return IsUnix(record->peer) ? unix_server_.Recover(machine)
                              : server_.Recover(machine);
}

absl::Status MigrateDaemon::Service::Listen() {
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options_.listen, options_.server_credentials, &port);
  server_.AddTo(&builder);
  builder.RegisterService(this);
  grpc_ = builder.BuildAndStart();
  if (grpc_ == nullptr || port == 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", options_.listen));
  }
  address_ = absl::StrCat(options_.listen.substr(0, options_.listen.rfind(':')),
                          ":", port);
  advertised_ = options_.advertise.empty() ? address_ : options_.advertise;
  return options_.listen_unix.empty() ? absl::OkStatus() : unix_server_.Start();
}

void MigrateDaemon::Service::End() {
  std::vector<std::unique_ptr<Outgoing>> outgoing;
  {
    absl::MutexLock lock(&mutex_);
    is_ending_ = true;
    outgoing.swap(outgoing_);
  }
  for (const auto& each : outgoing) each->migration->RequestCancel();
  for (const auto& each : outgoing) each->thread.join();
  server_.Stop();
  unix_server_.Stop();
  if (grpc_ != nullptr) {
    grpc_->Shutdown(absl::ToChronoTime(absl::Now() + kShutdownTime));
    grpc_->Wait();
  }
  store_.StopAll();
}

// ---- What operators ask

grpc::Status MigrateDaemon::Service::Start(grpc::ServerContext* /*context*/,
                                           const v1::StartRequest* request,
                                           v1::StartReply* reply) {
  OutgoingOptions options = ReadRequest(*request);
  options.source.silence_max = options_.silence_max;
  reply->set_migration_id(options.source.migration_id);
  return ToGrpc(StartOutgoing(std::move(options)));
}

absl::StatusOr<std::unique_ptr<migration::TargetConnection>>
MigrateDaemon::Service::Connect(OutgoingOptions& options) const {
  const std::string& to = options.source.peer;
  if (!IsUnix(to)) {
    return migration::MakeGrpcConnection({to, options_.channel_credentials},
                                         advertised_, options.source.limits);
  }
  if (options_.listen_unix.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("this daemon does not listen at ", migration::kUnixPrefix,
                     "/PATH, where the target could ask what was decided"));
  }
  options.source.share_memory = true;
  options.streams = 1;
  return migration::MakeUnixConnection(to, options_.listen_unix,
                                       options.source.limits);
}

absl::Status MigrateDaemon::Service::StartOutgoing(OutgoingOptions options) {
  absl::MutexLock lock(&mutex_);
  if (is_ending_) return absl::UnavailableError("the daemon stops");
  JoinFinished();
  const std::string machine = options.source.machine;
  absl::StatusOr<std::unique_ptr<migration::TargetConnection>> connection =
      Connect(options);
  if (!connection.ok()) return connection.status();
  absl::StatusOr<MachineStore::Departure> departure =
      store_.BeginDeparture(machine);
  if (!departure.ok()) return departure.status();
  auto outgoing = std::make_unique<Outgoing>();
  outgoing->migration = std::make_unique<OutgoingMigration>(
      options, *std::move(connection), departure->devices, departure->ledger,
      &book_);
  outgoing->thread = std::thread([this, machine, out = outgoing.get()] {
    const MigrationProgress result = out->migration->Run();
    store_.EndDeparture(machine, result.phase == migration::SourcePhase::kDone);
    absl::MutexLock ended(&mutex_);
    out->is_over = true;
  });
  outgoing_.push_back(std::move(outgoing));
  return absl::OkStatus();
}

void MigrateDaemon::Service::JoinFinished() {
  mutex_.AssertHeld();
  for (auto& each : outgoing_) {
    if (each->is_over) each->thread.join();
  }
  outgoing_.erase(
      std::remove_if(outgoing_.begin(), outgoing_.end(),
                     [](const auto& each) { return each->is_over; }),
      outgoing_.end());
}

grpc::Status MigrateDaemon::Service::List(grpc::ServerContext* /*context*/,
                                          const v1::ListRequest* /*request*/,
                                          v1::ListReply* reply) {
  const std::vector<migration::MigrationReport> moving = book_.Running();
  for (const MachineStore::Entry& entry : store_.List()) {
    v1::MachineState* state = reply->add_machines();
    state->set_name(entry.name);
    state->set_kind(entry.kind);
    state->set_ownership(
        std::string(migration::OwnershipName(entry.record.state)));
    state->set_epoch(entry.record.epoch);
    state->set_peer(entry.record.peer);
    state->set_status(entry.status);
    for (const migration::MigrationReport& report : moving) {
      if (report.machine != entry.name) continue;
      state->set_phase(report.phase);
      state->set_reason(migration::ReportToProto(report).reason());
      state->set_peer(report.peer);
    }
  }
  return grpc::Status::OK;
}

grpc::Status MigrateDaemon::Service::Resolve(grpc::ServerContext* /*context*/,
                                             const v1::ResolveRequest* request,
                                             v1::ResolveReply* /*reply*/) {
  const migration::Decision decision = request->take_over()
                                           ? migration::Decision::kCommitted
                                           : migration::Decision::kAborted;
  // It is with one of them, if at all.
  if (unix_server_.Settle(request->machine(), decision).ok()) {
    return grpc::Status::OK;
  }
  return ToGrpc(server_.Settle(request->machine(), decision));
}

// ----

MigrateDaemon::MigrateDaemon(const DaemonOptions& options)
    : service_(std::make_unique<Service>(options)) {}

MigrateDaemon::~MigrateDaemon() = default;

absl::Status MigrateDaemon::Start() { return service_->Begin(); }
std::string MigrateDaemon::address() const { return service_->address(); }
void MigrateDaemon::Stop() { service_->End(); }

}  // namespace ferrybus::migrate_tool
