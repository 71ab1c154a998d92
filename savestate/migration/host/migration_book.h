// SPDX-License-Identifier: MIT
//
// The migrations of a host: those under way, and how the last ones went.
//
// A machine is in one migration at a time, whatever its role in it.
//
// Ownership: borrows what moves, between Begin() and End().
// Thread safety: all methods, from any thread.
// Cost: remembers a bounded number of reports.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_HOST_MIGRATION_BOOK_H_
#define FERRYBUS_SAVESTATE_MIGRATION_HOST_MIGRATION_BOOK_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "ferrybus/savestate/migration/migration_progress.h"

namespace ferrybus::migration {

enum class MigrationRole : uint8_t { kSource, kTarget };

// How a migration goes, or how it went.
struct MigrationReport {
  std::string migration_id = {};
  std::string machine = {};
  std::string peer = {};
  MigrationRole role = MigrationRole::kSource;
  std::string phase = {};
  bool is_finished = false;
  // The machine is the target's.
  bool is_handed_over = false;
  // Why it failed, or what it waits for.
  absl::Status status = {};
  // What only the source knows.
  MigrationProgress progress = {};
};

// By id, or the latest one of a machine.
struct MigrationName {
  std::string migration_id = {};
  std::string machine = {};
};

// A migration under way.  Its methods do not block.
class Moving {
 public:
  virtual ~Moving() = default;
  virtual MigrationReport Report() const = 0;
  virtual void RequestCancel() = 0;
  // This host is the source, and has not decided yet.
  virtual bool IsUndecidedSource() const = 0;
};

class MigrationBook {
 public:
  explicit MigrationBook(size_t finished_max = 256)
      : finished_max_(finished_max) {}

  // FailedPrecondition: the machine is in another one.
  absl::Status Begin(const std::string& machine, Moving* moving);
  // Its last report is kept.
  void End(Moving* moving);

  // By id, or the latest of the machine.  NotFound.
  absl::StatusOr<MigrationReport> Query(const MigrationName& name) const;
  absl::Status Cancel(const MigrationName& name);
  std::vector<MigrationReport> Running() const;
  // This host is the source of it, and has not decided.
  bool IsUndecided(const std::string& migration_id) const;

 private:
  struct Entry {
    std::string machine;
    Moving* moving;
  };

  const size_t finished_max_;
  mutable absl::Mutex mutex_;
  std::vector<Entry> running_ ABSL_GUARDED_BY(mutex_);
  std::deque<MigrationReport> finished_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_HOST_MIGRATION_BOOK_H_
