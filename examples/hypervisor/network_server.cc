// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/network_server.h"

#include <grpcpp/server_builder.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace ferrybus::hypervisor {
namespace {

constexpr absl::Duration kShutdownTime = absl::Seconds(2);

}  // namespace

NetworkServer::NetworkServer(const NetworkOptions& options,
                             migration::MachineRegistry* registry,
                             migration::MigrationBook* book)
    : options_(options),
      service_({.credentials = options.channel_credentials, .limits = {}},
               registry, book) {}

NetworkServer::~NetworkServer() {
  service_.Stop();
  if (server_ == nullptr) return;
  server_->Shutdown(absl::ToChronoTime(absl::Now() + kShutdownTime));
  server_->Wait();
}

absl::Status NetworkServer::Start() {
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options_.listen, options_.server_credentials, &port);
  service_.AddTo(&builder);
  server_ = builder.BuildAndStart();
  if (server_ != nullptr && port != 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("cannot listen on ", options_.listen));
}

}  // namespace ferrybus::hypervisor
