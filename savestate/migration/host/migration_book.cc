// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/host/migration_book.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace ferrybus::migration {
namespace {

bool IsMeant(const MigrationReport& report, const MigrationName& name) {
  return name.migration_id.empty() ? report.machine == name.machine
                                   : report.migration_id == name.migration_id;
}

absl::Status NoSuchMigration(const MigrationName& name) {
  return absl::NotFoundError(
      name.migration_id.empty()
          ? absl::StrCat("no migration of machine '", name.machine,
                         "' is known here")
          : std::string("no migration with this id is known here"));
}

}  // namespace

absl::Status MigrationBook::Begin(const std::string& machine, Moving* moving) {
  absl::MutexLock lock(&mutex_);
  for (const Entry& entry : running_) {
    if (entry.machine != machine) continue;
    return absl::FailedPreconditionError(
        absl::StrCat(machine, " is in another migration already (",
                     entry.moving->Report().phase, ")"));
  }
  running_.push_back({machine, moving});
  return absl::OkStatus();
}

void MigrationBook::End(Moving* moving) {
  absl::MutexLock lock(&mutex_);
  auto entry =
      std::find_if(running_.begin(), running_.end(),
                   [&](const Entry& each) { return each.moving == moving; });
  if (entry == running_.end()) return;
  finished_.push_back(moving->Report());
  if (finished_.size() > finished_max_) finished_.pop_front();
  running_.erase(entry);
}

absl::StatusOr<MigrationReport> MigrationBook::Query(
    const MigrationName& name) const {
  absl::MutexLock lock(&mutex_);
  for (const Entry& entry : running_) {
    MigrationReport report = entry.moving->Report();
    if (IsMeant(report, name)) return report;
  }
  for (auto report = finished_.rbegin(); report != finished_.rend(); ++report) {
    if (IsMeant(*report, name)) return *report;
  }
  return NoSuchMigration(name);
}

absl::Status MigrationBook::Cancel(const MigrationName& name) {
  absl::MutexLock lock(&mutex_);
  for (const Entry& entry : running_) {
    if (!IsMeant(entry.moving->Report(), name)) continue;
    entry.moving->RequestCancel();
    return absl::OkStatus();
  }
  for (const MigrationReport& report : finished_) {
    if (IsMeant(report, name)) {
      return absl::FailedPreconditionError("it is over already");
    }
  }
  return NoSuchMigration(name);
}

std::vector<MigrationReport> MigrationBook::Running() const {
  absl::MutexLock lock(&mutex_);
  std::vector<MigrationReport> reports;
  for (const Entry& entry : running_) reports.push_back(entry.moving->Report());
  return reports;
}

bool MigrationBook::IsUndecided(const std::string& migration_id) const {
  absl::MutexLock lock(&mutex_);
  return std::any_of(running_.begin(), running_.end(), [&](const Entry& entry) {
    return entry.moving->IsUndecidedSource() &&
           entry.moving->Report().migration_id == migration_id;
  });
}

}  // namespace ferrybus::migration
