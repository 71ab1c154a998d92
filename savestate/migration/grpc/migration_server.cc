// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/grpc/migration_server.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/sync_stream.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/migration/grpc/channel.h"
#include "ferrybus/savestate/migration/grpc/report_proto.h"
#include "ferrybus/savestate/migration/grpc/transport.grpc.pb.h"
#include "ferrybus/savestate/migration/host/control_link.h"
#include "ferrybus/savestate/migration/host/random_id.h"

namespace ferrybus::migration {
namespace {

constexpr absl::Duration kAskTime = absl::Seconds(5);

using ControlStream = grpc::ServerReaderWriter<v1::Envelope, v1::Envelope>;

ControlLink::Stream LinkOf(grpc::ServerContext* context,
                           ControlStream* stream) {
  return {.open = [] {},
          .read =
              [stream](LinkMessage* message) {
                v1::Envelope envelope;
                if (!stream->Read(&envelope)) return false;
                message->bytes = std::move(*envelope.mutable_message());
                return true;
              },
          .write =
              [stream](const LinkMessage& message) {
                v1::Envelope envelope;
                envelope.set_message(message.bytes);
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

MigrationName NameOf(const v1::MigrationName& name) {
  return {.migration_id = name.migration_id(), .machine = name.machine()};
}

DecisionAsker AskerOf(const ServerOptions& options) {
  return [options](const std::string& peer, const std::string& machine,
                   const std::string& migration_id) {
    return AskDecision(MakeChannel({peer, options.credentials}, options.limits),
                       machine, migration_id, kAskTime);
  };
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
      : options_(options),
        book_(book),
        arrivals_({.ask = AskerOf(options),
                   .silence_max = options.silence_max,
                   .arrivals_max = options.arrivals_max,
                   .limits = options.limits},
                  // NOLINTNEXTLINE: what `ask` owns is moved into the options.
                  registry, book) {}

  const ServerOptions& options() const { return options_; }
  Arrivals& arrivals() { return arrivals_; }

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

 private:
  const ServerOptions options_;
  MigrationBook* const book_;
  Arrivals arrivals_;
};

// ---- A machine comes

grpc::Status MigrationServer::Service::Control(grpc::ServerContext* context,
                                               ControlStream* stream) {
  const std::string ticket = NewRandomId();
  context->AddInitialMetadata(kTicketKey, ticket);
  ControlLink link(LinkOf(context, stream));
  const std::string peer = MetadataOf(*context, kSourceAddressKey);
  const absl::Status status = CheckAddress(peer);
  if (status.ok()) return ToGrpc(arrivals_.Serve(link, peer, ticket));
  link.Send({.bytes = SerializeMessage(Abort{.reason = status})});
  link.Close(absl::Seconds(1));
  return ToGrpc(status);
}

grpc::Status MigrationServer::Service::Bulk(
    grpc::ServerContext* context, grpc::ServerReader<v1::Envelope>* reader,
    v1::BulkEnd* /*end*/) {
  const Arrivals::Incoming incoming =
      arrivals_.Find(MetadataOf(*context, kTicketKey));
  if (incoming == nullptr) {
    return {grpc::StatusCode::PERMISSION_DENIED, "there is no such migration"};
  }
  const IncomingMigration::CancelStream cancel = [context] {
    context->TryCancel();
  };
  absl::Status status = incoming->AddStream(&cancel);
  if (!status.ok()) return ToGrpc(status);
  v1::Envelope envelope;
  // After a failure, too: the reason goes beside it.
  while (reader->Read(&envelope)) incoming->OnBlock(envelope.message());
  incoming->RemoveStream(&cancel, context->IsCancelled());
  return grpc::Status::OK;
}

// ---- Questions

grpc::Status MigrationServer::Service::Decide(grpc::ServerContext* /*context*/,
                                              const v1::DecideRequest* request,
                                              v1::DecideReply* reply) {
  absl::StatusOr<Decision> decision =
      arrivals_.Decide(request->machine(), request->migration_id());
  if (!decision.ok()) return ToGrpc(decision.status());
  switch (*decision) {
    case Decision::kAborted:
      reply->set_decision(v1::DecideReply::DECISION_ABORTED);
      break;
    case Decision::kCommitted:
      reply->set_decision(v1::DecideReply::DECISION_COMMITTED);
      break;
    case Decision::kUndecided:
      reply->set_decision(v1::DecideReply::DECISION_UNDECIDED);
      break;
  }
  return grpc::Status::OK;
}

grpc::Status MigrationServer::Service::Query(grpc::ServerContext* /*context*/,
                                             const v1::MigrationName* name,
                                             v1::MigrationReport* report) {
  absl::StatusOr<MigrationReport> found = book_->Query(NameOf(*name));
  if (!found.ok()) return ToGrpc(found.status());
  *report = ReportToProto(*found);
  return grpc::Status::OK;
}

grpc::Status MigrationServer::Service::Cancel(grpc::ServerContext* /*context*/,
                                              const v1::MigrationName* name,
                                              v1::CancelReply* /*reply*/) {
  return ToGrpc(book_->Cancel(NameOf(*name)));
}

// ----

MigrationServer::MigrationServer(const ServerOptions& options,
                                 MachineRegistry* registry, MigrationBook* book)
    : service_(std::make_unique<Service>(options, registry, book)) {}

MigrationServer::~MigrationServer() { Stop(); }

void MigrationServer::AddTo(grpc::ServerBuilder* builder) {
  SetServerArguments(service_->options().limits, builder);
  builder->RegisterService(service_.get());
}

absl::Status MigrationServer::Recover(const std::string& machine) {
  return service_->arrivals().Recover(machine);
}

absl::Status MigrationServer::Settle(const std::string& machine,
                                     Decision decision) {
  return service_->arrivals().Settle(machine, decision);
}

void MigrationServer::Stop() { service_->arrivals().Stop(); }

}  // namespace ferrybus::migration
