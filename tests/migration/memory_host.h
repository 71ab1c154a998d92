// SPDX-License-Identifier: MIT
//
// A host with one machine, which is memory, and a client that writes in it
// wherever it runs: for tests of transports.

#ifndef FERRYBUS_TESTS_MIGRATION_MEMORY_HOST_H_
#define FERRYBUS_TESTS_MIGRATION_MEMORY_HOST_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "ferrybus/savestate/migration/fake_machine.h"
#include "ferrybus/savestate/migration/host/arrivals.h"
#include "ferrybus/savestate/migration/host/locked_ledger.h"
#include "ferrybus/savestate/migration/host/migration_book.h"
#include "ferrybus/savestate/migration/pending_pages.h"
#include "ferrybus/tools/migrate/memory_device.h"
#include "ferrybus/tools/migrate/pattern_memory.h"

namespace ferrybus::migration {

inline constexpr char kMachine[] = "vm1";

// A memfd that cannot shrink, mapped.
class TestMemory {
 public:
  explicit TestMemory(uint64_t size_bytes);
  TestMemory(int fd, uint64_t size_bytes);
  ~TestMemory();
  TestMemory(const TestMemory&) = delete;
  TestMemory& operator=(const TestMemory&) = delete;

  int fd() const { return fd_; }
  absl::Span<std::byte> bytes() const { return bytes_; }

 private:
  const int fd_;
  absl::Span<std::byte> bytes_;
};

class MemoryHost : public MachineRegistry, public TargetHost {
 public:
  MemoryHost(uint64_t pages, Capabilities capabilities);
  ~MemoryHost() override = default;

  // The machine begins here.
  void Own();

  bool is_running() const;
  OwnershipRecord record() const { return *ledger_->Load(); }
  // A write of the client's; false: not here.
  bool Write();
  absl::Status CheckMemory() const;
  uint64_t writes() const;
  // Of whoever created the memory.
  uint64_t memory_inode() const;

  OwnershipLedger* ledger() { return ledger_.get(); }
  FakeLedger* disk() { return disk_; }
  PendingPages* pages() { return pages_.get(); }
  MigrationBook& book() { return book_; }

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
  void MakeDevice(MemoryOrigin origin) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const uint64_t size_bytes_;
  const Capabilities capabilities_;
  FakeLedger* disk_;
  std::unique_ptr<LockedLedger> ledger_;
  mutable absl::Mutex mutex_;
  std::unique_ptr<TestMemory> memory_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<migrate_tool::MemoryDevice> device_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<PendingPages> pages_;
  MigrationBook book_;
};

// Writes wherever the machine runs, until it is stopped.
class WritingClient {
 public:
  WritingClient(MemoryHost* source, MemoryHost* target);
  ~WritingClient() { Stop(); }

  // Waits until nothing is undecided, stops the client, and looks: one host
  // runs the machine, its ledger says so and the other's does not, and its
  // memory has all that the client wrote.  Empty, or what is wrong.
  std::string CheckEnd();

 private:
  void Run();
  void Stop();

  MemoryHost* const source_;
  MemoryHost* const target_;
  std::atomic<bool> is_ending_{false};
  std::atomic<bool> was_at_both_{false};
  std::atomic<uint64_t> written_{0};
  std::thread thread_;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_TESTS_MIGRATION_MEMORY_HOST_H_
