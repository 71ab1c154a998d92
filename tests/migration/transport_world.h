// SPDX-License-Identifier: MIT
//
// Two hosts with real servers, sockets and certificates, a machine with memory,
// and a client that writes in it wherever it runs: for tests.

#ifndef FERRYBUS_TESTS_MIGRATION_TRANSPORT_WORLD_H_
#define FERRYBUS_TESTS_MIGRATION_TRANSPORT_WORLD_H_

#include <grpcpp/server.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "ferrybus/savestate/migration/grpc/credentials.h"
#include "ferrybus/savestate/migration/grpc/locked_ledger.h"
#include "ferrybus/savestate/migration/grpc/migration_book.h"
#include "ferrybus/savestate/migration/grpc/migration_server.h"
#include "ferrybus/savestate/migration/grpc/outgoing_migration.h"
#include "ferrybus/savestate/migration/pending_pages.h"
#include "ferrybus/tools/migrate/memory_device.h"
#include "ferrybus/tools/migrate/pattern_memory.h"

namespace ferrybus::migration {

inline constexpr char kMachine[] = "vm1";

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

class TestHost final : public MachineRegistry, public TargetHost {
 public:
  TestHost(const std::optional<TlsIdentity>& identity,
           const WorldOptions& options);
  ~TestHost() override;

  // The machine begins here.
  void Own();

  bool is_running() const;
  OwnershipRecord record() const { return *ledger_->Load(); }
  // A write of the client's; false: not here.
  bool Write();
  absl::Status CheckMemory() const;
  uint64_t writes() const;

  int port() const { return port_; }
  std::string address() const;
  HostAddress Reach(const std::string& address) const;
  std::shared_ptr<grpc::ChannelCredentials> credentials() const;
  OwnershipLedger* ledger() { return ledger_.get(); }
  PendingPages* pages() { return pages_.get(); }
  MigrationBook& book() { return book_; }
  MigrationServer& server() { return *server_; }

  // MachineRegistry.
  absl::StatusOr<Arrival> BeginArrival(const std::string& machine) override;
  void EndArrival(const std::string& /*machine*/,
                  bool /*is_running*/) override {}
  absl::StatusOr<OwnershipLedger*> FindLedger(
      const std::string& machine) override;
  // TargetHost.
  absl::StatusOr<std::vector<Migratable*>> CreateDevices(
      const Hello& hello, std::vector<int> descriptors,
      bool is_recovery) override;
  void DestroyDevices() override;

 private:
  void MakeDevice() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Span<std::byte> memory() const;

  const std::optional<TlsIdentity> identity_;
  const Capabilities capabilities_;
  mutable std::vector<uint64_t> words_;
  std::unique_ptr<LockedLedger> ledger_;
  mutable absl::Mutex mutex_;
  std::unique_ptr<migrate_tool::MemoryDevice> device_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<PendingPages> pages_;
  MigrationBook book_;
  std::unique_ptr<MigrationServer> server_;
  std::unique_ptr<grpc::Server> grpc_;
  int port_ = 0;
};

class TransportWorld {
 public:
  explicit TransportWorld(const WorldOptions& options = {});
  ~TransportWorld();

  TestHost& source() { return source_; }
  TestHost& target() { return target_; }

  // Those of a migration to `address`.
  OutgoingOptions Outgoing(const std::string& address) const;
  // Moves the machine while the client writes.
  MigrationProgress Move(const OutgoingOptions& options);

  // Waits until nothing is undecided, stops the client, and looks: one host
  // runs the machine, its ledger says so and the other's does not, and its
  // memory has all that the client wrote.  Empty, or what is wrong.
  std::string CheckEnd();
  bool is_moved() const { return target_.is_running(); }

 private:
  void RunClient();
  void StopClient();

  const WorldOptions options_;
  TestHost source_;
  TestHost target_;
  std::atomic<bool> is_ending_{false};
  std::atomic<bool> was_at_both_{false};
  std::atomic<uint64_t> written_{0};
  std::thread client_;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_TESTS_MIGRATION_TRANSPORT_WORLD_H_
