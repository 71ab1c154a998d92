// SPDX-License-Identifier: MIT
//
// Exchanges that are half done when a connection is saved.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <initializer_list>
#include <iterator>
#include <string>
#include <vector>

#include "ferrybus/channel/connection_restore_test_util.h"
#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/channel/server_connection_persist.h"
#include "ferrybus/savestate/connection.pb.h"

namespace ferrybus {
namespace {

using ::absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Saved = savestate::v1::ConnectionState;

constexpr uint32_t kFeatures = kFeatureModifyConnection | kFeaturePauseResume;

class PersistRequestsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    AddOffers(host_.connection);
    host_.ConnectGuest(ProtocolVersion::kCopper, kFeatures);
    host_.Handle(GpadlMessage(1, 7)).IgnoreError();
    host_.Drain();
  }
  // Moves: the restored connection, which has not been started yet.
  std::unique_ptr<RestoredHost> Move() {
    const std::string bytes = SaveServerConnection(host_.connection);
    auto restored = Restore(bytes);
    EXPECT_EQ(SaveServerConnection(*restored->connection), bytes);
    AddOffers(*restored->connection);
    return restored;
  }
  absl::StatusCode Refusal(const Saved& saved) {
    return ParseServerConnection(AsBytes(saved.SerializeAsString()),
                                 TestServerOptions())
        .status()
        .code();
  }
  Saved SavedState() {
    Saved saved;
    EXPECT_TRUE(saved.ParseFromString(SaveServerConnection(host_.connection)));
    return saved;
  }
  void OpenReserved() {
    host_.Handle(OpenReservedMessage(1, 7)).IgnoreError();
    host_.connection.OpenCompleted(OfferId{0}, kStatusSuccess).IgnoreError();
    host_.Drain();
    host_.events.Take();
  }

  TestHost host_;
};

TEST_F(PersistRequestsTest, ConnectsAreAskedAgainAndAnswered) {
  for (const uint8_t i : std::initializer_list<uint8_t>{3, 1, 2}) {
    host_.Handle(TlConnectMessage(TestEndpoint(i), TestService()))
        .IgnoreError();
  }
  const auto restored = Move();
  ServerConnection& connection = *restored->connection;
  // Not before the owner is asked.
  EXPECT_FALSE(connection.RefuseTlConnect(TestEndpoint(1), TestService()).ok());
  connection.FinishRestore();
  EXPECT_THAT(restored->events.Take(),
              ElementsAre("connect 3", "connect 1", "connect 2"));
  ASSERT_TRUE(connection.RefuseTlConnect(TestEndpoint(1), TestService()).ok());
  ASSERT_TRUE(connection.AddOffer(TestSocketOffer(3)).ok());
  const std::vector<Bytes> messages = Drain(connection);
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(TypeOf(messages[0]), 23u);
  EXPECT_EQ(TypeOf(messages[1]), 1u);
  EXPECT_EQ(connection.Snapshot().tl_connects.size(), 1u);
}

TEST_F(PersistRequestsTest, AnOfferDuringTheRestoreAnswersAConnect) {
  host_.Handle(TlConnectMessage(TestEndpoint(1), TestService())).IgnoreError();
  const auto restored = Move();
  ASSERT_TRUE(restored->connection->AddOffer(TestSocketOffer(1)).ok());
  restored->connection->FinishRestore();
  EXPECT_THAT(restored->events.Take(), IsEmpty());
  EXPECT_EQ(Drain(*restored->connection).size(), 1u);
}

TEST_F(PersistRequestsTest, NewMonitorPagesAreAskedForAgain) {
  host_.Handle(ModifyConnectionBytes(0x4000, 0x5000)).IgnoreError();
  const auto restored = Move();
  EXPECT_FALSE(restored->connection->ModifyConnectionCompleted(true).ok());
  restored->connection->FinishRestore();
  EXPECT_THAT(restored->events.Take(), ElementsAre("monitor 4000 5000"));
  ASSERT_TRUE(restored->connection->ModifyConnectionCompleted(true).ok());
  EXPECT_EQ(ToHex(Drain(*restored->connection)[0]), "1a0000000000000000");
  EXPECT_EQ(restored->connection->contact().monitor_pages(),
            (MonitorPages{0x4000, 0x5000}));
}

// bad:C13
TEST_F(PersistRequestsTest, APausedGuestGetsNothingUntilItResumes) {
  host_.Handle(GpadlMessage(1, 8)).IgnoreError();
  host_.Handle(PauseBytes()).IgnoreError();
  host_.Handle(ResumeBytes()).IgnoreError();
  host_.Handle(GpadlMessage(1, 9)).IgnoreError();
  host_.Handle(PauseBytes()).IgnoreError();
  (void)host_.connection.AddOffer(TestOffer(5));
  for (size_t taken = 0; taken <= 4; ++taken) {
    const auto restored = Move();
    ASSERT_TRUE(restored->connection->AddOffer(TestOffer(5)).ok());
    restored->connection->FinishRestore();
    EXPECT_TRUE(restored->connection->is_paused());
    EXPECT_EQ(Drain(*restored->connection).size(), 4 - taken);
    ASSERT_TRUE(restored->connection->HandleMessage(ResumeBytes()).ok());
    EXPECT_EQ(Drain(*restored->connection).size(), 1u);
    if (taken < 4) host_.connection.PopOutgoing();
  }
}

TEST_F(PersistRequestsTest, AReservedChannelOutlivesAMoveAndItsKernel) {
  OpenReserved();
  host_.Handle(ContactMessage(ProtocolVersion::kIron)).IgnoreError();
  host_.Handle(RequestOffers()).IgnoreError();
  host_.Handle(GpadlMessage(2, 7)).IgnoreError();  // the same id
  host_.Handle(OpenMessage(2, 7)).IgnoreError();
  host_.connection.OpenCompleted(OfferId{1}, kStatusSuccess).IgnoreError();
  host_.Drain();
  const auto restored = Move();
  restored->connection->FinishRestore();
  EXPECT_THAT(restored->events.Take(), IsEmpty());
  EXPECT_EQ(restored->connection->RingGpadl(OfferId{0})->channel_id,
            ChannelId{1});
  EXPECT_EQ(restored->connection->RingGpadl(OfferId{1})->channel_id,
            ChannelId{2});
  ASSERT_TRUE(
      restored->connection->HandleMessage(CloseReservedMessage(1)).ok());
  ASSERT_TRUE(restored->connection->CloseCompleted(OfferId{0}).ok());
  EXPECT_EQ(restored->connection->outgoing_target(), (MessageTarget{2, 6}));
}

// There is nobody to be told that the connection has ended.
TEST_F(PersistRequestsTest, AResetWithoutAConnectionStaysOne) {
  OpenReserved();
  host_.Handle(UnloadBytes()).IgnoreError();
  host_.Drain();
  host_.connection.Disconnect();
  host_.events.Take();
  const auto restored = Move();
  restored->connection->FinishRestore();
  EXPECT_THAT(restored->events.Take(), ElementsAre("close 0"));
  ASSERT_TRUE(restored->connection->CloseCompleted(OfferId{0}).ok());
  EXPECT_THAT(restored->events.Take(), IsEmpty());
  ASSERT_TRUE(host_.connection.CloseCompleted(OfferId{0}).ok());
  EXPECT_THAT(host_.events.Take(), IsEmpty());
}

TEST_F(PersistRequestsTest, ACloseOfAReservedChannelIsAnswered) {
  OpenReserved();
  host_.Handle(CloseReservedMessage(1)).IgnoreError();
  const auto restored = Move();
  restored->connection->FinishRestore();
  EXPECT_THAT(restored->events.Take(), ElementsAre("close 0"));
  ASSERT_TRUE(restored->connection->CloseCompleted(OfferId{0}).ok());
  EXPECT_EQ(ToHex(Drain(*restored->connection)[0]), "140000000000000001000000");

  // Also if its device has not come along.
  const auto without = Restore(SaveServerConnection(host_.connection));
  without->connection->FinishRestore();
  std::vector<uint32_t> types;
  for (const Bytes& message : Drain(*without->connection)) {
    types.push_back(TypeOf(message));
  }
  EXPECT_THAT(types, ElementsAre(2, 2, 20, 2));
}

class PersistRefusalTest : public PersistRequestsTest {
 protected:
  void SetUp() override {
    PersistRequestsTest::SetUp();
    OpenReserved();
    host_.Handle(TlConnectMessage(TestEndpoint(1), TestService()))
        .IgnoreError();
    host_.Handle(ModifyConnectionBytes(0x4000, 0x5000)).IgnoreError();
    host_.Handle(CloseReservedMessage(1)).IgnoreError();
    good_ = SavedState();
    ASSERT_EQ(Refusal(good_), StatusCode::kOk);
  }
  template <typename Change>
  absl::StatusCode With(const Change& change) {
    Saved saved = good_;
    change(saved);
    return Refusal(saved);
  }

  Saved good_;
};

// bad:S11
// bad:S12
TEST_F(PersistRefusalTest, Requests) {
  const auto invalid = StatusCode::kInvalidArgument;
  EXPECT_EQ(With([](Saved& s) { *s.add_tl_connects() = s.tl_connects(0); }),
            invalid);
  EXPECT_EQ(With([](Saved& s) {
              s.mutable_tl_connects(0)->set_endpoint_id("short");
            }),
            invalid);
  EXPECT_EQ(With([](Saved& s) {
              for (int i = 0; i < 16; ++i) {
                *s.add_tl_connects() = s.tl_connects(0);
                s.mutable_tl_connects(i + 1)->set_endpoint_id(
                    std::string(16, static_cast<char>(i)));
              }
            }),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(With([](Saved& s) {
              s.mutable_pending_modify()->set_child_to_parent(0);
            }),
            invalid);
  EXPECT_EQ(
      With([](Saved& s) {
        s.mutable_pending_modify()->set_child_to_parent(kTestRamPages * 4096);
      }),
      StatusCode::kFailedPrecondition);
  EXPECT_EQ(With([](Saved& s) {
              s.mutable_contact()->set_features(kFeaturePauseResume);
            }),
            invalid);
  EXPECT_EQ(With([](Saved& s) {
              s.set_paused(true);
              s.clear_pending_modify();
              s.mutable_contact()->set_features(kFeatureModifyConnection);
            }),
            invalid);
  EXPECT_EQ(With([](Saved& s) { s.set_reset_while_disconnected(true); }),
            invalid);
}

// bad:S13
TEST_F(PersistRefusalTest, FeaturesThatAreNotGrantedHere) {
  EXPECT_EQ(With([](Saved& s) {
              s.mutable_contact()->set_features(kFeatureModifyConnection |
                                                kFeatureConfidentialChannels);
            }),
            StatusCode::kFailedPrecondition);
}

// bad:S11
// bad:S12
TEST_F(PersistRefusalTest, ReservedChannels) {
  const auto invalid = StatusCode::kInvalidArgument;
  const auto target = [](Saved& s) {
    return s.mutable_offers(0)->mutable_reserved()->mutable_close_target();
  };
  EXPECT_EQ(With([&](Saved& s) { target(s)->set_sint(16); }), invalid);
  EXPECT_EQ(With([&](Saved& s) { target(s)->set_sint(258); }), invalid);
  EXPECT_EQ(With([&](Saved& s) { target(s)->set_vp(kTestMaxVp + 1); }),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(With([](Saved& s) {
              s.mutable_offers(0)->mutable_open()->set_event_flag(3);
            }),
            invalid);
  EXPECT_EQ(With([](Saved& s) {
              s.mutable_offers(1)->mutable_reserved()->mutable_target();
            }),
            invalid);
  // One whose kernel has gone may be; one without a kernel may not.
  EXPECT_EQ(With([](Saved& s) { s.mutable_offers(0)->set_is_offered(false); }),
            StatusCode::kOk);
  EXPECT_EQ(With([](Saved& s) {
              s.mutable_offers(0)->set_is_offered(false);
              s.mutable_offers(0)->clear_reserved();
            }),
            invalid);
}

// What was written before there were any of these fields is read as before,
// and what was written with them stays readable: the seeds of the fuzzer are
// such files.
TEST(OldConnectionTest, BytesOfEarlierBuildsAreRestored) {
  for (const char* name : {"empty", "offered", "open", "queued", "reopening",
                           "resetting", "paused", "reserved", "survivor"}) {
    SCOPED_TRACE(name);
    std::ifstream file(std::string("channel/corpus/connection_state/") + name,
                       std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    ASSERT_FALSE(bytes.empty());
    const auto restored = Restore(bytes);
    ASSERT_NE(restored, nullptr);
    // No field is lost and none is added.
    EXPECT_EQ(SaveServerConnection(*restored->connection), bytes);
  }
}

}  // namespace
}  // namespace ferrybus
