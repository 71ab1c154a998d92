// SPDX-License-Identifier: MIT
#include "ferrybus/channel/server_connection_persist.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/savestate/connection.pb.h"

namespace ferrybus {
namespace {

using ::absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Saved = savestate::v1::ConnectionState;

absl::Span<const std::byte> AsBytes(const std::string& bytes) {
  return {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()};
}

struct RestoredHost {
  RecordingEvents events;
  std::unique_ptr<ServerConnection> connection;
};

// Parses and restores; offers are not claimed.
std::unique_ptr<RestoredHost> Restore(
    const std::string& bytes,
    const ServerConnectionOptions& options = TestServerOptions()) {
  absl::StatusOr<CheckedServerConnection> checked =
      ParseServerConnection(AsBytes(bytes), options);
  EXPECT_TRUE(checked.ok()) << checked.status();
  if (!checked.ok()) return nullptr;
  auto host = std::make_unique<RestoredHost>();
  host->connection =
      ServerConnection::Restore(*std::move(checked), options, &host->events);
  return host;
}

// Two primary channels and a sub-channel of the first.
void AddOffers(ServerConnection& connection) {
  (void)connection.AddOffer(TestOffer(1));
  (void)connection.AddOffer(TestOffer(2));
  (void)connection.AddOffer(TestOffer(1, 1));
}

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

// --- Every state reached by short sequences ---------------------------------

struct Action {
  const char* name;
  std::function<absl::Status(ServerConnection&)> run;
};

Action Message(const char* name, Bytes message) {
  return {name, [message](ServerConnection& connection) {
            return connection.HandleMessage(message);
          }};
}

absl::Status Pop(ServerConnection& connection) {
  if (connection.has_outgoing()) connection.PopOutgoing();
  return absl::OkStatus();
}

std::vector<Action> Alphabet() {
  const std::vector<Bytes> big = GpadlMessages(1, 2, 40, 0x200);
  return {
      Message("contact 5.3", ContactMessage(ProtocolVersion::kIron)),
      Message("contact 1.1", ContactMessage(ProtocolVersion::kWin7)),
      Message("contact 9.9", ContactMessage(ProtocolVersion{0x90009})),
      Message("request offers", RequestOffers()),
      Message("unload", UnloadBytes()),
      Message("small gpadl", GpadlMessage(1, 1)),
      Message("gpadl header", big[0]),
      Message("gpadl body", big[1]),
      Message("open", OpenMessage(1, 1)),
      Message("open unknown", OpenMessage(77, 1)),
      Message("close", CloseMessage(1)),
      Message("teardown", TeardownMessage(1, 1)),
      Message("release", ReleaseMessage(1)),
      Message("modify", ModifyMessage(1, 3)),
      Message("sub gpadl", GpadlMessage(3, 3)),
      Message("sub open", OpenMessage(3, 3)),
      {"opened",
       [](ServerConnection& c) { return c.OpenCompleted(OfferId{0}, 0); }},
      {"refused",
       [](ServerConnection& c) { return c.OpenCompleted(OfferId{0}, 1); }},
      {"closed",
       [](ServerConnection& c) { return c.CloseCompleted(OfferId{0}); }},
      {"sub opened",
       [](ServerConnection& c) { return c.OpenCompleted(OfferId{2}, 0); }},
      {"rescind 2",
       [](ServerConnection& c) { return c.RescindOffer(OfferId{1}); }},
      {"rescind sub",
       [](ServerConnection& c) { return c.RescindOffer(OfferId{2}); }},
      {"offer",
       [](ServerConnection& c) { return c.AddOffer(TestOffer(7)).status(); }},
      {"pop", Pop},
  };
}

// A state is the actions that lead to it, so that it can be made many times.
using Path = std::vector<const Action*>;

class ExhaustiveRestoreTest : public ::testing::Test {
 protected:
  static std::unique_ptr<TestHost> Make(const Path& path) {
    auto host = std::make_unique<TestHost>();
    AddOffers(host->connection);
    for (const Action* action : path) {
      action->run(host->connection).IgnoreError();
    }
    host->events.Take();
    return host;
  }

  static std::string Describe(const Path& path) {
    std::string text;
    for (const Action* action : path) text.append(action->name).append(", ");
    return text;
  }

  // Restored with the devices that the source still has.
  static std::unique_ptr<RestoredHost> MakeRestored(const std::string& bytes) {
    auto restored = Restore(bytes);
    if (restored == nullptr) return nullptr;
    EXPECT_EQ(SaveServerConnection(*restored->connection), bytes);
    for (const SavedOffer& offer : restored->connection->Snapshot().offers) {
      if (offer.state != ServerChannelState::kRescinded &&
          !offer.is_rescinding) {
        EXPECT_EQ(*restored->connection->AddOffer(offer.params), offer.id);
      }
    }
    restored->connection->FinishRestore();
    restored->events.Take();
    return restored;
  }

  // Whether the source waits for a device that is being taken away; there is
  // none on the target, so that goes on without.
  static bool WaitsForARescind(const ServerConnection& connection) {
    for (const SavedOffer& offer : connection.Snapshot().offers) {
      if (offer.is_rescinding) return true;
    }
    return false;
  }

  void CheckState(const Path& path, const std::string& bytes) {
    const auto restored = MakeRestored(bytes);
    ASSERT_NE(restored, nullptr);
    if (WaitsForARescind(Make(path)->connection)) {
      EXPECT_FALSE(WaitsForARescind(*restored->connection));
      return;
    }
    ASSERT_EQ(SaveServerConnection(*restored->connection), bytes);
    for (const Action& next : alphabet_) CheckNext(path, bytes, next);
  }

  void CheckNext(const Path& path, const std::string& bytes,
                 const Action& next) {
    const auto live = Make(path);
    const auto restored = MakeRestored(bytes);
    EXPECT_EQ(next.run(live->connection).code(),
              next.run(*restored->connection).code())
        << next.name;
    EXPECT_EQ(live->events.Take(), restored->events.Take()) << next.name;
    ASSERT_EQ(SaveServerConnection(live->connection),
              SaveServerConnection(*restored->connection))
        << next.name;
    EXPECT_EQ(live->Drain(), Drain(*restored->connection)) << next.name;
  }

  const Action& Named(std::string_view name) const {
    for (const Action& action : alphabet_) {
      if (action.name == name) return action;
    }
    ADD_FAILURE() << "no action " << name;
    return alphabet_[0];
  }

  // All states at most `depth` actions after `start`.
  void Explore(std::vector<std::string_view> start, int depth) {
    Path path;
    for (std::string_view name : start) path.push_back(&Named(name));
    std::vector<Path> frontier = {path};
    for (int level = 0; level <= depth; ++level) {
      std::vector<Path> next_frontier;
      for (const Path& here : frontier) {
        const std::string bytes = SaveServerConnection(Make(here)->connection);
        if (!seen_.insert(bytes).second) continue;
        SCOPED_TRACE(Describe(here));
        ASSERT_NO_FATAL_FAILURE(CheckState(here, bytes));
        for (const Action& action : alphabet_) {
          next_frontier.push_back(here);
          next_frontier.back().push_back(&action);
        }
      }
      frontier = std::move(next_frontier);
    }
  }

  const std::vector<Action> alphabet_ = Alphabet();
  std::set<std::string> seen_;
};

TEST_F(ExhaustiveRestoreTest, FromDisconnected) {
  Explore({}, 3);
  EXPECT_GT(seen_.size(), 50u);
}

TEST_F(ExhaustiveRestoreTest, FromOffered) {
  Explore({"contact 5.3", "request offers", "small gpadl", "pop"}, 3);
  EXPECT_GT(seen_.size(), 500u);
}

TEST_F(ExhaustiveRestoreTest, FromOpen) {
  Explore({"contact 5.3", "request offers", "small gpadl", "open", "opened",
           "sub gpadl", "sub open"},
          2);
  EXPECT_GT(seen_.size(), 150u);
}

TEST_F(ExhaustiveRestoreTest, FromReopening) {
  Explore({"contact 5.3", "request offers", "small gpadl", "open", "opened",
           "close", "open"},
          2);
  EXPECT_GT(seen_.size(), 150u);
}

}  // namespace
}  // namespace ferrybus
