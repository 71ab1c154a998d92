// SPDX-License-Identifier: MIT
//
// Two hosts with real servers, sockets and certificates, a machine with memory,
// and a client that writes in it wherever it runs: for tests.

#ifndef FERRYBUS_TESTS_MIGRATION_TRANSPORT_WORLD_H_
#define FERRYBUS_TESTS_MIGRATION_TRANSPORT_WORLD_H_

#include <grpcpp/server.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "ferrybus/savestate/migration/grpc/credentials.h"
#include "ferrybus/savestate/migration/grpc/grpc_connection.h"
#include "ferrybus/savestate/migration/grpc/migration_server.h"
#include "ferrybus/savestate/migration/host/outgoing_migration.h"
#include "ferrybus/tests/migration/memory_host.h"

namespace ferrybus::migration {

// The authority of all tests that do not ask for another.
const TlsIdentity& TestIdentity();

struct WorldOptions {
  uint64_t pages = 128;
  absl::Duration silence_max = absl::Seconds(5);
  Capabilities capabilities = {.live_migration = true};
  // Empty: plain text.
  std::optional<TlsIdentity> source_identity = TestIdentity();
  std::optional<TlsIdentity> target_identity = TestIdentity();
};

class TestHost final : public MemoryHost {
 public:
  TestHost(const std::optional<TlsIdentity>& identity,
           const WorldOptions& options);
  ~TestHost() override;

  int port() const { return port_; }
  std::string address() const;
  HostAddress Reach(const std::string& address) const;
  std::shared_ptr<grpc::ChannelCredentials> credentials() const;
  MigrationServer& server() { return *server_; }

 private:
  const std::optional<TlsIdentity> identity_;
  std::unique_ptr<MigrationServer> server_;
  std::unique_ptr<grpc::Server> grpc_;
  int port_ = 0;
};

class TransportWorld {
 public:
  explicit TransportWorld(const WorldOptions& options = {});

  TestHost& source() { return source_; }
  TestHost& target() { return target_; }

  // Those of a migration to `address`, which is source.peer.
  OutgoingOptions Outgoing(const std::string& address) const;
  // Moves the machine while the client writes.
  MigrationProgress Move(const OutgoingOptions& options);
  MigrationProgress Move(const OutgoingOptions& options,
                         std::shared_ptr<grpc::ChannelCredentials> credentials);

  // As WritingClient.
  std::string CheckEnd() { return client_->CheckEnd(); }
  bool is_moved() const { return target_.is_running(); }

 private:
  const WorldOptions options_;
  TestHost source_;
  TestHost target_;
  std::unique_ptr<WritingClient> client_;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_TESTS_MIGRATION_TRANSPORT_WORLD_H_
