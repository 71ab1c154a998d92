// SPDX-License-Identifier: MIT
//
// A hostile guest against ServerConnection.  The input is a list of steps:
// messages, raw or with few free fields, between answers of devices.
//
// Checked after each step: the state is one that CheckServerConnectionState
// accepts (so that it can always be saved), queues are within their bounds,
// devices are asked only what fits what they were asked before, and all that
// goes to the guest is well-formed.

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>

#include "absl/types/span.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/channel/message_codec.h"
#include "ferrybus/channel/server_connection.h"
#include "ferrybus/channel/server_connection_state.h"

namespace ferrybus {
namespace {

// Takes bytes from the input; zeros after its end.
class Input {
 public:
  Input(const uint8_t* data, size_t size_bytes)
      : rest_(reinterpret_cast<const std::byte*>(data), size_bytes) {}

  bool empty() const { return rest_.empty(); }
  uint8_t Byte() {
    if (rest_.empty()) return 0;
    const auto byte = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return byte;
  }
  absl::Span<const std::byte> Take(size_t size_bytes) {
    const auto taken = rest_.subspan(0, size_bytes);
    rest_.remove_prefix(taken.size());
    return taken;
  }

 private:
  absl::Span<const std::byte> rest_;
};

// What each device has been asked, to check what it is asked next.
class Devices : public ServerEvents {
 public:
  enum class State { kIdle, kOpening, kOpen, kClosing };

  void OnConnected(const Contact&) override {}
  void OnDisconnected() override {
    for (const auto& [offer, state] : states) {
      FERRYBUS_CHECK(
          state == State::kIdle || connection->FindOffer(offer)->is_reserved,
          "disconnected with a channel open");
    }
  }
  void OnOpenRequested(OfferId offer, const OpenRequest& request,
                       const GpadlView& ring) override {
    FERRYBUS_CHECK(states[offer] == State::kIdle, "opened twice");
    FERRYBUS_CHECK(request.downstream_page_offset >= 2 &&
                       request.downstream_page_offset + 2 <= ring.pages.size(),
                   "a ring without pages");
    states[offer] = State::kOpening;
  }
  void OnCloseRequested(OfferId offer) override {
    FERRYBUS_CHECK(states[offer] == State::kOpen, "closed but not open");
    states[offer] = State::kClosing;
  }
  bool OnModifyRequested(OfferId offer, uint32_t target_vp) override {
    FERRYBUS_CHECK(states[offer] == State::kOpen && target_vp <= kTestMaxVp,
                   "modified but not open");
    return target_vp != 1;
  }
  void OnGpadlTeardownRequested(OfferId, GpadlId) override {}
  ModifyConnectionAnswer OnModifyConnectionRequested(
      const MonitorPages& pages) override {
    FERRYBUS_CHECK(AreMonitorPages(pages, kTestRamPages), "bad monitor pages");
    return static_cast<ModifyConnectionAnswer>((pages.parent_to_child >> 12) %
                                               3);
  }
  bool OnTlConnectRequested(const TlConnectRequest& request) override {
    return (request.endpoint_id.bytes[15] & 1) != 0;
  }

  const ServerConnection* connection = nullptr;
  std::map<OfferId, State> states;
};

ServerConnectionOptions SmallOptions() {
  ServerConnectionOptions options = TestServerOptions();
  options.limits = {.channels_max = 6,
                    .gpadls_max = 8,
                    .gpadls_in_progress_max = 3,
                    .gpadl_pages_max = 200,
                    .ring_pages_max = 64,
                    .reserved_channels_max = 2,
                    .tl_connects_max = 3,
                    .outgoing_messages_max = 32};
  options.features = kAllFeatures;
  options.server_monitor_pages = {0x1000, 0x2000};
  return options;
}

class Run {
 public:
  explicit Run(Input input) : input_(input) {
    devices_.connection = &connection_;
    for (uint8_t i = 0; i < 2; ++i) (void)connection_.AddOffer(TestOffer(i));
    (void)connection_.AddOffer(TestOffer(0, 1));
  }

  void Steps() {
    while (!input_.empty()) {
      Step();
      Check();
    }
    // Whatever the guest did, the machine can be reset.
    connection_.Disconnect();
    for (uint32_t i = 0; i < 64; ++i) {
      AnswerOpen(OfferId{i}, kStatusSuccess);
      AnswerClose(OfferId{i});
    }
    ReleaseAllPins();
    FERRYBUS_CHECK(connection_.phase() == ConnectionPhase::kDisconnected,
                   "a reset does not end");
  }

 private:
  void Step() {
    const uint8_t op = input_.Byte();
    const OfferId offer{static_cast<uint32_t>(op) >> 5};
    switch (op & 31) {
      case 0:
        return Handle(input_.Take(input_.Byte()));
      case 1:
        return AnswerOpen(offer, kStatusSuccess);
      case 2:
        return AnswerOpen(offer, kStatusUnsuccessful);
      case 3:
        return AnswerClose(offer);
      case 4:
        return connection_.RescindOffer(offer).IgnoreError();
      case 5:
        (void)connection_.AddOffer(
            TestOffer(input_.Byte() & 3, input_.Byte() & 1));
        return;
      case 6:
        return Pin(offer, GpadlId{input_.Byte() & 7u});
      case 7:
        return ReleaseAllPins();
      case 8:
        return TakeOutgoing();
      case 9:
        return connection_.Disconnect();
      case 28:
        return AnswerRequest(input_.Byte());
      default:
        return Handle(LikelyMessage(op & 31));
    }
  }

  // Answers of the owner, asked for or not.
  void AnswerRequest(uint8_t kind) {
    const auto number = static_cast<uint8_t>(kind >> 4 & 7);
    switch (kind & 3) {
      case 0:
        return connection_.ModifyConnectionCompleted((kind & 8) != 0)
            .IgnoreError();
      case 1:
        return connection_.RefuseTlConnect(TestEndpoint(number), TestService())
            .IgnoreError();
      default:
        (void)connection_.AddOffer(TestSocketOffer(number));
    }
  }

  // Mostly what a real guest could send, so that deep states are reached.
  Bytes LikelyMessage(int kind) {
    const uint32_t channel = input_.Byte() & 7;
    const uint32_t gpadl = input_.Byte() & 7;
    switch (kind) {
      case 10:
        return ContactMessage(
            kAllProtocolVersions[gpadl % kAllProtocolVersions.size()], channel);
      case 11:
        return RequestOffers();
      case 12:
        return UnloadBytes();
      case 13:
        return GpadlMessage(channel, gpadl, 4 + input_.Byte() % 20);
      case 14:
        return GpadlMessages(channel, gpadl, 40, 0x200)[0];
      case 15:
        return GpadlMessages(channel, gpadl, 40, 0x200)[1];
      case 16:
        return OpenMessage(channel, gpadl, input_.Byte() % 8);
      case 17:
        return CloseMessage(channel);
      case 18:
        return TeardownMessage(channel, gpadl);
      case 19:
        return ReleaseMessage(channel);
      case 20:
        return ModifyMessage(channel, gpadl);
      case 21:
        return OpenReservedMessage(channel, gpadl, input_.Byte() & 7,
                                   input_.Byte() & 31);
      case 22:
        return CloseReservedMessage(channel, gpadl, input_.Byte() & 31);
      case 23:
        return TlConnectMessage(TestEndpoint(static_cast<uint8_t>(channel)),
                                TestService());
      case 24:
        return ModifyConnectionBytes(uint64_t{channel} << 12,
                                     uint64_t{gpadl} << 12);
      case 25:
        return PauseBytes();
      case 26:
        return ResumeBytes();
      case 27:
        return ContactMessage(ProtocolVersion::kCopper, 0, input_.Byte());
      default:
        return ContactMessage(ProtocolVersion::kIron);
    }
  }

  void Handle(absl::Span<const std::byte> message) {
    // Some guests read nothing; the host must not need it.
    if (!connection_.can_accept_message()) TakeOutgoing();
    const bool can_accept = connection_.can_accept_message();
    const absl::Status status = connection_.HandleMessage(message);
    FERRYBUS_CHECK(absl::IsUnavailable(status) != can_accept,
                   "back-pressure that was not announced");
  }

  void AnswerOpen(OfferId offer, uint32_t status) {
    const auto found = devices_.states.find(offer);
    const bool asked = found != devices_.states.end() &&
                       found->second == Devices::State::kOpening;
    if (asked) {
      found->second = status == kStatusSuccess ? Devices::State::kOpen
                                               : Devices::State::kIdle;
    }
    const absl::Status result = connection_.OpenCompleted(offer, status);
    FERRYBUS_CHECK(result.ok() == asked, "an answer that was (not) asked for");
  }

  void AnswerClose(OfferId offer) {
    const auto found = devices_.states.find(offer);
    if (found == devices_.states.end() ||
        found->second != Devices::State::kClosing) {
      return;
    }
    found->second = Devices::State::kIdle;
    FERRYBUS_CHECK(connection_.CloseCompleted(offer).ok(),
                   "a close that was asked for");
  }

  void Pin(OfferId offer, GpadlId gpadl) {
    const absl::StatusOr<GpadlView> view =
        connection_.AcquireGpadl(offer, gpadl);
    if (view.ok()) pins_.emplace(std::pair(offer, gpadl), *view);
  }

  void ReleaseAllPins() {
    for (const auto& [key, view] : std::exchange(pins_, {})) {
      // Still readable, whatever the guest has torn down meanwhile.
      for (uint64_t page : view.pages) {
        FERRYBUS_CHECK(page != 0 && page < kTestRamPages, "a page outside RAM");
      }
      FERRYBUS_CHECK(connection_.ReleaseGpadl(key.first, key.second).ok(),
                     "a pin that was lost");
    }
  }

  void TakeOutgoing() {
    const Contact& contact = connection_.contact();
    const ProtocolContext context = {contact.version, contact.features};
    while (connection_.has_outgoing()) {
      const auto front = connection_.outgoing_front();
      const MessageTarget target = connection_.outgoing_target();
      FERRYBUS_CHECK(target.vp <= kTestMaxVp && target.sint < kSintCount,
                     "a message to nowhere");
      const ProtocolContext unknown;
      const bool is_version_response = TypeOf(front) == 15;
      FERRYBUS_CHECK(
          DecodeHostMessage(front, is_version_response ? unknown : context)
              .ok(),
          "an outgoing message that a guest would refuse");
      connection_.PopOutgoing();
    }
  }

  void Check() {
    const ServerConnectionState state = connection_.Snapshot();
    const absl::Status valid =
        CheckServerConnectionState(state, SmallOptions()).status();
    FERRYBUS_CHECK(valid.ok(), valid.ToString().c_str());
    FERRYBUS_CHECK(
        state.outgoing.size() <= OutgoingMessagesMax(SmallOptions().limits) +
                                     2 * SmallOptions().limits.channels_max,
        "the outgoing queue is over its bound");
  }

  Input input_;
  Devices devices_;
  ServerConnection connection_{SmallOptions(), &devices_};
  std::multimap<std::pair<OfferId, GpadlId>, GpadlView> pins_;
};

}  // namespace
}  // namespace ferrybus

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  ferrybus::Run(ferrybus::Input(data, size_bytes)).Steps();
  return 0;
}
