// SPDX-License-Identifier: MIT
//
// Which pages of a device's memory were written: what a live migration asks
// again and again while the device runs.
//
// A basis is a set of ranges of one segment.  Each basis that is tracked has
// bits of its own, one for a page of the segment's page size: bit i is page i
// of the ranges, one after the other as they were given; the lowest bit of a
// byte comes first, nothing is padded between ranges, the last byte ends in
// zeros.  So two who track the same memory never take each other's bits away.
//
// A bit means: the page may have been written since the bit was cleared.  A
// tracker that knows it only roughly sets more.  Asking with `clear` takes the
// bits and clears them as one step for each page: a write is in this answer or
// in the next, never in neither.  It must be taken as a write also that the
// device's memory was filled by a migration.
//
// Thread safety: all methods, from any thread.
// Trust: the caller is the embedder; wrong arguments change nothing.
//
// Source: DxgkDdiCreateMemoryBasis, -DestroyMemoryBasis, -StartDirtyTracking,
// -StopDirtyTracking, -QueryDirtyBitData.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_DIRTY_TRACKING_H_
#define FERRYBUS_SAVESTATE_MIGRATION_DIRTY_TRACKING_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ferrybus::migration {

inline constexpr uint64_t kPageSizeMin = 4096;
// Of memory that migrates: a block has at least one page.
inline constexpr uint64_t kMigratedPageSizeMax = uint64_t{4} << 20;

struct MemoryRange {
  uint64_t offset_bytes = 0;  // in the segment
  uint64_t size_bytes = 0;

  friend bool operator==(const MemoryRange&, const MemoryRange&) = default;
};

// 0 is none.
using BasisId = uint64_t;

struct DirtyQuery {
  // 0: the whole basis, the next two are ignored.
  uint64_t size_bytes = 0;
  uint64_t range_index = 0;   // a range of the basis
  uint64_t offset_bytes = 0;  // in that range
  bool clear = false;
};

class DirtyTracking {
 public:
  virtual ~DirtyTracking() = default;

  // Ranges in any order.  InvalidArgument: no such segment, no range, a range
  // that is empty, not of whole pages, outside, or overlaps another.
  // ResourceExhausted: too many.
  virtual absl::StatusOr<BasisId> CreateBasis(
      uint32_t segment, absl::Span<const MemoryRange> ranges) = 0;
  // NotFound; FailedPrecondition: it is tracked.
  virtual absl::Status DestroyBasis(BasisId basis) = 0;

  // All bits are zero.  NotFound; FailedPrecondition: it is tracked.
  virtual absl::Status StartTracking(BasisId basis) = 0;
  // NotFound; FailedPrecondition: it is not tracked.
  virtual absl::Status StopTracking(BasisId basis) = 0;

  // Fills `bits` from its beginning; the rest is left alone.  InvalidArgument:
  // not whole pages, outside, or `bits` too small.  NotFound;
  // FailedPrecondition: it is not tracked.
  virtual absl::Status Query(BasisId basis, const DirtyQuery& query,
                             absl::Span<std::byte> bits) = 0;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_DIRTY_TRACKING_H_
