// SPDX-License-Identifier: MIT
//
// What a guest asks of the connection as a whole: socket connects, monitor
// pages, pause.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/channel/server_connection.h"

namespace ferrybus {
namespace {

using ::absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint32_t kOffer = 1;
constexpr uint32_t kOpenResult = 6;
constexpr uint32_t kVersionResponse = 15;
constexpr uint32_t kUnloadResponse = 17;
constexpr uint32_t kTlResult = 23;
constexpr uint32_t kModifyResponse = 26;
constexpr uint32_t kPauseResponse = 28;

Bytes Connect(uint8_t endpoint) {
  return TlConnectMessage(TestEndpoint(endpoint), TestService());
}

// --- Socket connects --------------------------------------------------------

// quirk:D28
TEST(ServerTlConnectTest, AnOfferAnswers) {
  for (ProtocolVersion version : kAllProtocolVersions) {
    TestHost host;
    host.ConnectGuest(version);
    if (version < ProtocolVersion::kWin10) {
      EXPECT_EQ(host.Handle(Connect(1)).code(), StatusCode::kUnimplemented);
      continue;
    }
    ASSERT_TRUE(host.Handle(Connect(1)).ok());
    EXPECT_THAT(host.events.Take(), ElementsAre("connect 1"));
    EXPECT_THAT(host.Drain(), IsEmpty());
    ASSERT_TRUE(host.connection.AddOffer(TestSocketOffer(1)).ok());
    const std::vector<Bytes> messages = host.Drain();
    ASSERT_EQ(messages.size(), 1u);
    const auto offer = Read<OfferChannelMessage>(messages[0]);
    EXPECT_EQ(offer.header.type, MessageType::kOfferChannel);
    EXPECT_EQ(offer.flags, 0x2011);
    EXPECT_EQ(offer.interface_instance, TestEndpoint(1));
    EXPECT_EQ(offer.interface_type, TestService());
    // Answered: not to be refused any more.
    EXPECT_EQ(
        host.connection.RefuseTlConnect(TestEndpoint(1), TestService()).code(),
        StatusCode::kNotFound);
  }
}

// vector:M28
TEST(ServerTlConnectTest, ARefusalIsToldFromFourOneOn) {
  for (const auto& [version, answers] :
       {std::pair(ProtocolVersion::kWin10, 0u),
        std::pair(ProtocolVersion::kWin10Rs3, 1u),
        std::pair(ProtocolVersion::kCopper, 1u)}) {
    TestHost host;
    host.ConnectGuest(version);
    host.Handle(Connect(0x55)).IgnoreError();
    ASSERT_TRUE(
        host.connection.RefuseTlConnect(TestEndpoint(0x55), TestService())
            .ok());
    const std::vector<Bytes> messages = host.Drain();
    ASSERT_EQ(messages.size(), answers);
    if (answers == 0) continue;
    EXPECT_EQ(ToHex(messages[0]),
              ToHex(FromHex("1700000000000000 1111111122223333 "
                            "4444555555555555 00040000cbfae611 "
                            "bd5864006a7986d3 360200c0")));
  }
}

TEST(ServerTlConnectTest, AnOwnerWithoutSocketsRefusesAtOnce) {
  TestHost host;
  host.events.takes_connects = false;
  host.ConnectGuest();
  EXPECT_TRUE(host.Handle(Connect(1)).ok());
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kTlResult));
  EXPECT_THAT(host.connection.Snapshot().tl_connects, IsEmpty());
}

TEST(ServerTlConnectTest, RefusesTheSameRequestAndAConnectedEndpoint) {
  TestHost host;
  host.ConnectGuest();
  ASSERT_TRUE(host.Handle(Connect(1)).ok());
  // No answer: the guest would take it for that to the first.
  EXPECT_EQ(host.Handle(Connect(1)).code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(host.Drain(), IsEmpty());
  ASSERT_TRUE(host.connection.AddOffer(TestSocketOffer(1)).ok());
  EXPECT_EQ(host.Handle(Connect(1)).code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kOffer, kTlResult));
  EXPECT_EQ(
      host.connection.RefuseTlConnect(TestEndpoint(2), TestService(), 0).code(),
      StatusCode::kInvalidArgument);
}

TEST(ServerTlConnectTest, OnlyASocketOfferAnswers) {
  TestHost host;
  host.ConnectGuest();
  ASSERT_TRUE(host.Handle(Connect(1)).ok());
  OfferParams params = TestSocketOffer(1);
  params.flags = kOfferNamedPipeMode;
  ASSERT_TRUE(host.connection.AddOffer(params).ok());
  EXPECT_EQ(host.connection.Snapshot().tl_connects.size(), 1u);
  EXPECT_TRUE(
      host.connection.RefuseTlConnect(TestEndpoint(1), TestService()).ok());
}

// bad:C14
TEST(ServerTlConnectTest, AFloodIsCapped) {
  TestHost host;
  host.ConnectGuest();
  const size_t cap = ServerLimits().tl_connects_max;
  EXPECT_EQ(cap, 16u);
  for (uint32_t i = 0; i < 1000; ++i) {
    Guid endpoint = TestEndpoint(0);
    endpoint.bytes[0] = static_cast<uint8_t>(i);
    endpoint.bytes[1] = static_cast<uint8_t>(i >> 8);
    const absl::Status status =
        host.Handle(TlConnectMessage(endpoint, TestService()));
    EXPECT_EQ(status.code(),
              i < cap ? StatusCode::kOk : StatusCode::kResourceExhausted);
    EXPECT_EQ(host.DrainTypes().size(), i < cap ? 0u : 1u);
  }
  EXPECT_EQ(host.events.Take().size(), cap);
  EXPECT_EQ(host.connection.Snapshot().tl_connects.size(), cap);
}

TEST(ServerTlConnectTest, ConnectsEndWithTheConnection) {
  for (const Bytes& end :
       {UnloadBytes(), ContactMessage(ProtocolVersion::kIron),
        ContactMessage(ProtocolVersion{0x70000})}) {
    TestHost host;
    host.ConnectGuest();
    ASSERT_TRUE(host.Handle(Connect(1)).ok());
    host.Handle(end).IgnoreError();
    EXPECT_EQ(
        host.connection.RefuseTlConnect(TestEndpoint(1), TestService()).code(),
        StatusCode::kNotFound);
  }
}

// --- Monitor pages ----------------------------------------------------------

TEST(ServerModifyConnectionTest, MovesTheMonitorPages) {
  TestHost host;
  host.ConnectGuest(ProtocolVersion::kCopper, kFeatureModifyConnection);
  ASSERT_TRUE(host.Handle(ModifyConnectionBytes(0x4000, 0x5000)).ok());
  EXPECT_THAT(host.events.Take(), ElementsAre("monitor 4000 5000"));
  EXPECT_THAT(host.Drain(), IsEmpty());
  EXPECT_EQ(host.connection.contact().monitor_pages(), MonitorPages{});
  // One at a time; a failure would be taken for the answer to the first.
  EXPECT_EQ(host.Handle(ModifyConnectionBytes(0, 0)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_THAT(host.Drain(), IsEmpty());
  ASSERT_TRUE(host.connection.ModifyConnectionCompleted(true).ok());
  const std::vector<Bytes> messages = host.Drain();
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(ToHex(messages[0]), "1a0000000000000000");
  EXPECT_EQ(host.connection.contact().monitor_pages(),
            (MonitorPages{0x4000, 0x5000}));
  EXPECT_EQ(host.connection.ModifyConnectionCompleted(true).code(),
            StatusCode::kFailedPrecondition);
}

TEST(ServerModifyConnectionTest, TheOwnerAnswersAsItLikes) {
  TestHost host;
  host.ConnectGuest(ProtocolVersion::kCopper, kFeatureModifyConnection);
  host.events.modify_answer = ModifyConnectionAnswer::kAccept;
  EXPECT_TRUE(host.Handle(ModifyConnectionBytes(0x4000, 0x5000)).ok());
  EXPECT_EQ(ToHex(host.Drain()[0]), "1a0000000000000000");
  host.events.modify_answer = ModifyConnectionAnswer::kRefuse;
  EXPECT_EQ(host.Handle(ModifyConnectionBytes(0, 0)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(ToHex(host.Drain()[0]), "1a0000000000000002");
  EXPECT_EQ(host.connection.contact().monitor_pages(),
            (MonitorPages{0x4000, 0x5000}));
  host.events.modify_answer = ModifyConnectionAnswer::kLater;
  EXPECT_TRUE(host.Handle(ModifyConnectionBytes(0, 0)).ok());
  EXPECT_TRUE(host.connection.ModifyConnectionCompleted(false).ok());
  EXPECT_EQ(ToHex(host.Drain()[0]), "1a0000000000000002");
}

// bad:C9
TEST(ServerModifyConnectionTest, RefusesPagesOutsideMemory) {
  TestHost host;
  host.ConnectGuest(ProtocolVersion::kCopper, kFeatureModifyConnection);
  const MonitorPages kBad[] = {
      {0x1000, 0},
      {0, 0x1000},
      {0x1001, 0x2000},
      {0x1000, 0x2008},
      {0x1000, kTestRamPages * 4096},
      {~uint64_t{0xfff}, 0x1000},
  };
  for (const MonitorPages& pages : kBad) {
    EXPECT_EQ(host.Handle(ModifyConnectionBytes(pages.parent_to_child,
                                                pages.child_to_parent))
                  .code(),
              StatusCode::kInvalidArgument);
    EXPECT_EQ(ToHex(host.Drain()[0]), "1a0000000000000002");
  }
  EXPECT_THAT(host.events.Take(), IsEmpty());
  EXPECT_EQ(host.connection.contact().monitor_pages(), MonitorPages{});
}

// bad:C9
TEST(ServerModifyConnectionTest, RefusesInTheMiddleOfAnOpen) {
  TestHost host;
  const OfferId offer = *host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest(ProtocolVersion::kCopper, kFeatureModifyConnection);
  host.Handle(GpadlMessage(1, 1)).IgnoreError();
  host.Handle(OpenMessage(1, 1)).IgnoreError();
  host.Drain();
  EXPECT_EQ(host.Handle(ModifyConnectionBytes(0x4000, 0x5000)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kModifyResponse));
  host.connection.OpenCompleted(offer, kStatusSuccess).IgnoreError();
  EXPECT_TRUE(host.Handle(ModifyConnectionBytes(0x4000, 0x5000)).ok());
  host.connection.ModifyConnectionCompleted(true).IgnoreError();
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kOpenResult, kModifyResponse));
}

TEST(ServerModifyConnectionTest, NeedsItsFeature) {
  TestHost host;
  host.ConnectGuest(ProtocolVersion::kCopper, kFeaturePauseResume);
  EXPECT_EQ(host.Handle(ModifyConnectionBytes(0x4000, 0x5000)).code(),
            StatusCode::kUnimplemented);
  host.ConnectGuest(ProtocolVersion::kIron, kFeatureModifyConnection);
  EXPECT_EQ(host.Handle(ModifyConnectionBytes(0x4000, 0x5000)).code(),
            StatusCode::kUnimplemented);
}

// --- Pause ------------------------------------------------------------------

TEST(ServerPauseTest, MessagesWaitForResume) {
  TestHost host;
  const OfferId offer = *host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest(ProtocolVersion::kCopper, kFeaturePauseResume);
  host.Handle(GpadlMessage(1, 1)).IgnoreError();
  host.Handle(OpenMessage(1, 1)).IgnoreError();
  ASSERT_TRUE(host.Handle(PauseBytes()).ok());
  EXPECT_TRUE(host.connection.is_paused());
  host.connection.OpenCompleted(offer, kStatusSuccess).IgnoreError();
  (void)host.connection.AddOffer(TestOffer(2));
  // What was due before, then the response, then nothing.
  const std::vector<Bytes> messages = host.Drain();
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(ToHex(messages[1]), "1c00000000000000");
  EXPECT_FALSE(host.connection.has_outgoing());
  ASSERT_TRUE(host.Handle(ResumeBytes()).ok());
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kOpenResult, kOffer));
  EXPECT_THAT(host.events.Take(), ElementsAre("open 0", "paused", "resumed"));
  EXPECT_EQ(host.Handle(ResumeBytes()).code(), StatusCode::kFailedPrecondition);
}

TEST(ServerPauseTest, OnlyThreeMessagesAreTakenMeanwhile) {
  TestHost host;
  (void)host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest(ProtocolVersion::kCopper,
                    kFeaturePauseResume | kFeatureModifyConnection);
  host.Handle(PauseBytes()).IgnoreError();
  host.Drain();
  const ServerConnectionState before = host.connection.Snapshot();
  for (const Bytes& message :
       {PauseBytes(), RequestOffers(), GpadlMessage(1, 1), OpenMessage(1, 1),
        CloseMessage(1), TeardownMessage(1, 1), ReleaseMessage(1),
        ModifyMessage(1, 1), OpenReservedMessage(1, 1), CloseReservedMessage(1),
        Connect(1), ModifyConnectionBytes(0, 0)}) {
    EXPECT_EQ(host.Handle(message).code(), StatusCode::kFailedPrecondition);
  }
  const ServerConnectionState after = host.connection.Snapshot();
  EXPECT_TRUE(after.paused);
  EXPECT_EQ(after.outgoing, before.outgoing);
  EXPECT_THAT(after.gpadls, IsEmpty());
  // The end of the connection ends the pause, and is told.
  ASSERT_TRUE(host.Handle(UnloadBytes()).ok());
  EXPECT_FALSE(host.connection.is_paused());
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kUnloadResponse));

  host.ConnectGuest(ProtocolVersion::kCopper, kFeaturePauseResume);
  host.Handle(PauseBytes()).IgnoreError();
  ASSERT_TRUE(host.Handle(ContactMessage(ProtocolVersion::kIron)).ok());
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kVersionResponse));
}

TEST(ServerPauseTest, APausedGuestWithAFullQueueCanResume) {
  ServerConnectionOptions options = TestServerOptions();
  options.limits.channels_max = 2;
  options.limits.gpadls_max = 4;
  options.limits.outgoing_messages_max = 1;
  TestHost host(options);
  (void)host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest(ProtocolVersion::kCopper, kFeaturePauseResume);
  const size_t count_max = OutgoingMessagesMax(options.limits);
  for (size_t i = 0; i + 1 < count_max; ++i) {
    host.Handle(OpenMessage(1, 0xdead)).IgnoreError();
  }
  ASSERT_TRUE(host.Handle(PauseBytes()).ok());
  EXPECT_TRUE(host.connection.can_accept_message());
  for (int i = 0; i < 100; ++i) host.Handle(PauseBytes()).IgnoreError();
  EXPECT_EQ(host.connection.Snapshot().outgoing.size(), count_max);
  ASSERT_TRUE(host.Handle(ResumeBytes()).ok());
  EXPECT_FALSE(host.connection.can_accept_message());
  EXPECT_EQ(host.Drain().size(), count_max);
}

TEST(ServerPauseTest, ResumeBeforeTheResponseWasTakenIsFine) {
  TestHost host;
  host.ConnectGuest(ProtocolVersion::kCopper, kFeaturePauseResume);
  host.Handle(PauseBytes()).IgnoreError();
  host.Handle(ResumeBytes()).IgnoreError();
  host.Handle(PauseBytes()).IgnoreError();
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kPauseResponse, kPauseResponse));
}

}  // namespace
}  // namespace ferrybus
