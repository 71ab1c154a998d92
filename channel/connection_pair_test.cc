// SPDX-License-Identifier: MIT
//
// Both sides of a connection joined back to back: what one queues, the other
// handles.
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

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr ChannelId kChannel{1};

// A guest that does what drivers do when they are told something, and keeps
// what it needs for the next step.
class Guest : public ClientEvents {
 public:
  explicit Guest(const ClientConnectionOptions& options)
      : connection(options, this) {}

  void OnVersion(const ClientVersion& version) override { last = version; }
  void OnOffer(const ClientOffer& offer) override { offers.push_back(offer); }
  void OnAllOffersDelivered() override { all_offers = true; }
  void OnRescind(ChannelId channel) override { rescinded.push_back(channel); }
  void OnOpenResult(ChannelId, uint32_t status) override {
    open_results.push_back(status);
  }
  void OnGpadlCreated(ChannelId, GpadlId, uint32_t status) override {
    created.push_back(status);
  }
  void OnGpadlTorndown(ChannelId, GpadlId gpadl) override {
    torndown.push_back(gpadl);
  }
  void OnModifyResponse(ChannelId, uint32_t status) override {
    modified.push_back(status);
  }
  void OnUnloaded() override { ++unloaded; }

  ClientConnection connection;
  ClientVersion last;
  std::vector<ClientOffer> offers;
  bool all_offers = false;
  std::vector<ChannelId> rescinded;
  std::vector<uint32_t> open_results;
  std::vector<uint32_t> created;
  std::vector<GpadlId> torndown;
  std::vector<uint32_t> modified;
  int unloaded = 0;
};

class ConnectionPairTest : public ::testing::TestWithParam<ProtocolVersion> {
 protected:
  static ClientConnectionOptions GuestOptions() {
    ClientConnectionOptions options;
    options.versions = {GetParam()};
    if (GetParam() >= ProtocolVersion::kCopper) {
      options.client_id = GuidLiteral("18dd3964-3e8a-4e42-86fa-c8e6b191ee0e");
    }
    return options;
  }

  // Moves messages until both queues are empty.  Neither side may find
  // anything wrong with what the other sends.
  void Pump() {
    while (guest_.connection.has_outgoing() ||
           host_.connection.has_outgoing()) {
      if (guest_.connection.has_outgoing()) {
        ASSERT_TRUE(host_.connection
                        .HandleMessage(guest_.connection.outgoing_front(),
                                       guest_.connection.message_connection())
                        .ok());
        guest_.connection.PopOutgoing();
      }
      if (host_.connection.has_outgoing()) {
        ASSERT_TRUE(
            guest_.connection.HandleMessage(host_.connection.outgoing_front())
                .ok());
        host_.connection.PopOutgoing();
      }
    }
  }

  void Connect() {
    ASSERT_TRUE(guest_.connection.Connect().ok());
    Pump();
    ASSERT_TRUE(guest_.last.accepted);
    ASSERT_TRUE(guest_.connection.RequestOffers().ok());
    Pump();
    ASSERT_TRUE(guest_.all_offers);
  }

  // A GPADL of 40 pages, as in vector M11.
  GpadlId CreateRing(ChannelId channel) {
    std::vector<uint64_t> pages(40);
    for (size_t i = 0; i < pages.size(); ++i) pages[i] = 0x20000 + i;
    const absl::StatusOr<GpadlId> gpadl =
        guest_.connection.CreateGpadl(channel, pages, 40 * 4096, 0);
    EXPECT_TRUE(gpadl.ok()) << gpadl.status();
    Pump();
    EXPECT_EQ(guest_.created.back(), kStatusSuccess);
    return *gpadl;
  }

  void Open(ChannelId channel, GpadlId ring) {
    ASSERT_TRUE(guest_.connection
                    .Open(channel, {.ring_gpadl = ring,
                                    .downstream_page_offset = 20,
                                    .target_vp = 0})
                    .ok());
    Pump();
    ASSERT_FALSE(guest_.open_results.empty());
    ASSERT_EQ(guest_.open_results.back(), kStatusSuccess);
  }

  void SetUp() override {
    host_.events.answer_opens = &host_.connection;
    host_.events.answer_closes = &host_.connection;
    offer_ = *host_.connection.AddOffer(TestOffer(1));
  }

  TestHost host_;
  Guest guest_{GuestOptions()};
  OfferId offer_{};
};

// vector:M11
TEST_P(ConnectionPairTest, LifeOfAChannel) {
  Connect();
  EXPECT_EQ(host_.connection.contact().version, GetParam());
  ASSERT_EQ(guest_.offers.size(), 1u);
  EXPECT_EQ(guest_.offers[0].channel_id, kChannel);
  EXPECT_EQ(guest_.offers[0].interface_instance,
            TestOffer(1).interface_instance);

  const GpadlId ring = CreateRing(kChannel);
  Open(kChannel, ring);
  const GpadlView view = *host_.connection.RingGpadl(offer_);
  EXPECT_EQ(view.pages.size(), 40u);
  EXPECT_EQ(view.pages[39], 0x20000u + 39);

  // Close and open again, at once: the host has no message for "closed".
  ASSERT_TRUE(guest_.connection.Close(kChannel).ok());
  Open(kChannel, ring);

  if (GetParam() >= ProtocolVersion::kWin10Rs3) {
    ASSERT_TRUE(guest_.connection.ModifyChannel(kChannel, 2).ok());
    Pump();
    EXPECT_EQ(host_.connection.FindOffer(offer_)->target_vp, 2u);
    EXPECT_EQ(guest_.modified.size(),
              GetParam() >= ProtocolVersion::kIron ? 1u : 0u);
  }

  ASSERT_TRUE(guest_.connection.Close(kChannel).ok());
  ASSERT_TRUE(guest_.connection.TeardownGpadl(ring).ok());
  Pump();
  EXPECT_THAT(guest_.torndown, ElementsAre(ring));
}

// vector:M20
// vector:M21
// quirk:D28
TEST_P(ConnectionPairTest, RescindReleaseAndOfferAgain) {
  Connect();
  const GpadlId ring = CreateRing(kChannel);
  Open(kChannel, ring);
  ASSERT_TRUE(host_.connection.RescindOffer(offer_).ok());
  Pump();
  EXPECT_THAT(guest_.rescinded, ElementsAre(kChannel));
  ASSERT_TRUE(guest_.connection.TeardownGpadl(ring).ok());
  Pump();
  ASSERT_TRUE(guest_.connection.ReleaseRelid(kChannel).ok());
  Pump();
  EXPECT_EQ(host_.connection.FindOffer(offer_), std::nullopt);

  offer_ = *host_.connection.AddOffer(TestOffer(1));
  Pump();
  ASSERT_EQ(guest_.offers.size(), 2u);
  EXPECT_EQ(guest_.offers[1].channel_id, kChannel);
  Open(kChannel, CreateRing(kChannel));
}

TEST_P(ConnectionPairTest, UnloadAndReconnect) {
  Connect();
  Open(kChannel, CreateRing(kChannel));
  ASSERT_TRUE(guest_.connection.Unload().ok());
  Pump();
  EXPECT_EQ(guest_.unloaded, 1);
  EXPECT_EQ(host_.connection.phase(), ConnectionPhase::kDisconnected);

  guest_.all_offers = false;
  Connect();
  Open(kChannel, CreateRing(kChannel));
}

// bad:C18
TEST_P(ConnectionPairTest, NewKernelStartsOverWithoutUnload) {
  Connect();
  Open(kChannel, CreateRing(kChannel));
  host_.events.Take();
  guest_.all_offers = false;
  // The old kernel's last messages are lost with it.
  ASSERT_TRUE(guest_.connection.Close(kChannel).ok());
  Connect();
  EXPECT_THAT(host_.events.Take(),
              ElementsAre("close 0", "disconnected",
                          "connected " + ProtocolVersionToString(GetParam())));
  Open(kChannel, CreateRing(kChannel));
}

INSTANTIATE_TEST_SUITE_P(
    Versions, ConnectionPairTest, ::testing::ValuesIn(kAllProtocolVersions),
    [](const ::testing::TestParamInfo<ProtocolVersion>& version) {
      return absl::StrCat("V", absl::Hex(static_cast<uint32_t>(version.param)));
    });

TEST(ConnectionPairVersionTest, GuestStepsDownToWhatTheHostHas) {
  ServerConnectionOptions options = TestServerOptions();
  options.max_version = ProtocolVersion::kWin10;
  TestHost host(options);
  Guest guest{ClientConnectionOptions()};
  ASSERT_TRUE(guest.connection.Connect().ok());
  int contacts = 0;
  while (guest.connection.has_outgoing()) {
    host.Handle(guest.connection.outgoing_front()).IgnoreError();
    guest.connection.PopOutgoing();
    ++contacts;
    ASSERT_TRUE(
        guest.connection.HandleMessage(host.connection.outgoing_front()).ok());
    host.connection.PopOutgoing();
  }
  EXPECT_EQ(contacts, 6);
  EXPECT_TRUE(guest.last.accepted);
  EXPECT_EQ(guest.last.version, ProtocolVersion::kWin10);
  EXPECT_THAT(guest.rescinded, IsEmpty());
}

}  // namespace
}  // namespace ferrybus
