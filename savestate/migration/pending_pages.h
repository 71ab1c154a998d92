// SPDX-License-Identifier: MIT
//
// Which pages of a device must still be sent.
//
// It lives as long as the device, not as long as one migration: a device whose
// tracking always runs loses its bits to a migration that was cancelled, so
// that all that was ever written is remembered here, for the next one.
//
// Ownership: borrows the device, which outlives it.
// Thread safety: Take() from several threads beside everything else; the rest
// one at a time.
// Cost: two bits for each page; Collect() looks at every bit.
//
// Source: "GPU-P live migration", dirty bit tracking.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_PENDING_PAGES_H_
#define FERRYBUS_SAVESTATE_MIGRATION_PENDING_PAGES_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "ferrybus/savestate/migration/migratable.h"
#include "ferrybus/savestate/migration/page_block.h"

namespace ferrybus::migration {

// Pages of one segment.
struct PageBatch {
  uint32_t segment = 0;
  uint64_t page_size_bytes = 0;
  std::vector<PageRun> runs;
};

// What the device's memory held when its tracking began.
enum class MemoryOrigin : uint8_t {
  kZeros,    // as a target finds it, too
  kUnknown,  // written before, as by a process that ended: all must be sent
};

class PendingPages {
 public:
  // Starts the tracking, if that is to run always.  FailedPrecondition: it
  // claims live migration, but does not track all its segments.
  static absl::StatusOr<std::unique_ptr<PendingPages>> Create(
      Migratable* device, MemoryOrigin origin);
  ~PendingPages();
  PendingPages(const PendingPages&) = delete;
  PendingPages& operator=(const PendingPages&) = delete;

  Migratable& device() const { return *device_; }

  // -- A migration.  One at a time.

  // What has to be sent now: all, or what was ever written.  `track`: the
  // device goes on meanwhile.
  absl::Status Begin(bool track);
  // Nothing of this segment is sent, until End().
  void Exclude(uint32_t segment);
  // Adds what was written since.  Nothing for a device that is not tracked.
  absl::Status Collect();
  // Pages to send now, of at most `bytes_max`, but at least one: they are not
  // pending any more.  Nothing: none is.
  std::optional<PageBatch> Take(uint64_t bytes_max);
  uint64_t pending_bytes() const;
  void End();

 private:
  struct Memory {
    Segment segment;
    uint64_t size_bytes = 0;
    uint64_t pages = 0;
    BasisId basis = 0;
    std::vector<uint64_t> pending;
    std::vector<uint64_t> ever;  // of a tracking that always runs
    uint64_t pending_pages = 0;
    size_t cursor = 0;  // no bit is set in the words before
    bool is_excluded = false;
  };

  explicit PendingPages(Migratable* device);

  absl::Status CreateBases();
  absl::Status StartTracking();
  void StopTracking();
  absl::Status CollectSegment(Memory& memory);
  static void Clear(Memory& memory);
  static void SetAll(Memory& memory);
  static void Add(absl::Span<const uint64_t> bits, Memory& memory);

  Migratable* const device_;
  const bool always_tracks_;
  bool is_tracking_ = false;
  mutable absl::Mutex mutex_;  // pending, pending_pages, cursor
  std::vector<Memory> memories_;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_PENDING_PAGES_H_
