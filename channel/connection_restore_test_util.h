// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_CONNECTION_RESTORE_TEST_UTIL_H_
#define FERRYBUS_CHANNEL_CONNECTION_RESTORE_TEST_UTIL_H_

// What the tests that save and restore a ServerConnection share: from saved
// bytes to a running connection with an owner that writes down what it is told.
//
// Thread safety: none.

#include <memory>
#include <string>

#include "absl/types/span.h"
#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/channel/server_connection.h"
#include "ferrybus/channel/server_connection_persist.h"

namespace ferrybus {

inline absl::Span<const std::byte> AsBytes(const std::string& bytes) {
  return {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()};
}

struct RestoredHost {
  RecordingEvents events;
  std::unique_ptr<ServerConnection> connection;
};

// Parses and restores; offers are not claimed.  Null, and a failure of the
// test, if the bytes are refused.
std::unique_ptr<RestoredHost> Restore(
    const std::string& bytes,
    const ServerConnectionOptions& options = TestServerOptions());

// Two primary channels and a sub-channel of the first.
void AddOffers(ServerConnection& connection);

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_CONNECTION_RESTORE_TEST_UTIL_H_
