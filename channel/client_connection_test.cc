// SPDX-License-Identifier: MIT
#include "ferrybus/channel/client_connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/connection_test_util.h"

namespace ferrybus {
namespace {

using ::absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr ChannelId kChannel{1};
constexpr GpadlId kFirstGpadl{0xe1e10};

class RecordingClient : public ClientEvents {
 public:
  void OnVersion(const ClientVersion& version) override {
    Tell(version.accepted ? "version " : "no version ",
         ProtocolVersionToString(version.version));
  }
  void OnOffer(const ClientOffer& offer) override {
    Tell("offer ", Number(offer.channel_id));
  }
  void OnAllOffersDelivered() override { Tell("all offers"); }
  void OnRescind(ChannelId channel) override {
    Tell("rescind ", Number(channel));
  }
  void OnOpenResult(ChannelId channel, uint32_t status) override {
    Tell("open ", Number(channel), " ", status);
  }
  void OnGpadlCreated(ChannelId, GpadlId gpadl, uint32_t status) override {
    Tell("created ", absl::Hex(static_cast<uint32_t>(gpadl)), " ", status);
  }
  void OnGpadlTorndown(ChannelId, GpadlId gpadl) override {
    Tell("torndown ", absl::Hex(static_cast<uint32_t>(gpadl)));
  }
  void OnModifyResponse(ChannelId channel, uint32_t status) override {
    Tell("modified ", Number(channel), " ", status);
  }
  void OnUnloaded() override { Tell("unloaded"); }

  std::vector<std::string> Take() { return std::exchange(told_, {}); }

 private:
  static uint32_t Number(ChannelId channel) {
    return static_cast<uint32_t>(channel);
  }
  template <typename... Args>
  void Tell(const Args&... args) {
    told_.push_back(absl::StrCat(args...));
  }
  std::vector<std::string> told_;
};

class ClientConnectionTest : public ::testing::Test {
 protected:
  absl::Status Host(const EncodedMessage& message) {
    return client_.HandleMessage(message.bytes());
  }
  std::vector<Bytes> Drain() {
    std::vector<Bytes> messages;
    for (; client_.has_outgoing(); client_.PopOutgoing()) {
      const absl::Span<const std::byte> front = client_.outgoing_front();
      messages.emplace_back(front.begin(), front.end());
    }
    return messages;
  }
  std::vector<uint32_t> DrainTypes() {
    std::vector<uint32_t> types;
    for (const Bytes& message : Drain()) types.push_back(TypeOf(message));
    return types;
  }
  absl::Status Respond(uint8_t supported, uint8_t state = 0,
                       ProtocolVersion version = ProtocolVersion::kIron) {
    const VersionResponseMessage message{
        .version_supported = supported,
        .connection_state = state,
        .version_or_connection_id = kMessageConnectionClassic};
    return Host(EncodeVersionResponse(message, version));
  }
  absl::Status Offer(uint32_t channel) {
    OfferChannelMessage message;
    message.channel_id = ChannelId{channel};
    message.connection_id = 0x2000 + channel;
    return Host(EncodeOfferChannel(message, ProtocolVersion::kIron));
  }
  void ConnectWithOneOffer() {
    ASSERT_TRUE(client_.Connect().ok());
    ASSERT_TRUE(Respond(1).ok());
    ASSERT_TRUE(client_.RequestOffers().ok());
    ASSERT_TRUE(Offer(1).ok());
    Drain();
    events_.Take();
  }
  absl::Status Created(GpadlId gpadl, uint32_t status = 0,
                       ChannelId channel = kChannel) {
    return Host(EncodeMessage(GpadlCreatedMessage{
        .channel_id = channel, .gpadl_id = gpadl, .status = status}));
  }
  absl::Status OpenResult(uint32_t open_id, uint32_t status) {
    return Host(EncodeMessage(OpenChannelResultMessage{
        .channel_id = kChannel, .open_id = open_id, .status = status}));
  }
  GpadlId CreateRing() {
    const std::vector<uint64_t> pages = {1, 2, 3, 4};
    return *client_.CreateGpadl(kChannel, pages, 4 * 4096, 0);
  }
  void OpenChannel() {
    const GpadlId ring = CreateRing();
    ASSERT_TRUE(Created(ring).ok());
    ASSERT_TRUE(
        client_
            .Open(kChannel, {.ring_gpadl = ring, .downstream_page_offset = 2})
            .ok());
    ASSERT_TRUE(OpenResult(1, 0).ok());
    Drain();
    events_.Take();
  }

  RecordingClient events_;
  ClientConnection client_{ClientConnectionOptions(), &events_};
};

// vector:M1
// quirk:D17
TEST(ClientContactTest, SendsContactAsLinuxDoes) {
  RecordingClient events;
  ClientConnectionOptions options;
  options.parent_to_child_monitor_page = 0x1234000;
  options.child_to_parent_monitor_page = 0x1235000;
  ClientConnection client(options, &events);
  ASSERT_TRUE(client.Connect().ok());
  EXPECT_EQ(client.message_connection(), kMessageConnectionMulticlient);
  EXPECT_EQ(ToHex(client.outgoing_front()),
            ToHex(FromHex("0e00000000000000 0300050000000000 "
                          "0200000000000000 0040230100000000 "
                          "0050230100000000")));
}

// vector:M2
TEST(ClientContactTest, SendsTheInterruptPageBeforeFiveZero) {
  RecordingClient events;
  ClientConnectionOptions options;
  options.versions = {ProtocolVersion::kWin10};
  options.interrupt_page = 0x1233000;
  options.parent_to_child_monitor_page = 0x1234000;
  options.child_to_parent_monitor_page = 0x1235000;
  ClientConnection client(options, &events);
  ASSERT_TRUE(client.Connect().ok());
  EXPECT_EQ(client.message_connection(), kMessageConnectionClassic);
  EXPECT_EQ(ToHex(client.outgoing_front()),
            ToHex(FromHex("0e00000000000000 0000040000000000 "
                          "0030230100000000 0040230100000000 "
                          "0050230100000000")));
}

TEST(ClientContactTest, CopperNeedsALongResponseAndOnlyGrantsWhatWasAsked) {
  RecordingClient events;
  ClientConnectionOptions options;
  options.versions = {ProtocolVersion::kCopper};
  options.client_id = GuidLiteral("18dd3964-3e8a-4e42-86fa-c8e6b191ee0e");
  ClientConnection client(options, &events);
  ASSERT_TRUE(client.Connect().ok());
  EXPECT_EQ(client.outgoing_front().size(), 56u);
  VersionResponseMessage message{.version_supported = 1};
  const auto handle = [&](ProtocolVersion version) {
    return client.HandleMessage(
        EncodeVersionResponse(message, version).bytes());
  };
  EXPECT_FALSE(handle(ProtocolVersion::kIron).ok());
  message.supported_features = kFeaturePauseResume;
  EXPECT_FALSE(handle(ProtocolVersion::kCopper).ok());
  EXPECT_THAT(events.Take(), IsEmpty());
  message.supported_features = kFeatureClientId;
  EXPECT_TRUE(handle(ProtocolVersion::kCopper).ok());
  EXPECT_THAT(events.Take(), ElementsAre("version 6.0"));
  EXPECT_EQ(client.features(), kFeatureClientId);
}

TEST(ClientContactTest, DoesNotReadTheStateBeforeTwoFour) {
  for (ProtocolVersion version :
       {ProtocolVersion::kWin7, ProtocolVersion::kWin8}) {
    RecordingClient events;
    ClientConnectionOptions options;
    options.versions = {version};
    ClientConnection client(options, &events);
    ASSERT_TRUE(client.Connect().ok());
    const VersionResponseMessage message{.version_supported = 1,
                                         .connection_state = 0xee};
    ASSERT_TRUE(
        client.HandleMessage(EncodeVersionResponse(message, version).bytes())
            .ok());
    EXPECT_EQ(client.phase(), version == ProtocolVersion::kWin7
                                  ? ClientPhase::kConnected
                                  : ClientPhase::kDisconnected);
  }
}

TEST_F(ClientConnectionTest, TriesVersionsInOrder) {
  ASSERT_TRUE(client_.Connect().ok());
  std::vector<uint32_t> tried;
  for (int i = 0; i < 8; ++i) {
    const std::vector<Bytes> messages = Drain();
    ASSERT_EQ(messages.size(), 1u);
    tried.push_back(Read<InitiateContactMessage>(messages[0]).version);
    EXPECT_THAT(events_.Take(), IsEmpty());
    ASSERT_TRUE(Respond(0).ok());
  }
  EXPECT_THAT(tried, ElementsAre(0x50003, 0x50002, 0x50001, 0x50000, 0x40001,
                                 0x40000, 0x30000, 0x20004));
  EXPECT_THAT(events_.Take(), ElementsAre("no version 2.4"));
  EXPECT_EQ(client_.phase(), ClientPhase::kDisconnected);
}

TEST_F(ClientConnectionTest, FailedConnectionStateEndsTheAttempt) {
  ASSERT_TRUE(client_.Connect().ok());
  ASSERT_TRUE(Respond(1, kConnectionFailedUnknown).ok());
  EXPECT_THAT(events_.Take(), ElementsAre("no version 5.3"));
}

TEST_F(ClientConnectionTest, UsesTheMessageConnectionOfTheResponse) {
  ASSERT_TRUE(client_.Connect().ok());
  ASSERT_TRUE(Respond(1).ok());
  EXPECT_EQ(client_.message_connection(), kMessageConnectionClassic);
}

TEST_F(ClientConnectionTest, IgnoresMessagesOfTheOldConnection) {
  ConnectWithOneOffer();
  ASSERT_TRUE(client_.Connect().ok());
  EXPECT_TRUE(Offer(2).ok());
  EXPECT_EQ(client_.counters().messages_ignored, 1u);
  EXPECT_EQ(client_.FindOffer(kChannel), nullptr);
  EXPECT_THAT(events_.Take(), IsEmpty());
}

TEST_F(ClientConnectionTest, KeepsOffers) {
  ConnectWithOneOffer();
  ASSERT_NE(client_.FindOffer(kChannel), nullptr);
  EXPECT_EQ(client_.FindOffer(kChannel)->connection_id, 0x2001u);
  EXPECT_TRUE(Host(EncodeMessage(AllOffersDeliveredMessage{})).ok());
  EXPECT_FALSE(Host(EncodeMessage(AllOffersDeliveredMessage{})).ok());
  EXPECT_TRUE(Offer(2047).ok());
  EXPECT_THAT(events_.Take(), ElementsAre("all offers", "offer 2047"));
}

TEST_F(ClientConnectionTest, RefusesOffersThatCannotBe) {
  ASSERT_TRUE(client_.Connect().ok());
  ASSERT_TRUE(Respond(1).ok());
  EXPECT_EQ(Offer(1).code(), StatusCode::kFailedPrecondition);
  ASSERT_TRUE(client_.RequestOffers().ok());
  EXPECT_EQ(client_.RequestOffers().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(Offer(0).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Offer(2048).code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(Offer(1).ok());
  EXPECT_EQ(Offer(1).code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(client_.counters().messages_refused, 4u);
}

TEST_F(ClientConnectionTest, RefusesWhatItDidNotAskFor) {
  ConnectWithOneOffer();
  EXPECT_FALSE(Respond(1).ok());
  EXPECT_FALSE(Created(kFirstGpadl).ok());
  EXPECT_FALSE(OpenResult(1, 0).ok());
  EXPECT_FALSE(Host(EncodeMessage(GpadlTorndownMessage{})).ok());
  EXPECT_FALSE(Host(EncodeMessage(UnloadResponseMessage{})).ok());
  EXPECT_FALSE(Host(EncodeMessage(ModifyChannelResponseMessage{})).ok());
  EXPECT_FALSE(Host(EncodeMessage(TlConnectResultMessage{})).ok());
  EXPECT_FALSE(Host(EncodeMessage(RescindChannelOfferMessage{})).ok());
  EXPECT_FALSE(client_.HandleMessage(CloseMessage(1)).ok());
  EXPECT_FALSE(client_.HandleMessage({}).ok());
  EXPECT_FALSE(client_.HandleMessage(Bytes(241)).ok());
  EXPECT_THAT(events_.Take(), IsEmpty());
  EXPECT_EQ(client_.counters().messages_refused, 11u);
}

// vector:M11
TEST_F(ClientConnectionTest, CreatesAGpadlInSeveralMessages) {
  ConnectWithOneOffer();
  std::vector<uint64_t> pages(40);
  for (size_t i = 0; i < pages.size(); ++i) pages[i] = 0x20000 + i;
  EXPECT_EQ(*client_.CreateGpadl(kChannel, pages, 40 * 4096, 0), kFirstGpadl);
  EXPECT_EQ(Drain(), GpadlMessages(1, 0xe1e10, 40, 0x20000));
  ASSERT_TRUE(Created(kFirstGpadl).ok());
  EXPECT_THAT(events_.Take(), ElementsAre("created e1e10 0"));
  EXPECT_FALSE(Created(kFirstGpadl).ok());

  EXPECT_EQ(*client_.CreateGpadl(kChannel, pages, 39 * 4096 + 8, 4088),
            GpadlId{0xe1e11});
  EXPECT_EQ(client_.CreateGpadl(kChannel, pages, 40 * 4096, 1).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(
      client_.CreateGpadl(ChannelId{2}, pages, 40 * 4096, 0).status().code(),
      StatusCode::kNotFound);
  // The host does not want it, and then its id is free.
  EXPECT_FALSE(Created(GpadlId{0xe1e11}, 0, ChannelId{2}).ok());
  ASSERT_TRUE(Created(GpadlId{0xe1e11}, kStatusUnsuccessful).ok());
  EXPECT_EQ(client_.TeardownGpadl(GpadlId{0xe1e11}).code(),
            StatusCode::kNotFound);
}

// vector:M18
TEST_F(ClientConnectionTest, TearsDownAGpadl) {
  ConnectWithOneOffer();
  const GpadlId ring = CreateRing();
  EXPECT_EQ(client_.TeardownGpadl(ring).code(),
            StatusCode::kFailedPrecondition);
  ASSERT_TRUE(Created(ring).ok());
  Drain();
  ASSERT_TRUE(client_.TeardownGpadl(ring).ok());
  EXPECT_EQ(client_.TeardownGpadl(ring).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_THAT(Drain(), ElementsAre(TeardownMessage(1, 0xe1e10)));
  ASSERT_TRUE(Host(EncodeMessage(GpadlTorndownMessage{.gpadl_id = ring})).ok());
  EXPECT_THAT(events_.Take(), ElementsAre("created e1e10 0", "torndown e1e10"));
}

// vector:M14
// vector:M17
TEST_F(ClientConnectionTest, OpensAndCloses) {
  ConnectWithOneOffer();
  const GpadlId ring = CreateRing();
  const OpenParams params = {.ring_gpadl = ring, .downstream_page_offset = 20};
  EXPECT_EQ(client_.Open(kChannel, params).code(),
            StatusCode::kFailedPrecondition);
  ASSERT_TRUE(Created(ring).ok());
  Drain();
  ASSERT_TRUE(client_.Open(kChannel, params).ok());
  EXPECT_THAT(Drain(), ElementsAre(OpenMessage(1, 0xe1e10, 20, 1)));
  EXPECT_FALSE(OpenResult(2, 0).ok());
  EXPECT_EQ(client_.Close(kChannel).code(), StatusCode::kFailedPrecondition);
  ASSERT_TRUE(OpenResult(1, 0).ok());
  EXPECT_EQ(client_.channel_state(kChannel), ClientChannelState::kOpen);
  ASSERT_TRUE(client_.Close(kChannel).ok());
  EXPECT_THAT(Drain(), ElementsAre(CloseMessage(1)));

  ASSERT_TRUE(client_.Open(kChannel, params).ok());
  ASSERT_TRUE(OpenResult(1, 7).ok());
  EXPECT_EQ(client_.channel_state(kChannel), ClientChannelState::kClosed);
  EXPECT_THAT(events_.Take(),
              ElementsAre("created e1e10 0", "open 1 0", "open 1 7"));
}

// vector:M21
TEST_F(ClientConnectionTest, ReleasesARescindedChannelWithoutGpadls) {
  ConnectWithOneOffer();
  OpenChannel();
  EXPECT_EQ(client_.ReleaseRelid(kChannel).code(),
            StatusCode::kFailedPrecondition);
  const EncodedMessage rescind =
      EncodeMessage(RescindChannelOfferMessage{.channel_id = kChannel});
  ASSERT_TRUE(Host(rescind).ok());
  EXPECT_FALSE(Host(rescind).ok());
  EXPECT_THAT(events_.Take(), ElementsAre("rescind 1"));
  EXPECT_EQ(client_.Close(kChannel).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(client_.ReleaseRelid(kChannel).code(),
            StatusCode::kFailedPrecondition);
  ASSERT_TRUE(client_.TeardownGpadl(kFirstGpadl).ok());
  ASSERT_TRUE(
      Host(EncodeMessage(GpadlTorndownMessage{.gpadl_id = kFirstGpadl})).ok());
  Drain();
  ASSERT_TRUE(client_.ReleaseRelid(kChannel).ok());
  EXPECT_THAT(Drain(), ElementsAre(ReleaseMessage(1)));
  EXPECT_EQ(client_.FindOffer(kChannel), nullptr);
  EXPECT_TRUE(Offer(1).ok());  // the number is used again
}

// vector:M22
TEST_F(ClientConnectionTest, ModifiesOneAtATime) {
  ConnectWithOneOffer();
  EXPECT_EQ(client_.ModifyChannel(kChannel, 3).code(),
            StatusCode::kFailedPrecondition);
  OpenChannel();
  ASSERT_TRUE(client_.ModifyChannel(kChannel, 3).ok());
  EXPECT_THAT(Drain(), ElementsAre(ModifyMessage(1, 3)));
  EXPECT_EQ(client_.ModifyChannel(kChannel, 2).code(),
            StatusCode::kFailedPrecondition);
  ASSERT_TRUE(Host(EncodeMessage(ModifyChannelResponseMessage{
                       .channel_id = kChannel, .status = 0}))
                  .ok());
  EXPECT_THAT(events_.Take(), ElementsAre("modified 1 0"));
  EXPECT_TRUE(client_.ModifyChannel(kChannel, 2).ok());
}

// vector:M24
// vector:M25
TEST_F(ClientConnectionTest, UnloadsAndForgets) {
  EXPECT_EQ(client_.Unload().code(), StatusCode::kFailedPrecondition);
  ConnectWithOneOffer();
  ASSERT_TRUE(client_.Unload().ok());
  EXPECT_THAT(Drain(), ElementsAre(UnloadBytes()));
  EXPECT_TRUE(Offer(5).ok());  // still under way
  EXPECT_EQ(client_.Unload().code(), StatusCode::kFailedPrecondition);
  ASSERT_TRUE(Host(EncodeMessage(UnloadResponseMessage{})).ok());
  EXPECT_THAT(events_.Take(), ElementsAre("unloaded"));
  EXPECT_EQ(client_.phase(), ClientPhase::kDisconnected);
  EXPECT_EQ(client_.RequestOffers().code(), StatusCode::kFailedPrecondition);
}

TEST(ClientLimitTest, QueuesNoMoreThanAllowed) {
  RecordingClient events;
  ClientConnectionOptions options;
  options.limits.outgoing_messages_max = 2;
  ClientConnection client(options, &events);
  ASSERT_TRUE(client.Connect().ok());
  client.PopOutgoing();
  const VersionResponseMessage response{.version_supported = 1};
  ASSERT_TRUE(
      client
          .HandleMessage(
              EncodeVersionResponse(response, ProtocolVersion::kIron).bytes())
          .ok());
  ASSERT_TRUE(client.RequestOffers().ok());
  OfferChannelMessage offer;
  offer.channel_id = kChannel;
  ASSERT_TRUE(client
                  .HandleMessage(
                      EncodeOfferChannel(offer, ProtocolVersion::kIron).bytes())
                  .ok());
  // Two messages needed, one fits: none is queued.
  const std::vector<uint64_t> pages(40, 1);
  EXPECT_EQ(client.CreateGpadl(kChannel, pages, 40 * 4096, 0).status().code(),
            StatusCode::kResourceExhausted);
  EXPECT_TRUE(client.Unload().ok());
}

}  // namespace
}  // namespace ferrybus
