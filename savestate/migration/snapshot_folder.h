// SPDX-License-Identifier: MIT
//
// A machine saved into a folder, and restored from it later: what a migration
// would send (migratable.h), as files.
//
//   state/checkpoint-*       for each device its name, parameters, immutable
//                            and mutable data, and its memory's checksums
//   <device>.<segment>       memory; what was zero is a hole
//
// The checkpoint comes last: with it, the snapshot is whole, and durable.
//
// Ownership: borrows the devices.
// Thread safety: one thread.
// Trust: a folder's files may be anything: sizes are bounded, checksums are
// compared, links are not followed; the blobs are for the devices to check.
// Cost: memory is read once and written once, a megabyte at a time, while the
// machine stands still.
//
//   absl::Status saved = SaveSnapshot("/var/lib/vm1/s", {&ram, &channels});
//   // in another process
//   absl::StatusOr<Snapshot> snapshot = Snapshot::Open("/var/lib/vm1/s");
//   ... make devices by snapshot->CreationParameters("ram") ...
//   absl::Status runs = snapshot->Restore({&ram, &channels});

#ifndef FERRYBUS_SAVESTATE_MIGRATION_SNAPSHOT_FOLDER_H_
#define FERRYBUS_SAVESTATE_MIGRATION_SNAPSHOT_FOLDER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/migratable.h"

namespace ferrybus::migration {

// Pauses the devices, saves them, and retires them.  A failure: they go on,
// and the folder holds nothing to restore.  AlreadyExists: the folder does.
// InvalidArgument: a device's name cannot be a file's.
absl::Status SaveSnapshot(const std::string& folder,
                          absl::Span<Migratable* const> devices);

class Snapshot {
 public:
  // The code of CheckpointFolder's failure; NotFound: there is none.
  static absl::StatusOr<Snapshot> Open(const std::string& folder);
  // With a frame that is not in the folder, but memory that is.
  static absl::StatusOr<Snapshot> Parse(const std::string& folder,
                                        std::string frame);

  // Migratable::CreationParameters() of a device; empty: there is none.
  std::string CreationParameters(const std::string& device) const;

  // Restores devices that never ran; they run then.  A failure: they must not.
  absl::Status Restore(absl::Span<Migratable* const> devices) const;

 private:
  Snapshot(std::string folder, std::string frame)
      : folder_(std::move(folder)), frame_(std::move(frame)) {}

  std::string folder_;
  std::string frame_;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_SNAPSHOT_FOLDER_H_
