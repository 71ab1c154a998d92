// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/grpc/migration_book.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace ferrybus::migration {
namespace {

constexpr size_t kReasonSizeMax = 4096;

bool IsMeant(const v1::MigrationReport& report, const v1::MigrationName& name) {
  return name.migration_id().empty()
             ? report.machine() == name.machine()
             : report.migration_id() == name.migration_id();
}

absl::Status NoSuchMigration(const v1::MigrationName& name) {
  return absl::NotFoundError(
      name.migration_id().empty()
          ? absl::StrCat("no migration of machine '", name.machine(),
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
                     entry.moving->Report().phase(), ")"));
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

absl::StatusOr<v1::MigrationReport> MigrationBook::Query(
    const v1::MigrationName& name) const {
  absl::MutexLock lock(&mutex_);
  for (const Entry& entry : running_) {
    v1::MigrationReport report = entry.moving->Report();
    if (IsMeant(report, name)) return report;
  }
  for (auto report = finished_.rbegin(); report != finished_.rend(); ++report) {
    if (IsMeant(*report, name)) return *report;
  }
  return NoSuchMigration(name);
}

absl::Status MigrationBook::Cancel(const v1::MigrationName& name) {
  absl::MutexLock lock(&mutex_);
  for (const Entry& entry : running_) {
    if (!IsMeant(entry.moving->Report(), name)) continue;
    entry.moving->RequestCancel();
    return absl::OkStatus();
  }
  for (const v1::MigrationReport& report : finished_) {
    if (IsMeant(report, name)) {
      return absl::FailedPreconditionError("it is over already");
    }
  }
  return NoSuchMigration(name);
}

std::vector<v1::MigrationReport> MigrationBook::Running() const {
  absl::MutexLock lock(&mutex_);
  std::vector<v1::MigrationReport> reports;
  for (const Entry& entry : running_) reports.push_back(entry.moving->Report());
  return reports;
}

bool MigrationBook::IsUndecided(const std::string& migration_id) const {
  absl::MutexLock lock(&mutex_);
  return std::any_of(running_.begin(), running_.end(), [&](const Entry& entry) {
    return entry.moving->IsUndecidedSource() &&
           entry.moving->Report().migration_id() == migration_id;
  });
}

void WriteProgress(const MigrationProgress& progress,
                   v1::MigrationReport* report) {
  const bool is_done = progress.phase == SourcePhase::kDone;
  report->set_phase(std::string(SourcePhaseName(progress.phase)));
  report->set_is_finished(is_done || progress.phase == SourcePhase::kFailed);
  report->set_is_handed_over(is_done ||
                             progress.phase == SourcePhase::kCommitted);
  WriteStatus(progress.status, report);
  report->set_pass(progress.pass);
  report->set_memory_bytes(progress.memory_bytes);
  report->set_pending_bytes(progress.pending_bytes);
  report->set_pages_sent(progress.pages_sent);
  report->set_plain_bytes_sent(progress.plain_bytes_sent);
  report->set_wire_bytes_sent(progress.wire_bytes_sent);
  report->set_bandwidth_bytes_per_second(progress.bandwidth_bytes_per_second);
  report->set_dirty_bytes_per_second(progress.dirty_bytes_per_second);
  report->set_expected_pause_us(
      progress.expected_pause == absl::InfiniteDuration()
          ? -1
          : absl::ToInt64Microseconds(progress.expected_pause));
  report->set_is_converging(progress.is_converging);
  report->set_elapsed_us(absl::ToInt64Microseconds(progress.elapsed));
  const PauseTimes& pause = progress.pause;
  report->set_pause_stop_us(absl::ToInt64Microseconds(pause.stop));
  report->set_pause_memory_us(absl::ToInt64Microseconds(pause.memory));
  report->set_pause_state_us(absl::ToInt64Microseconds(pause.state));
  report->set_pause_decide_us(absl::ToInt64Microseconds(pause.decide));
  report->set_pause_start_us(absl::ToInt64Microseconds(pause.start));
}

// Protobuf's strings are UTF-8, and a reason may quote anything.
void WriteStatus(const absl::Status& status, v1::MigrationReport* report) {
  std::string reason(status.message().substr(0, kReasonSizeMax));
  for (char& c : reason) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) c = '?';
  }
  report->set_code(static_cast<uint32_t>(status.code()));
  report->set_reason(std::move(reason));
}

absl::Status StatusOf(const v1::MigrationReport& report) {
  return absl::Status(static_cast<absl::StatusCode>(report.code()),
                      report.reason());
}

}  // namespace ferrybus::migration
