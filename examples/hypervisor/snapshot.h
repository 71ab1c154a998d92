// SPDX-License-Identifier: MIT
//
// A machine in a folder: what a migration would send (migratable.h), as files.
//
//   state/checkpoint-*       for each device its parameters, immutable and
//                            mutable data, and its memory's checksums
//   <device>.<segment>       memory; what was zero is a hole
//
// The checkpoint comes last: with it, the snapshot is whole, and durable.
//
// Ownership: borrows the devices.
// Thread safety: one thread.
// Trust: a folder's files may be anything.
// Cost: memory is copied once, while the machine stands still.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_SNAPSHOT_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_SNAPSHOT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/migratable.h"

namespace ferrybus::hypervisor {

// Pauses the devices, saves them, and retires them.  A failure: they go on,
// and the folder holds nothing to restore.  AlreadyExists: the folder does.
absl::Status SaveSnapshot(const std::string& folder,
                          absl::Span<migration::Migratable* const> devices);

class Snapshot {
 public:
  static absl::StatusOr<Snapshot> Open(const std::string& folder);

  // Migratable::CreationParameters() of a device; empty: there is none.
  std::string CreationParameters(const std::string& device) const;

  // Restores devices that never ran; they run then.  A failure: they must not.
  absl::Status Restore(absl::Span<migration::Migratable* const> devices) const;

 private:
  Snapshot(std::string folder, std::string frame)
      : folder_(std::move(folder)), frame_(std::move(frame)) {}

  std::string folder_;
  std::string frame_;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_SNAPSHOT_H_
