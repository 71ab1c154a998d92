// SPDX-License-Identifier: MIT
//
// Contact and offers.  Resets, channels and GPADLs have their own files.
#include "ferrybus/channel/server_connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>

#include "ferrybus/channel/connection_test_util.h"

namespace ferrybus {
namespace {

using ::absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint32_t kOffer = 1;
constexpr uint32_t kRescind = 2;
constexpr uint32_t kAllOffers = 4;
constexpr uint32_t kVersionResponse = 15;

VersionResponseMessage TakeVersionResponse(TestHost& host) {
  const std::vector<Bytes> messages = host.Drain();
  EXPECT_EQ(messages.size(), 1u);
  if (messages.empty()) return {};
  EXPECT_EQ(TypeOf(messages.back()), kVersionResponse);
  return Read<VersionResponseMessage>(messages.back());
}

Bytes Contact(const InitiateContactMessage& message) {
  return ToBytes(EncodeInitiateContact(message));
}

// --- Contact ----------------------------------------------------------------

// quirk:D17
// quirk:D15
TEST(ServerContactTest, AcceptsEveryVersion) {
  for (ProtocolVersion version : kAllProtocolVersions) {
    TestHost host;
    ASSERT_TRUE(host.Handle(ContactMessage(version)).ok());
    EXPECT_EQ(host.connection.phase(), ConnectionPhase::kConnected);
    const std::vector<Bytes> messages = host.Drain();
    ASSERT_EQ(messages.size(), 1u);
    EXPECT_EQ(messages[0].size(),
              version >= ProtocolVersion::kCopper ? 20u : 16u);
    const auto response = Read<VersionResponseMessage>(messages[0]);
    EXPECT_EQ(response.version_supported, 1);
    EXPECT_EQ(response.connection_state, kConnectionSuccessful);
    EXPECT_EQ(response.version_or_connection_id,
              version >= ProtocolVersion::kWin10Rs3Plus
                  ? kMessageConnectionClassic
                  : static_cast<uint32_t>(version));
    EXPECT_THAT(host.events.Take(),
                ElementsAre("connected " + ProtocolVersionToString(version)));
  }
}

// bad:C3
TEST(ServerContactTest, RefusesUnknownVersionsAndWaitsForTheNext) {
  TestHost host;
  for (uint32_t version : {0u, 1u, 0x50004u, 0x60001u, 0xffffffffu}) {
    EXPECT_FALSE(host.Handle(ContactMessage(ProtocolVersion{version})).ok());
    const std::vector<Bytes> messages = host.Drain();
    ASSERT_EQ(messages.size(), 1u);
    EXPECT_EQ(messages[0], FromHex("0f00000000000000 0000000000000000"));
    EXPECT_EQ(host.connection.phase(), ConnectionPhase::kDisconnected);
  }
  EXPECT_EQ(host.connection.counters().messages_refused, 5u);
  EXPECT_TRUE(host.Handle(ContactMessage(ProtocolVersion::kIron)).ok());
  EXPECT_EQ(TakeVersionResponse(host).version_supported, 1);
}

TEST(ServerContactTest, RefusesVersionsAboveItsMaximum) {
  ServerConnectionOptions options = TestServerOptions();
  options.max_version = ProtocolVersion::kWin10;
  TestHost host(options);
  EXPECT_FALSE(host.Handle(ContactMessage(ProtocolVersion::kWin10Rs3)).ok());
  EXPECT_EQ(TakeVersionResponse(host).version_supported, 0);
  EXPECT_TRUE(host.Handle(ContactMessage(ProtocolVersion::kWin10)).ok());
}

// bad:C3
TEST(ServerContactTest, ReportsAVpThatDoesNotExistAsTheVersionAllows) {
  TestHost host;
  EXPECT_FALSE(
      host.Handle(ContactMessage(ProtocolVersion::kIron, kTestMaxVp + 1)).ok());
  const VersionResponseMessage response = TakeVersionResponse(host);
  EXPECT_EQ(response.version_supported, 1);
  EXPECT_EQ(response.connection_state, kConnectionFailedUnknown);
  EXPECT_EQ(host.connection.phase(), ConnectionPhase::kDisconnected);

  // Before 3.0 the guest does not choose.
  EXPECT_TRUE(
      host.Handle(ContactMessage(ProtocolVersion::kWin8, kTestMaxVp + 1)).ok());
  EXPECT_EQ(host.connection.contact().target_message_vp, 0u);
  EXPECT_TRUE(
      host.Handle(ContactMessage(ProtocolVersion::kIron, kTestMaxVp)).ok());
  EXPECT_EQ(host.connection.contact().target_message_vp, kTestMaxVp);
}

// bad:C3
TEST(ServerContactTest, ChecksSintAndVtlOnTheMulticlientConnectionOnly) {
  InitiateContactMessage message;
  message.version = static_cast<uint32_t>(ProtocolVersion::kWin10Rs4);
  for (uint8_t sint : std::initializer_list<uint8_t>{0, 2, 16, 255}) {
    for (uint8_t vtl : std::initializer_list<uint8_t>{0, 2}) {
      message.target_sint = sint;
      message.target_vtl = vtl;
      TestHost host;
      EXPECT_TRUE(
          host.connection
              .HandleMessage(Contact(message), kMessageConnectionClassic)
              .ok());
      EXPECT_EQ(
          host.connection
              .HandleMessage(Contact(message), kMessageConnectionMulticlient)
              .ok(),
          sint == 2 && vtl == 0);
    }
  }
}

// bad:C3
TEST(ServerContactTest, ChecksMonitorPages) {
  const struct {
    uint64_t parent_to_child, child_to_parent;
    bool accepted;
  } kCases[] = {
      {0, 0, true},
      {0x1000, 0x2000, true},
      {0x1000, 0, false},
      {0, 0x1000, false},
      {0x1001, 0x2000, false},
      {0x1000, kTestRamPages * 4096, false},
      {0x1000, ~uint64_t{0xfff}, false},
  };
  for (const auto& c : kCases) {
    TestHost host;
    InitiateContactMessage message;
    message.version = static_cast<uint32_t>(ProtocolVersion::kWin10);
    message.parent_to_child_monitor_page = c.parent_to_child;
    message.child_to_parent_monitor_page = c.child_to_parent;
    EXPECT_EQ(host.Handle(Contact(message)).ok(), c.accepted);
    EXPECT_EQ(host.connection.contact().parent_to_child_monitor_page,
              c.accepted ? c.parent_to_child : 0);
    // Guests before 2.4 do not read the state.
    message.version = static_cast<uint32_t>(ProtocolVersion::kWin7);
    host.Drain();
    EXPECT_EQ(host.Handle(Contact(message)).ok(), c.accepted);
    EXPECT_EQ(TakeVersionResponse(host).version_supported, c.accepted);
  }
}

// vector:M3
TEST(ServerContactTest, GrantsTheClientIdAndNothingElse) {
  ServerConnectionOptions options = TestServerOptions();
  options.features = kFeatureClientId;
  TestHost host(options);
  InitiateContactMessage message;
  message.version = static_cast<uint32_t>(ProtocolVersion::kCopper);
  message.feature_flags = 0xff;
  message.client_id = GuidLiteral("18dd3964-3e8a-4e42-86fa-c8e6b191ee0e");
  ASSERT_TRUE(host.Handle(Contact(message)).ok());
  EXPECT_EQ(TakeVersionResponse(host).supported_features, kFeatureClientId);
  EXPECT_EQ(host.connection.contact().client_id, message.client_id);
  // PAUSE and MODIFY_CONNECTION were not granted.
  EXPECT_EQ(host.Handle(ToBytes(EncodeMessage(PauseMessage{}))).code(),
            StatusCode::kUnimplemented);
}

TEST(ServerContactTest, RefusesOtherMessagesBeforeContact) {
  TestHost host;
  (void)host.connection.AddOffer(TestOffer(1));
  for (const Bytes& message :
       {RequestOffers(), UnloadBytes(), OpenMessage(1, 1), CloseMessage(1),
        GpadlMessage(1, 1), TeardownMessage(1, 1), ReleaseMessage(1),
        ModifyMessage(1, 1)}) {
    EXPECT_EQ(host.Handle(message).code(), StatusCode::kFailedPrecondition);
  }
  EXPECT_THAT(host.Drain(), IsEmpty());
}

// --- Offers -----------------------------------------------------------------

// vector:M9
// quirk:D16
TEST(ServerOfferTest, SendsOffersWhenTheGuestAsks) {
  TestHost host;
  ASSERT_TRUE(host.connection.AddOffer(TestOffer(0xbb)).ok());
  ASSERT_TRUE(host.connection.AddOffer(TestOffer(0xbc)).ok());
  host.Handle(ContactMessage(ProtocolVersion::kIron)).IgnoreError();
  host.Drain();
  ASSERT_TRUE(host.Handle(RequestOffers()).ok());
  const std::vector<Bytes> messages = host.Drain();
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(ToHex(messages[0]),
            ToHex(FromHex(
                "0100000000000000 d96361baa104294d b60572e2ffb1dc7f "
                "1a78b3f8821e1848 a1c363d806ec15bb +16 0100000000000000 +96 "
                "+24 01000000ff000100 01200000")));
  EXPECT_EQ(Read<OfferChannelMessage>(messages[1]).channel_id, ChannelId{2});
  EXPECT_EQ(TypeOf(messages[2]), kAllOffers);
}

// bad:C4
TEST(ServerOfferTest, AnswersRequestOffersOncePerConnection) {
  TestHost host;
  (void)host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest();
  EXPECT_EQ(host.Handle(RequestOffers()).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_THAT(host.Drain(), IsEmpty());
  // A new connection may ask again.
  host.Handle(ContactMessage(ProtocolVersion::kIron)).IgnoreError();
  ASSERT_TRUE(host.Handle(RequestOffers()).ok());
  EXPECT_THAT(host.DrainTypes(),
              ElementsAre(kVersionResponse, kOffer, kAllOffers));
  host.Handle(UnloadBytes()).IgnoreError();
  EXPECT_EQ(host.Handle(RequestOffers()).code(),
            StatusCode::kFailedPrecondition);
}

TEST(ServerOfferTest, HotAddIsOfferedAtOnce) {
  TestHost host;
  host.ConnectGuest();
  ASSERT_TRUE(host.connection.AddOffer(TestOffer(1)).ok());
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kOffer));
}

TEST(ServerOfferTest, MasksFlagsThatTheVersionDoesNotHave) {
  TestHost host;
  OfferParams params = TestOffer(1);
  params.flags = 0xffff;
  (void)host.connection.AddOffer(params);
  for (ProtocolVersion version : kAllProtocolVersions) {
    host.Handle(ContactMessage(version)).IgnoreError();
    host.Drain();
    host.Handle(RequestOffers()).IgnoreError();
    const std::vector<Bytes> messages = host.Drain();
    EXPECT_EQ(messages[0].size(),
              version == ProtocolVersion::kWs2008 ? 190u : 196u);
    EXPECT_EQ(Read<OfferChannelMessage>(messages[0]).flags,
              version < ProtocolVersion::kWin10 ? 0x0011 : 0x2011);
  }
}

TEST(ServerOfferTest, MonitorIdIsOfferedAsAllocated) {
  TestHost host;
  OfferParams params = TestOffer(1);
  params.monitor_id = 127;
  ASSERT_TRUE(host.connection.AddOffer(params).ok());
  host.Handle(ContactMessage(ProtocolVersion::kIron)).IgnoreError();
  host.Drain();
  host.Handle(RequestOffers()).IgnoreError();
  const auto offer = Read<OfferChannelMessage>(host.Drain()[0]);
  EXPECT_EQ(offer.monitor_id, 127);
  EXPECT_EQ(offer.monitor_allocated, 1);

  OfferParams other = TestOffer(2);
  other.monitor_id = 127;
  EXPECT_EQ(host.connection.AddOffer(other).status().code(),
            StatusCode::kAlreadyExists);
  other.monitor_id = 128;
  EXPECT_EQ(host.connection.AddOffer(other).status().code(),
            StatusCode::kInvalidArgument);
}

TEST(ServerOfferTest, RefusesTheSameIdentityTwice) {
  TestHost host;
  ASSERT_TRUE(host.connection.AddOffer(TestOffer(1)).ok());
  EXPECT_EQ(host.connection.AddOffer(TestOffer(1)).status().code(),
            StatusCode::kAlreadyExists);
}

// bad:C16
TEST(ServerOfferTest, HasNumbersForTwoThousandAndFortySevenChannels) {
  TestHost host;
  OfferParams params = TestOffer(0);
  for (uint32_t i = 0; i < kMaxChannelId; ++i) {
    params.interface_instance.bytes[14] = static_cast<uint8_t>(i);
    params.interface_instance.bytes[13] = static_cast<uint8_t>(i >> 8);
    ASSERT_TRUE(host.connection.AddOffer(params).ok()) << i;
  }
  params.interface_instance.bytes[12] = 1;
  EXPECT_EQ(host.connection.AddOffer(params).status().code(),
            StatusCode::kResourceExhausted);
  host.Handle(ContactMessage(ProtocolVersion::kIron)).IgnoreError();
  ASSERT_TRUE(host.Handle(RequestOffers()).ok());
  const std::vector<Bytes> messages = host.Drain();
  ASSERT_EQ(messages.size(), 1u + 2047 + 1);
  EXPECT_EQ(Read<OfferChannelMessage>(messages[2047]).channel_id,
            ChannelId{2047});
}

TEST(ServerOfferTest, SubChannelsNeedTheirPrimaryAndVersion) {
  TestHost host;
  EXPECT_EQ(host.connection.AddOffer(TestOffer(1, 1)).status().code(),
            StatusCode::kFailedPrecondition);
  const OfferId primary = *host.connection.AddOffer(TestOffer(1));
  const OfferId sub = *host.connection.AddOffer(TestOffer(1, 1));
  EXPECT_EQ(host.connection.RescindOffer(primary).code(),
            StatusCode::kFailedPrecondition);

  host.Handle(ContactMessage(ProtocolVersion::kWin7)).IgnoreError();
  host.Handle(RequestOffers()).IgnoreError();
  EXPECT_THAT(host.DrainTypes(),
              ElementsAre(kVersionResponse, kOffer, kAllOffers));
  host.ConnectGuest(ProtocolVersion::kWin8);
  EXPECT_TRUE(host.connection.FindOffer(sub)->is_offered);
  EXPECT_TRUE(host.connection.RescindOffer(sub).ok());
  EXPECT_TRUE(host.connection.RescindOffer(primary).ok());
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kRescind, kRescind));
}

// quirk:D22
TEST(ServerOfferTest, KeepsTheNumberUntilItIsReleased) {
  TestHost host;
  const OfferId offer = *host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest();
  ASSERT_TRUE(host.connection.RescindOffer(offer).ok());
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kRescind));
  EXPECT_EQ(host.connection.RescindOffer(offer).code(), StatusCode::kNotFound);
  // The device comes back before the guest has let go.
  const OfferId again = *host.connection.AddOffer(TestOffer(1));
  EXPECT_EQ(host.connection.FindOffer(again)->channel_id, ChannelId{2});
  ASSERT_TRUE(host.Handle(ReleaseMessage(1)).ok());
  EXPECT_EQ(host.connection.FindOffer(offer), std::nullopt);
  EXPECT_EQ(host.connection.FindOffer(*host.connection.AddOffer(TestOffer(2)))
                ->channel_id,
            ChannelId{1});
}

// quirk:D22
TEST(ServerOfferTest, FreesTheNumberOfASilentGuestAtUnload) {
  TestHost host;
  const OfferId offer = *host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest();
  host.connection.RescindOffer(offer).IgnoreError();
  ASSERT_TRUE(host.Handle(UnloadBytes()).ok());
  EXPECT_EQ(host.connection.FindOffer(offer), std::nullopt);
  EXPECT_EQ(host.connection.FindOfferByChannelId(ChannelId{1}), std::nullopt);
}

TEST(ServerOfferTest, RescindBeforeTheGuestKnowsIsSilent) {
  TestHost host;
  const OfferId offer = *host.connection.AddOffer(TestOffer(1));
  ASSERT_TRUE(host.connection.RescindOffer(offer).ok());
  EXPECT_EQ(host.connection.FindOffer(offer), std::nullopt);
  host.Handle(ContactMessage(ProtocolVersion::kIron)).IgnoreError();
  host.Handle(RequestOffers()).IgnoreError();
  EXPECT_THAT(host.DrainTypes(), ElementsAre(kVersionResponse, kAllOffers));
}

// bad:C11
TEST(ServerOfferTest, TenThousandOffersAndRescindsStayFlat) {
  TestHost host;
  host.ConnectGuest();
  for (int i = 0; i < 10000; ++i) {
    const OfferId offer = *host.connection.AddOffer(TestOffer(1));
    ASSERT_TRUE(host.connection.RescindOffer(offer).ok());
    ASSERT_TRUE(host.Handle(ReleaseMessage(1)).ok());
  }
  // A released channel leaves nothing behind, not even messages.
  EXPECT_THAT(host.Drain(), IsEmpty());
  EXPECT_THAT(host.connection.Snapshot().offers, IsEmpty());
}

}  // namespace
}  // namespace ferrybus
