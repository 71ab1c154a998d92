// SPDX-License-Identifier: MIT
//
// A connection to another host, the settings of both its ends, and the one
// question that is asked outside of a migration: what its source decided.
//
// Ownership: credentials are shared.
// Thread safety: pure functions.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_GRPC_CHANNEL_H_
#define FERRYBUS_SAVESTATE_MIGRATION_GRPC_CHANNEL_H_

#include <grpcpp/channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ferrybus/savestate/migration/migration_messages.h"
#include "ferrybus/savestate/migration/ownership.h"

namespace ferrybus::migration {

// Keys of metadata.
inline constexpr char kSourceAddressKey[] = "ferrybus-source";
inline constexpr char kTicketKey[] = "ferrybus-ticket-bin";

inline constexpr size_t kAddressSizeMax = 256;
// Between two bytes from the peer, asked for with a ping if need be.
inline constexpr absl::Duration kKeepaliveTime = absl::Seconds(10);
inline constexpr absl::Duration kKeepaliveTimeout = absl::Seconds(10);

struct HostAddress {
  std::string address;  // HOST:PORT
  std::shared_ptr<grpc::ChannelCredentials> credentials;
};

// Of an envelope, with the largest message in it.
int EnvelopeBytesMax(const MessageLimits& limits);

// Each has a connection of its own, made when it is first used.
std::shared_ptr<grpc::Channel> MakeChannel(const HostAddress& host,
                                           const MessageLimits& limits);

// The same limits for a server.
void SetServerArguments(const MessageLimits& limits,
                        grpc::ServerBuilder* builder);

absl::Status FromGrpc(const grpc::Status& status);
grpc::Status ToGrpc(const absl::Status& status);

// What the host of the source says.  Unavailable, DeadlineExceeded: ask again.
absl::StatusOr<Decision> AskDecision(
    const std::shared_ptr<grpc::Channel>& channel, const std::string& machine,
    const std::string& migration_id, absl::Duration timeout);

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_GRPC_CHANNEL_H_
