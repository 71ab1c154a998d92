// SPDX-License-Identifier: MIT
//
// The migrations of a host: those under way, and how the last ones went.
//
// A machine is in one migration at a time, whatever its role in it.
//
// Ownership: borrows what moves, between Begin() and End().
// Thread safety: all methods, from any thread.
// Cost: remembers a bounded number of reports.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_GRPC_MIGRATION_BOOK_H_
#define FERRYBUS_SAVESTATE_MIGRATION_GRPC_MIGRATION_BOOK_H_

#include <deque>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "ferrybus/savestate/migration/grpc/transport.pb.h"
#include "ferrybus/savestate/migration/migration_progress.h"

namespace ferrybus::migration {

// A migration under way.  Its methods do not block.
class Moving {
 public:
  virtual ~Moving() = default;
  virtual v1::MigrationReport Report() const = 0;
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
  absl::StatusOr<v1::MigrationReport> Query(
      const v1::MigrationName& name) const;
  absl::Status Cancel(const v1::MigrationName& name);
  std::vector<v1::MigrationReport> Running() const;
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
  std::deque<v1::MigrationReport> finished_ ABSL_GUARDED_BY(mutex_);
};

// Fills in what a source knows.
void WriteProgress(const MigrationProgress& progress,
                   v1::MigrationReport* report);
void WriteStatus(const absl::Status& status, v1::MigrationReport* report);
absl::Status StatusOf(const v1::MigrationReport& report);

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_GRPC_MIGRATION_BOOK_H_
