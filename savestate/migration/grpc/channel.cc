// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/grpc/channel.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/migration/grpc/transport.grpc.pb.h"
#include "ferrybus/savestate/migration/page_block.h"

namespace ferrybus::migration {
namespace {

// Everything of an envelope but the blob or the pages in it.
constexpr uint64_t kOverheadBytesMax = uint64_t{2} << 20;
constexpr absl::Duration kConnectTime = absl::Seconds(5);
// Sent before the receiver says that there is room.
constexpr int kWindowBytes = 8 << 20;
constexpr int kFrameBytesMax = 1 << 20;
// Of a server: each stream that is open has one.
constexpr int kThreadsMax = 256;

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(absl::ToInt64Milliseconds(duration));
}

}  // namespace

int EnvelopeBytesMax(const MessageLimits& limits) {
  const uint64_t bytes =
      std::max(limits.blob_bytes_max, kBlockBytesMax) + kOverheadBytesMax;
  return static_cast<int>(std::min<uint64_t>(bytes, 1 << 30));
}

std::shared_ptr<grpc::Channel> MakeChannel(const HostAddress& host,
                                           const MessageLimits& limits) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(EnvelopeBytesMax(limits));
  arguments.SetMaxSendMessageSize(EnvelopeBytesMax(limits));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(kKeepaliveTime));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                   Milliseconds(kKeepaliveTimeout));
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kWindowBytes);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kFrameBytesMax);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS,
                   Milliseconds(kConnectTime));
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(host.address, host.credentials, arguments);
}

void SetServerArguments(const MessageLimits& limits,
                        grpc::ServerBuilder* builder) {
  const int bytes_max = EnvelopeBytesMax(limits);
  grpc::ResourceQuota quota("migration");
  quota.SetMaxThreads(kThreadsMax);
  builder->SetResourceQuota(quota);
  builder->SetMaxReceiveMessageSize(bytes_max);
  builder->SetMaxSendMessageSize(bytes_max);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                              Milliseconds(kKeepaliveTime));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                              Milliseconds(kKeepaliveTimeout));
  builder->AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      Milliseconds(kKeepaliveTime / 2));
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES,
                              kWindowBytes);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kFrameBytesMax);
  // Two servers on one port would each get some of a migration's connections.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
}

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      std::string(status.message()));
}

absl::StatusOr<Decision> AskDecision(
    const std::shared_ptr<grpc::Channel>& channel, const std::string& machine,
    const std::string& migration_id, absl::Duration timeout) {
  v1::DecideRequest request;
  request.set_machine(machine);
  request.set_migration_id(migration_id);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  v1::DecideReply reply;
  const absl::Status status =
      FromGrpc(v1::MigrationTransport::NewStub(channel)->Decide(
          &context, request, &reply));
  if (!status.ok()) return status;
  switch (reply.decision()) {
    case v1::DecideReply::DECISION_ABORTED:
      return Decision::kAborted;
    case v1::DecideReply::DECISION_COMMITTED:
      return Decision::kCommitted;
    case v1::DecideReply::DECISION_UNDECIDED:
      return Decision::kUndecided;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("decision ", reply.decision()));
  }
}

}  // namespace ferrybus::migration
