// SPDX-License-Identifier: MIT
//
// A ledger for several threads: a migration stores in it while its host
// answers what became of another one.
//
// Ownership: of the ledger.
// Thread safety: all methods, from any thread.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_HOST_LOCKED_LEDGER_H_
#define FERRYBUS_SAVESTATE_MIGRATION_HOST_LOCKED_LEDGER_H_

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "ferrybus/savestate/migration/ownership.h"

namespace ferrybus::migration {

class LockedLedger final : public OwnershipLedger {
 public:
  explicit LockedLedger(std::unique_ptr<OwnershipLedger> ledger)
      : ledger_(std::move(ledger)) {}

  absl::StatusOr<OwnershipRecord> Load() override {
    absl::MutexLock lock(&mutex_);
    return ledger_->Load();
  }
  absl::Status Store(const OwnershipRecord& record) override {
    absl::MutexLock lock(&mutex_);
    return ledger_->Store(record);
  }

 private:
  absl::Mutex mutex_;
  const std::unique_ptr<OwnershipLedger> ledger_ ABSL_PT_GUARDED_BY(mutex_);
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_HOST_LOCKED_LEDGER_H_
