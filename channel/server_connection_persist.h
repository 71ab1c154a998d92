// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_SERVER_CONNECTION_PERSIST_H_
#define FERRYBUS_CHANNEL_SERVER_CONNECTION_PERSIST_H_

// A ServerConnection as bytes, and back.
//
// The bytes are one section of a save file (savestate/connection.proto).  The
// same state gives the same bytes, and the source is not changed by a save.
//
// Trust: the bytes may be hostile.  They are bounded before they are parsed,
// and what they say is checked as a whole; only then is there something that
// ServerConnection::Restore takes, and that cannot fail any more.
//
//   std::string bytes = SaveServerConnection(source);
//   ...
//   absl::StatusOr<CheckedServerConnection> checked =
//       ParseServerConnection(bytes, options);
//   if (!checked.ok()) return checked.status();
//   auto target = ServerConnection::Restore(*std::move(checked), options,
//                                           &events);

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/server_connection.h"
#include "ferrybus/channel/server_connection_state.h"
#include "ferrybus/channel/server_connection_types.h"

namespace ferrybus {

std::string SaveServerConnection(const ServerConnection& connection);

// InvalidArgument: the bytes are malformed, or contradict themselves or the
// protocol.  FailedPrecondition: they need what `options` does not have.
// ResourceExhausted: over a limit.
absl::StatusOr<CheckedServerConnection> ParseServerConnection(
    absl::Span<const std::byte> bytes, const ServerConnectionOptions& options);

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_SERVER_CONNECTION_PERSIST_H_
