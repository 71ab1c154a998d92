// SPDX-License-Identifier: MIT
//
// Feature flags of 6.0, fields of an offer that implementations read in
// different ways, and the direction of messages.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "ferrybus/channel/client_connection.h"
#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/channel/server_connection.h"

namespace ferrybus {
namespace {

using ::absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint32_t kGrantable[] = {
    kFeatureGuestSignalParameters, kFeatureInterruptRedirection,
    kFeatureModifyConnection,      kFeatureClientId,
    kFeatureConfidentialChannels,  kFeaturePauseResume,
    kFeatureServerMonitorPages,    kFeatureGpaPinning,
};

ServerConnectionOptions WithFeatures(uint32_t features) {
  ServerConnectionOptions options = TestServerOptions();
  options.features = features;
  options.server_monitor_pages = {0x100000000, 0x100001000};
  return options;
}

Bytes Offered(TestHost& host, ProtocolVersion version, uint32_t features) {
  host.Handle(ContactMessage(version, 0, features)).IgnoreError();
  host.Drain();
  host.Handle(RequestOffers()).IgnoreError();
  return host.Drain()[0];
}

// quirk:D28
TEST(FeatureTest, TheHostGrantsWhatBothHave) {
  for (uint32_t host_has : kGrantable) {
    for (uint32_t asked :
         {0u, 1u, 2u, 4u, 8u, 0x10u, 0x20u, 0x40u, 0x80u, 0xffu, 0xffffffffu}) {
      TestHost host(WithFeatures(host_has));
      ASSERT_TRUE(
          host.Handle(ContactMessage(ProtocolVersion::kCopper, 0, asked)).ok());
      const Bytes bytes = host.Drain()[0];
      const auto response = Read<VersionResponseMessage>(bytes);
      EXPECT_EQ(response.supported_features, host_has & asked);
      EXPECT_EQ(host.connection.contact().features, host_has & asked);
      const bool has_pages = (host_has & asked & 0x40) != 0;
      EXPECT_EQ(bytes.size(), has_pages ? 40u : 20u);
      EXPECT_EQ(response.parent_to_child_monitor_page,
                has_pages ? 0x100000000u : 0u);
      EXPECT_EQ(response.child_to_parent_monitor_page,
                has_pages ? 0x100001000u : 0u);
    }
  }
}

TEST(FeatureTest, BeforeSixThereAreNone) {
  for (ProtocolVersion version : kAllProtocolVersions) {
    if (version == ProtocolVersion::kCopper) continue;
    TestHost host(WithFeatures(kAllFeatures));
    ASSERT_TRUE(host.Handle(ContactMessage(version, 0, kAllFeatures)).ok());
    EXPECT_EQ(host.Drain()[0].size(), 16u);
    EXPECT_EQ(host.connection.contact().features, 0u);
    EXPECT_EQ(host.connection.contact().client_id, Guid{});
  }
}

TEST(FeatureTest, AGuestWithItsOwnMonitorPagesKeepsThem) {
  TestHost host(WithFeatures(kAllFeatures));
  InitiateContactMessage message;
  message.version = static_cast<uint32_t>(ProtocolVersion::kCopper);
  message.feature_flags = kFeatureServerMonitorPages | kFeatureModifyConnection;
  message.parent_to_child_monitor_page = 0x1000;
  message.child_to_parent_monitor_page = 0x2000;
  ASSERT_TRUE(host.Handle(ToBytes(EncodeInitiateContact(message))).ok());
  EXPECT_EQ(host.connection.contact().features, kFeatureModifyConnection);
  EXPECT_EQ(host.connection.contact().monitor_pages(),
            (MonitorPages{0x1000, 0x2000}));
  // The host's own pages are not for the guest to move.
  message.parent_to_child_monitor_page = 0;
  message.child_to_parent_monitor_page = 0;
  host.Handle(ToBytes(EncodeInitiateContact(message))).IgnoreError();
  host.Drain();
  EXPECT_EQ(host.Handle(ModifyConnectionBytes(0x1000, 0x2000)).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(ToHex(host.Drain()[0]), "1a0000000000000002");
}

TEST(FeatureTest, TheGuestChoosesItsSignals) {
  for (uint32_t features : kGrantable) {
    TestHost host(WithFeatures(features));
    const OfferId offer = *host.connection.AddOffer(TestOffer(1));
    host.ConnectGuest(ProtocolVersion::kCopper, features);
    host.Handle(GpadlMessage(1, 1)).IgnoreError();
    OpenChannelMessage open{.channel_id = ChannelId{1},
                            .ring_gpadl = GpadlId{1},
                            .downstream_page_offset = 2,
                            .connection_id = 0xabcdef,
                            .event_flag = 2047,
                            .flags = 0xffff};
    // Firmware sends the tail in any case.
    const Bytes bytes =
        ToBytes(EncodeOpenChannel(open, kFeatureGuestSignalParameters));
    ASSERT_EQ(bytes.size(), 156u);
    ASSERT_TRUE(host.Handle(bytes).ok());
    const OfferInfo info = *host.connection.FindOffer(offer);
    const bool may_choose = features == kFeatureGuestSignalParameters;
    EXPECT_EQ(info.connection_id, may_choose ? 0xabcdefu : 0x2001u);
    EXPECT_EQ(info.event_flag, may_choose ? 2047u : 1u);
    EXPECT_EQ(host.connection.FindOfferByConnectionId(0xabcdef).has_value(),
              may_choose);
    EXPECT_EQ(host.connection.FindOfferByConnectionId(0x2001).has_value(),
              !may_choose);
    EXPECT_EQ(host.connection.open_request(offer)->flags,
              features == kFeatureInterruptRedirection ? 1 : 0);
  }
}

TEST(FeatureTest, SignalsThatCannotBeAreRefused) {
  TestHost host(WithFeatures(kAllFeatures));
  (void)host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest(ProtocolVersion::kCopper, kAllFeatures);
  host.Handle(GpadlMessage(1, 1)).IgnoreError();
  host.Drain();
  OpenChannelMessage open{.channel_id = ChannelId{1},
                          .ring_gpadl = GpadlId{1},
                          .downstream_page_offset = 2,
                          .connection_id = 1,
                          .event_flag = 2048};
  EXPECT_EQ(host.Handle(ToBytes(EncodeOpenChannel(open, 1))).code(),
            StatusCode::kInvalidArgument);
  open.event_flag = 5;
  open.connection_id = 0x1000000;
  EXPECT_EQ(host.Handle(ToBytes(EncodeOpenChannel(open, 1))).code(),
            StatusCode::kInvalidArgument);
  EXPECT_THAT(host.DrainTypes(), ElementsAre(6, 6));
  EXPECT_THAT(host.events.Take(), IsEmpty());
}

// --- Quirks of the offer ----------------------------------------------------

// quirk:D12
TEST(OfferQuirkTest, FlagsTwoAndFourMeanConfidential) {
  EXPECT_EQ(kOfferConfidentialRing, 0x2);
  EXPECT_EQ(kOfferConfidentialExternalMemory, 0x4);
  OfferParams params = TestOffer(1);
  params.flags = 0xffff;
  for (uint32_t features : kGrantable) {
    TestHost host(WithFeatures(features));
    (void)host.connection.AddOffer(params);
    uint16_t expected = 0x2011;
    if (features == kFeatureConfidentialChannels) expected = 0x2017;
    if (features == kFeatureGpaPinning) expected = 0x2019;
    EXPECT_EQ(Read<OfferChannelMessage>(
                  Offered(host, ProtocolVersion::kCopper, features))
                  .flags,
              expected);
    // A guest that takes them for "transfer pages" and "GPADLs" sees neither.
    EXPECT_EQ(Read<OfferChannelMessage>(
                  Offered(host, ProtocolVersion::kIron, features))
                  .flags,
              0x2011);
  }
}

// quirk:D13
TEST(OfferQuirkTest, ByteOneHundredEightyTwoIsOptionalMmio) {
  TestHost host;
  OfferParams params = TestOffer(1);
  params.mmio_megabytes = 0x1234;
  params.mmio_megabytes_optional = 0x5678;
  (void)host.connection.AddOffer(params);
  const Bytes offer = Offered(host, ProtocolVersion::kIron, 0);
  uint16_t value = 0;
  std::memcpy(&value, offer.data() + 58, sizeof(value));
  EXPECT_EQ(value, 0x1234);
  std::memcpy(&value, offer.data() + 182, sizeof(value));
  EXPECT_EQ(value, 0x5678);
}

// quirk:D14
TEST(OfferQuirkTest, ReservedWordsAreZeroAndNotLookedAt) {
  for (ProtocolVersion version : kAllProtocolVersions) {
    TestHost host;
    (void)host.connection.AddOffer(TestOffer(1));
    Bytes offer = Offered(host, version, 0);
    for (size_t i = 40; i < 56; ++i) EXPECT_EQ(offer[i], std::byte{0});
    // Older hosts have a latency and a revision there.
    std::memset(offer.data() + 40, 0xff, 16);
    const auto message = DecodeHostMessage(offer, {version, 0});
    ASSERT_TRUE(message.ok());
    EXPECT_EQ(std::get<OfferChannelMessage>(*message).interface_type,
              TestOffer(1).interface_type);
  }
}

class SocketGuest : public ClientEvents {
 public:
  void OnVersion(const ClientVersion&) override {}
  void OnOffer(const ClientOffer& offer) override { offers.push_back(offer); }
  void OnAllOffersDelivered() override {}
  void OnRescind(ChannelId) override {}
  void OnOpenResult(ChannelId, uint32_t) override {}
  void OnGpadlCreated(ChannelId, GpadlId, uint32_t) override {}
  void OnGpadlTorndown(ChannelId, GpadlId) override {}
  void OnModifyResponse(ChannelId, uint32_t) override {}
  void OnUnloaded() override {}
  std::vector<ClientOffer> offers;
};

// One implementation takes socket offers in an isolated guest, another only
// three device classes.  Ours are there for whoever takes them.
// quirk:D29
TEST(OfferQuirkTest, SocketsAreOfferedToAConfidentialGuest) {
  TestHost host(WithFeatures(kFeatureConfidentialChannels));
  OfferParams params = TestSocketOffer(1);
  params.flags |= kOfferConfidentialRing;
  (void)host.connection.AddOffer(params);
  ClientConnectionOptions options;
  options.versions = {ProtocolVersion::kCopper};
  options.features = kFeatureConfidentialChannels;
  SocketGuest events;
  ClientConnection guest(options, &events);
  ASSERT_TRUE(guest.Connect().ok());
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(host.Handle(guest.outgoing_front()).ok());
    guest.PopOutgoing();
    for (const Bytes& message : host.Drain()) {
      ASSERT_TRUE(guest.HandleMessage(message).ok());
    }
    (void)guest.RequestOffers();  // once
  }
  EXPECT_EQ(guest.features(), kFeatureConfidentialChannels);
  ASSERT_EQ(events.offers.size(), 1u);
  EXPECT_EQ(events.offers[0].flags, 0x2013);
}

// --- Direction --------------------------------------------------------------

Bytes OfType(uint32_t type, size_t size_bytes = kMaxMessageSizeBytes) {
  Bytes bytes(size_bytes);
  std::memcpy(bytes.data(), &type, sizeof(type));
  return bytes;
}

bool IsFromHost(uint32_t type) {
  for (uint32_t host_type : {1, 2, 4, 6, 10, 12, 15, 17, 20, 23, 24, 26, 28}) {
    if (type == host_type) return true;
  }
  return false;
}

// bad:C2
TEST(DirectionTest, NoHandlerSeesAMessageForTheOtherSide) {
  for (uint32_t type = 1; type <= kMaxMessageType; ++type) {
    SCOPED_TRACE(type);
    for (bool connected : {false, true}) {
      TestHost host;
      (void)host.connection.AddOffer(TestOffer(1));
      SocketGuest events;
      ClientConnectionOptions options;
      options.versions = {ProtocolVersion::kCopper};
      options.features = kDefaultFeatures & ~kFeatureClientId;
      ClientConnection guest(options, &events);
      if (connected) {
        host.ConnectGuest(ProtocolVersion::kCopper, kDefaultFeatures);
        guest.Connect().IgnoreError();
        VersionResponseMessage response;
        response.version_supported = 1;
        response.supported_features = options.features;
        ASSERT_TRUE(guest
                        .HandleMessage(EncodeVersionResponse(
                                           response, ProtocolVersion::kCopper)
                                           .bytes())
                        .ok());
      }
      const absl::Status host_says = host.Handle(OfType(type));
      const absl::Status guest_says = guest.HandleMessage(OfType(type));
      EXPECT_EQ(absl::IsPermissionDenied(host_says), IsFromHost(type))
          << host_says;
      EXPECT_EQ(absl::IsPermissionDenied(guest_says), !IsFromHost(type))
          << guest_says;
      // Each type that may come has a handler.
      EXPECT_FALSE(absl::IsInternal(host_says)) << host_says;
      EXPECT_FALSE(absl::IsInternal(guest_says)) << guest_says;
      if (IsFromHost(type)) {
        EXPECT_THAT(host.Drain(), IsEmpty());
        EXPECT_THAT(host.events.Take(), IsEmpty());
        EXPECT_EQ(host.connection.counters().messages_refused, 1u);
      }
    }
  }
}

}  // namespace
}  // namespace ferrybus
