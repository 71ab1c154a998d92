// SPDX-License-Identifier: MIT
#include "ferrybus/channel/connection_restore_test_util.h"

#include <gtest/gtest.h>

#include <utility>

namespace ferrybus {

std::unique_ptr<RestoredHost> Restore(const std::string& bytes,
                                      const ServerConnectionOptions& options) {
  absl::StatusOr<CheckedServerConnection> checked =
      ParseServerConnection(AsBytes(bytes), options);
  EXPECT_TRUE(checked.ok()) << checked.status();
  if (!checked.ok()) return nullptr;
  auto host = std::make_unique<RestoredHost>();
  host->connection =
      ServerConnection::Restore(*std::move(checked), options, &host->events);
  return host;
}

void AddOffers(ServerConnection& connection) {
  (void)connection.AddOffer(TestOffer(1));
  (void)connection.AddOffer(TestOffer(2));
  (void)connection.AddOffer(TestOffer(1, 1));
}

}  // namespace ferrybus
