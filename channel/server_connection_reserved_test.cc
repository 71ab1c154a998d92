// SPDX-License-Identifier: MIT
//
// Channels that a guest opens for the time when it crashes.
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
constexpr uint32_t kAllOffers = 4;
constexpr uint32_t kOpenResult = 6;
constexpr uint32_t kVersionResponse = 15;
constexpr uint32_t kUnloadResponse = 17;

class ServerReservedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    offer_ = *host_.connection.AddOffer(TestOffer(1));
    other_ = *host_.connection.AddOffer(TestOffer(2));
    host_.ConnectGuest();
    host_.Handle(GpadlMessage(1, 7)).IgnoreError();
    host_.Drain();
  }
  void OpenReserved() {
    ASSERT_TRUE(host_.Handle(OpenReservedMessage(1, 7)).ok());
    ASSERT_TRUE(host_.connection.OpenCompleted(offer_, kStatusSuccess).ok());
    host_.Drain();
    host_.events.Take();
  }
  void CloseDevice(OfferId offer) {
    ASSERT_TRUE(host_.connection.CloseCompleted(offer).ok());
  }
  ServerChannelState state() const {
    return host_.connection.FindOffer(offer_)->state;
  }
  bool IsValid() const {
    return CheckServerConnectionState(host_.connection.Snapshot(),
                                      TestServerOptions())
        .ok();
  }

  TestHost host_;
  OfferId offer_{};
  OfferId other_{};
};

// vector:M33
TEST_F(ServerReservedTest, OpensAndClosesWithAnswersWhereTheGuestWantsThem) {
  ASSERT_TRUE(host_.Handle(OpenReservedMessage(1, 7, 3, 9)).ok());
  EXPECT_THAT(host_.events.Take(), ElementsAre("open 0"));
  ASSERT_TRUE(host_.connection.OpenCompleted(offer_, kStatusSuccess).ok());
  ASSERT_TRUE(host_.connection.has_outgoing());
  EXPECT_EQ(host_.connection.outgoing_target(), (MessageTarget{3, 9}));
  EXPECT_EQ(ToHex(host_.Drain()[0]),
            "0600000000000000010000000000000000000000");
  EXPECT_TRUE(host_.connection.FindOffer(offer_)->is_reserved);

  ASSERT_TRUE(host_.Handle(CloseReservedMessage(1, 2, 4)).ok());
  EXPECT_THAT(host_.events.Take(), ElementsAre("close 0"));
  EXPECT_THAT(host_.Drain(), IsEmpty());
  CloseDevice(offer_);
  ASSERT_TRUE(host_.connection.has_outgoing());
  EXPECT_EQ(host_.connection.outgoing_target(), (MessageTarget{2, 4}));
  EXPECT_EQ(ToHex(host_.Drain()[0]), "140000000000000001000000");
  EXPECT_EQ(state(), ServerChannelState::kClosed);
  EXPECT_FALSE(host_.connection.FindOffer(offer_)->is_reserved);
  // An ordinary channel again.
  EXPECT_TRUE(host_.Handle(OpenMessage(1, 7)).ok());
  EXPECT_EQ(host_.connection.contact().target_message_vp, 0u);
}

TEST_F(ServerReservedTest, NeedsItsVersion) {
  TestHost host;
  (void)host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest(ProtocolVersion::kWin81);
  host.Handle(GpadlMessage(1, 7)).IgnoreError();
  EXPECT_EQ(host.Handle(OpenReservedMessage(1, 7)).code(),
            StatusCode::kUnimplemented);
  host.ConnectGuest(ProtocolVersion::kWin10);
  host.Handle(GpadlMessage(1, 7)).IgnoreError();
  EXPECT_TRUE(host.Handle(OpenReservedMessage(1, 7)).ok());
}

TEST_F(ServerReservedTest, AnswersABadOpenAndDoesNothing) {
  const Bytes kBad[] = {
      OpenReservedMessage(99, 7),  // not offered
      OpenReservedMessage(2, 7),   // another channel's GPADL
      OpenReservedMessage(1, 8),   // no GPADL
  };
  for (const Bytes& message : kBad) {
    EXPECT_FALSE(host_.Handle(message).ok());
    const std::vector<Bytes> messages = host_.Drain();
    ASSERT_EQ(messages.size(), 1u);
    EXPECT_EQ(Read<OpenChannelResultMessage>(messages[0]).status,
              kStatusUnsuccessful);
  }
  // Nowhere to answer to.
  EXPECT_FALSE(host_.Handle(OpenReservedMessage(1, 7, kTestMaxVp + 1)).ok());
  EXPECT_FALSE(host_.Handle(OpenReservedMessage(1, 7, 0, 16)).ok());
  EXPECT_THAT(host_.Drain(), IsEmpty());
  EXPECT_THAT(host_.events.Take(), IsEmpty());
  EXPECT_EQ(state(), ServerChannelState::kClosed);
}

TEST_F(ServerReservedTest, OrdinaryMessagesDoNotTouchIt) {
  OpenReserved();
  EXPECT_EQ(host_.Handle(CloseMessage(1)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(host_.Handle(OpenMessage(1, 7)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(host_.Handle(OpenReservedMessage(1, 7)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(host_.Handle(ModifyMessage(1, 1)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(host_.Handle(ReleaseMessage(1)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(host_.Handle(GpadlMessage(1, 8)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_THAT(host_.DrainTypes(),
              ElementsAre(kOpenResult, kOpenResult, 24, 10));
  EXPECT_EQ(state(), ServerChannelState::kOpen);
  // Nor the other way round.
  host_.OpenChannel(other_, 2, 2);
  EXPECT_EQ(host_.Handle(CloseReservedMessage(2)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(host_.Handle(CloseReservedMessage(99)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_THAT(host_.Drain(), IsEmpty());
}

// bad:C10
TEST_F(ServerReservedTest, OutlivesUnloadAndIsClosedWhileDisconnected) {
  OpenReserved();
  host_.OpenChannel(other_, 2, 2);
  ASSERT_TRUE(host_.Handle(UnloadBytes()).ok());
  EXPECT_THAT(host_.events.Take(), ElementsAre("close 1"));
  EXPECT_TRUE(IsValid());
  CloseDevice(other_);
  EXPECT_THAT(host_.DrainTypes(), ElementsAre(kUnloadResponse));
  EXPECT_THAT(host_.events.Take(), ElementsAre("disconnected"));
  EXPECT_EQ(host_.connection.phase(), ConnectionPhase::kDisconnected);
  EXPECT_EQ(state(), ServerChannelState::kOpen);
  EXPECT_EQ(host_.connection.RingGpadl(offer_)->id, GpadlId{7});
  EXPECT_TRUE(host_.connection.AcquireGpadl(offer_, GpadlId{7}).ok());
  EXPECT_TRUE(IsValid());
  EXPECT_EQ(host_.connection.FindOfferByConnectionId(0x2001), offer_);

  ASSERT_TRUE(host_.Handle(CloseReservedMessage(1)).ok());
  CloseDevice(offer_);
  EXPECT_THAT(host_.Drain(), IsEmpty());  // pinned
  ASSERT_TRUE(host_.connection.ReleaseGpadl(offer_, GpadlId{7}).ok());
  EXPECT_EQ(host_.connection.outgoing_target(), (MessageTarget{2, 6}));
  EXPECT_THAT(host_.DrainTypes(), ElementsAre(20));
  EXPECT_THAT(host_.connection.Snapshot().gpadls, IsEmpty());
}

// bad:C18
TEST_F(ServerReservedTest, TheNextKernelMayUseTheSameGpadlIds) {
  OpenReserved();
  ASSERT_TRUE(host_.Handle(ContactMessage(ProtocolVersion::kWin7)).ok());
  ASSERT_TRUE(host_.Handle(RequestOffers()).ok());
  // In use: not offered.
  EXPECT_THAT(host_.DrainTypes(),
              ElementsAre(kVersionResponse, kOffer, kAllOffers));
  ASSERT_TRUE(host_.Handle(GpadlMessage(2, 7)).ok());
  ASSERT_TRUE(host_.Handle(OpenMessage(2, 7)).ok());
  ASSERT_TRUE(host_.connection.OpenCompleted(other_, kStatusSuccess).ok());
  EXPECT_TRUE(IsValid());
  EXPECT_EQ(host_.Handle(TeardownMessage(1, 7)).code(), StatusCode::kNotFound);
  EXPECT_EQ(host_.Handle(OpenMessage(1, 7)).code(), StatusCode::kNotFound);
  EXPECT_EQ(host_.connection.RingGpadl(offer_)->channel_id, ChannelId{1});
  EXPECT_EQ(host_.connection.RingGpadl(other_)->channel_id, ChannelId{2});
  host_.Drain();
  host_.events.Take();

  // Closed, it is offered like a hot add; its GPADLs are gone.
  ASSERT_TRUE(host_.Handle(CloseReservedMessage(1)).ok());
  CloseDevice(offer_);
  EXPECT_THAT(host_.DrainTypes(), ElementsAre(20, kOffer));
  EXPECT_EQ(host_.connection.Snapshot().gpadls.size(), 1u);
  ASSERT_TRUE(host_.Handle(GpadlMessage(1, 8)).ok());
  EXPECT_TRUE(host_.Handle(OpenMessage(1, 8)).ok());
}

TEST_F(ServerReservedTest, SubChannelsWaitForTheirPrimary) {
  (void)host_.connection.AddOffer(TestOffer(1, 1));
  host_.Drain();
  EXPECT_EQ(host_.Handle(OpenReservedMessage(3, 7)).code(),
            StatusCode::kInvalidArgument);
  host_.Drain();
  OpenReserved();
  host_.ConnectGuest();
  EXPECT_FALSE(host_.connection.FindOffer(offer_)->is_offered);
  EXPECT_FALSE(host_.connection.FindOffer(OfferId{2})->is_offered);
  host_.Handle(CloseReservedMessage(1)).IgnoreError();
  CloseDevice(offer_);
  EXPECT_THAT(host_.DrainTypes(), ElementsAre(20, kOffer, kOffer));
}

TEST_F(ServerReservedTest, AnswersSurviveAReset) {
  ASSERT_TRUE(host_.Handle(OpenReservedMessage(1, 7)).ok());
  ASSERT_TRUE(host_.Handle(UnloadBytes()).ok());
  ASSERT_TRUE(host_.connection.OpenCompleted(offer_, kStatusSuccess).ok());
  EXPECT_TRUE(IsValid());
  ASSERT_TRUE(host_.Handle(ContactMessage(ProtocolVersion::kIron)).ok());
  EXPECT_TRUE(IsValid());
  EXPECT_THAT(host_.DrainTypes(), ElementsAre(kOpenResult, kVersionResponse));
}

TEST_F(ServerReservedTest, AResetOfTheMachineEndsIt) {
  OpenReserved();
  host_.Handle(UnloadBytes()).IgnoreError();
  host_.Drain();
  host_.events.Take();
  host_.connection.Disconnect();
  EXPECT_THAT(host_.events.Take(), ElementsAre("close 0"));
  EXPECT_TRUE(IsValid());
  EXPECT_EQ(host_.Handle(CloseReservedMessage(1)).code(),
            StatusCode::kFailedPrecondition);
  CloseDevice(offer_);
  EXPECT_EQ(host_.connection.phase(), ConnectionPhase::kDisconnected);
  EXPECT_THAT(host_.Drain(), IsEmpty());
  EXPECT_THAT(host_.connection.Snapshot().gpadls, IsEmpty());
}

TEST_F(ServerReservedTest, ClosedWithoutAnAnswerWhenThereIsNowhereToSendIt) {
  OpenReserved();
  EXPECT_EQ(host_.Handle(CloseReservedMessage(1, kTestMaxVp + 1)).code(),
            StatusCode::kInvalidArgument);
  EXPECT_THAT(host_.events.Take(), ElementsAre("close 0"));
  EXPECT_TRUE(IsValid());
  CloseDevice(offer_);
  EXPECT_THAT(host_.Drain(), IsEmpty());
  EXPECT_EQ(state(), ServerChannelState::kClosed);
}

TEST_F(ServerReservedTest, RescindIsAnsweredToWhoeverIsThere) {
  OpenReserved();
  ASSERT_TRUE(host_.connection.RescindOffer(offer_).ok());
  ASSERT_TRUE(host_.Handle(CloseReservedMessage(1)).ok());
  EXPECT_EQ(host_.Handle(CloseReservedMessage(1)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_TRUE(IsValid());
  CloseDevice(offer_);
  EXPECT_THAT(host_.DrainTypes(), ElementsAre(20, 2));
  ASSERT_TRUE(host_.Handle(ReleaseMessage(1)).ok());

  // Nobody knows the channel of a guest that has gone.
  const OfferId again = *host_.connection.AddOffer(TestOffer(1));
  host_.Handle(GpadlMessage(1, 9)).IgnoreError();
  host_.Handle(OpenReservedMessage(1, 9)).IgnoreError();
  host_.connection.OpenCompleted(again, kStatusSuccess).IgnoreError();
  host_.Handle(UnloadBytes()).IgnoreError();
  host_.Drain();
  ASSERT_TRUE(host_.connection.RescindOffer(again).ok());
  CloseDevice(again);
  EXPECT_EQ(host_.connection.FindOffer(again), std::nullopt);
  EXPECT_THAT(host_.Drain(), IsEmpty());
  EXPECT_TRUE(IsValid());
}

TEST(ServerReservedLimitTest, ReservedChannelsAreCapped) {
  ServerConnectionOptions options = TestServerOptions();
  options.limits.reserved_channels_max = 1;
  TestHost host(options);
  host.events.answer_opens = &host.connection;
  for (uint8_t i = 1; i <= 2; ++i) {
    (void)host.connection.AddOffer(TestOffer(i));
  }
  host.ConnectGuest();
  for (uint32_t i = 1; i <= 2; ++i) {
    host.Handle(GpadlMessage(i, i)).IgnoreError();
    EXPECT_EQ(host.Handle(OpenReservedMessage(i, i)).code(),
              i == 1 ? StatusCode::kOk : StatusCode::kResourceExhausted);
  }
  // Not even over many connections.
  host.ConnectGuest();
  host.Handle(GpadlMessage(2, 2)).IgnoreError();
  EXPECT_EQ(host.Handle(OpenReservedMessage(2, 2)).code(),
            StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace ferrybus
