// SPDX-License-Identifier: MIT
//
// Dirty tracking in software: the device says what it writes.
//
// Each basis has a plane of bits over its whole segment.  A plane's memory is
// kept until this object ends, for the next basis: a MarkWritten() that was
// under way while tracking stopped may still set a bit there.
//
// Ownership: borrows nothing.
// Thread safety: all methods, from any thread.  A write to the memory is
// followed by MarkWritten() (or begun by it, too, if it takes long): a reader
// that asked between the two asks again, or the writer is not paused yet.
// Memory ordering: what was written before MarkWritten() is seen by whoever
// got its bit from Query(), and by whoever started tracking too late for that.
// Cost: MarkWritten() one atomic addition of 0, then one atomic OR for 64 pages
// of each basis that is tracked, without a lock.  Query() with `clear` one
// exchange for 64 pages with a bit among them, one load for others.  Memory: a
// bit for each page of the segment and basis.
//
//   DirtyBitmap dirty({{.id = 1, .size_bytes = 1 << 30}});
//   dirty.MarkWritten(1, offset, size);

#ifndef FERRYBUS_SAVESTATE_MIGRATION_DIRTY_BITMAP_H_
#define FERRYBUS_SAVESTATE_MIGRATION_DIRTY_BITMAP_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/dirty_tracking.h"

namespace ferrybus::migration {

// The page size is a power of two, at least kPageSizeMin, and the size is a
// multiple of it; else the segment gets no basis.
struct DirtySegment {
  uint32_t id = 0;
  uint64_t size_bytes = 0;
  uint64_t page_size_bytes = kPageSizeMin;
};

struct DirtyBitmapLimits {
  // Of all planes: 256 MiB are 8 TiB of small pages.
  uint64_t bitmap_bytes_max = uint64_t{256} << 20;
  // Of a basis.
  size_t ranges_max = 65536;
};

class DirtyBitmap final : public DirtyTracking {
 public:
  // Of a segment, at once.
  static constexpr int kBasesMax = 64;

  explicit DirtyBitmap(const std::vector<DirtySegment>& segments,
                       const DirtyBitmapLimits& limits = {});

  // What is not in the segment is ignored.
  void MarkWritten(uint32_t segment, uint64_t offset_bytes,
                   uint64_t size_bytes);

  absl::StatusOr<BasisId> CreateBasis(
      uint32_t segment, absl::Span<const MemoryRange> ranges) override;
  absl::Status DestroyBasis(BasisId basis) override;
  absl::Status StartTracking(BasisId basis) override;
  absl::Status StopTracking(BasisId basis) override;
  absl::Status Query(BasisId basis, const DirtyQuery& query,
                     absl::Span<std::byte> bits) override;

 private:
  using Word = std::atomic<uint64_t>;

  struct Segment {
    // Planes that are marked.  A plane's memory is there before its bit.
    std::atomic<uint64_t> tracked{0};
    DirtySegment is;
    int page_shift = 0;
    size_t words = 0;
    std::array<std::unique_ptr<Word[]>, kBasesMax> planes;
    uint64_t used = 0;  // planes of a basis; guarded by mutex_
  };

  struct Basis {
    Segment* segment = nullptr;
    int plane = 0;
    bool is_tracked = false;
    std::vector<MemoryRange> ranges;
  };

  Segment* FindSegment(uint32_t id);
  absl::StatusOr<Basis*> Find(BasisId basis) ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // The plane of a new basis.
  absl::StatusOr<int> TakePlane(Segment* segment)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const DirtyBitmapLimits limits_;
  std::vector<Segment> segments_;  // as many as at first

  // Held shared by Query().
  absl::Mutex mutex_;
  absl::flat_hash_map<BasisId, Basis> bases_ ABSL_GUARDED_BY(mutex_);
  BasisId last_id_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t bitmap_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_DIRTY_BITMAP_H_
