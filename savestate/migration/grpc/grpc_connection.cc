// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/grpc/grpc_connection.h"

#include <grpcpp/client_context.h>
#include <grpcpp/support/sync_stream.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/migration/grpc/transport.grpc.pb.h"

namespace ferrybus::migration {
namespace {

using ControlStream = grpc::ClientReaderWriter<v1::Envelope, v1::Envelope>;

// TLS 1.3 refuses a client with a bare end of the connection.
absl::Status Explained(const absl::Status& status, bool was_heard) {
  if (was_heard || !absl::IsUnavailable(status)) return status;
  return absl::UnavailableError(absl::StrCat(
      status.message(),
      " (before the target said anything: is it there, do both sides use TLS, "
      "and has each a certificate that the other's authority signed?)"));
}

class GrpcBlockStream final : public BlockStream {
 public:
  GrpcBlockStream(const HostAddress& target, const MessageLimits& limits,
                  const std::string& ticket)
      : channel_(MakeChannel(target, limits)) {
    context_.AddMetadata(kTicketKey, ticket);
  }

  void Open() override {
    writer_ = v1::MigrationTransport::NewStub(channel_)->Bulk(&context_, &end_);
  }
  bool Write(std::string block) override {
    v1::Envelope envelope;
    envelope.set_message(std::move(block));
    return writer_->Write(envelope);
  }
  bool IsConnected() const override {
    return channel_->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_READY;
  }
  absl::Status Finish() override {
    writer_->WritesDone();
    return FromGrpc(writer_->Finish());
  }
  void Cancel() override { context_.TryCancel(); }

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  grpc::ClientContext context_;
  v1::BulkEnd end_;
  std::unique_ptr<grpc::ClientWriter<v1::Envelope>> writer_;
};

class GrpcConnection final : public TargetConnection {
 public:
  GrpcConnection(const HostAddress& target, const std::string& own_address,
                 const MessageLimits& limits)
      : target_(target),
        limits_(limits),
        channel_(MakeChannel(target, limits)) {
    context_.AddMetadata(kSourceAddressKey, own_address);
  }

  ControlLink::Stream Control() override {
    return {
        .open =
            [this] {
              stream_ =
                  v1::MigrationTransport::NewStub(channel_)->Control(&context_);
            },
        .read =
            [this](LinkMessage* message) {
              v1::Envelope envelope;
              if (!stream_->Read(&envelope)) return false;
              message->bytes = std::move(*envelope.mutable_message());
              return true;
            },
        .write =
            [this](const LinkMessage& message) {
              v1::Envelope envelope;
              envelope.set_message(message.bytes);
              // Another host cannot have descriptors.
              return message.descriptors.empty() && stream_->Write(envelope);
            },
        .writes_done = [this] { stream_->WritesDone(); },
        .cancel = [this] { context_.TryCancel(); }};
  }

  // The ticket comes with the target's metadata, before its first message.
  std::unique_ptr<BlockStream> NewBlockStream() override {
    const auto& metadata = context_.GetServerInitialMetadata();
    auto found = metadata.find(kTicketKey);
    std::string ticket;
    if (found != metadata.end()) {
      ticket = {found->second.data(), found->second.size()};
    }
    return std::make_unique<GrpcBlockStream>(target_, limits_, ticket);
  }

  absl::Status End(bool was_heard) override {
    const absl::Status status = FromGrpc(stream_->Finish());
    if (status.ok()) return absl::UnavailableError("the target ended it");
    return Explained(status, was_heard);
  }

 private:
  const HostAddress target_;
  const MessageLimits limits_;
  const std::shared_ptr<grpc::Channel> channel_;
  grpc::ClientContext context_;
  std::unique_ptr<ControlStream> stream_;
};

}  // namespace

std::unique_ptr<TargetConnection> MakeGrpcConnection(
    const HostAddress& target, const std::string& own_address,
    const MessageLimits& limits) {
  return std::make_unique<GrpcConnection>(target, own_address, limits);
}

}  // namespace ferrybus::migration
