// SPDX-License-Identifier: MIT
//
// What can be moved to another host while it is used: a virtual function, the
// channels of a bus, a virtual machine's memory and processors.  A device
// implements it; MigrationSource and MigrationTarget call it.
//
//   source                              target
//   Prepare(kSource)                    Prepare(kTarget)
//   SaveImmutable      ------------->   RestoreImmutable
//   ReadMemory ...     ------------->   WriteMemory ...     while it runs
//   Pause
//   ReadMemory ...     ------------->   WriteMemory ...
//   SaveMutable        ------------->   RestoreMutable
//                                       RewriteInterrupts
//   Confirm            <-------------   (ready)
//   -- the decision ------------------------------------------------
//   Retire, End                         End, Resume
//
// The state is in three parts: immutable data, which cannot change while the
// device lives, and says whether the other host can take it; memory, moved
// page by page; mutable data, all the rest.  On any failure before the
// decision the source gets Resume (if it was paused) and End, and goes on
// unharmed; the target gets End and is destroyed.
//
// Ownership: whoever moves devices borrows them.
// Thread safety: ReadMemory, WriteMemory and the dirty tracking from several
// threads at once; the others one at a time.  Different devices are called
// independently of each other.
// Trust: blobs and memory that come in are the peer's: to be checked.  Nothing
// a peer sends may end in more than an error.
// Blocking: SaveMutable to Resume are what the clients wait for.
//
// Source: "GPU-P live migration": DxgkDdiPrepareLiveMigration,
// -SaveImmutableMigrationData, -RestoreImmutableMigrationData,
// -SaveMutableMigrationData, -RestoreMutableMigrationData, -EndLiveMigration.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_MIGRATABLE_H_
#define FERRYBUS_SAVESTATE_MIGRATION_MIGRATABLE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/dirty_tracking.h"
#include "ferrybus/savestate/size_negotiation.h"

namespace ferrybus::migration {

enum class Role : uint8_t { kSource, kTarget };

struct Capabilities {
  // Without: it moves only while it is paused.  With it, all segments must be
  // tracked.
  bool live_migration = false;
  // Tracking costs so little that it runs from the device's creation on: the
  // first pass sends only what was ever written.
  bool performant_tracking = false;
};

// Memory that belongs to the device.  A page is named by its number in the
// ranges, one after the other: the other host's ranges may lie elsewhere, but
// have the same sum.
struct Segment {
  uint32_t id = 0;                          // from 1, unique in the device
  uint64_t page_size_bytes = kPageSizeMin;  // a power of two
  std::vector<MemoryRange> ranges;          // whole pages, disjoint
};

class Migratable {
 public:
  virtual ~Migratable() = default;

  // Unique among what moves together, the same on both hosts; at most 64
  // printable characters.
  virtual std::string name() const = 0;
  virtual Capabilities capabilities() const = 0;
  // The same for the device's life.
  virtual std::vector<Segment> segments() const { return {}; }
  // Null: none of the segments is tracked.
  virtual DirtyTracking* dirty_tracking() { return nullptr; }
  // What the other host needs to create the device; not part of its blobs.
  virtual std::string CreationParameters() const { return {}; }

  // -- Both roles.

  // A failure ends the migration here.  Every success is followed by exactly
  // one End(), whatever happens between.
  virtual absl::Status Prepare(Role role) = 0;
  virtual void End() = 0;

  // -- The source.

  // Two calls: `out` empty asks for the size (SizingDialect::kGpuP).  The
  // answer never changes.
  virtual savestate::SizeAnswer SaveImmutable(absl::Span<std::byte> out) = 0;
  // `offset_bytes` counts in the ranges, one after the other.
  virtual absl::Status ReadMemory(uint32_t segment, uint64_t offset_bytes,
                                  absl::Span<std::byte> out) {
    (void)segment, (void)offset_bytes, (void)out;
    return absl::UnimplementedError("no memory");
  }
  // A descriptor of all of the segment's memory, in this order, that a target
  // on the same host can map, and that Retire() lets go of; -1: none.
  virtual int SharedMemory(uint32_t segment) {
    (void)segment;
    return -1;
  }
  // Stops.  True: nothing changes any more, until Resume().  False: it needs
  // more time, and is called again soon.  Called again once paused: true.
  virtual absl::StatusOr<bool> Pause() = 0;
  // As SaveImmutable; only while paused.  May be called again.
  virtual savestate::SizeAnswer SaveMutable(absl::Span<std::byte> out) = 0;
  // Everything is still as SaveMutable told.  A failure: the migration ends,
  // and the source goes on.
  virtual absl::Status Confirm() { return absl::OkStatus(); }
  // Another owner runs it now: does nothing any more, for good, but End().
  virtual void Retire() = 0;

  // -- The target: begins paused, and never ran.

  // The other host's data: is this the hardware, firmware, driver and
  // surrounding that can take the device over?  FailedPrecondition names the
  // field and both values; DataLoss, InvalidArgument: the bytes.
  virtual absl::Status RestoreImmutable(absl::Span<const std::byte> data) = 0;
  virtual absl::Status WriteMemory(uint32_t segment, uint64_t offset_bytes,
                                   absl::Span<const std::byte> data) {
    (void)segment, (void)offset_bytes, (void)data;
    return absl::UnimplementedError("no memory");
  }
  // Called once, with an empty span for none.
  virtual absl::Status RestoreMutable(absl::Span<const std::byte> data) = 0;
  // Gives the hardware this host's interrupt messages.
  virtual absl::Status RewriteInterrupts() { return absl::OkStatus(); }

  // -- Either: runs (on).  At a source that failed the target is told after it,
  // so it must not wait for what the target may still hold, as a disk's lock.
  virtual void Resume() = 0;
};

// The bytes of all ranges.
inline uint64_t SegmentSizeBytes(const Segment& segment) {
  uint64_t size = 0;
  for (const MemoryRange& range : segment.ranges) size += range.size_bytes;
  return size;
}

// A failure of a device, with its name.
inline absl::Status OfDevice(const Migratable& device, absl::string_view what,
                             const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(device.name(), ": ", what,
                                                  ": ", status.message()));
}

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_MIGRATABLE_H_
