// SPDX-License-Identifier: MIT
//
// Channels and GPADLs of a ServerConnection: open, close, modify, rescind,
// teardown, pins.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/channel/server_connection.h"

namespace ferrybus {
namespace {

using ::absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint32_t kRescind = 2;
constexpr uint32_t kOpenResult = 6;
constexpr uint32_t kCreated = 10;
constexpr uint32_t kTorndown = 12;
constexpr uint32_t kModifyResponse = 24;
constexpr GpadlId kGpadl{7};

// A connected guest with two offered channels, 1 and 2, and GPADL 7 (4 pages)
// on channel 1.
class ServerChannelTest : public ::testing::Test {
 protected:
  explicit ServerChannelTest(ProtocolVersion version = ProtocolVersion::kIron) {
    host_.ConnectGuest(version);
    EXPECT_TRUE(host_.Handle(GpadlMessage(1, 7)).ok());
    host_.Drain();
  }

  ServerChannelState state() {
    return host_.connection.FindOffer(offer_)->state;
  }
  // The only outgoing message is an OPENCHANNEL_RESULT.
  OpenChannelResultMessage TakeOpenResult() {
    const std::vector<Bytes> messages = host_.Drain();
    EXPECT_EQ(messages.size(), 1u);
    if (messages.empty()) return {};
    EXPECT_EQ(TypeOf(messages[0]), kOpenResult);
    EXPECT_EQ(messages[0].size(), 20u);
    return Read<OpenChannelResultMessage>(messages[0]);
  }
  void Open() {
    EXPECT_TRUE(host_.Handle(OpenMessage(1, 7)).ok());
    EXPECT_TRUE(host_.connection.OpenCompleted(offer_, kStatusSuccess).ok());
    EXPECT_EQ(state(), ServerChannelState::kOpen);
    host_.Drain();
    host_.events.Take();
  }
  void OpenOther() { host_.OpenChannel(other_, 2, 8); }

  TestHost host_;
  OfferId offer_ = *host_.connection.AddOffer(TestOffer(1));
  OfferId other_ = *host_.connection.AddOffer(TestOffer(2));
};

// --- Open -------------------------------------------------------------------

TEST_F(ServerChannelTest, OpensWhenTheDeviceSaysSo) {
  ASSERT_TRUE(host_.Handle(OpenMessage(1, 7, 2, 0xabc, 3)).ok());
  EXPECT_THAT(host_.events.Take(), ElementsAre("open 0"));
  EXPECT_THAT(host_.Drain(), IsEmpty());
  EXPECT_EQ(state(), ServerChannelState::kOpening);
  const OpenRequest* request = host_.connection.open_request(offer_);
  ASSERT_NE(request, nullptr);
  EXPECT_EQ(request->ring_gpadl, kGpadl);
  EXPECT_EQ(request->downstream_page_offset, 2u);
  EXPECT_EQ(request->target_vp, 3u);
  EXPECT_EQ(host_.connection.RingGpadl(offer_)->pages.size(), 4u);

  ASSERT_TRUE(host_.connection.OpenCompleted(offer_, kStatusSuccess).ok());
  const OpenChannelResultMessage result = TakeOpenResult();
  EXPECT_EQ(result.channel_id, ChannelId{1});
  EXPECT_EQ(result.open_id, 0xabcu);
  EXPECT_EQ(result.status, 0u);
  EXPECT_EQ(state(), ServerChannelState::kOpen);
  EXPECT_EQ(host_.connection.OpenCompleted(offer_, 0).code(),
            StatusCode::kFailedPrecondition);
}

TEST_F(ServerChannelTest, StaysClosedWhenTheDeviceRefuses) {
  ASSERT_TRUE(host_.Handle(OpenMessage(1, 7)).ok());
  ASSERT_TRUE(host_.connection.OpenCompleted(offer_, 5).ok());
  EXPECT_EQ(TakeOpenResult().status, 5u);
  EXPECT_EQ(state(), ServerChannelState::kClosed);
  EXPECT_FALSE(host_.connection.RingGpadl(offer_).ok());
  Open();
}

// bad:C5
TEST_F(ServerChannelTest, AnswersEachBadOpenAndDoesNothing) {
  ASSERT_TRUE(host_.Handle(GpadlMessage(2, 8)).ok());
  ASSERT_TRUE(host_.Handle(GpadlMessages(1, 9, 40, 0x200)[0]).ok());
  ASSERT_TRUE(host_.Handle(GpadlMessage(1, 10, 3)).ok());
  host_.Drain();
  const struct {
    const char* what;
    Bytes message;
  } kCases[] = {
      {"channel 0", OpenMessage(0, 7)},
      {"unknown channel", OpenMessage(3, 7)},
      {"huge channel", OpenMessage(0xffffffff, 7)},
      {"unknown GPADL", OpenMessage(1, 99)},
      {"GPADL of another channel", OpenMessage(1, 8)},
      {"unfinished GPADL", OpenMessage(1, 9)},
      {"page offset 0", OpenMessage(1, 7, 0)},
      {"ring of one page", OpenMessage(1, 7, 1)},
      {"second ring of one page", OpenMessage(1, 7, 3)},
      {"page offset at the end", OpenMessage(1, 7, 4)},
      {"page offset beyond", OpenMessage(1, 7, 0xffffffff)},
      {"three pages", OpenMessage(1, 10, 2)},
      {"VP out of range", OpenMessage(1, 7, 2, 77, kTestMaxVp + 1)},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.what);
    EXPECT_FALSE(host_.Handle(c.message).ok());
    const OpenChannelResultMessage result = TakeOpenResult();
    EXPECT_EQ(result.status, kStatusUnsuccessful);
    EXPECT_EQ(result.open_id, 77u);
    EXPECT_EQ(result.channel_id,
              Read<OpenChannelMessage>(c.message).channel_id);
    EXPECT_EQ(state(), ServerChannelState::kClosed);
  }
  EXPECT_THAT(host_.events.Take(), IsEmpty());
}

// bad:C5
TEST_F(ServerChannelTest, AnswersASecondOpenWithFailure) {
  ASSERT_TRUE(host_.Handle(OpenMessage(1, 7)).ok());
  EXPECT_FALSE(host_.Handle(OpenMessage(1, 7)).ok());
  EXPECT_EQ(TakeOpenResult().status, kStatusUnsuccessful);
  host_.connection.OpenCompleted(offer_, kStatusSuccess).IgnoreError();
  EXPECT_EQ(TakeOpenResult().status, kStatusSuccess);
  EXPECT_FALSE(host_.Handle(OpenMessage(1, 7)).ok());
  EXPECT_EQ(TakeOpenResult().status, kStatusUnsuccessful);
  EXPECT_EQ(state(), ServerChannelState::kOpen);
  EXPECT_THAT(host_.events.Take(), ElementsAre("open 0"));
}

TEST_F(ServerChannelTest, OpenWithoutInterruptsIsAllowed) {
  ASSERT_TRUE(host_.Handle(OpenMessage(1, 7, 2, 77, kNoInterruptVp)).ok());
  EXPECT_EQ(host_.connection.FindOffer(offer_)->target_vp, kNoInterruptVp);
}

// --- Close ------------------------------------------------------------------

// bad:C6
TEST_F(ServerChannelTest, CloseIsErrorUnlessOpenOrOpening) {
  EXPECT_EQ(host_.Handle(CloseMessage(9)).code(), StatusCode::kNotFound);
  EXPECT_EQ(host_.Handle(CloseMessage(1)).code(),
            StatusCode::kFailedPrecondition);
  Open();
  ASSERT_TRUE(host_.Handle(CloseMessage(1)).ok());
  EXPECT_THAT(host_.events.Take(), ElementsAre("close 0"));
  EXPECT_EQ(host_.Handle(CloseMessage(1)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_THAT(host_.events.Take(), IsEmpty());
  ASSERT_TRUE(host_.connection.CloseCompleted(offer_).ok());
  EXPECT_EQ(host_.connection.CloseCompleted(offer_).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(state(), ServerChannelState::kClosed);
  EXPECT_THAT(host_.Drain(), IsEmpty());
  Open();
}

// bad:C6
TEST_F(ServerChannelTest, CloseWhileOpeningWaitsThenCloses) {
  ASSERT_TRUE(host_.Handle(OpenMessage(1, 7)).ok());
  host_.events.Take();
  ASSERT_TRUE(host_.Handle(CloseMessage(1)).ok());
  EXPECT_EQ(host_.Handle(CloseMessage(1)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_THAT(host_.events.Take(), IsEmpty());
  ASSERT_TRUE(host_.connection.OpenCompleted(offer_, kStatusSuccess).ok());
  EXPECT_EQ(TakeOpenResult().status, kStatusSuccess);
  EXPECT_THAT(host_.events.Take(), ElementsAre("close 0"));
  ASSERT_TRUE(host_.connection.CloseCompleted(offer_).ok());
  EXPECT_EQ(state(), ServerChannelState::kClosed);
}

TEST_F(ServerChannelTest, OpenWhileClosingIsRemembered) {
  Open();
  host_.Handle(CloseMessage(1)).IgnoreError();
  ASSERT_TRUE(host_.Handle(OpenMessage(1, 7, 2, 55)).ok());
  EXPECT_EQ(state(), ServerChannelState::kClosingThenOpen);
  EXPECT_FALSE(host_.Handle(OpenMessage(1, 7, 2, 56)).ok());
  EXPECT_EQ(TakeOpenResult().open_id, 56u);
  EXPECT_THAT(host_.events.Take(), ElementsAre("close 0"));
  ASSERT_TRUE(host_.connection.CloseCompleted(offer_).ok());
  EXPECT_THAT(host_.events.Take(), ElementsAre("open 0"));
  ASSERT_TRUE(host_.connection.OpenCompleted(offer_, kStatusSuccess).ok());
  EXPECT_EQ(TakeOpenResult().open_id, 55u);
}

TEST_F(ServerChannelTest, RememberedOpenIsCheckedWhenItsTurnComes) {
  Open();
  host_.Handle(CloseMessage(1)).IgnoreError();
  host_.Handle(OpenMessage(1, 7)).IgnoreError();
  host_.Handle(TeardownMessage(1, 7)).IgnoreError();
  host_.events.Take();
  ASSERT_TRUE(host_.connection.CloseCompleted(offer_).ok());
  EXPECT_THAT(host_.events.Take(), IsEmpty());
  EXPECT_THAT(host_.DrainTypes(), ElementsAre(kTorndown, kOpenResult));
  EXPECT_EQ(state(), ServerChannelState::kClosed);
}

TEST_F(ServerChannelTest, CloseWithdrawsARememberedOpen) {
  Open();
  host_.Handle(CloseMessage(1)).IgnoreError();
  host_.Handle(OpenMessage(1, 7, 2, 55)).IgnoreError();
  ASSERT_TRUE(host_.Handle(CloseMessage(1)).ok());
  const OpenChannelResultMessage result = TakeOpenResult();
  EXPECT_EQ(result.open_id, 55u);
  EXPECT_EQ(result.status, kStatusUnsuccessful);
  host_.connection.CloseCompleted(offer_).IgnoreError();
  EXPECT_EQ(state(), ServerChannelState::kClosed);
}

// bad:C15
TEST_F(ServerChannelTest, SubChannelsOpenAfterAndCloseWithTheirPrimary) {
  const OfferId sub = *host_.connection.AddOffer(TestOffer(1, 1));
  host_.Handle(GpadlMessage(3, 30)).IgnoreError();
  host_.Drain();
  EXPECT_EQ(host_.Handle(OpenMessage(3, 30)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(TakeOpenResult().status, kStatusUnsuccessful);
  Open();
  ASSERT_TRUE(host_.Handle(OpenMessage(3, 30)).ok());
  host_.connection.OpenCompleted(sub, kStatusSuccess).IgnoreError();
  host_.events.Take();
  ASSERT_TRUE(host_.Handle(CloseMessage(1)).ok());
  EXPECT_THAT(host_.events.Take(), ElementsAre("close 2", "close 0"));
}

// --- Rescind and release ----------------------------------------------------

TEST_F(ServerChannelTest, RescindClosesTheDeviceFirst) {
  Open();
  ASSERT_TRUE(host_.connection.RescindOffer(offer_).ok());
  EXPECT_THAT(host_.events.Take(), ElementsAre("close 0"));
  EXPECT_THAT(host_.Drain(), IsEmpty());
  ASSERT_TRUE(host_.connection.CloseCompleted(offer_).ok());
  const std::vector<Bytes> messages = host_.Drain();
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(ToHex(messages[0]), "020000000000000001000000");
  EXPECT_EQ(state(), ServerChannelState::kRescinded);
}

TEST_F(ServerChannelTest, RescindedChannelIgnoresOpenCloseModify) {
  host_.connection.RescindOffer(offer_).IgnoreError();
  host_.Drain();
  EXPECT_TRUE(host_.Handle(OpenMessage(1, 7)).ok());
  EXPECT_TRUE(host_.Handle(CloseMessage(1)).ok());
  EXPECT_TRUE(host_.Handle(ModifyMessage(1, 0)).ok());
  EXPECT_EQ(host_.connection.counters().messages_ignored, 3u);
  EXPECT_THAT(host_.Drain(), IsEmpty());
  EXPECT_THAT(host_.events.Take(), IsEmpty());
}

TEST_F(ServerChannelTest, RescindedChannelStillAnswersForGpadls) {
  host_.connection.RescindOffer(offer_).IgnoreError();
  host_.Drain();
  EXPECT_TRUE(host_.Handle(GpadlMessage(1, 20)).ok());
  EXPECT_TRUE(host_.Handle(TeardownMessage(1, 20)).ok());
  EXPECT_TRUE(host_.Handle(TeardownMessage(1, 7)).ok());
  EXPECT_THAT(host_.DrainTypes(), ElementsAre(kCreated, kTorndown, kTorndown));
  EXPECT_TRUE(host_.Handle(ReleaseMessage(1)).ok());
}

// bad:C7
TEST_F(ServerChannelTest, ReleaseIsErrorUnlessRescinded) {
  EXPECT_EQ(host_.Handle(ReleaseMessage(1)).code(),
            StatusCode::kFailedPrecondition);
  Open();
  EXPECT_EQ(host_.Handle(ReleaseMessage(1)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(state(), ServerChannelState::kOpen);
  host_.connection.RescindOffer(offer_).IgnoreError();
  EXPECT_EQ(host_.Handle(ReleaseMessage(1)).code(),
            StatusCode::kFailedPrecondition);
  host_.connection.CloseCompleted(offer_).IgnoreError();
  EXPECT_TRUE(host_.Handle(ReleaseMessage(1)).ok());
  EXPECT_EQ(host_.Handle(ReleaseMessage(1)).code(), StatusCode::kNotFound);
  EXPECT_EQ(host_.Handle(ReleaseMessage(9)).code(), StatusCode::kNotFound);
}

TEST_F(ServerChannelTest, ReleaseDropsTheGpadlsOfTheChannelOnly) {
  ASSERT_TRUE(host_.Handle(GpadlMessage(2, 8)).ok());
  host_.connection.RescindOffer(offer_).IgnoreError();
  ASSERT_TRUE(host_.Handle(ReleaseMessage(1)).ok());
  const ServerConnectionState state = host_.connection.Snapshot();
  ASSERT_EQ(state.gpadls.size(), 1u);
  EXPECT_EQ(state.gpadls[0].id, GpadlId{8});
}

TEST_F(ServerChannelTest, RescindWhileOpeningOrReopening) {
  ASSERT_TRUE(host_.Handle(OpenMessage(1, 7)).ok());
  ASSERT_TRUE(host_.connection.RescindOffer(offer_).ok());
  EXPECT_THAT(host_.events.Take(), ElementsAre("open 0"));
  ASSERT_TRUE(host_.connection.OpenCompleted(offer_, kStatusSuccess).ok());
  EXPECT_THAT(host_.events.Take(), ElementsAre("close 0"));
  ASSERT_TRUE(host_.Handle(OpenMessage(1, 7)).ok());  // ignored
  ASSERT_TRUE(host_.connection.CloseCompleted(offer_).ok());
  EXPECT_THAT(host_.DrainTypes(), ElementsAre(kOpenResult, kRescind));

  OpenOther();
  host_.Handle(CloseMessage(2)).IgnoreError();
  host_.Handle(OpenMessage(2, 8)).IgnoreError();
  host_.events.Take();
  ASSERT_TRUE(host_.connection.RescindOffer(other_).ok());
  EXPECT_THAT(host_.events.Take(), IsEmpty());
  ASSERT_TRUE(host_.connection.CloseCompleted(other_).ok());
  EXPECT_THAT(host_.DrainTypes(), ElementsAre(kRescind));
}

// --- Modify -----------------------------------------------------------------

// vector:M22
// bad:C8
TEST_F(ServerChannelTest, ModifyMovesTheInterrupts) {
  Open();
  ASSERT_TRUE(host_.Handle(ModifyMessage(1, 3)).ok());
  EXPECT_THAT(host_.events.Take(), ElementsAre("modify 0 3"));
  const std::vector<Bytes> messages = host_.Drain();
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(ToHex(messages[0]), "18000000000000000100000000000000");
  EXPECT_EQ(host_.connection.FindOffer(offer_)->target_vp, 3u);
}

// bad:C8
TEST_F(ServerChannelTest, ModifyRefusesBadVpAndWrongState) {
  const auto expect_refused = [this](const Bytes& message) {
    EXPECT_FALSE(host_.Handle(message).ok());
    const std::vector<Bytes> messages = host_.Drain();
    ASSERT_EQ(messages.size(), 1u);
    EXPECT_EQ(TypeOf(messages[0]), kModifyResponse);
    EXPECT_EQ(Read<ModifyChannelResponseMessage>(messages[0]).status,
              kStatusUnsuccessful);
  };
  expect_refused(ModifyMessage(1, 0));  // closed
  expect_refused(ModifyMessage(9, 0));
  Open();
  expect_refused(ModifyMessage(1, kTestMaxVp + 1));
  expect_refused(ModifyMessage(1, kNoInterruptVp));
  EXPECT_EQ(host_.connection.FindOffer(offer_)->target_vp, 0u);

  // Opened without interrupts.
  host_.Handle(GpadlMessage(2, 8)).IgnoreError();
  host_.Handle(OpenMessage(2, 8, 2, 1, kNoInterruptVp)).IgnoreError();
  host_.connection.OpenCompleted(other_, kStatusSuccess).IgnoreError();
  host_.Drain();
  expect_refused(ModifyMessage(2, 0));
  EXPECT_THAT(host_.events.Take(), ElementsAre("open 1"));
}

class ServerChannelBeforeIronTest : public ServerChannelTest {
 protected:
  ServerChannelBeforeIronTest()
      : ServerChannelTest(ProtocolVersion::kWin10Rs5) {}
};

TEST_F(ServerChannelBeforeIronTest, ModifyIsNotAnswered) {
  Open();
  EXPECT_TRUE(host_.Handle(ModifyMessage(1, 3)).ok());
  EXPECT_FALSE(host_.Handle(ModifyMessage(1, 99)).ok());
  EXPECT_THAT(host_.Drain(), IsEmpty());
}

class ServerChannelWin7Test : public ServerChannelTest {
 protected:
  ServerChannelWin7Test() : ServerChannelTest(ProtocolVersion::kWin7) {}
};

// bad:C8
TEST_F(ServerChannelWin7Test, HasNoModifyAndNoTargetVp) {
  ASSERT_TRUE(host_.Handle(OpenMessage(1, 7, 2, 77, 0x1234567)).ok());
  EXPECT_EQ(host_.connection.FindOffer(offer_)->target_vp, 0u);
  EXPECT_EQ(host_.Handle(ModifyMessage(1, 0)).code(),
            StatusCode::kUnimplemented);
}

// --- GPADLs -----------------------------------------------------------------

// vector:M13
TEST_F(ServerChannelTest, GpadlOfSeveralMessagesIsAnsweredAtItsEnd) {
  const std::vector<Bytes> messages = GpadlMessages(1, 0xe1e10, 40, 0x20000);
  ASSERT_EQ(messages.size(), 2u);
  ASSERT_TRUE(host_.Handle(messages[0]).ok());
  EXPECT_THAT(host_.Drain(), IsEmpty());
  ASSERT_TRUE(host_.Handle(messages[1]).ok());
  const std::vector<Bytes> answers = host_.Drain();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(ToHex(answers[0]), "0a0000000000000001000000101e0e0000000000");
}

// quirk:D19
// quirk:D20
TEST_F(ServerChannelTest, PaddedBodiesAndAnyMessageNumberAreFine) {
  std::vector<Bytes> messages = GpadlMessages(1, 0xe1e10, 40, 0x20000);
  messages[0].resize(240, std::byte{0xee});
  messages[1].resize(240, std::byte{0xee});
  messages[1][8] = std::byte{0x55};
  for (const Bytes& message : messages) {
    ASSERT_TRUE(host_.Handle(message).ok());
  }
  EXPECT_THAT(host_.DrainTypes(), ElementsAre(kCreated));
  const ServerConnectionState state = host_.connection.Snapshot();
  EXPECT_EQ(state.gpadls.back().pages.size(), 40u);
  EXPECT_EQ(state.gpadls.back().pages.back(), 0x20000u + 39);
}

// bad:G1
// bad:G3
// bad:G4
TEST_F(ServerChannelTest, BadGpadlIsAnsweredAndGone) {
  Bytes message = GpadlMessage(1, 20);
  message[18] = std::byte{2};  // range count
  EXPECT_EQ(host_.Handle(message).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(host_.Handle(GpadlMessage(1, 7)).code(),
            StatusCode::kAlreadyExists);
  std::vector<Bytes> messages = GpadlMessages(1, 21, 40, 0x20000);
  ASSERT_TRUE(host_.Handle(messages[0]).ok());
  messages[1].resize(16);
  EXPECT_EQ(host_.Handle(messages[1]).code(), StatusCode::kInvalidArgument);
  for (const Bytes& answer : host_.Drain()) {
    EXPECT_EQ(TypeOf(answer), kCreated);
    EXPECT_EQ(Read<GpadlCreatedMessage>(answer).status, kStatusUnsuccessful);
  }
  EXPECT_EQ(host_.connection.Snapshot().gpadls.size(), 1u);
  // The guest may use the id again.
  EXPECT_TRUE(host_.Handle(GpadlMessage(1, 21)).ok());
}

// bad:G3
TEST_F(ServerChannelTest, BodyWithoutHeaderHasNoAnswer) {
  const Bytes body = GpadlMessages(1, 20, 40, 0x20000)[1];
  EXPECT_EQ(host_.Handle(body).code(), StatusCode::kNotFound);
  EXPECT_EQ(host_.Handle(GpadlMessages(1, 7, 40, 0x20000)[1]).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(host_.Handle(GpadlMessage(9, 20)).code(), StatusCode::kNotFound);
  EXPECT_THAT(host_.Drain(), IsEmpty());
}

// bad:G6
TEST_F(ServerChannelTest, TeardownOfTheRingWaitsForClose) {
  Open();
  ASSERT_TRUE(host_.Handle(TeardownMessage(1, 7)).ok());
  EXPECT_EQ(host_.Handle(TeardownMessage(1, 7)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_THAT(host_.Drain(), IsEmpty());
  EXPECT_TRUE(host_.connection.RingGpadl(offer_).ok());
  host_.Handle(CloseMessage(1)).IgnoreError();
  EXPECT_THAT(host_.Drain(), IsEmpty());
  host_.connection.CloseCompleted(offer_).IgnoreError();
  const std::vector<Bytes> messages = host_.Drain();
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(ToHex(messages[0]), "0c0000000000000007000000");
  EXPECT_EQ(host_.Handle(TeardownMessage(1, 7)).code(), StatusCode::kNotFound);
}

// bad:G6
TEST_F(ServerChannelTest, TeardownRefusesOthersAndUnfinished) {
  EXPECT_EQ(host_.Handle(TeardownMessage(2, 7)).code(), StatusCode::kNotFound);
  EXPECT_EQ(host_.Handle(TeardownMessage(1, 8)).code(), StatusCode::kNotFound);
  host_.Handle(GpadlMessages(1, 9, 40, 0x200)[0]).IgnoreError();
  EXPECT_EQ(host_.Handle(TeardownMessage(1, 9)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_THAT(host_.Drain(), IsEmpty());
}

// bad:G7
TEST_F(ServerChannelTest, PinnedGpadlIsTornDownAfterTheLastPin) {
  Open();
  host_.Handle(GpadlMessage(1, 9)).IgnoreError();
  host_.Drain();
  const GpadlView view = *host_.connection.AcquireGpadl(offer_, GpadlId{9});
  ASSERT_TRUE(host_.connection.AcquireGpadl(offer_, GpadlId{9}).ok());
  ASSERT_TRUE(host_.Handle(TeardownMessage(1, 9)).ok());
  EXPECT_THAT(host_.events.Take(), ElementsAre("teardown 0 9"));
  EXPECT_EQ(host_.connection.AcquireGpadl(offer_, GpadlId{9}).status().code(),
            StatusCode::kFailedPrecondition);
  ASSERT_TRUE(host_.connection.ReleaseGpadl(offer_, GpadlId{9}).ok());
  EXPECT_THAT(host_.Drain(), IsEmpty());
  EXPECT_EQ(view.pages[0], 0x100u);  // still there: asan would tell
  ASSERT_TRUE(host_.connection.ReleaseGpadl(offer_, GpadlId{9}).ok());
  EXPECT_THAT(host_.DrainTypes(), ElementsAre(kTorndown));
  EXPECT_EQ(host_.connection.ReleaseGpadl(offer_, GpadlId{9}).code(),
            StatusCode::kNotFound);
}

TEST_F(ServerChannelTest, PinsNeedAnOpenChannelAndItsOwnGpadl) {
  EXPECT_EQ(host_.connection.AcquireGpadl(offer_, kGpadl).status().code(),
            StatusCode::kFailedPrecondition);
  Open();
  OpenOther();
  EXPECT_EQ(host_.connection.AcquireGpadl(offer_, GpadlId{8}).status().code(),
            StatusCode::kNotFound);
  host_.Handle(GpadlMessages(1, 9, 40, 0x200)[0]).IgnoreError();
  EXPECT_EQ(host_.connection.AcquireGpadl(offer_, GpadlId{9}).status().code(),
            StatusCode::kNotFound);
  EXPECT_EQ(host_.connection.ReleaseGpadl(other_, kGpadl).code(),
            StatusCode::kNotFound);
}

// bad:G7
TEST_F(ServerChannelTest, ChannelIsClosedWhenItsPinsAreGone) {
  Open();
  ASSERT_TRUE(host_.connection.AcquireGpadl(offer_, kGpadl).ok());
  host_.Handle(CloseMessage(1)).IgnoreError();
  host_.Handle(OpenMessage(1, 7)).IgnoreError();
  host_.events.Take();
  ASSERT_TRUE(host_.connection.CloseCompleted(offer_).ok());
  EXPECT_EQ(host_.connection.CloseCompleted(offer_).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(state(), ServerChannelState::kClosingThenOpen);
  EXPECT_THAT(host_.events.Take(), IsEmpty());
  ASSERT_TRUE(host_.connection.ReleaseGpadl(offer_, kGpadl).ok());
  EXPECT_THAT(host_.events.Take(), ElementsAre("open 0"));
}

TEST_F(ServerChannelTest, FailedOpenWithAPinClosesWhenItIsReleased) {
  ASSERT_TRUE(host_.Handle(OpenMessage(1, 7)).ok());
  ASSERT_TRUE(host_.connection.AcquireGpadl(offer_, kGpadl).ok());
  ASSERT_TRUE(host_.connection.OpenCompleted(offer_, 1).ok());
  EXPECT_EQ(state(), ServerChannelState::kClosing);
  ASSERT_TRUE(host_.connection.ReleaseGpadl(offer_, kGpadl).ok());
  EXPECT_EQ(state(), ServerChannelState::kClosed);
}

}  // namespace
}  // namespace ferrybus
