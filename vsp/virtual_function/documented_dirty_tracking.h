// SPDX-License-Identifier: MIT
//
// A driver's documented dirty tracking, as a DirtyTracking.
//
// The driver gets what the documents promise it: whole pages within the
// function's memory, disjoint ranges, no question beyond a basis that is
// tracked.  Failures of its own come back with its status; beside them:
//   Internal  its answer went beyond the buffer; or a basis was not destroyed,
//             which the documents call fatal: nothing works after that
// A query that failed may have cleared bits: its pages are to be taken as
// written.
//
// Ownership: borrows the driver; destroy all bases before it.
// Thread safety: all methods, from any thread.  Queries run at once.
// Trust: the driver's answers are checked; bits after the last page's, of which
// the documents say nothing, are cleared.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_DIRTY_TRACKING_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_DIRTY_TRACKING_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/dirty_tracking.h"
#include "ferrybus/savestate/migration/migratable.h"
#include "ferrybus/vsp/virtual_function/documented_migration_functions.h"

namespace ferrybus::vsp {

class DocumentedDirtyTracking final : public migration::DirtyTracking {
 public:
  static constexpr size_t kBasesMax = 1024;
  static constexpr size_t kRangesMax = size_t{1} << 16;  // of a basis

  // Of segments with checked page sizes.
  DocumentedDirtyTracking(const DocumentedMigrationFunctions& functions,
                          std::vector<migration::Segment> segments)
      : functions_(functions), segments_(std::move(segments)) {}

  absl::StatusOr<migration::BasisId> CreateBasis(
      uint32_t segment,
      absl::Span<const migration::MemoryRange> ranges) override;
  absl::Status DestroyBasis(migration::BasisId basis) override;
  absl::Status StartTracking(migration::BasisId basis) override;
  absl::Status StopTracking(migration::BasisId basis) override;
  absl::Status Query(migration::BasisId basis,
                     const migration::DirtyQuery& query,
                     absl::Span<std::byte> bits) override;

 private:
  struct Basis {
    PVOID handle = nullptr;
    uint64_t page_size_bytes = 0;
    bool is_tracked = false;
    std::vector<migration::MemoryRange> ranges;
  };

  // The basis, if it is tracked or not as `is_tracked` says.
  absl::StatusOr<Basis*> Find(migration::BasisId basis, bool is_tracked)
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  const DocumentedMigrationFunctions functions_;
  const std::vector<migration::Segment> segments_;

  // Held in calls to the driver, by queries shared.
  absl::Mutex mutex_;
  absl::flat_hash_map<migration::BasisId, Basis> bases_ ABSL_GUARDED_BY(mutex_);
  migration::BasisId last_id_ ABSL_GUARDED_BY(mutex_) = 0;
  bool is_broken_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_DIRTY_TRACKING_H_
