// SPDX-License-Identifier: MIT
//
// Reports of migrations, as they travel.
//
// Ownership: none.
// Thread safety: pure functions.
// Trust: what a peer said is quoted in reasons: made printable, and cut.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_GRPC_REPORT_PROTO_H_
#define FERRYBUS_SAVESTATE_MIGRATION_GRPC_REPORT_PROTO_H_

#include "absl/status/status.h"
#include "ferrybus/savestate/migration/grpc/transport.pb.h"
#include "ferrybus/savestate/migration/host/migration_book.h"

namespace ferrybus::migration {

v1::MigrationReport ReportToProto(const MigrationReport& report);

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_GRPC_REPORT_PROTO_H_
