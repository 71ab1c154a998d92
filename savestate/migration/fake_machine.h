// SPDX-License-Identifier: MIT
//
// A machine to move in tests, with a client that counts: every request must be
// done exactly once, in order, wherever the machine is.
//
// The machine's state stands apart from its device, as memory outlives a
// process that is killed.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_FAKE_MACHINE_H_
#define FERRYBUS_SAVESTATE_MIGRATION_FAKE_MACHINE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/migratable.h"
#include "ferrybus/savestate/migration/ownership.h"

namespace ferrybus::migration {

inline constexpr uint64_t kFakePageSize = 4096;

// What survives the process.
struct FakeMachineState {
  explicit FakeMachineState(uint64_t pages = 70)
      : memory(pages * kFakePageSize) {}
  std::vector<std::byte> memory;
  std::vector<uint64_t> done;  // requests, in order
};

// Counts the calls of the device, and makes one of them fail.
struct FakeFault {
  int calls_until = -1;  // -1: none
  std::vector<std::string> calls;

  absl::Status Call(absl::string_view name);
};

class FakeDevice final : public Migratable, public DirtyTracking {
 public:
  FakeDevice(std::string name, Capabilities capabilities,
             FakeMachineState* state, FakeFault* fault = nullptr);
  FakeDevice(const FakeDevice&) = delete;
  FakeDevice& operator=(const FakeDevice&) = delete;
  ~FakeDevice() override;

  // -- The machine.
  bool is_running() const { return is_running_; }
  bool is_retired() const { return is_retired_; }
  int prepared() const { return prepared_; }
  void Run() { is_running_ = true; }
  // Writes a page that tells of the request.  REQUIRES: is_running().
  void Do(uint64_t request);
  // Calls that Pause() answers with "not yet".
  void set_pauses_late(int calls) { pause_calls_ = calls; }
  // To save wrongly on purpose.
  void set_forgets_to_mark(bool forgets) { forgets_to_mark_ = forgets; }

  void set_creation_parameters(std::string text) {
    parameters_ = std::move(text);
  }

  // Migratable.
  std::string CreationParameters() const override { return parameters_; }
  // A descriptor that stands for the memory.
  int SharedMemory(uint32_t segment) override;
  std::string name() const override { return name_; }
  Capabilities capabilities() const override { return capabilities_; }
  std::vector<Segment> segments() const override;
  DirtyTracking* dirty_tracking() override { return this; }
  absl::Status Prepare(Role role) override;
  void End() override;
  savestate::SizeAnswer SaveImmutable(absl::Span<std::byte> out) override;
  absl::Status ReadMemory(uint32_t segment, uint64_t offset_bytes,
                          absl::Span<std::byte> out) override;
  absl::StatusOr<bool> Pause() override;
  savestate::SizeAnswer SaveMutable(absl::Span<std::byte> out) override;
  absl::Status Confirm() override { return Call("Confirm"); }
  void Retire() override;
  absl::Status RestoreImmutable(absl::Span<const std::byte> data) override;
  absl::Status WriteMemory(uint32_t segment, uint64_t offset_bytes,
                           absl::Span<const std::byte> data) override;
  absl::Status RestoreMutable(absl::Span<const std::byte> data) override;
  absl::Status RewriteInterrupts() override {
    return Call("RewriteInterrupts");
  }
  void Resume() override;

  // DirtyTracking: whole bases only.
  absl::StatusOr<BasisId> CreateBasis(
      uint32_t segment, absl::Span<const MemoryRange> ranges) override;
  absl::Status DestroyBasis(BasisId basis) override;
  absl::Status StartTracking(BasisId basis) override;
  absl::Status StopTracking(BasisId basis) override;
  absl::Status Query(BasisId basis, const DirtyQuery& query,
                     absl::Span<std::byte> bits) override;
  int tracked() const { return tracked_; }

 private:
  absl::Status Call(absl::string_view name);
  void Mark(uint64_t page);

  const std::string name_;
  const Capabilities capabilities_;
  FakeMachineState* const state_;
  FakeFault* const fault_;
  bool is_running_ = false;
  bool is_paused_ = false;
  bool is_retired_ = false;
  bool forgets_to_mark_ = false;
  std::string parameters_;
  int shared_ = -1;
  int prepared_ = 0;
  int pause_calls_ = 0;
  int tracked_ = 0;
  int bases_ = 0;
  std::vector<bool> dirty_;
};

// What the memory of a machine must be that has done `requests`.
std::vector<std::byte> ExpectedMemory(absl::Span<const uint64_t> requests,
                                      uint64_t pages);

// A disk that survives its process, and may fail.
class FakeLedger final : public OwnershipLedger {
 public:
  enum class Failure { kNotStored, kStored };

  absl::StatusOr<OwnershipRecord> Load() override { return record_; }
  absl::Status Store(const OwnershipRecord& record) override;
  const OwnershipRecord& record() const { return record_; }
  void set_record(OwnershipRecord record) { record_ = std::move(record); }
  // The Store() after `calls` others fails.
  void FailAfter(int calls, Failure failure) {
    calls_until_ = calls;
    failure_ = failure;
  }

 private:
  OwnershipRecord record_;
  int calls_until_ = -1;
  Failure failure_ = Failure::kNotStored;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_FAKE_MACHINE_H_
