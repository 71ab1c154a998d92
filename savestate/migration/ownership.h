// SPDX-License-Identifier: MIT
//
// Who owns a machine: the record that each host keeps of it, on a disk, so
// that a migration that is cut anywhere leaves exactly one owner.
//
//   source          target
//   kOwner  e       kNone
//   kOwner  e       kPrepared  e+1      it could run, and asks
//   kHandedOver e+1 kPrepared  e+1      the decision
//   kHandedOver e+1 kOwner     e+1
//
// The source decides, by storing kHandedOver.  Before that the machine is the
// source's, whatever happens; after it, the target's.  A target that is
// prepared and hears no more must not run: it asks the source, whose record
// answers, also after a restart.  Epochs only grow; whatever both hosts can
// reach, such as a disk image, refuses an older one.
//
// Trust: a ledger's bytes are checked as a file's.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_OWNERSHIP_H_
#define FERRYBUS_SAVESTATE_MIGRATION_OWNERSHIP_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ferrybus/savestate/checkpoint.h"

namespace ferrybus::migration {

enum class Ownership : uint8_t {
  kNone = 1,        // runs elsewhere, or nowhere
  kOwner = 2,       // may run here
  kPrepared = 3,    // could run here: the source's record decides
  kHandedOver = 4,  // was decided to run elsewhere
};

absl::string_view OwnershipName(Ownership ownership);

struct OwnershipRecord {
  Ownership state = Ownership::kNone;
  uint64_t epoch = 0;
  std::string migration_id = {};  // of kPrepared and kHandedOver, else empty
  std::string peer = {};          // the other host: who asks, or is asked
  // Of kPrepared: what the target stands on, besides its memory.
  std::vector<std::string> messages = {};

  friend bool operator==(const OwnershipRecord&,
                         const OwnershipRecord&) = default;
};

class OwnershipLedger {
 public:
  virtual ~OwnershipLedger() = default;
  // kNone with epoch 0: there never was one.
  virtual absl::StatusOr<OwnershipRecord> Load() = 0;
  // Durable when it returns.  A failure: the old record or this one, and only
  // a Store() that succeeds makes it known which.
  virtual absl::Status Store(const OwnershipRecord& record) = 0;
};

// What a source answers to "what became of this migration?".
enum class Decision : uint8_t {
  kAborted,
  kCommitted,
  kUndecided,  // ask again
};

// `running`: MigrationSource::running_id(), asked before the record was read;
// or empty.
Decision Decide(const OwnershipRecord& record, absl::string_view migration_id,
                absl::string_view running);

// In a checkpoint folder.  Thread safety: none.
class FileLedger final : public OwnershipLedger {
 public:
  static absl::StatusOr<std::unique_ptr<FileLedger>> Open(
      const std::string& folder,
      savestate::FileSystem& file_system = savestate::PosixFileSystem::Get());

  absl::StatusOr<OwnershipRecord> Load() override;
  absl::Status Store(const OwnershipRecord& record) override;

 private:
  FileLedger(std::string path, savestate::FileSystem& file_system)
      : path_(std::move(path)), file_system_(&file_system) {}
  absl::Status Reopen();

  const std::string path_;
  savestate::FileSystem* const file_system_;
  std::unique_ptr<savestate::CheckpointFolder> folder_;
};

std::string SerializeOwnership(const OwnershipRecord& record);
absl::StatusOr<OwnershipRecord> ParseOwnership(
    absl::Span<const std::byte> bytes);

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_OWNERSHIP_H_
