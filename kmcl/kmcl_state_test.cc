// SPDX-License-Identifier: MIT
//
// The state model of a channel: which callback comes when, and who waits for
// whom.

#include "ferrybus/kmcl/kmcl_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::kmcl {
namespace {

using Log = std::vector<std::string>;

constexpr UINT32 kWait = VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION;

class KmclStateTest : public ::testing::Test {
 protected:
  void TearDown() override {
    server_.LetGo();
    client_.LetGo();
  }
  void Open() {
    server_.Enable();
    client_.Enable();
    VmbChannelStart(server_.channel);
    loopback_.Pump();
    (void)server_.TakeLog();
    (void)client_.TakeLog();
  }
  // A request whose answer, or whose being sent, is waited for.
  NTSTATUS Ask(std::string* reply) {
    char room[16] = {};
    UINT32 bytes = sizeof(room);
    char question[] = "question";
    const NTSTATUS status = VmbChannelSendSynchronousRequest(
        client_.channel, question, 8, nullptr, kWait, room, &bytes, nullptr);
    reply->assign(room, NT_SUCCESS(status) ? bytes : 0);
    return status;
  }

  Loopback loopback_;
  End server_{loopback_.server, true};
  End client_{loopback_.client, false};
};

// doc:ST2 doc:KS1 doc:ST4 doc:CB4
TEST_F(KmclStateTest, AServerIsPausedUntilItIsStarted) {
  server_.Enable();
  client_.Enable();
  loopback_.Pump();
  EXPECT_EQ(server_.TakeLog(), Log{"opened"});
  EXPECT_EQ(client_.TakeLog(), (Log{"opened", "started", "post-started"}));
  EXPECT_EQ(client_.Send("waits..."), STATUS_SUCCESS);
  loopback_.Pump();
  EXPECT_TRUE(server_.log.empty());
  VmbChannelStart(server_.channel);
  EXPECT_EQ(server_.TakeLog(), Log{"started"});
  loopback_.Pump();
  EXPECT_EQ(server_.held.size(), 1u);
}

// doc:ST2
TEST_F(KmclStateTest, AStartBeforeTheOpeningIsRemembered) {
  server_.Enable();
  VmbChannelStart(server_.channel);
  EXPECT_TRUE(server_.log.empty());
  client_.Enable();
  loopback_.Pump();
  EXPECT_EQ(server_.TakeLog(), (Log{"opened", "started", "post-started"}));
}

// doc:ST5
TEST_F(KmclStateTest, WhatIsSentInStartedFlowsWhenItReturns) {
  client_.answers = true;
  server_.on_started = [&] {
    EXPECT_EQ(server_.Send("from started...!", kWait), STATUS_SUCCESS);
    EXPECT_EQ(ferrybus_pump(server_.parent), 0);
    EXPECT_TRUE(server_.completions.empty());
  };
  Open();
  ASSERT_EQ(server_.completions.size(), 1u);
  EXPECT_EQ(server_.completions[0].reply, "from started...!");
}

// doc:ST5
TEST_F(KmclStateTest, NobodyMayWaitInStarted) {
  client_.on_started = [&] {
    std::string reply;
    EXPECT_EQ(Ask(&reply), STATUS_INVALID_DEVICE_STATE);
  };
  Open();
}

// doc:ST6 doc:CB5
TEST_F(KmclStateTest, PostStartedMayWaitForAnswers) {
  server_.answers = true;
  std::string reply;
  client_.on_post_started = [&] { EXPECT_EQ(Ask(&reply), STATUS_SUCCESS); };
  Open();
  EXPECT_EQ(reply, "question");
}

// doc:ST7 doc:ST9 doc:ST19 doc:CB3 doc:KS2
TEST_F(KmclStateTest, PausingWaitsForTheLastPacketAndTakesNoMore) {
  Open();
  EXPECT_EQ(client_.Send("first...", kWait), STATUS_SUCCESS);
  loopback_.Pump();
  ASSERT_EQ(server_.held.size(), 1u);
  (void)server_.TakeLog();
  // Completed while VmbChannelPause waits: by the peer's callback.
  bool is_paused = false;
  client_.on_packet = [&](const End::Held& packet) {
    EXPECT_FALSE(is_paused);
    VmbChannelPacketComplete(packet.completion, nullptr, 0);
    server_.AnswerAll();
  };
  EXPECT_EQ(server_.Send("go on..."), STATUS_SUCCESS);
  EXPECT_EQ(client_.Send("second.."), STATUS_SUCCESS);
  VmbChannelPause(server_.channel);
  is_paused = true;
  EXPECT_TRUE(server_.held.empty()) << "the pause did not wait";
  EXPECT_EQ(server_.TakeLog(), Log{"suspend"});
  loopback_.Pump();
  // The peer is not told.
  for (const std::string& each : client_.TakeLog()) {
    EXPECT_TRUE(each == "packet" || each == "batch of 1") << each;
  }
  EXPECT_EQ(client_.completions.size(), 2u);
  EXPECT_TRUE(server_.log.empty()) << "a packet after suspend";
  VmbChannelStart(server_.channel);
  loopback_.Pump();
  EXPECT_EQ(server_.TakeLog(),
            (Log{"started", "packet", "batch of 1", "post-started"}));
}

// doc:ST8 doc:KI2
TEST_F(KmclStateTest, PacketsAreCompletedAfterSuspend) {
  Open();
  EXPECT_EQ(client_.Send("held....", kWait), STATUS_SUCCESS);
  loopback_.Pump();
  server_.on_suspend = [&] { server_.AnswerAll(); };
  VmbChannelPause(server_.channel);
  loopback_.Pump();
  ASSERT_EQ(client_.completions.size(), 1u);
  EXPECT_EQ(client_.completions[0].reply, "held....");
}

// doc:ST11
TEST_F(KmclStateTest, StartAndPauseAnyNumberOfTimesButNotInCallbacks) {
  Open();
  for (int i = 0; i < 5; ++i) {
    VmbChannelPause(client_.channel);
    VmbChannelPause(client_.channel);
    VmbChannelStart(client_.channel);
    VmbChannelStart(client_.channel);
    loopback_.Pump();
    EXPECT_EQ(client_.TakeLog(), (Log{"suspend", "started", "post-started"}));
  }
  server_.on_suspend = [&] { VmbChannelPause(server_.channel); };
  EXPECT_DEATH(VmbChannelPause(server_.channel), "may not wait");
  server_.on_suspend = nullptr;
}

// doc:ST12 doc:KS2
TEST_F(KmclStateTest, APauseOfADisabledChannelIsRemembered) {
  VmbChannelPause(client_.channel);
  server_.Enable();
  client_.Enable();
  loopback_.Pump();
  EXPECT_EQ(client_.TakeLog(), Log{"opened"});
  VmbChannelStart(client_.channel);
  loopback_.Pump();
  EXPECT_EQ(client_.TakeLog(), (Log{"started", "post-started"}));
}

// doc:ST13 doc:CB1
TEST_F(KmclStateTest, AServerMayRefuseAnOpening) {
  server_.open_status = STATUS_UNSUCCESSFUL;
  server_.Enable();
  VmbChannelStart(server_.channel);
  client_.Enable();
  loopback_.Pump();
  EXPECT_EQ(server_.TakeLog(), Log{"opened"});
  EXPECT_EQ(client_.TakeLog(), Log{"pnp failure"});
  // It is offered still.
  server_.open_status = STATUS_SUCCESS;
  VmbChannelDisable(client_.channel);
  client_.Enable();
  loopback_.Pump();
  EXPECT_EQ(server_.TakeLog(), (Log{"opened", "started", "post-started"}));
}

// doc:ST13
TEST_F(KmclStateTest, AClientMayRefuseAnOpening) {
  client_.open_status = STATUS_UNSUCCESSFUL;
  server_.Enable();
  client_.Enable();
  loopback_.Pump();
  EXPECT_EQ(client_.TakeLog(), Log{"opened"});
  EXPECT_EQ(server_.TakeLog(), (Log{"opened", "closed"}));
}

// doc:ST14 doc:KP18
TEST_F(KmclStateTest, WhatIsSentWhileClosedWaitsForTheOpening) {
  client_.answers = true;
  EXPECT_EQ(server_.Send("1.......", kWait), STATUS_SUCCESS);
  server_.Enable();
  EXPECT_EQ(server_.Send("2.......", kWait), STATUS_SUCCESS);
  server_.on_opened = [&] {
    EXPECT_EQ(server_.Send("3.......", kWait), STATUS_SUCCESS);
  };
  loopback_.Pump();
  EXPECT_TRUE(server_.completions.empty());
  VmbChannelStart(server_.channel);
  client_.Enable();
  loopback_.Pump();
  ASSERT_EQ(server_.completions.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(server_.completions[i].reply[0], '1' + i);
    EXPECT_EQ(server_.completions[i].status, STATUS_SUCCESS);
  }
  server_.on_opened = nullptr;
  // After the closing, for the next opening.
  VmbChannelDisable(client_.channel);
  loopback_.Pump();
  EXPECT_EQ(server_.Send("4.......", kWait), STATUS_SUCCESS);
  client_.Enable();
  loopback_.Pump();
  ASSERT_EQ(server_.completions.size(), 4u);
  EXPECT_EQ(server_.completions[3].reply, "4.......");
}

// doc:ST15 doc:CB2
TEST_F(KmclStateTest, AClosedServerIsOpenedAgainAClosedClientIsDisabled) {
  Open();
  VmbChannelDisable(client_.channel);
  loopback_.Pump();
  EXPECT_EQ(server_.TakeLog(), (Log{"suspend", "closed"}));
  EXPECT_EQ(VmbChannelInitSetFlags(server_.channel, 0),
            STATUS_INVALID_PARAMETER_1)
      << "still enabled";
  EXPECT_EQ(client_.TakeLog(), (Log{"suspend", "closed"}));
  client_.Enable();
  loopback_.Pump();
  EXPECT_EQ(server_.TakeLog(), (Log{"opened", "started", "post-started"}));
  EXPECT_EQ(client_.TakeLog(), (Log{"opened", "started", "post-started"}));
  VmbChannelDisable(server_.channel);
  loopback_.Pump();
  EXPECT_EQ(client_.TakeLog(), (Log{"suspend", "closed"}));
  EXPECT_EQ(VmbChannelInitSetFlags(client_.channel, 0), STATUS_SUCCESS);
  // Offered again, the client stays disabled until it is enabled.
  server_.Enable();
  VmbChannelStart(server_.channel);
  loopback_.Pump();
  EXPECT_TRUE(client_.log.empty());
  client_.Enable();
  loopback_.Pump();
  EXPECT_EQ(client_.TakeLog(), (Log{"opened", "started", "post-started"}));
}

// doc:CB3
TEST_F(KmclStateTest, APausedChannelClosesWithoutSuspend) {
  Open();
  VmbChannelPause(server_.channel);
  EXPECT_EQ(server_.TakeLog(), Log{"suspend"});
  VmbChannelDisable(server_.channel);
  EXPECT_EQ(server_.TakeLog(), Log{"closed"});
}

// doc:ST17
TEST_F(KmclStateTest, UnansweredPacketsEndWithTheChannel) {
  for (const bool by_peer : {true, false}) {
    SCOPED_TRACE(by_peer);
    Open();
    client_.held.clear();
    server_.completions.clear();
    EXPECT_EQ(server_.Send("never...", kWait), STATUS_SUCCESS);
    loopback_.Pump();
    ASSERT_EQ(client_.held.size(), 1u);
    VmbChannelPause(server_.channel);
    EXPECT_TRUE(server_.completions.empty()) << "suspend is no answer";
    if (by_peer) {
      client_.on_suspend = [&] {
        for (const End::Held& each : std::exchange(client_.held, {})) {
          VmbChannelPacketFail(each.completion);
        }
      };
      VmbChannelDisable(client_.channel);
      loopback_.Pump();
      client_.on_suspend = nullptr;
    } else {
      VmbChannelDisable(server_.channel);
      client_.AnswerAll();
      loopback_.Pump();
    }
    ASSERT_EQ(server_.completions.size(), 1u);
    EXPECT_EQ(server_.completions[0].status,
              by_peer ? STATUS_CANCELLED : STATUS_DEVICE_REMOVED);
    VmbChannelDisable(server_.channel);
    VmbChannelDisable(client_.channel);
  }
}

}  // namespace
}  // namespace ferrybus::kmcl
