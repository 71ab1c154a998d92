// SPDX-License-Identifier: MIT
//
// The gRPC service of a host: takes machines that come, answers what became of
// those that left, and how migrations go.
//
// Ownership: borrows registry and book, which outlive it.
// Thread safety: all methods, from any thread; Stop() before the gRPC server
// shuts down, and that before this object ends.
// Trust: whoever the server's credentials let in is a peer: its bytes are
// checked, what it can make grow is bounded.
//
//   MigrationServer server(options, &registry, &book);
//   grpc::ServerBuilder builder;
//   builder.AddListeningPort(address, TlsServerCredentials(identity));
//   server.AddTo(&builder);
//   auto running = builder.BuildAndStart();

#ifndef FERRYBUS_SAVESTATE_MIGRATION_GRPC_MIGRATION_SERVER_H_
#define FERRYBUS_SAVESTATE_MIGRATION_GRPC_MIGRATION_SERVER_H_

#include <grpcpp/security/credentials.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ferrybus/savestate/migration/host/arrivals.h"
#include "ferrybus/savestate/migration/host/migration_book.h"
#include "ferrybus/savestate/migration/migration_target.h"

namespace ferrybus::migration {

struct ServerOptions {
  // To ask other hosts with.
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  absl::Duration silence_max = absl::Seconds(30);
  // At a time.
  int arrivals_max = 16;
  MessageLimits limits;
};

class MigrationServer {
 public:
  MigrationServer(const ServerOptions& options, MachineRegistry* registry,
                  MigrationBook* book);
  ~MigrationServer();
  MigrationServer(const MigrationServer&) = delete;
  MigrationServer& operator=(const MigrationServer&) = delete;

  // The service, and the limits of its server.
  void AddTo(grpc::ServerBuilder* builder);

  // As Arrivals.
  absl::Status Recover(const std::string& machine);
  absl::Status Settle(const std::string& machine, Decision decision);

  // Ends what is under way; what is undecided stays so, on the disk.
  void Stop();

 private:
  class Service;
  const std::unique_ptr<Service> service_;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_GRPC_MIGRATION_SERVER_H_
