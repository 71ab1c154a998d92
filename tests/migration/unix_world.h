// SPDX-License-Identifier: MIT
//
// Two processes of one host as one process has them: servers at sockets, a
// machine whose memory is a memfd, and a client that writes in it wherever it
// runs: for tests.

#ifndef FERRYBUS_TESTS_MIGRATION_UNIX_WORLD_H_
#define FERRYBUS_TESTS_MIGRATION_UNIX_WORLD_H_

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "ferrybus/savestate/migration/host/outgoing_migration.h"
#include "ferrybus/savestate/migration/unix/unix_server.h"
#include "ferrybus/tests/migration/memory_host.h"

namespace ferrybus::migration {

// Descriptors that this process has open.
int OpenDescriptors();

struct UnixWorldOptions {
  uint64_t pages = 64;
  absl::Duration silence_max = absl::Seconds(5);
  bool share_memory = true;
};

class UnixHost final : public MemoryHost {
 public:
  UnixHost(const std::string& path, const UnixWorldOptions& options);
  ~UnixHost() override { server_->Stop(); }

  std::string address() const;
  const std::string& path() const { return path_; }
  UnixServer& server() { return *server_; }
  // As a process that ends, and comes back with what its disk has.
  void StopServer() { server_->Stop(); }
  void StartServer();

 private:
  const std::string path_;
  const UnixWorldOptions options_;
  std::unique_ptr<UnixServer> server_;
};

class UnixWorld {
 public:
  explicit UnixWorld(const UnixWorldOptions& options = {});
  ~UnixWorld();

  UnixHost& source() { return *source_; }
  UnixHost& target() { return *target_; }
  const std::string& folder() const { return folder_; }

  // Those of a migration to `address`, which is source.peer.
  OutgoingOptions Outgoing(const std::string& address) const;
  std::unique_ptr<OutgoingMigration> Begin(const OutgoingOptions& options);
  MigrationProgress Move(const OutgoingOptions& options) {
    return Begin(options)->Run();
  }

  // As WritingClient.
  std::string CheckEnd() { return client_->CheckEnd(); }
  bool is_moved() const { return target_->is_running(); }

 private:
  const UnixWorldOptions options_;
  std::string folder_;
  std::unique_ptr<UnixHost> source_;
  std::unique_ptr<UnixHost> target_;
  std::unique_ptr<WritingClient> client_;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_TESTS_MIGRATION_UNIX_WORLD_H_
