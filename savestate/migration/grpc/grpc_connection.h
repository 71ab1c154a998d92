// SPDX-License-Identifier: MIT
//
// The connections of a machine that leaves for another host over gRPC: one for
// the messages, one for each stream of blocks beside it.
//
// Ownership: credentials are shared.
// Thread safety: as TargetConnection says.
// Trust: the credentials say who the peer is.
//
//   OutgoingMigration migration(
//       options, MakeGrpcConnection(target, "host1:7070", limits), ...);

#ifndef FERRYBUS_SAVESTATE_MIGRATION_GRPC_GRPC_CONNECTION_H_
#define FERRYBUS_SAVESTATE_MIGRATION_GRPC_GRPC_CONNECTION_H_

#include <memory>
#include <string>

#include "ferrybus/savestate/migration/grpc/channel.h"
#include "ferrybus/savestate/migration/host/outgoing_migration.h"

namespace ferrybus::migration {

// `own_address`: where this host's server answers; the target asks there for
// the decision.  share_memory of the source is not for this transport.
std::unique_ptr<TargetConnection> MakeGrpcConnection(
    const HostAddress& target, const std::string& own_address,
    const MessageLimits& limits);

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_GRPC_GRPC_CONNECTION_H_
