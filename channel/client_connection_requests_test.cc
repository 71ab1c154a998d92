// SPDX-License-Identifier: MIT
//
// What a guest asks of the connection as a whole: against our host, joined
// back to back, and against one that answers as it likes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/client_connection.h"
#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/channel/server_connection.h"

namespace ferrybus {
namespace {

using ::absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr ChannelId kChannel{1};

class Guest : public ClientEvents {
 public:
  void OnVersion(const ClientVersion& version) override { last = version; }
  void OnOffer(const ClientOffer& offer) override {
    Tell("offer ", Number(offer.channel_id));
  }
  void OnAllOffersDelivered() override {}
  void OnRescind(ChannelId channel) override {
    Tell("rescind ", Number(channel));
  }
  void OnOpenResult(ChannelId channel, uint32_t status) override {
    Tell("open ", Number(channel), " ", status);
  }
  void OnGpadlCreated(ChannelId, GpadlId, uint32_t) override {}
  void OnGpadlTorndown(ChannelId, GpadlId) override {}
  void OnModifyResponse(ChannelId, uint32_t) override {}
  void OnUnloaded() override { Tell("unloaded"); }
  void OnReservedClosed(ChannelId channel) override {
    Tell("reserved closed ", Number(channel));
  }
  void OnTlConnectResult(const Guid& endpoint_id, const Guid&,
                         uint32_t status) override {
    Tell("connect ", endpoint_id.bytes[15], " ", absl::Hex(status));
  }
  void OnModifyConnectionResponse(uint8_t connection_state) override {
    Tell("monitor ", connection_state);
  }
  void OnPaused() override { Tell("paused"); }

  std::vector<std::string> Take() { return std::exchange(told_, {}); }
  ClientVersion last;

 private:
  static uint32_t Number(ChannelId channel) {
    return static_cast<uint32_t>(channel);
  }
  template <typename... Args>
  void Tell(const Args&... args) {
    told_.push_back(absl::StrCat(args...));
  }
  std::vector<std::string> told_;
};

ServerConnectionOptions HostOptions() {
  ServerConnectionOptions options = TestServerOptions();
  options.features = kAllFeatures;
  options.server_monitor_pages = {0x7000, 0x8000};
  return options;
}

ClientConnectionOptions GuestOptions(ProtocolVersion version,
                                     uint32_t features) {
  ClientConnectionOptions options;
  options.versions = {version};
  options.features = features;
  return options;
}

class ClientRequestsTest : public ::testing::Test {
 protected:
  explicit ClientRequestsTest(
      ProtocolVersion version = ProtocolVersion::kCopper,
      uint32_t features = kFeatureModifyConnection | kFeaturePauseResume)
      : guest_(GuestOptions(version, features), &events_) {}

  void SetUp() override {
    offer_ = *host_.connection.AddOffer(TestOffer(1));
    host_.events.answer_opens = &host_.connection;
    host_.events.answer_closes = &host_.connection;
    Connect();
  }
  void Connect() {
    ASSERT_TRUE(guest_.Connect().ok());
    Pump();
    ASSERT_TRUE(events_.last.accepted);
    ASSERT_TRUE(guest_.RequestOffers().ok());
    Pump();
    host_.events.Take();
    events_.Take();
  }
  // Neither side may find anything wrong with what the other sends.
  void Pump() {
    while (guest_.has_outgoing() || host_.connection.has_outgoing()) {
      if (guest_.has_outgoing()) {
        const absl::Status status = host_.connection.HandleMessage(
            guest_.outgoing_front(), guest_.message_connection());
        EXPECT_TRUE(status.ok()) << status;
        guest_.PopOutgoing();
      }
      if (host_.connection.has_outgoing()) {
        const absl::Status status =
            guest_.HandleMessage(host_.connection.outgoing_front());
        EXPECT_TRUE(status.ok()) << status;
        host_.connection.PopOutgoing();
      }
    }
  }
  void OpenReserved() {
    const GpadlId ring =
        *guest_.CreateGpadl(kChannel, {1, 2, 3, 4}, 4 * 4096, 0);
    Pump();
    ASSERT_TRUE(guest_
                    .OpenReserved(kChannel, {.ring_gpadl = ring,
                                             .downstream_page_offset = 2,
                                             .target = {.vp = 1, .sint = 5}})
                    .ok());
    Pump();
    EXPECT_EQ(guest_.channel_state(kChannel), ClientChannelState::kOpen);
  }
  template <typename Message>
  absl::Status FromHost(const Message& message) {
    return guest_.HandleMessage(EncodeMessage(message).bytes());
  }

  TestHost host_{HostOptions()};
  Guest events_;
  ClientConnection guest_;
  OfferId offer_{};
};

// --- Socket connects --------------------------------------------------------

TEST_F(ClientRequestsTest, ConnectsToAService) {
  ASSERT_TRUE(guest_.TlConnect(TestEndpoint(1), TestService()).ok());
  ASSERT_TRUE(guest_.TlConnect(TestEndpoint(2), TestService()).ok());
  EXPECT_EQ(guest_.TlConnect(TestEndpoint(1), TestService()).code(),
            StatusCode::kAlreadyExists);
  Pump();
  EXPECT_THAT(host_.events.Take(), ElementsAre("connect 1", "connect 2"));
  ASSERT_TRUE(
      host_.connection.RefuseTlConnect(TestEndpoint(2), TestService()).ok());
  ASSERT_TRUE(host_.connection.AddOffer(TestSocketOffer(1)).ok());
  Pump();
  EXPECT_THAT(events_.Take(),
              ElementsAre("connect 2 c0000236", "offer 2", "connect 1 0"));
  // An answer ends a request.
  EXPECT_EQ(guest_.AbandonTlConnect(TestEndpoint(1), TestService()).code(),
            StatusCode::kNotFound);
  EXPECT_FALSE(FromHost(TlConnectResultMessage{.endpoint_id = TestEndpoint(2),
                                               .service_id = TestService(),
                                               .status = 1})
                   .ok());
}

TEST_F(ClientRequestsTest, GivesUpAConnect) {
  ASSERT_TRUE(guest_.TlConnect(TestEndpoint(1), TestService()).ok());
  ASSERT_TRUE(guest_.AbandonTlConnect(TestEndpoint(1), TestService()).ok());
  EXPECT_FALSE(FromHost(TlConnectResultMessage{.endpoint_id = TestEndpoint(1),
                                               .service_id = TestService(),
                                               .status = 1})
                   .ok());
  EXPECT_THAT(events_.Take(), IsEmpty());
}

TEST_F(ClientRequestsTest, CapsItsConnects) {
  const size_t cap = ClientLimits().tl_connects_max;
  for (uint8_t i = 0; i < cap; ++i) {
    ASSERT_TRUE(guest_.TlConnect(TestEndpoint(i), TestService()).ok());
  }
  EXPECT_EQ(guest_.TlConnect(TestEndpoint(255), TestService()).code(),
            StatusCode::kResourceExhausted);
}

// A connect succeeds by an offer and by nothing else.
TEST_F(ClientRequestsTest, RefusesASuccessWithoutAnOffer) {
  ASSERT_TRUE(guest_.TlConnect(TestEndpoint(1), TestService()).ok());
  EXPECT_FALSE(FromHost(TlConnectResultMessage{.endpoint_id = TestEndpoint(1),
                                               .service_id = TestService(),
                                               .status = 0})
                   .ok());
  EXPECT_TRUE(guest_.AbandonTlConnect(TestEndpoint(1), TestService()).ok());
}

// --- Monitor pages ----------------------------------------------------------

TEST_F(ClientRequestsTest, MovesItsMonitorPages) {
  host_.events.modify_answer = ModifyConnectionAnswer::kLater;
  ASSERT_TRUE(guest_.ModifyConnection({0x4000, 0x5000}).ok());
  EXPECT_EQ(guest_.ModifyConnection({0, 0}).code(),
            StatusCode::kFailedPrecondition);
  Pump();
  EXPECT_THAT(events_.Take(), IsEmpty());
  ASSERT_TRUE(host_.connection.ModifyConnectionCompleted(true).ok());
  Pump();
  EXPECT_THAT(events_.Take(), ElementsAre("monitor 0"));
  EXPECT_EQ(guest_.monitor_pages(), (MonitorPages{0x4000, 0x5000}));
  ASSERT_TRUE(guest_.ModifyConnection({0, 0}).ok());
  Pump();
  ASSERT_TRUE(host_.connection.ModifyConnectionCompleted(false).ok());
  Pump();
  EXPECT_THAT(events_.Take(), ElementsAre("monitor 2"));
  EXPECT_EQ(guest_.monitor_pages(), (MonitorPages{0x4000, 0x5000}));
  EXPECT_FALSE(
      guest_.HandleMessage(EncodeModifyConnectionResponse({}).bytes()).ok());
}

// --- Pause ------------------------------------------------------------------

TEST_F(ClientRequestsTest, PausesTheHost) {
  ASSERT_TRUE(guest_.Pause().ok());
  EXPECT_EQ(guest_.Resume().code(), StatusCode::kFailedPrecondition);
  Pump();
  EXPECT_THAT(events_.Take(), ElementsAre("paused"));
  EXPECT_TRUE(guest_.is_paused());
  (void)host_.connection.AddOffer(TestOffer(2));
  Pump();
  EXPECT_THAT(events_.Take(), IsEmpty());
  EXPECT_EQ(guest_.Pause().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(
      guest_.CreateGpadl(kChannel, {1, 2, 3, 4}, 4 * 4096, 0).status().code(),
      StatusCode::kFailedPrecondition);
  // A host that talks nevertheless.
  EXPECT_EQ(FromHost(RescindChannelOfferMessage{.channel_id = kChannel}).code(),
            StatusCode::kFailedPrecondition);
  ASSERT_TRUE(guest_.Resume().ok());
  Pump();
  EXPECT_THAT(events_.Take(), ElementsAre("offer 2"));
  EXPECT_FALSE(FromHost(PauseResponseMessage{}).ok());
}

TEST_F(ClientRequestsTest, APausedGuestCanLeave) {
  for (bool unload : {true, false}) {
    ASSERT_TRUE(guest_.Pause().ok());
    Pump();
    if (unload) {
      ASSERT_TRUE(guest_.Unload().ok());
      Pump();
      EXPECT_THAT(events_.Take(), ElementsAre("paused", "unloaded"));
    }
    Connect();
    EXPECT_FALSE(guest_.is_paused());
  }
}

// --- Reserved channels ------------------------------------------------------

TEST_F(ClientRequestsTest, OpensAndClosesAReservedChannel) {
  OpenReserved();
  EXPECT_THAT(events_.Take(), ElementsAre("open 1 0"));
  EXPECT_TRUE(host_.connection.FindOffer(offer_)->is_reserved);
  EXPECT_FALSE(guest_.Close(kChannel).ok());
  EXPECT_FALSE(guest_.ModifyChannel(kChannel, 1).ok());
  EXPECT_FALSE(guest_.CreateGpadl(kChannel, {9}, 4096, 0).ok());
  ASSERT_TRUE(guest_.CloseReserved(kChannel, {.vp = 2, .sint = 6}).ok());
  EXPECT_FALSE(guest_.CloseReserved(kChannel, {}).ok());
  Pump();
  EXPECT_THAT(events_.Take(), ElementsAre("reserved closed 1"));
  EXPECT_EQ(guest_.channel_state(kChannel), ClientChannelState::kClosed);
  EXPECT_FALSE(
      FromHost(CloseReservedResponseMessage{.channel_id = kChannel}).ok());
}

TEST_F(ClientRequestsTest, AFailedReservedOpenLeavesAnOrdinaryChannel) {
  host_.events.answer_opens = nullptr;
  const GpadlId ring = *guest_.CreateGpadl(kChannel, {1, 2, 3, 4}, 4 * 4096, 0);
  Pump();
  ASSERT_TRUE(guest_
                  .OpenReserved(kChannel, {.ring_gpadl = ring,
                                           .downstream_page_offset = 2,
                                           .target = {}})
                  .ok());
  Pump();
  ASSERT_TRUE(host_.connection.OpenCompleted(offer_, 5).ok());
  Pump();
  EXPECT_THAT(events_.Take(), ElementsAre("open 1 5"));
  host_.events.answer_opens = &host_.connection;
  ASSERT_TRUE(
      guest_.Open(kChannel, {.ring_gpadl = ring, .downstream_page_offset = 2})
          .ok());
  Pump();
  EXPECT_TRUE(guest_.Close(kChannel).ok());
}

TEST_F(ClientRequestsTest, ClosesWhatTheLastKernelOpened) {
  OpenReserved();
  ASSERT_TRUE(guest_.Unload().ok());
  Pump();
  events_.Take();
  EXPECT_TRUE(IsActive(host_.connection.FindOffer(offer_)->state));
  ASSERT_TRUE(guest_.CloseReserved(kChannel, {.vp = 0, .sint = 2}).ok());
  Pump();
  EXPECT_THAT(events_.Take(), ElementsAre("reserved closed 1"));
  EXPECT_FALSE(IsActive(host_.connection.FindOffer(offer_)->state));

  // The same from within a new connection, which then gets the offer.
  Connect();
  OpenReserved();
  Connect();
  EXPECT_EQ(guest_.channel_state(kChannel), std::nullopt);
  ASSERT_TRUE(guest_.CloseReserved(kChannel, {}).ok());
  Pump();
  EXPECT_THAT(events_.Take(), ElementsAre("reserved closed 1", "offer 1"));
  EXPECT_EQ(guest_.CloseReserved(ChannelId{0}, {}).code(),
            StatusCode::kNotFound);
  EXPECT_EQ(guest_.CloseReserved(ChannelId{2048}, {}).code(),
            StatusCode::kNotFound);
}

// --- Versions and features --------------------------------------------------

class ClientFeaturesTest : public ClientRequestsTest {
 protected:
  ClientFeaturesTest()
      : ClientRequestsTest(ProtocolVersion::kCopper,
                           kAllFeatures & ~kFeatureClientId) {}
};

TEST_F(ClientFeaturesTest, UsesWhatTheHostGrants) {
  EXPECT_EQ(events_.last.features, kAllFeatures & ~kFeatureClientId);
  EXPECT_EQ(events_.last.monitor_pages, (MonitorPages{0x7000, 0x8000}));
  const GpadlId ring = *guest_.CreateGpadl(kChannel, {1, 2, 3, 4}, 4 * 4096, 0);
  Pump();
  ASSERT_TRUE(guest_
                  .Open(kChannel, {.ring_gpadl = ring,
                                   .downstream_page_offset = 2,
                                   .connection_id = 0x5005,
                                   .event_flag = 9,
                                   .redirect_interrupt = true})
                  .ok());
  EXPECT_EQ(guest_.outgoing_front().size(), 156u);
  Pump();
  EXPECT_EQ(host_.connection.FindOffer(offer_)->connection_id, 0x5005u);
  EXPECT_EQ(host_.connection.FindOffer(offer_)->event_flag, 9u);
  EXPECT_EQ(host_.connection.open_request(offer_)->flags,
            kOpenRedirectInterrupt);
}

TEST_F(ClientRequestsTest, AsksForNothingThatWasNotGranted) {
  const GpadlId ring = *guest_.CreateGpadl(kChannel, {1, 2, 3, 4}, 4 * 4096, 0);
  Pump();
  EXPECT_FALSE(
      guest_.Open(kChannel, {.ring_gpadl = ring, .event_flag = 9}).ok());
  EXPECT_FALSE(
      guest_.Open(kChannel, {.ring_gpadl = ring, .redirect_interrupt = true})
          .ok());
}

TEST(ClientVersionsTest, AsksOnlyWhatTheVersionHas) {
  for (ProtocolVersion version : kAllProtocolVersions) {
    TestHost host(HostOptions());
    Guest events;
    ClientConnection guest(GuestOptions(version, kDefaultFeatures), &events);
    EXPECT_FALSE(guest.TlConnect(TestEndpoint(1), TestService()).ok());
    EXPECT_FALSE(guest.Pause().ok());
    EXPECT_FALSE(guest.ModifyConnection({}).ok());
    guest.Connect().IgnoreError();
    host.Handle(guest.outgoing_front()).IgnoreError();
    guest.PopOutgoing();
    ASSERT_TRUE(guest.HandleMessage(host.connection.outgoing_front()).ok());
    guest.RequestOffers().IgnoreError();
    const bool is_copper = version == ProtocolVersion::kCopper;
    EXPECT_EQ(guest.TlConnect(TestEndpoint(1), TestService()).ok(),
              version >= ProtocolVersion::kWin10);
    EXPECT_EQ(guest.ModifyConnection({}).ok(), is_copper);
    EXPECT_EQ(guest.Pause().ok(), is_copper);
  }
}

TEST(ClientVersionsTest, RefusesAGrantThatCannotBe) {
  const auto connect = [](const VersionResponseMessage& response,
                          size_t size_bytes, uint32_t asked) {
    Guest events;
    ClientConnection guest(GuestOptions(ProtocolVersion::kCopper, asked),
                           &events);
    guest.Connect().IgnoreError();
    return guest
        .HandleMessage(
            {reinterpret_cast<const std::byte*>(&response), size_bytes})
        .ok();
  };
  VersionResponseMessage response;
  response.version_supported = 1;
  EXPECT_TRUE(connect(response, 20, 0));
  EXPECT_FALSE(connect(response, 19, 0));
  response.supported_features = kFeaturePauseResume;
  EXPECT_TRUE(connect(response, 20, kFeaturePauseResume));
  EXPECT_FALSE(connect(response, 20, kFeatureModifyConnection));
  response.supported_features = kFeatureServerMonitorPages;
  response.parent_to_child_monitor_page = 0x1000;
  response.child_to_parent_monitor_page = 0x2000;
  EXPECT_TRUE(connect(response, 40, kFeatureServerMonitorPages));
  EXPECT_FALSE(connect(response, 39, kFeatureServerMonitorPages));
  response.child_to_parent_monitor_page = 0;
  EXPECT_FALSE(connect(response, 40, kFeatureServerMonitorPages));
}

}  // namespace
}  // namespace ferrybus
