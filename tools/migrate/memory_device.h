// SPDX-License-Identifier: MIT
//
// Plain memory as a device that moves: somebody writes in it while it runs, and
// says where.
//
// Ownership: borrows the memory, which is of whole pages.
// Thread safety: BeginWrite() and EndWrite() from any thread; in between the
// memory is written in atomic words, as it may be read; the rest as Migratable
// says.
// Trust: blobs and memory that come in are a peer's, and checked.

#ifndef FERRYBUS_TOOLS_MIGRATE_MEMORY_DEVICE_H_
#define FERRYBUS_TOOLS_MIGRATE_MEMORY_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/dirty_bitmap.h"
#include "ferrybus/savestate/migration/migratable.h"

namespace ferrybus::migrate_tool {

// The only one.
inline constexpr uint32_t kMemorySegment = 1;

class MemoryDevice final : public migration::Migratable {
 public:
  MemoryDevice(std::string name, std::string creation_parameters,
               absl::Span<std::byte> memory,
               migration::Capabilities capabilities = {.live_migration = true},
               int shared_memory = -1);

  // False: it is paused, or not the owner's; nothing is written.
  bool BeginWrite();
  void EndWrite();
  // Between the two.
  void MarkWritten(uint64_t offset_bytes, uint64_t size_bytes) {
    dirty_.MarkWritten(kMemorySegment, offset_bytes, size_bytes);
  }
  // Until it may be written, or `stop`, or so long.
  bool AwaitRunning(absl::Duration timeout) const;
  bool is_running() const;
  void Run();
  void Halt();

  // Migratable.
  std::string name() const override { return name_; }
  migration::Capabilities capabilities() const override {
    return capabilities_;
  }
  std::vector<migration::Segment> segments() const override;
  migration::DirtyTracking* dirty_tracking() override { return &dirty_; }
  std::string CreationParameters() const override { return parameters_; }
  absl::Status Prepare(migration::Role role) override;
  void End() override {}
  savestate::SizeAnswer SaveImmutable(absl::Span<std::byte> out) override;
  absl::Status ReadMemory(uint32_t segment, uint64_t offset_bytes,
                          absl::Span<std::byte> out) override;
  int SharedMemory(uint32_t segment) override {
    return segment == kMemorySegment ? shared_memory_ : -1;
  }
  absl::StatusOr<bool> Pause() override;
  savestate::SizeAnswer SaveMutable(absl::Span<std::byte> out) override;
  void Retire() override { Halt(); }
  absl::Status RestoreImmutable(absl::Span<const std::byte> data) override;
  absl::Status WriteMemory(uint32_t segment, uint64_t offset_bytes,
                           absl::Span<const std::byte> data) override;
  absl::Status RestoreMutable(absl::Span<const std::byte> data) override;
  void Resume() override { Run(); }

 private:
  absl::Status CheckRange(uint32_t segment, uint64_t offset_bytes,
                          uint64_t size_bytes) const;

  const std::string name_;
  const std::string parameters_;
  const absl::Span<std::byte> memory_;
  const migration::Capabilities capabilities_;
  const int shared_memory_;
  migration::DirtyBitmap dirty_;
  mutable absl::Mutex mutex_;
  bool is_running_ ABSL_GUARDED_BY(mutex_) = false;
  int writers_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace ferrybus::migrate_tool

#endif  // FERRYBUS_TOOLS_MIGRATE_MEMORY_DEVICE_H_
