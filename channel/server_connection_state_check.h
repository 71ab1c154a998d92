// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_SERVER_CONNECTION_STATE_CHECK_H_
#define FERRYBUS_CHANNEL_SERVER_CONNECTION_STATE_CHECK_H_

// Parts of CheckServerConnectionState, which is in two files.  Not an
// interface.
//
// Trust: the state is a file's; nothing is assumed of it but what the function
// says.

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/channel/server_connection_state.h"

namespace ferrybus::saved_connection {

template <typename... Args>
absl::Status Contradiction(const Args&... what) {
  return absl::InvalidArgumentError(
      absl::StrCat("saved connection: ", what...));
}

template <typename... Args>
absl::Status NotHere(const Args&... what) {
  return absl::FailedPreconditionError(
      absl::StrCat("saved connection: ", what...));
}

template <typename... Args>
absl::Status TooMany(const Args&... what) {
  return absl::ResourceExhaustedError(
      absl::StrCat("saved connection: ", what...));
}

absl::Status CheckTarget(const MessageTarget& target,
                         const ServerConnectionOptions& options);

// The queue of a state whose other parts were checked.
absl::Status CheckOutgoing(const ServerConnectionState& state,
                           const ServerConnectionOptions& options);

}  // namespace ferrybus::saved_connection

#endif  // FERRYBUS_CHANNEL_SERVER_CONNECTION_STATE_CHECK_H_
