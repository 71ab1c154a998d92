// SPDX-License-Identifier: MIT
//
// Memory of a device or a guest that others write without telling, such as a
// process that has it mapped: what was written is found by comparing it with a
// copy.
//
// The copy is what is sent: a page that Query() found changed is copied as it
// is then, and ReadMemory() reads the copy.  So a page that is written between
// the question and the sending differs from the copy, and is found the next
// time, even if it was written back.
//
// Ownership: borrows the memory.
// Thread safety: as DirtyTracking; Read() and Write() from any thread.
// Trust: the memory changes at any time, under any reader.
// Cost: a second copy of the memory, and reading all of both for each
// Query().  For memory of megabytes; larger ones are better tracked by who
// writes them, or by the processor.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_SHADOW_MEMORY_H_
#define FERRYBUS_SAVESTATE_MIGRATION_SHADOW_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/dirty_tracking.h"

namespace ferrybus::migration {

// One segment, one basis that is all of it.
class ShadowMemory final : public DirtyTracking {
 public:
  // REQUIRES: whole pages.
  ShadowMemory(uint32_t segment, absl::Span<std::byte> memory);

  // While it is tracked the copy, else the memory itself.
  absl::Status Read(uint64_t offset_bytes, absl::Span<std::byte> out);
  absl::Status Write(uint64_t offset_bytes, absl::Span<const std::byte> data);

  absl::StatusOr<BasisId> CreateBasis(
      uint32_t segment, absl::Span<const MemoryRange> ranges) override;
  absl::Status DestroyBasis(BasisId basis) override;
  absl::Status StartTracking(BasisId basis) override;
  absl::Status StopTracking(BasisId basis) override;
  absl::Status Query(BasisId basis, const DirtyQuery& query,
                     absl::Span<std::byte> bits) override;

 private:
  absl::Status CheckBasis(BasisId basis) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  const uint32_t segment_;
  const absl::Span<std::byte> memory_;
  mutable absl::Mutex mutex_;
  bool has_basis_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_tracked_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::byte> copy_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_SHADOW_MEMORY_H_
