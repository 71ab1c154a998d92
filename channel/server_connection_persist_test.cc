// SPDX-License-Identifier: MIT
#include "ferrybus/channel/server_connection_persist.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/channel/connection_restore_test_util.h"
#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/savestate/connection.pb.h"

namespace ferrybus {
namespace {

using ::absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Saved = savestate::v1::ConnectionState;

// Channel 1 and its sub-channel 3 open, an unfinished GPADL on 2, a rescinded
// channel 4, and answers that the guest has not taken.
void MakeRichState(TestHost& host) {
  AddOffers(host.connection);
  const OfferId gone = *host.connection.AddOffer(TestOffer(9));
  host.ConnectGuest();
  host.OpenChannel(OfferId{0}, 1, 1);
  host.OpenChannel(OfferId{2}, 3, 3);
  host.Handle(GpadlMessages(2, 5, 40, 0x200)[0]).IgnoreError();
  host.Handle(GpadlMessage(1, 6)).IgnoreError();
  host.Handle(TeardownMessage(1, 1)).IgnoreError();
  host.connection.RescindOffer(gone).IgnoreError();
  host.Handle(OpenMessage(2, 99)).IgnoreError();
  host.Handle(ModifyMessage(1, 3)).IgnoreError();
  (void)host.connection.AddOffer(TestOffer(10));
  host.events.Take();
}

// bad:S23
TEST(ServerPersistTest, SavesTheSameBytesAgain) {
  TestHost host;
  MakeRichState(host);
  const std::string bytes = SaveServerConnection(host.connection);
  EXPECT_EQ(SaveServerConnection(host.connection), bytes);
  const auto restored = Restore(bytes);
  ASSERT_NE(restored, nullptr);
  EXPECT_EQ(SaveServerConnection(*restored->connection), bytes);
}

// bad:C13
TEST(ServerPersistTest, DeliversQueuedMessagesInOrder) {
  TestHost host;
  MakeRichState(host);
  const auto restored = Restore(SaveServerConnection(host.connection));
  ASSERT_NE(restored, nullptr);
  ServerConnection& connection = *restored->connection;
  EXPECT_FALSE(connection.has_outgoing());
  EXPECT_FALSE(connection.can_accept_message());
  EXPECT_EQ(connection.HandleMessage(CloseMessage(1)).code(),
            StatusCode::kUnavailable);
  AddOffers(connection);
  EXPECT_TRUE(connection.AddOffer(TestOffer(10)).ok());
  EXPECT_THAT(connection.UnclaimedOffers(), IsEmpty());
  connection.FinishRestore();
  EXPECT_EQ(Drain(connection), host.Drain());
  EXPECT_THAT(restored->events.Take(), IsEmpty());
  EXPECT_EQ(connection.RingGpadl(OfferId{0})->pages.size(), 4u);
  EXPECT_EQ(connection.FindOffer(OfferId{0})->target_vp, 3u);
}

// bad:C12
TEST(ServerPersistTest, OffersAreSentOnlyOnceRequestedAfterRestore) {
  TestHost host;
  AddOffers(host.connection);
  host.Handle(ContactMessage(ProtocolVersion::kIron)).IgnoreError();
  host.Drain();
  const auto restored = Restore(SaveServerConnection(host.connection));
  AddOffers(*restored->connection);
  restored->connection->FinishRestore();
  EXPECT_THAT(Drain(*restored->connection), IsEmpty());
  ASSERT_TRUE(restored->connection->HandleMessage(RequestOffers()).ok());
  host.Handle(RequestOffers()).IgnoreError();
  EXPECT_EQ(Drain(*restored->connection), host.Drain());
}

// bad:S17
TEST(ServerPersistTest, ClaimsKeepIdsAndNewOffersGetNewOnes) {
  TestHost host;
  AddOffers(host.connection);
  host.ConnectGuest();
  const auto restored = Restore(SaveServerConnection(host.connection));
  ServerConnection& connection = *restored->connection;
  EXPECT_THAT(connection.UnclaimedOffers(),
              ElementsAre(OfferId{0}, OfferId{1}, OfferId{2}));
  // Order does not matter, but a primary comes before its sub-channels.
  EXPECT_EQ(connection.AddOffer(TestOffer(1, 1)).status().code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(*connection.AddOffer(TestOffer(2)), OfferId{1});
  EXPECT_EQ(*connection.AddOffer(TestOffer(3)), OfferId{3});
  EXPECT_EQ(*connection.AddOffer(TestOffer(1)), OfferId{0});
  EXPECT_EQ(*connection.AddOffer(TestOffer(1, 1)), OfferId{2});
  EXPECT_EQ(connection.AddOffer(TestOffer(1)).status().code(),
            StatusCode::kAlreadyExists);
  connection.FinishRestore();
  const std::vector<Bytes> messages = Drain(connection);
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(Read<OfferChannelMessage>(messages[0]).channel_id, ChannelId{4});
}

TEST(ServerPersistTest, UnclaimedOffersAreRescinded) {
  TestHost host;
  AddOffers(host.connection);
  host.ConnectGuest();
  host.OpenChannel(OfferId{0}, 1, 1);
  host.OpenChannel(OfferId{2}, 3, 3);
  host.Handle(TeardownMessage(1, 1)).IgnoreError();
  const auto restored = Restore(SaveServerConnection(host.connection));
  ServerConnection& connection = *restored->connection;
  ASSERT_TRUE(connection.AddOffer(TestOffer(2)).ok());
  connection.FinishRestore();
  EXPECT_THAT(restored->events.Take(), IsEmpty());  // no device to ask
  std::vector<std::string> messages;
  for (const Bytes& message : Drain(connection)) {
    messages.push_back(ToHex(message));
  }
  EXPECT_THAT(messages, ElementsAre("020000000000000003000000",
                                    "0c0000000000000001000000",
                                    "020000000000000001000000"));
  EXPECT_TRUE(connection.HandleMessage(ReleaseMessage(1)).ok());
}

// bad:S13
TEST(ServerPersistTest, WhatTheGuestWasToldMustBeWhatTheEmbedderOffers) {
  TestHost host;
  AddOffers(host.connection);
  host.ConnectGuest();
  const auto restored = Restore(SaveServerConnection(host.connection));
  OfferParams params = TestOffer(1);
  params.flags |= kOfferConfidentialExternalMemory;
  EXPECT_EQ(restored->connection->AddOffer(params).status().code(),
            StatusCode::kFailedPrecondition);
  params = TestOffer(1);
  params.user_data[5] = std::byte{1};
  EXPECT_EQ(restored->connection->AddOffer(params).status().code(),
            StatusCode::kFailedPrecondition);
}

// bad:S13
TEST(ServerPersistTest, OfferOfTheFileNeverReachesTheGuest) {
  TestHost host;
  (void)host.connection.AddOffer(TestOffer(1));
  host.Handle(ContactMessage(ProtocolVersion::kIron)).IgnoreError();
  host.Handle(RequestOffers()).IgnoreError();  // offer 1 is queued
  Saved saved;
  ASSERT_TRUE(saved.ParseFromString(SaveServerConnection(host.connection)));
  saved.mutable_offers(0)->set_flags(0xffff);
  const auto restored = Restore(saved.SerializeAsString());
  EXPECT_FALSE(restored->connection->AddOffer(TestOffer(1)).ok());
  restored->connection->FinishRestore();
  const std::vector<Bytes> messages = Drain(*restored->connection);
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(TypeOf(messages[0]), 15u);
  EXPECT_EQ(TypeOf(messages[1]), 4u);
  EXPECT_THAT(restored->connection->Snapshot().offers, IsEmpty());
}

TEST(ServerPersistTest, PinsAreTakenAgainBeforeTeardownIsAnswered) {
  TestHost host;
  AddOffers(host.connection);
  host.ConnectGuest();
  host.OpenChannel(OfferId{0}, 1, 1);
  for (uint32_t id : {8, 9}) {
    host.Handle(GpadlMessage(1, id)).IgnoreError();
    ASSERT_TRUE(host.connection.AcquireGpadl(OfferId{0}, GpadlId{id}).ok());
    host.Handle(TeardownMessage(1, id)).IgnoreError();
  }
  host.Drain();
  const auto restored = Restore(SaveServerConnection(host.connection));
  ServerConnection& connection = *restored->connection;
  EXPECT_FALSE(connection.AcquireGpadl(OfferId{0}, GpadlId{8}).ok());
  AddOffers(connection);
  ASSERT_TRUE(connection.AcquireGpadl(OfferId{0}, GpadlId{8}).ok());
  connection.FinishRestore();
  std::vector<Bytes> messages = Drain(connection);
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(ToHex(messages[0]), "0c0000000000000009000000");
  ASSERT_TRUE(connection.ReleaseGpadl(OfferId{0}, GpadlId{8}).ok());
  messages = Drain(connection);
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(ToHex(messages[0]), "0c0000000000000008000000");
}

TEST(ServerPersistTest, AsksDevicesAgainWhereAnAnswerIsDue) {
  TestHost host;
  AddOffers(host.connection);
  host.ConnectGuest();
  host.OpenChannel(OfferId{0}, 1, 1);
  host.Handle(CloseMessage(1)).IgnoreError();
  host.Handle(GpadlMessage(2, 2)).IgnoreError();
  host.Handle(OpenMessage(2, 2)).IgnoreError();
  host.Drain();
  const auto restored = Restore(SaveServerConnection(host.connection));
  ServerConnection& connection = *restored->connection;
  AddOffers(connection);
  EXPECT_FALSE(connection.OpenCompleted(OfferId{1}, 0).ok());
  connection.FinishRestore();
  EXPECT_THAT(restored->events.Take(), ElementsAre("open 1", "close 0"));
  EXPECT_TRUE(connection.OpenCompleted(OfferId{1}, 0).ok());
  EXPECT_TRUE(connection.CloseCompleted(OfferId{0}).ok());
}

TEST(ServerPersistTest, RescindThatWaitedForItsDeviceEndsWithTheRestore) {
  TestHost host;
  AddOffers(host.connection);
  host.ConnectGuest();
  host.OpenChannel(OfferId{1}, 2, 2);
  ASSERT_TRUE(host.connection.RescindOffer(OfferId{1}).ok());
  const auto restored = Restore(SaveServerConnection(host.connection));
  ServerConnection& connection = *restored->connection;
  // A device of the same identity is a new one.
  AddOffers(connection);
  EXPECT_EQ(connection.FindOfferByChannelId(ChannelId{4}), OfferId{3});
  EXPECT_THAT(connection.UnclaimedOffers(), ElementsAre(OfferId{1}));
  connection.FinishRestore();
  EXPECT_THAT(restored->events.Take(), IsEmpty());
  const std::vector<Bytes> messages = Drain(connection);
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(Read<OfferChannelMessage>(messages[0]).channel_id, ChannelId{4});
  EXPECT_EQ(ToHex(messages[1]), "020000000000000002000000");
}

TEST(ServerPersistTest, ResetGoesOnAfterRestore) {
  TestHost host;
  AddOffers(host.connection);
  host.ConnectGuest();
  host.OpenChannel(OfferId{0}, 1, 1);
  host.Handle(ContactMessage(ProtocolVersion::kWin10, 2)).IgnoreError();
  const std::string bytes = SaveServerConnection(host.connection);
  {
    const auto restored = Restore(bytes);
    AddOffers(*restored->connection);
    restored->connection->FinishRestore();
    EXPECT_THAT(restored->events.Take(), ElementsAre("close 0"));
    restored->connection->CloseCompleted(OfferId{0}).IgnoreError();
    EXPECT_THAT(restored->events.Take(),
                ElementsAre("disconnected", "connected 4.0"));
    EXPECT_EQ(restored->connection->contact().target_message_vp, 2u);
  }
  // The same with no device at all.
  const auto restored = Restore(bytes);
  restored->connection->FinishRestore();
  EXPECT_THAT(restored->events.Take(),
              ElementsAre("disconnected", "connected 4.0"));
  EXPECT_EQ(Drain(*restored->connection).size(), 1u);
  EXPECT_THAT(restored->connection->Snapshot().offers, IsEmpty());
}

}  // namespace
}  // namespace ferrybus
