// SPDX-License-Identifier: MIT
//
// Where guests come to from other hosts, and where those ask what became of
// guests that left for here and never said so: gRPC, over mutual TLS.
//
// Ownership: borrows registry and book, which outlive it.
// Thread safety: one thread; calls the registry from others.
// Trust: as migration_server.h.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_NETWORK_SERVER_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_NETWORK_SERVER_H_

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "ferrybus/savestate/migration/grpc/migration_server.h"

namespace ferrybus::hypervisor {

struct NetworkOptions {
  std::string listen = {};  // HOST:PORT; empty: guests stay on this host
  // How other hosts reach it; empty: as `listen` says.
  std::string advertise = {};
  // Both are there if `listen` is.
  std::shared_ptr<grpc::ChannelCredentials> channel_credentials = {};
  std::shared_ptr<grpc::ServerCredentials> server_credentials = {};

  const std::string& own_address() const {
    return advertise.empty() ? listen : advertise;
  }
};

class NetworkServer {
 public:
  NetworkServer(const NetworkOptions& options,
                migration::MachineRegistry* registry,
                migration::MigrationBook* book);
  // Ends what is under way.
  ~NetworkServer();
  NetworkServer(const NetworkServer&) = delete;
  NetworkServer& operator=(const NetworkServer&) = delete;

  // Unavailable: the address cannot be had.
  absl::Status Start();

 private:
  const NetworkOptions options_;
  migration::MigrationServer service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_NETWORK_SERVER_H_
