// SPDX-License-Identifier: MIT
//
// The connection of a machine that leaves for another process of this host:
// its memory goes by descriptor, where devices have one, and is not copied.
//
// One socket has all of it: messages, and the blocks of what cannot be shared.
//
// Ownership: of its socket.
// Thread safety: as TargetConnection says.
// Trust: the process at the other end is the same user's, or root's; a
// certificate is not needed.
//
//   options.source.share_memory = true;
//   OutgoingMigration migration(
//       options, MakeUnixConnection("unix:/run/b.sock", "unix:/run/a.sock",
//                                   options.source.limits), ...);

#ifndef FERRYBUS_SAVESTATE_MIGRATION_UNIX_UNIX_CONNECTION_H_
#define FERRYBUS_SAVESTATE_MIGRATION_UNIX_UNIX_CONNECTION_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ferrybus/savestate/migration/host/outgoing_migration.h"
#include "ferrybus/savestate/migration/migration_messages.h"
#include "ferrybus/savestate/migration/ownership.h"

namespace ferrybus::migration {

// `own_address`: where this process answers (unix_server.h), also after a
// restart; the target asks there for the decision.
std::unique_ptr<TargetConnection> MakeUnixConnection(
    const std::string& target, const std::string& own_address,
    const MessageLimits& limits);

// What the process at `peer` says that it decided.
absl::StatusOr<Decision> AskDecisionOverUnix(const std::string& peer,
                                             const std::string& machine,
                                             const std::string& migration_id,
                                             absl::Duration timeout);

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_UNIX_UNIX_CONNECTION_H_
