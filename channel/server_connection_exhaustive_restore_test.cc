// SPDX-License-Identifier: MIT
//
// Every state that short sequences reach: saved and restored, it behaves as if
// nothing had happened, whatever comes next.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ferrybus/channel/connection_restore_test_util.h"
#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/channel/server_connection_persist.h"

namespace ferrybus {
namespace {

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

// What the first alphabet lacks: 6.0 and what outlives a message.
std::vector<Action> RequestAlphabet() {
  const Guid endpoint = TestEndpoint(1);
  return {
      Message("contact 6.0",
              ContactMessage(ProtocolVersion::kCopper, 0,
                             kDefaultFeatures & ~kFeatureClientId)),
      Message("contact 4.0", ContactMessage(ProtocolVersion::kWin10)),
      Message("request offers", RequestOffers()),
      Message("unload", UnloadBytes()),
      Message("small gpadl", GpadlMessage(1, 1)),
      Message("open", OpenMessage(1, 1)),
      Message("teardown", TeardownMessage(1, 1)),
      Message("open reserved", OpenReservedMessage(1, 1)),
      Message("close reserved", CloseReservedMessage(1)),
      Message("connect", TlConnectMessage(endpoint, TestService())),
      Message("modify connection", ModifyConnectionBytes(0x4000, 0x5000)),
      Message("pause", PauseBytes()),
      Message("resume", ResumeBytes()),
      {"opened",
       [](ServerConnection& c) { return c.OpenCompleted(OfferId{0}, 0); }},
      {"closed",
       [](ServerConnection& c) { return c.CloseCompleted(OfferId{0}); }},
      {"connected",
       [](ServerConnection& c) {
         return c.AddOffer(TestSocketOffer(1)).status();
       }},
      {"refused",
       [endpoint](ServerConnection& c) {
         return c.RefuseTlConnect(endpoint, TestService());
       }},
      {"modified",
       [](ServerConnection& c) { return c.ModifyConnectionCompleted(true); }},
      {"disconnect",
       [](ServerConnection& c) {
         c.Disconnect();
         return absl::OkStatus();
       }},
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

  std::vector<Action> alphabet_ = Alphabet();
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

class ExhaustiveRequestRestoreTest : public ExhaustiveRestoreTest {
 protected:
  ExhaustiveRequestRestoreTest() { alphabet_ = RequestAlphabet(); }
};

TEST_F(ExhaustiveRequestRestoreTest, FromOffered) {
  Explore({"contact 6.0", "request offers", "small gpadl", "pop"}, 3);
  EXPECT_GT(seen_.size(), 500u);
}

TEST_F(ExhaustiveRequestRestoreTest, FromReserved) {
  Explore({"contact 6.0", "request offers", "small gpadl", "open reserved",
           "opened", "connect", "modify connection"},
          3);
  EXPECT_GT(seen_.size(), 100u);
}

TEST_F(ExhaustiveRequestRestoreTest, FromReservedOfAnotherKernel) {
  Explore({"contact 6.0", "request offers", "small gpadl", "open reserved",
           "opened", "contact 6.0", "request offers"},
          3);
  EXPECT_GT(seen_.size(), 100u);
}

TEST_F(ExhaustiveRequestRestoreTest, FromPaused) {
  Explore({"contact 6.0", "request offers", "small gpadl", "open reserved",
           "connect", "pause", "refused"},
          3);
  EXPECT_GT(seen_.size(), 100u);
}

}  // namespace
}  // namespace ferrybus
