// SPDX-License-Identifier: MIT
//
// Moves a machine to another process on this host, over a stream socket:
// MigrationSource and MigrationTarget, with their messages and blocks one after
// the other in a frame of five bytes.
//
//   u8 kind: 'm' message, 'b' block; u32 size, little endian; bytes
//
// Ownership: borrow the socket, the devices, the ledgers.
// Thread safety: each blocks its thread; the machine runs on others.
// Trust: sizes are bounded, the rest is the state machines'.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_MACHINE_MOVE_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_MACHINE_MOVE_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/migration_source.h"
#include "ferrybus/savestate/migration/migration_target.h"

namespace ferrybus::hypervisor {

// Until it runs there (kDone), or goes on here (kFailed).
migration::MigrationProgress SendMachine(
    int socket, absl::Span<migration::Migratable* const> devices,
    migration::OwnershipLedger* ledger);

// Until it runs here.  An error: it must not; Aborted: the source ended before
// its decision was heard, and its ledger knows it.
absl::Status ReceiveMachine(int socket, migration::TargetHost* host,
                            migration::OwnershipLedger* ledger);

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_MACHINE_MOVE_H_
