// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_CONNECTION_TEST_UTIL_H_
#define FERRYBUS_CHANNEL_CONNECTION_TEST_UTIL_H_

// What the tests of both sides of a connection share: messages in few words,
// and an owner of a ServerConnection that writes down what it is told.
//
// Thread safety: none.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/channel/message_codec.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/channel/protocol_version.h"
#include "ferrybus/channel/server_connection.h"

namespace ferrybus {

using Bytes = std::vector<std::byte>;

// Hex digits in memory order; blanks are skipped.  "+N" between blanks stands
// for N zero bytes.
Bytes FromHex(std::string_view hex);
std::string ToHex(absl::Span<const std::byte> bytes);
inline Bytes ToBytes(const EncodedMessage& message) {
  return Bytes(message.bytes().begin(), message.bytes().end());
}

// The type of a message; 0 if it has none.
uint32_t TypeOf(absl::Span<const std::byte> bytes);

// --- Messages of a guest, with usual values ---------------------------------

Bytes ContactMessage(ProtocolVersion version, uint32_t target_message_vp = 0,
                     uint32_t features = 0);
Bytes RequestOffers();
Bytes UnloadBytes();
Bytes OpenMessage(uint32_t channel, uint32_t gpadl,
                  uint32_t downstream_page_offset = 2, uint32_t open_id = 77,
                  uint32_t target_vp = 0);
Bytes CloseMessage(uint32_t channel);
Bytes ModifyMessage(uint32_t channel, uint32_t target_vp);
Bytes ReleaseMessage(uint32_t channel);
Bytes TeardownMessage(uint32_t channel, uint32_t gpadl);
// The messages of a GPADL of `page_count` pages from `first_page` on.
std::vector<Bytes> GpadlMessages(uint32_t channel, uint32_t gpadl,
                                 size_t page_count, uint64_t first_page);
// The same for a GPADL of one message.
Bytes GpadlMessage(uint32_t channel, uint32_t gpadl, size_t page_count = 4,
                   uint64_t first_page = 0x100);

Bytes OpenReservedMessage(uint32_t channel, uint32_t gpadl,
                          uint32_t target_vp = 1, uint32_t target_sint = 5);
Bytes CloseReservedMessage(uint32_t channel, uint32_t target_vp = 2,
                           uint32_t target_sint = 6);
Bytes TlConnectMessage(const Guid& endpoint_id, const Guid& service_id);
Bytes ModifyConnectionBytes(uint64_t parent_to_child, uint64_t child_to_parent);
Bytes PauseBytes();
Bytes ResumeBytes();

// An endpoint and a service; the offer that connects them.
Guid TestEndpoint(uint8_t number);
Guid TestService();
OfferParams TestSocketOffer(uint8_t number);

// --- A host -----------------------------------------------------------------

inline constexpr uint32_t kTestMaxVp = 3;
inline constexpr uint64_t kTestRamPages = 0x100000;

ServerConnectionOptions TestServerOptions();
// Offers differ in their instance.
OfferParams TestOffer(uint8_t instance, uint16_t sub_channel_index = 0);

// Writes down what it is told: "connected 5.3", "disconnected", "open 0",
// "close 0", "modify 0 3", "teardown 0 e1e10", "monitor 1000 2000", "connect 1"
// (the last byte of the endpoint), "paused", "resumed".
class RecordingEvents : public ServerEvents {
 public:
  void OnConnected(const Contact& contact) override;
  void OnDisconnected() override;
  void OnOpenRequested(OfferId offer, const OpenRequest& request,
                       const GpadlView& ring) override;
  void OnCloseRequested(OfferId offer) override;
  bool OnModifyRequested(OfferId offer, uint32_t target_vp) override;
  void OnGpadlTeardownRequested(OfferId offer, GpadlId gpadl) override;
  ModifyConnectionAnswer OnModifyConnectionRequested(
      const MonitorPages& pages) override;
  bool OnTlConnectRequested(const TlConnectRequest& request) override;
  void OnPaused() override;
  void OnResumed() override;

  // What was told since the last call.
  std::vector<std::string> Take();

  // Devices that answer from inside the event.
  ServerConnection* answer_opens = nullptr;
  ServerConnection* answer_closes = nullptr;
  ModifyConnectionAnswer modify_answer = ModifyConnectionAnswer::kLater;
  bool takes_connects = true;

 private:
  std::vector<std::string> told_;
};

// A host with its events, and a guest that posts to it.
struct TestHost {
  explicit TestHost(
      const ServerConnectionOptions& options = TestServerOptions())
      : connection(options, &events) {}

  absl::Status Handle(absl::Span<const std::byte> message) {
    return connection.HandleMessage(message);
  }
  // Takes all outgoing messages.
  std::vector<Bytes> Drain();
  // The types of all outgoing messages, which are taken.
  std::vector<uint32_t> DrainTypes();
  // Contact at `version` and REQUESTOFFERS; the answers are taken.
  void ConnectGuest(ProtocolVersion version = ProtocolVersion::kIron,
                    uint32_t features = 0);
  // Makes a ring GPADL and opens the channel; the answers are taken.
  void OpenChannel(OfferId offer, uint32_t channel, uint32_t gpadl);

  RecordingEvents events;
  ServerConnection connection;
};

std::vector<Bytes> Drain(ServerConnection& connection);

// Of a message's fields.
template <typename Message>
Message Read(absl::Span<const std::byte> bytes) {
  Message message;
  std::memcpy(static_cast<void*>(&message), bytes.data(),
              bytes.size() < sizeof(message) ? bytes.size() : sizeof(message));
  return message;
}

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_CONNECTION_TEST_UTIL_H_
