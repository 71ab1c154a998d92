// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_SERVER_CONNECTION_STATE_H_
#define FERRYBUS_CHANNEL_SERVER_CONNECTION_STATE_H_

// The state of a host-side connection as plain data, and the check that turns
// such data from a file into something that may be restored.
//
// ServerConnection::Snapshot() fills the structure;
// server_connection_persist.h writes and reads it.  What a file says is as
// untrusted as a guest's message: CheckServerConnectionState() refuses every
// state that messages could not have led to, and ServerConnection takes
// nothing but the checked type.
//
// Not in the state: pins on GPADLs (devices take them again), counters, and
// what belongs to the embedder (limits, the highest VP, guest RAM).

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "ferrybus/channel/gpadl_table.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/channel/server_connection_types.h"

namespace ferrybus {

// An answer that waits for the guest.  Which of the fields mean something
// depends on the type; the rest are zero.  The bytes are made when the message
// is taken, so a saved queue cannot hold bytes that we would not send.
struct OutgoingMessage {
  MessageType type{};
  ChannelId channel_id{};
  uint32_t id = 0;  // open id or GPADL id
  uint32_t status = 0;
  // Answers about reserved channels, which outlive a connection as these do.
  std::optional<MessageTarget> target = {};
  // TL_CONNECT_RESULT.
  Guid endpoint_id = {};
  Guid service_id = {};

  friend bool operator==(const OutgoingMessage&,
                         const OutgoingMessage&) = default;
};

// What comes after a reset.
enum class AfterReset {
  kNothing,  // no answer: the embedder disconnected the guest
  kUnloadResponse,
  kVersionResponse,
};

struct SavedOffer {
  OfferId id{};
  ChannelId channel_id{};
  OfferParams params;
  ServerChannelState state = ServerChannelState::kClosed;
  bool is_offered = false;
  // The device is gone; the guest is told when the channel is closed.
  bool is_rescinding = false;
  std::optional<OpenRequest> open;          // iff the channel is active
  std::optional<OpenRequest> reopen;        // iff kClosingThenOpen
  std::optional<ReservedChannel> reserved;  // only if active

  // Its connection is over and it is not.
  bool is_survivor() const { return IsActive(state) && !is_offered; }
};

struct SavedGpadl {
  GpadlId id{};
  ChannelId channel_id{};
  GpadlState state = GpadlState::kInProgress;
  uint32_t byte_count = 0;
  uint32_t byte_offset = 0;
  std::vector<uint64_t> pages;
};

struct ServerConnectionState {
  ConnectionPhase phase = ConnectionPhase::kDisconnected;
  Contact contact;  // the last one that was answered
  AfterReset after_reset = AfterReset::kNothing;
  Contact pending_contact;  // for kVersionResponse
  bool offers_requested = false;
  uint32_t next_offer_id = 0;
  std::vector<SavedOffer> offers;  // in order of id
  // In order of id; then those of channels that outlive their connection, in
  // order of channel and id.
  std::vector<SavedGpadl> gpadls;
  // While paused, what comes after the last PAUSE_RESPONSE waits.
  std::vector<OutgoingMessage> outgoing;
  bool paused = false;
  std::optional<MonitorPages> pending_modify;  // MODIFY_CONNECTION
  std::vector<TlConnectRequest> tl_connects;   // in order of arrival
  // The reset that is under way began without a connection.
  bool reset_while_disconnected = false;
};

// A state that passed every check against the options it was checked with.
class CheckedServerConnection {
 public:
  const ServerConnectionState& state() const { return state_; }

 private:
  friend absl::StatusOr<CheckedServerConnection> CheckServerConnectionState(
      ServerConnectionState state, const ServerConnectionOptions& options);
  friend class ServerConnection;

  explicit CheckedServerConnection(ServerConnectionState state)
      : state_(std::move(state)) {}

  ServerConnectionState state_;
};

// InvalidArgument: the state contradicts itself or the protocol.
// FailedPrecondition: it needs a version, VP, page or flag that `options` does
// not have.  ResourceExhausted: it is over a limit.
absl::StatusOr<CheckedServerConnection> CheckServerConnectionState(
    ServerConnectionState state, const ServerConnectionOptions& options);

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_SERVER_CONNECTION_STATE_H_
