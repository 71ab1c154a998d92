// SPDX-License-Identifier: MIT
//
// A hostile save file against ServerConnection.  What the parser accepts is
// restored, claimed in part, and run for a while; it must behave like a state
// that messages have led to.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/channel/message_codec.h"
#include "ferrybus/channel/server_connection.h"
#include "ferrybus/channel/server_connection_persist.h"

namespace ferrybus {
namespace {

void CheckState(const ServerConnection& connection) {
  const absl::Status valid =
      CheckServerConnectionState(connection.Snapshot(), TestServerOptions())
          .status();
  FERRYBUS_CHECK(valid.ok(), valid.ToString().c_str());
}

void TakeOutgoing(ServerConnection& connection) {
  for (; connection.has_outgoing(); connection.PopOutgoing()) {
    FERRYBUS_CHECK(DecodeHostMessage(connection.outgoing_front(), {}).ok(),
                   "an outgoing message that a guest would refuse");
  }
}

// Messages that a guest could send next, for the first channel that it has.
std::vector<Bytes> Messages(const ServerConnection& connection) {
  const ServerConnectionState state = connection.Snapshot();
  const uint32_t channel =
      state.offers.empty()
          ? 1
          : static_cast<uint32_t>(state.offers.front().channel_id);
  return {GpadlMessage(channel, 0xfeed),
          OpenMessage(channel, 0xfeed),
          CloseMessage(channel),
          TeardownMessage(channel, 0xfeed),
          ReleaseMessage(channel),
          ResumeBytes(),
          ModifyConnectionBytes(0x1000, 0x2000),
          TlConnectMessage(TestEndpoint(1), TestService()),
          CloseReservedMessage(channel),
          OpenReservedMessage(channel, 0xfeed),
          PauseBytes(),
          RequestOffers(),
          ContactMessage(ProtocolVersion::kIron),
          RequestOffers(),
          UnloadBytes()};
}

void RunRestored(CheckedServerConnection checked, bool claim_all) {
  RecordingEvents events;
  const std::unique_ptr<ServerConnection> connection =
      ServerConnection::Restore(std::move(checked), TestServerOptions(),
                                &events);
  events.answer_opens = connection.get();
  events.answer_closes = connection.get();
  const std::string bytes = SaveServerConnection(*connection);
  for (const SavedOffer& offer : connection->Snapshot().offers) {
    const bool is_odd = (static_cast<uint32_t>(offer.id) & 1) != 0;
    if (claim_all || is_odd) (void)connection->AddOffer(offer.params);
  }
  connection->FinishRestore();
  CheckState(*connection);
  for (const Bytes& message : Messages(*connection)) {
    if (!connection->can_accept_message()) TakeOutgoing(*connection);
    connection->HandleMessage(message).IgnoreError();
    CheckState(*connection);
  }
  TakeOutgoing(*connection);
  FERRYBUS_CHECK(connection->phase() == ConnectionPhase::kDisconnected,
                 "an unload does not end");

  // What was saved again is accepted again.
  const absl::StatusOr<CheckedServerConnection> again = ParseServerConnection(
      {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()},
      TestServerOptions());
  FERRYBUS_CHECK(again.ok(), "our own bytes are refused");
}

}  // namespace
}  // namespace ferrybus

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  using ferrybus::ParseServerConnection;
  const absl::Span<const std::byte> bytes(
      reinterpret_cast<const std::byte*>(data), size_bytes);
  for (bool claim_all : {true, false}) {
    absl::StatusOr<ferrybus::CheckedServerConnection> checked =
        ParseServerConnection(bytes, ferrybus::TestServerOptions());
    if (!checked.ok()) return 0;
    ferrybus::RunRestored(*std::move(checked), claim_all);
  }
  return 0;
}
