// SPDX-License-Identifier: MIT
//
// Descriptors of memory that another process of this host hands over, against
// what its hello says of them.
//
// Ownership: none.  Thread safety: pure functions.
// Trust: descriptors of anything at all.  What is let through cannot shrink
// under whoever maps it, unless files are let through: who can write such a
// file can cut it off, and end the process that has it mapped.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_HOST_SHARED_MEMORY_H_
#define FERRYBUS_SAVESTATE_MIGRATION_HOST_SHARED_MEMORY_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/migration_messages.h"
#include "ferrybus/savestate/unique_fd.h"

namespace ferrybus::migration {

enum class SharedMemoryRule : uint8_t {
  kSealed,  // memfds with F_SEAL_SHRINK, not sealed against writing
  kFiles,   // regular files, too
};

// One for each segment that is shared, in their order: of its size, open for
// reading and writing.  InvalidArgument says which is not.
absl::Status CheckSharedMemory(
    const Hello& hello, absl::Span<const savestate::UniqueFd> descriptors,
    SharedMemoryRule rule);

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_HOST_SHARED_MEMORY_H_
