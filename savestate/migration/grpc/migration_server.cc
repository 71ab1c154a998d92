// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/grpc/migration_server.h"

#include <grpcpp/resource_quota.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/sync_stream.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/migration/grpc/incoming_migration.h"
#include "ferrybus/savestate/migration/grpc/outgoing_migration.h"
#include "ferrybus/savestate/migration/grpc/random_id.h"
#include "ferrybus/savestate/migration/grpc/transport.grpc.pb.h"

namespace ferrybus::migration {
namespace {

constexpr absl::Duration kPollTime = absl::Milliseconds(100);
constexpr absl::Duration kClosePatience = absl::Seconds(2);
// Of the server: each stream that is open has one.
constexpr int kThreadsMax = 256;

using ControlStream = grpc::ServerReaderWriter<v1::Envelope, v1::Envelope>;
using Ticket = std::string;

ControlLink::Stream LinkOf(grpc::ServerContext* context,
                           ControlStream* stream) {
  return {.open = [] {},
          .read =
              [stream](std::string* bytes) {
                v1::Envelope envelope;
                if (!stream->Read(&envelope)) return false;
                *bytes = std::move(*envelope.mutable_message());
                return true;
              },
          .write =
              [stream](const std::string& bytes) {
                v1::Envelope envelope;
                envelope.set_message(bytes);
                return stream->Write(envelope);
              },
          .writes_done = [] {},
          .cancel = [context] { context->TryCancel(); }};
}

std::string MetadataOf(const grpc::ServerContext& context, const char* key) {
  auto found = context.client_metadata().find(key);
  if (found == context.client_metadata().end()) return {};
  return {found->second.data(), found->second.size()};
}

absl::StatusOr<Hello> ReadHello(const std::string& bytes,
                                const MessageLimits& limits) {
  absl::StatusOr<Message> message = ParseMessage(
      {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()}, limits);
  if (!message.ok()) return message.status();
  if (!std::holds_alternative<Hello>(*message)) {
    return absl::InvalidArgumentError(
        absl::StrCat("it begins with ", MessageName(*message)));
  }
  return std::get<Hello>(*std::move(message));
}

absl::Status CheckAddress(const std::string& address) {
  const bool is_good = !address.empty() && address.size() <= kAddressSizeMax &&
                       std::all_of(address.begin(), address.end(),
                                   [](char c) { return c > ' ' && c <= '~'; });
  if (is_good) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the source must say where its host answers, in metadata ",
                   kSourceAddressKey));
}

}  // namespace

class MigrationServer::Service final : public v1::MigrationTransport::Service {
 public:
  Service(const ServerOptions& options, MachineRegistry* registry,
          MigrationBook* book)
      : options_(options), registry_(registry), book_(book) {}

  const ServerOptions& options() const { return options_; }

  grpc::Status Control(grpc::ServerContext* context,
                       ControlStream* stream) override;
  grpc::Status Bulk(grpc::ServerContext* context,
                    grpc::ServerReader<v1::Envelope>* reader,
                    v1::BulkEnd* end) override;
  grpc::Status Decide(grpc::ServerContext* context,
                      const v1::DecideRequest* request,
                      v1::DecideReply* reply) override;
  grpc::Status Query(grpc::ServerContext* context,
                     const v1::MigrationName* name,
                     v1::MigrationReport* report) override;
  grpc::Status Cancel(grpc::ServerContext* context,
                      const v1::MigrationName* name,
                      v1::CancelReply* reply) override;

  absl::Status Recover(const std::string& machine);
  absl::Status Settle(const std::string& machine, Decision decision);
  void Stop();

 private:
  using Incoming = std::shared_ptr<IncomingMigration>;

  absl::StatusOr<std::string> FirstMessage(ControlLink& link);
  absl::StatusOr<Incoming> Begin(const TargetOptions& options,
                                 const std::string& migration_id,
                                 const Ticket& ticket);
  // It runs here, has failed, or goes on in a thread of its own.
  void EndOrSettle(const Incoming& incoming, const Ticket& ticket);
  void End(const Incoming& incoming, const Ticket& ticket);
  Incoming Find(const Ticket& ticket) const;

  const ServerOptions options_;
  MachineRegistry* const registry_;
  MigrationBook* const book_;
  std::atomic<bool> is_stopping_{false};

  mutable absl::Mutex mutex_;
  std::map<Ticket, Incoming> incoming_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> settlers_ ABSL_GUARDED_BY(mutex_);
};

// ---- A machine comes

grpc::Status MigrationServer::Service::Control(grpc::ServerContext* context,
                                               ControlStream* stream) {
  const Ticket ticket = NewRandomId();
  context->AddInitialMetadata(kTicketKey, ticket);
  ControlLink link(LinkOf(context, stream));
  const std::string peer = MetadataOf(*context, kSourceAddressKey);
  absl::Status status = CheckAddress(peer);
  absl::StatusOr<std::string> first = FirstMessage(link);
  status.Update(first.status());
  Incoming incoming;
  if (status.ok()) {
    absl::StatusOr<Hello> hello = ReadHello(*first, options_.limits);
    status = hello.status();
    if (status.ok()) {
      absl::StatusOr<Incoming> begun =
          Begin({.machine = hello->machine,
                 .session = NewRandomId(),
                 .peer = peer,
                 .silence_max = options_.silence_max,
                 .limits = options_.limits},
                hello->migration_id, ticket);
      status = begun.status();
      if (begun.ok()) incoming = *std::move(begun);
    }
  }
  if (!status.ok()) {
    link.Send(SerializeMessage(Abort{.reason = status}));
    link.Close(std::min(kClosePatience, options_.silence_max));
    return ToGrpc(status);
  }
  incoming->Serve(link, *first);
  EndOrSettle(incoming, ticket);
  return grpc::Status::OK;
}

absl::StatusOr<std::string> MigrationServer::Service::FirstMessage(
    ControlLink& link) {
  const absl::Time until = absl::Now() + options_.silence_max;
  while (absl::Now() < until && !link.is_ended() && !is_stopping_) {
    if (std::optional<std::string> first = link.Receive(kPollTime)) {
      return *std::move(first);
    }
  }
  return absl::DeadlineExceededError("no hello came");
}

absl::StatusOr<MigrationServer::Service::Incoming>
MigrationServer::Service::Begin(const TargetOptions& options,
                                const std::string& migration_id,
                                const Ticket& ticket) {
  absl::MutexLock lock(&mutex_);
  if (is_stopping_) return absl::UnavailableError("this host stops");
  if (incoming_.size() >= static_cast<size_t>(options_.arrivals_max)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("at most ", options_.arrivals_max, " machines at a time"));
  }
  for (const auto& [unused, other] : incoming_) {
    if (other->machine() != options.machine) continue;
    return absl::FailedPreconditionError(
        absl::StrCat(options.machine, " is coming from ",
                     other->Report().peer(), " already"));
  }
  absl::StatusOr<MachineRegistry::Arrival> arrival =
      registry_->BeginArrival(options.machine);
  if (!arrival.ok()) return arrival.status();
  auto incoming = std::make_shared<IncomingMigration>(
      options, migration_id, arrival->host, arrival->ledger);
  absl::Status status = book_->Begin(options.machine, incoming.get());
  if (!status.ok()) {
    registry_->EndArrival(options.machine, /*is_running=*/false);
    return status;
  }
  incoming_[ticket] = incoming;
  return incoming;
}

void MigrationServer::Service::EndOrSettle(const Incoming& incoming,
                                           const Ticket& ticket) {
  incoming->CancelStreams();
  if (incoming->phase() != TargetPhase::kUndecided) {
    return End(incoming, ticket);
  }
  absl::MutexLock lock(&mutex_);
  if (is_stopping_) return;  // its devices are the host's to end
  settlers_.emplace_back([this, incoming, ticket] {
    incoming->Settle(options_.credentials);
    if (incoming->phase() != TargetPhase::kUndecided) End(incoming, ticket);
  });
}

void MigrationServer::Service::End(const Incoming& incoming,
                                   const Ticket& ticket) {
  book_->End(incoming.get());
  registry_->EndArrival(incoming->machine(),
                        incoming->phase() == TargetPhase::kRunning);
  absl::MutexLock lock(&mutex_);
  incoming_.erase(ticket);
}

MigrationServer::Service::Incoming MigrationServer::Service::Find(
    const Ticket& ticket) const {
  absl::MutexLock lock(&mutex_);
  auto found = incoming_.find(ticket);
  return found == incoming_.end() ? nullptr : found->second;
}

grpc::Status MigrationServer::Service::Bulk(
    grpc::ServerContext* context, grpc::ServerReader<v1::Envelope>* reader,
    v1::BulkEnd* /*end*/) {
  const Incoming incoming = Find(MetadataOf(*context, kTicketKey));
  if (incoming == nullptr) {
    return {grpc::StatusCode::PERMISSION_DENIED, "there is no such migration"};
  }
  absl::Status status = incoming->AddStream(context);
  if (!status.ok()) return ToGrpc(status);
  v1::Envelope envelope;
  // After a failure, too: the reason goes beside it.
  while (reader->Read(&envelope)) incoming->OnBlock(envelope.message());
  incoming->RemoveStream(context, context->IsCancelled());
  return grpc::Status::OK;
}

// ---- Questions

grpc::Status MigrationServer::Service::Decide(grpc::ServerContext* /*context*/,
                                              const v1::DecideRequest* request,
                                              v1::DecideReply* reply) {
  absl::StatusOr<OwnershipLedger*> ledger =
      registry_->FindLedger(request->machine());
  if (!ledger.ok()) return ToGrpc(ledger.status());
  // Before the record is read: it is final once the migration is not under way
  // any more.  While it is, the record may hold a decision that is not stored
  // for good, and is taken back.
  if (book_->IsUndecided(request->migration_id())) {
    reply->set_decision(v1::DecideReply::DECISION_UNDECIDED);
    return grpc::Status::OK;
  }
  absl::StatusOr<OwnershipRecord> record = (*ledger)->Load();
  if (!record.ok()) return ToGrpc(record.status());
  if (record->state == Ownership::kNone) {
    // Whoever was the source has a record.
    return ToGrpc(absl::NotFoundError(absl::StrCat(
        "this host has no record of having owned ", request->machine())));
  }
  reply->set_decision(migration::Decide(*record, request->migration_id(), {}) ==
                              Decision::kCommitted
                          ? v1::DecideReply::DECISION_COMMITTED
                          : v1::DecideReply::DECISION_ABORTED);
  return grpc::Status::OK;
}

grpc::Status MigrationServer::Service::Query(grpc::ServerContext* /*context*/,
                                             const v1::MigrationName* name,
                                             v1::MigrationReport* report) {
  absl::StatusOr<v1::MigrationReport> found = book_->Query(*name);
  if (!found.ok()) return ToGrpc(found.status());
  *report = *std::move(found);
  return grpc::Status::OK;
}

grpc::Status MigrationServer::Service::Cancel(grpc::ServerContext* /*context*/,
                                              const v1::MigrationName* name,
                                              v1::CancelReply* /*reply*/) {
  return ToGrpc(book_->Cancel(*name));
}

// ---- Undecided machines

absl::Status MigrationServer::Service::Recover(const std::string& machine) {
  absl::StatusOr<OwnershipLedger*> ledger = registry_->FindLedger(machine);
  if (!ledger.ok()) return ledger.status();
  absl::StatusOr<OwnershipRecord> record = (*ledger)->Load();
  if (!record.ok()) return record.status();
  const Ticket ticket = NewRandomId();
  absl::StatusOr<Incoming> incoming =
      Begin({.machine = machine,
             .session = NewRandomId(),
             .peer = record->peer,
             .silence_max = options_.silence_max,
             .limits = options_.limits},
            record->migration_id, ticket);
  if (!incoming.ok()) return incoming.status();
  absl::Status status = (*incoming)->Recover(*record);
  if (!status.ok()) {
    End(*incoming, ticket);
    return status;
  }
  EndOrSettle(*incoming, ticket);
  return absl::OkStatus();
}

absl::Status MigrationServer::Service::Settle(const std::string& machine,
                                              Decision decision) {
  absl::MutexLock lock(&mutex_);
  for (const auto& [unused, incoming] : incoming_) {
    if (incoming->machine() != machine) continue;
    if (incoming->phase() != TargetPhase::kUndecided) break;
    incoming->Decide(decision);
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat(machine, " is not undecided here"));
}

void MigrationServer::Service::Stop() {
  is_stopping_ = true;
  std::vector<std::thread> settlers;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [unused, incoming] : incoming_) incoming->Stop();
    settlers.swap(settlers_);
  }
  for (std::thread& settler : settlers) settler.join();
}

// ----

MigrationServer::MigrationServer(const ServerOptions& options,
                                 MachineRegistry* registry, MigrationBook* book)
    : service_(std::make_unique<Service>(options, registry, book)) {}

MigrationServer::~MigrationServer() { Stop(); }

void MigrationServer::AddTo(grpc::ServerBuilder* builder) {
  const int bytes_max = EnvelopeBytesMax(service_->options().limits);
  const auto milliseconds = [](absl::Duration duration) {
    return static_cast<int>(absl::ToInt64Milliseconds(duration));
  };
  grpc::ResourceQuota quota("migration");
  quota.SetMaxThreads(kThreadsMax);
  builder->SetResourceQuota(quota);
  builder->SetMaxReceiveMessageSize(bytes_max);
  builder->SetMaxSendMessageSize(bytes_max);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                              milliseconds(kKeepaliveTime));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                              milliseconds(kKeepaliveTimeout));
  builder->AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      milliseconds(kKeepaliveTime / 2));
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 8 << 20);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 1 << 20);
  // Two servers on one port would each get some of a migration's connections.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->RegisterService(service_.get());
}

absl::Status MigrationServer::Recover(const std::string& machine) {
  return service_->Recover(machine);
}

absl::Status MigrationServer::Settle(const std::string& machine,
                                     Decision decision) {
  return service_->Settle(machine, decision);
}

void MigrationServer::Stop() { service_->Stop(); }

}  // namespace ferrybus::migration
