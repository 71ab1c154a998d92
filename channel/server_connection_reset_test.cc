// SPDX-License-Identifier: MIT
//
// How a connection of ServerConnection ends, and back-pressure.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/channel/server_connection.h"

namespace ferrybus {
namespace {

using ::absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint32_t kOpenResult = 6;
constexpr uint32_t kVersionResponse = 15;
constexpr uint32_t kUnloadResponse = 17;

VersionResponseMessage TakeVersionResponse(TestHost& host) {
  const std::vector<Bytes> messages = host.Drain();
  EXPECT_EQ(messages.size(), 1u);
  if (messages.empty()) return {};
  EXPECT_EQ(TypeOf(messages.back()), kVersionResponse);
  return Read<VersionResponseMessage>(messages.back());
}

// bad:C10
// quirk:D18
TEST(ServerUnloadTest, AnswersAtEveryVersionAndOnlyOnce) {
  for (ProtocolVersion version : kAllProtocolVersions) {
    TestHost host;
    host.ConnectGuest(version);
    ASSERT_TRUE(host.Handle(UnloadBytes()).ok());
    EXPECT_THAT(host.DrainTypes(), ElementsAre(kUnloadResponse));
    EXPECT_THAT(host.events.Take(), ElementsAre("disconnected"));
    EXPECT_EQ(host.Handle(UnloadBytes()).code(),
              StatusCode::kFailedPrecondition);
    EXPECT_EQ(host.Handle(RequestOffers()).code(),
              StatusCode::kFailedPrecondition);
    EXPECT_THAT(host.Drain(), IsEmpty());
  }
}

// bad:C10
TEST(ServerUnloadTest, WaitsForTheDevices) {
  TestHost host;
  const OfferId offer = *host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest();
  host.OpenChannel(offer, 1, 1);
  ASSERT_TRUE(host.Handle(UnloadBytes()).ok());
  EXPECT_THAT(host.events.Take(), ElementsAre("close 0"));
  EXPECT_THAT(host.Drain(), IsEmpty());
  EXPECT_EQ(host.Handle(UnloadBytes()).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(host.Handle(CloseMessage(1)).code(),
            StatusCode::kFailedPrecondition);
  ASSERT_TRUE(host.connection.CloseCompleted(offer).ok());
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kUnloadResponse));
  EXPECT_THAT(host.events.Take(), ElementsAre("disconnected"));
  EXPECT_THAT(host.connection.Snapshot().gpadls, IsEmpty());
}

// bad:C10
TEST(ServerUnloadTest, DuringAnOpenEndsItWithoutAnAnswer) {
  TestHost host;
  const OfferId offer = *host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest();
  host.Handle(GpadlMessage(1, 1)).IgnoreError();
  host.Handle(OpenMessage(1, 1)).IgnoreError();
  host.Drain();
  ASSERT_TRUE(host.Handle(UnloadBytes()).ok());
  EXPECT_THAT(host.events.Take(), ElementsAre("open 0"));
  ASSERT_TRUE(host.connection.OpenCompleted(offer, kStatusSuccess).ok());
  EXPECT_THAT(host.events.Take(), ElementsAre("close 0"));
  ASSERT_TRUE(host.connection.CloseCompleted(offer).ok());
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kUnloadResponse));
}

// bad:C18
TEST(ServerResetTest, ContactWhileOpenClosesEverythingFirst) {
  TestHost host;
  const OfferId first = *host.connection.AddOffer(TestOffer(1));
  const OfferId second = *host.connection.AddOffer(TestOffer(2));
  host.ConnectGuest();
  host.OpenChannel(first, 1, 1);
  host.OpenChannel(second, 2, 2);
  host.Handle(GpadlMessage(1, 3)).IgnoreError();  // an unread answer
  ASSERT_TRUE(host.Handle(ContactMessage(ProtocolVersion::kWin10)).ok());
  EXPECT_THAT(host.events.Take(), ElementsAre("close 0", "close 1"));
  EXPECT_THAT(host.Drain(), IsEmpty());
  EXPECT_EQ(host.connection.phase(), ConnectionPhase::kResetting);

  host.connection.CloseCompleted(first).IgnoreError();
  EXPECT_THAT(host.Drain(), IsEmpty());
  host.connection.CloseCompleted(second).IgnoreError();
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kVersionResponse));
  EXPECT_THAT(host.events.Take(), ElementsAre("disconnected", "connected 4.0"));
  EXPECT_FALSE(host.connection.FindOffer(first)->is_offered);

  // Nothing of before is there.
  EXPECT_EQ(host.Handle(OpenMessage(1, 1)).code(), StatusCode::kNotFound);
  host.Handle(RequestOffers()).IgnoreError();
  EXPECT_EQ(host.Handle(TeardownMessage(1, 1)).code(), StatusCode::kNotFound);
  EXPECT_EQ(host.Handle(OpenMessage(1, 1)).code(),
            StatusCode::kFailedPrecondition);
}

// bad:C18
TEST(ServerResetTest, WaitsForPins) {
  TestHost host;
  const OfferId offer = *host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest();
  host.OpenChannel(offer, 1, 1);
  host.Handle(GpadlMessage(1, 9)).IgnoreError();
  ASSERT_TRUE(host.connection.AcquireGpadl(offer, GpadlId{9}).ok());
  host.Drain();
  host.Handle(ContactMessage(ProtocolVersion::kIron)).IgnoreError();
  host.connection.CloseCompleted(offer).IgnoreError();
  EXPECT_THAT(host.Drain(), IsEmpty());
  ASSERT_TRUE(host.connection.ReleaseGpadl(offer, GpadlId{9}).ok());
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kVersionResponse));
}

// bad:C3
TEST(ServerResetTest, OnlyTheLastOfSeveralContactsIsAnswered) {
  TestHost host;
  const OfferId offer = *host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest();
  host.OpenChannel(offer, 1, 1);
  host.Handle(ContactMessage(ProtocolVersion::kIron)).IgnoreError();
  host.Handle(UnloadBytes()).IgnoreError();
  host.Handle(ContactMessage(ProtocolVersion::kWin81)).IgnoreError();
  EXPECT_THAT(host.events.Take(), ElementsAre("close 0"));
  host.connection.CloseCompleted(offer).IgnoreError();
  const VersionResponseMessage response = TakeVersionResponse(host);
  EXPECT_EQ(response.version_or_connection_id, 0x30000u);
}

TEST(ServerResetTest, UnloadWithdrawsAContactThatWaits) {
  TestHost host;
  const OfferId offer = *host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest();
  host.OpenChannel(offer, 1, 1);
  host.Handle(ContactMessage(ProtocolVersion::kIron)).IgnoreError();
  ASSERT_TRUE(host.Handle(UnloadBytes()).ok());
  host.connection.CloseCompleted(offer).IgnoreError();
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kUnloadResponse));
  EXPECT_EQ(host.connection.phase(), ConnectionPhase::kDisconnected);
}

TEST(ServerResetTest, UnknownVersionResetsAsWell) {
  TestHost host;
  const OfferId offer = *host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest();
  host.OpenChannel(offer, 1, 1);
  host.Handle(ContactMessage(ProtocolVersion{0x70000})).IgnoreError();
  EXPECT_THAT(host.events.Take(), ElementsAre("close 0"));
  host.connection.CloseCompleted(offer).IgnoreError();
  EXPECT_EQ(TakeVersionResponse(host).version_supported, 0);
}

TEST(ServerResetTest, DevicesMayAnswerFromInsideTheEvent) {
  TestHost host;
  host.events.answer_opens = &host.connection;
  host.events.answer_closes = &host.connection;
  (void)host.connection.AddOffer(TestOffer(1));
  (void)host.connection.AddOffer(TestOffer(2));
  host.ConnectGuest();
  host.Handle(GpadlMessage(1, 1)).IgnoreError();
  host.Handle(OpenMessage(1, 1)).IgnoreError();
  host.Handle(GpadlMessage(2, 2)).IgnoreError();
  host.Handle(OpenMessage(2, 2)).IgnoreError();
  EXPECT_THAT(host.DrainTypes(), ElementsAre(10, kOpenResult, 10, kOpenResult));
  host.events.Take();
  host.Handle(ContactMessage(ProtocolVersion::kIron)).IgnoreError();
  EXPECT_THAT(host.events.Take(), ElementsAre("close 0", "close 1",
                                              "disconnected", "connected 5.3"));
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kVersionResponse));
}

TEST(ServerResetTest, DisconnectIsSilent) {
  TestHost host;
  const OfferId offer = *host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest();
  host.OpenChannel(offer, 1, 1);
  host.connection.Disconnect();
  EXPECT_THAT(host.events.Take(), ElementsAre("close 0"));
  host.connection.CloseCompleted(offer).IgnoreError();
  EXPECT_THAT(host.events.Take(), ElementsAre("disconnected"));
  EXPECT_THAT(host.Drain(), IsEmpty());
}

TEST(ServerResetTest, RescindDuringAResetRemovesTheOffer) {
  TestHost host;
  const OfferId offer = *host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest();
  host.OpenChannel(offer, 1, 1);
  host.Handle(ContactMessage(ProtocolVersion::kIron)).IgnoreError();
  ASSERT_TRUE(host.connection.RescindOffer(offer).ok());
  EXPECT_THAT(host.events.Take(), ElementsAre("close 0"));
  host.connection.CloseCompleted(offer).IgnoreError();
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kVersionResponse));
  EXPECT_EQ(host.connection.FindOffer(offer), std::nullopt);
}

// Found by channel_messages_fuzz: the state in between could not be restored.
TEST(ServerResetTest, RescindDuringAResetTakesTheGpadlsAlong) {
  TestHost host;
  const OfferId first = *host.connection.AddOffer(TestOffer(1));
  const OfferId second = *host.connection.AddOffer(TestOffer(2));
  host.ConnectGuest();
  host.OpenChannel(first, 1, 1);
  host.Handle(GpadlMessage(2, 2)).IgnoreError();
  host.Handle(UnloadBytes()).IgnoreError();
  ASSERT_TRUE(host.connection.RescindOffer(second).ok());
  const ServerConnectionState state = host.connection.Snapshot();
  EXPECT_EQ(state.gpadls.size(), 1u);
  EXPECT_TRUE(CheckServerConnectionState(state, TestServerOptions()).ok());
}

// --- Back-pressure ----------------------------------------------------------

// bad:C13
TEST(ServerQueueTest, TakesNoMessageThatItCouldNotAnswer) {
  ServerConnectionOptions options = TestServerOptions();
  options.limits.channels_max = 2;
  options.limits.gpadls_max = 4;
  options.limits.outgoing_messages_max = 1;  // raised to what is needed
  TestHost host(options);
  (void)host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest();
  int accepted = 0;
  while (host.connection.can_accept_message()) {
    ASSERT_LT(accepted, 1000);
    // Refused, and answered.
    EXPECT_FALSE(host.Handle(OpenMessage(1, 0xdead)).ok());
    ++accepted;
  }
  EXPECT_EQ(accepted, static_cast<int>(OutgoingMessagesMax(options.limits)));
  const ServerCounters before = host.connection.counters();
  EXPECT_EQ(host.Handle(CloseMessage(1)).code(), StatusCode::kUnavailable);
  EXPECT_EQ(host.connection.counters().messages_handled,
            before.messages_handled);
  // Nothing was dropped, and one taken message makes room for one.
  host.connection.PopOutgoing();
  EXPECT_TRUE(host.connection.can_accept_message());
  EXPECT_EQ(host.Drain().size(), static_cast<size_t>(accepted) - 1);
}

// bad:C13
TEST(ServerQueueTest, KeepsRoomForAnswersThatDevicesOwe) {
  ServerConnectionOptions options = TestServerOptions();
  options.limits.channels_max = 2;
  options.limits.gpadls_max = 4;
  options.limits.outgoing_messages_max = 1;
  TestHost host(options);
  const OfferId first = *host.connection.AddOffer(TestOffer(1));
  const OfferId second = *host.connection.AddOffer(TestOffer(2));
  host.ConnectGuest();
  host.OpenChannel(first, 1, 1);
  host.Handle(TeardownMessage(1, 1)).IgnoreError();  // owed: GPADL_TORNDOWN
  host.Handle(GpadlMessage(2, 2)).IgnoreError();
  host.Handle(OpenMessage(2, 2)).IgnoreError();  // owed: OPENCHANNEL_RESULT
  host.Drain();
  while (host.connection.can_accept_message()) {
    host.Handle(OpenMessage(1, 0xdead)).IgnoreError();
  }
  host.connection.OpenCompleted(second, kStatusSuccess).IgnoreError();
  host.connection.RescindOffer(first).IgnoreError();
  host.connection.CloseCompleted(first).IgnoreError();
  // One more: the rescind, which comes once for each channel.
  EXPECT_EQ(host.Drain().size(), OutgoingMessagesMax(options.limits) + 1);
}

TEST(ServerQueueTest, FrontStaysUntilItIsPopped) {
  TestHost host;
  host.Handle(ContactMessage(ProtocolVersion::kIron)).IgnoreError();
  ASSERT_TRUE(host.connection.has_outgoing());
  const std::string first = ToHex(host.connection.outgoing_front());
  EXPECT_EQ(ToHex(host.connection.outgoing_front()), first);
  host.connection.PopOutgoing();
  EXPECT_FALSE(host.connection.has_outgoing());
}

}  // namespace
}  // namespace ferrybus
