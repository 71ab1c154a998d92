// SPDX-License-Identifier: MIT
#include "ferrybus/channel/message_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <variant>
#include <vector>

#include "ferrybus/channel/connection_test_util.h"

namespace ferrybus {
namespace {

constexpr Guid kScsi = GuidLiteral("ba6163d9-04a1-4d29-b605-72e2ffb1dc7f");
constexpr Guid kInstance = GuidLiteral("f8b3781a-1e82-4818-a1c3-63d806ec15bb");
constexpr Guid kUefi = GuidLiteral("18dd3964-3e8a-4e42-86fa-c8e6b191ee0e");
constexpr Guid kEndpoint = GuidLiteral("11111111-2222-3333-4444-555555555555");
constexpr Guid kService = GuidLiteral("00000400-facb-11e6-bd58-64006a7986d3");
constexpr ChannelId kChannel{1};
constexpr GpadlId kGpadl{0xe1e10};

// Everything there is, so that every type passes.
constexpr ProtocolContext kAll = {
    ProtocolVersion::kCopper, kFeatureModifyConnection | kFeaturePauseResume};

template <typename Message>
Message Guest(const Bytes& bytes, const ProtocolContext& context = kAll) {
  absl::StatusOr<GuestMessage> message = DecodeGuestMessage(bytes, context);
  EXPECT_TRUE(message.ok()) << message.status();
  if (!message.ok() || !std::holds_alternative<Message>(*message)) {
    ADD_FAILURE() << "another type";
    return Message{};
  }
  return std::get<Message>(*message);
}

template <typename Message>
Message Host(const Bytes& bytes, const ProtocolContext& context = kAll) {
  absl::StatusOr<HostMessage> message = DecodeHostMessage(bytes, context);
  EXPECT_TRUE(message.ok()) << message.status();
  if (!message.ok() || !std::holds_alternative<Message>(*message)) {
    ADD_FAILURE() << "another type";
    return Message{};
  }
  return std::get<Message>(*message);
}

absl::StatusCode GuestCode(const Bytes& bytes,
                           const ProtocolContext& context = kAll) {
  return DecodeGuestMessage(bytes, context).status().code();
}

absl::StatusCode HostCode(const Bytes& bytes,
                          const ProtocolContext& context = kAll) {
  return DecodeHostMessage(bytes, context).status().code();
}

std::string Hex(const EncodedMessage& message) {
  return ToHex(message.bytes());
}

// --- Vectors ----------------------------------------------------------------

// vector:M1
TEST(MessageVectorTest, InitiateContactAsLinuxSendsIt) {
  const Bytes bytes = FromHex(
      "0e00000000000000 0300050000000000 0200000000000000 0040230100000000 "
      "0050230100000000");
  const auto message = Guest<InitiateContactMessage>(bytes, {});
  EXPECT_EQ(message.version, 0x50003u);
  EXPECT_EQ(message.target_message_vp, 0u);
  EXPECT_EQ(message.target_sint, 2);
  EXPECT_EQ(message.target_vtl, 0);
  EXPECT_EQ(message.parent_to_child_monitor_page, 0x1234000u);
  EXPECT_EQ(message.child_to_parent_monitor_page, 0x1235000u);
  EXPECT_EQ(Hex(EncodeInitiateContact(message)), ToHex(bytes));
}

// vector:M2
TEST(MessageVectorTest, InitiateContactWithInterruptPage) {
  const Bytes bytes = FromHex(
      "0e00000000000000 0000040000000000 0030230100000000 0040230100000000 "
      "0050230100000000");
  EXPECT_EQ(Guest<InitiateContactMessage>(bytes, {}).version, 0x40000u);
  InitiateContactMessage message;
  message.version = 0x40000;
  message.set_interrupt_page(0x1233000);
  message.parent_to_child_monitor_page = 0x1234000;
  message.child_to_parent_monitor_page = 0x1235000;
  EXPECT_EQ(Hex(EncodeInitiateContact(message)), ToHex(bytes));
}

// vector:M3
TEST(MessageVectorTest, InitiateContactAsFirmwareSendsIt) {
  const Bytes bytes = FromHex(
      "0e00000000000000 0000060000000000 0000000008000000 +16 "
      "6439dd188a3e424e 86fac8e6b191ee0e");
  const auto message = Guest<InitiateContactMessage>(bytes, {});
  EXPECT_EQ(message.feature_flags, kFeatureClientId);
  EXPECT_EQ(message.client_id, kUefi);
  EXPECT_EQ(Hex(EncodeInitiateContact(message)), ToHex(bytes));
}

// vector:M4
// vector:M6
TEST(MessageVectorTest, VersionResponse) {
  const Bytes accept = FromHex("0f00000000000000 0100000000000400");
  auto message = Host<VersionResponseMessage>(accept, {});
  EXPECT_EQ(message.version_supported, 1);
  EXPECT_EQ(message.version_or_connection_id, 0x40000u);
  EXPECT_EQ(Hex(EncodeVersionResponse(message, ProtocolVersion::kWin10)),
            ToHex(accept));

  const Bytes reject = FromHex("0f00000000000000 0000000000000000");
  message = Host<VersionResponseMessage>(reject, {});
  EXPECT_EQ(message.version_supported, 0);
  EXPECT_EQ(Hex(EncodeVersionResponse(message, ProtocolVersion::kWin10)),
            ToHex(reject));
}

// vector:M8
// vector:M10
// vector:M24
// vector:M25
TEST(MessageVectorTest, HeaderOnlyMessages) {
  Guest<RequestOffersMessage>(FromHex("0300000000000000"));
  EXPECT_EQ(Hex(EncodeMessage(RequestOffersMessage{})), "0300000000000000");
  Host<AllOffersDeliveredMessage>(FromHex("0400000000000000"));
  EXPECT_EQ(Hex(EncodeMessage(AllOffersDeliveredMessage{})),
            "0400000000000000");
  Guest<UnloadMessage>(FromHex("1000000000000000"));
  EXPECT_EQ(Hex(EncodeMessage(UnloadMessage{})), "1000000000000000");
  Host<UnloadResponseMessage>(FromHex("1100000000000000"));
  EXPECT_EQ(Hex(EncodeMessage(UnloadResponseMessage{})), "1100000000000000");
}

// vector:M9
TEST(MessageVectorTest, OfferChannel) {
  const Bytes bytes = FromHex(
      "0100000000000000 d96361baa104294d b60572e2ffb1dc7f 1a78b3f8821e1848 "
      "a1c363d806ec15bb 0000000000000000 0000000000000000 0100000000000000 "
      "+96 "
      "0000000000000000 0000000000000000 0000000000000000 01000000ff000100 "
      "01200000");
  const auto message = Host<OfferChannelMessage>(bytes);
  EXPECT_EQ(message.interface_type, kScsi);
  EXPECT_EQ(message.interface_instance, kInstance);
  EXPECT_EQ(message.flags, kOfferEnumerateDeviceInterface);
  EXPECT_EQ(message.channel_id, kChannel);
  EXPECT_EQ(message.monitor_id, kNoMonitorId);
  EXPECT_EQ(message.monitor_allocated, 0);
  EXPECT_EQ(message.is_dedicated_interrupt, 1);
  EXPECT_EQ(message.connection_id, 0x2001u);
  EXPECT_EQ(Hex(EncodeOfferChannel(message, ProtocolVersion::kIron)),
            ToHex(bytes));
}

// vector:M11
TEST(MessageVectorTest, GpadlHeader) {
  const Bytes bytes = FromHex(
      "0800000000000000 01000000101e0e00 4801010000800200 0000000000000200 "
      "0000000001000200 0000000002000200 0000000003000200 0000000004000200 "
      "0000000005000200 0000000006000200 0000000007000200 0000000008000200 "
      "0000000009000200 000000000a000200 000000000b000200 000000000c000200 "
      "000000000d000200 000000000e000200 000000000f000200 0000000010000200 "
      "0000000011000200 0000000012000200 0000000013000200 0000000014000200 "
      "0000000015000200 0000000016000200 0000000017000200 0000000018000200 "
      "0000000019000200 00000000");
  ASSERT_EQ(bytes.size(), 236u);
  const auto header = Guest<DecodedGpadlHeader>(bytes);
  EXPECT_EQ(header.message.channel_id, kChannel);
  EXPECT_EQ(header.message.gpadl_id, kGpadl);
  EXPECT_EQ(header.message.range_buffer_size_bytes, 0x148);
  EXPECT_EQ(header.message.range_count, 1);
  EXPECT_EQ(header.range_bytes.size(), 8u + 26 * 8);
  EXPECT_EQ(Hex(EncodeGpadlHeader(header.message, header.range_bytes)),
            ToHex(bytes));
  EXPECT_EQ(GpadlMessages(1, 0xe1e10, 40, 0x20000).front(), bytes);
}

// vector:M13
// vector:M18
TEST(MessageVectorTest, GpadlCreatedAndTeardown) {
  const std::string created = "0a0000000000000001000000101e0e0000000000";
  const auto message = Host<GpadlCreatedMessage>(FromHex(created));
  EXPECT_EQ(message.channel_id, kChannel);
  EXPECT_EQ(message.gpadl_id, kGpadl);
  EXPECT_EQ(message.status, 0u);
  EXPECT_EQ(Hex(EncodeMessage(message)), created);

  const std::string teardown = "0b0000000000000001000000101e0e00";
  EXPECT_EQ(Guest<GpadlTeardownMessage>(FromHex(teardown)).gpadl_id, kGpadl);
  EXPECT_EQ(ToHex(TeardownMessage(1, 0xe1e10)), teardown);
}

// vector:M14
TEST(MessageVectorTest, OpenChannel) {
  const Bytes bytes = FromHex(
      "0500000000000000 0100000001000000 101e0e0000000000 1400000000000000 "
      "+96 0000000000000000 0000000000000000 00000000");
  const auto message = Guest<OpenChannelMessage>(bytes);
  EXPECT_EQ(message.channel_id, kChannel);
  EXPECT_EQ(message.open_id, 1u);
  EXPECT_EQ(message.ring_gpadl, kGpadl);
  EXPECT_EQ(message.target_vp, 0u);
  EXPECT_EQ(message.downstream_page_offset, 20u);
  EXPECT_EQ(Hex(EncodeOpenChannel(message, 0)), ToHex(bytes));
}

// vector:M16
TEST(MessageVectorTest, OpenChannelResult) {
  const std::string hex = "0600000000000000010000000100000000000000";
  const auto message = Host<OpenChannelResultMessage>(FromHex(hex));
  EXPECT_EQ(message.channel_id, kChannel);
  EXPECT_EQ(message.open_id, 1u);
  EXPECT_EQ(message.status, 0u);
  EXPECT_EQ(Hex(EncodeMessage(message)), hex);
}

// vector:M17
// vector:M20
// vector:M21
// vector:M22
TEST(MessageVectorTest, ChannelIdMessages) {
  EXPECT_EQ(Guest<CloseChannelMessage>(FromHex("070000000000000001000000"))
                .channel_id,
            kChannel);
  EXPECT_EQ(ToHex(CloseMessage(1)), "070000000000000001000000");
  const auto rescind =
      Host<RescindChannelOfferMessage>(FromHex("020000000000000001000000"));
  EXPECT_EQ(rescind.channel_id, kChannel);
  EXPECT_EQ(Hex(EncodeMessage(rescind)), "020000000000000001000000");
  EXPECT_EQ(Guest<RelidReleasedMessage>(FromHex("0d0000000000000001000000"))
                .channel_id,
            kChannel);
  EXPECT_EQ(ToHex(ReleaseMessage(1)), "0d0000000000000001000000");
  EXPECT_EQ(
      Guest<ModifyChannelMessage>(FromHex("16000000000000000100000003000000"))
          .target_vp,
      3u);
  EXPECT_EQ(ToHex(ModifyMessage(1, 3)), "16000000000000000100000003000000");
}

// vector:M26
// vector:M28
TEST(MessageVectorTest, TlConnect) {
  const Bytes request = FromHex(
      "1500000000000000 1111111122223333 4444555555555555 00040000cbfae611 "
      "bd5864006a7986d3");
  const auto message = Guest<TlConnectRequestMessage>(
      request, {ProtocolVersion::kWin10Rs3Plus, 0});
  EXPECT_EQ(message.endpoint_id, kEndpoint);
  EXPECT_EQ(message.service_id, kService);
  EXPECT_EQ(Hex(EncodeTlConnectRequest(message, ProtocolVersion::kWin10Rs4)),
            ToHex(request));
  EXPECT_EQ(EncodeTlConnectRequest(message, ProtocolVersion::kWin10Rs5)
                .bytes()
                .size(),
            56u);

  const Bytes result = FromHex(
      "1700000000000000 1111111122223333 4444555555555555 00040000cbfae611 "
      "bd5864006a7986d3 360200c0");
  const auto refused = Host<TlConnectResultMessage>(result);
  EXPECT_EQ(refused.status, kStatusConnectionRefused);
  EXPECT_EQ(Hex(EncodeMessage(refused)), ToHex(result));
}

// vector:M29
// vector:M30
TEST(MessageVectorTest, ModifyConnection) {
  const Bytes bytes =
      FromHex("1900000000000000 0040230100000000 0050230100000000");
  const auto message = Guest<ModifyConnectionMessage>(bytes);
  EXPECT_EQ(message.parent_to_child_monitor_page, 0x1234000u);
  EXPECT_EQ(Hex(EncodeMessage(message)), ToHex(bytes));

  const std::string response = "1a0000000000000000";
  const auto answer = Host<ModifyConnectionResponseMessage>(FromHex(response));
  EXPECT_EQ(answer.connection_state, kConnectionSuccessful);
  EXPECT_EQ(Hex(EncodeModifyConnectionResponse(answer)), response);
}

// vector:M32
// vector:M33
TEST(MessageVectorTest, CloseReservedChannel) {
  const Bytes bytes = FromHex("1300000000000000 0500000000000000 02000000");
  const auto message = Guest<CloseReservedChannelMessage>(bytes, {});
  EXPECT_EQ(message.channel_id, ChannelId{5});
  EXPECT_EQ(message.target_sint, 2u);
  EXPECT_EQ(Hex(EncodeMessage(message)), ToHex(bytes));

  const std::string response = "140000000000000005000000";
  const auto answer = Host<CloseReservedResponseMessage>(FromHex(response));
  EXPECT_EQ(Hex(EncodeMessage(answer)), response);
}

// --- Sizes ------------------------------------------------------------------

struct SizeCase {
  uint32_t type;
  size_t size_bytes_min;
  bool from_guest;
};

// Every message, with the least that each receiver must accept at 6.0.
constexpr SizeCase kSizes[] = {
    {1, 196, false}, {2, 12, false},  {3, 8, true},    {4, 8, false},
    {5, 148, true},  {6, 20, false},  {7, 12, true},   {8, 28, true},
    {9, 16, true},   {10, 20, false}, {11, 16, true},  {12, 12, false},
    {13, 12, true},  {14, 40, true},  {15, 16, false}, {16, 8, true},
    {17, 8, false},  {18, 28, true},  {19, 20, true},  {20, 12, false},
    {21, 56, true},  {22, 16, true},  {23, 44, false}, {24, 16, false},
    {25, 24, true},  {26, 9, false},  {27, 8, true},   {28, 8, false},
    {29, 8, true},
};

Bytes OfType(uint32_t type, size_t size_bytes) {
  Bytes bytes(size_bytes);
  if (size_bytes != 0) {
    std::memcpy(bytes.data(), &type, std::min<size_t>(size_bytes, 4));
  }
  return bytes;
}

// bad:C1
// quirk:D11
// quirk:D20
TEST(MessageSizeTest, RefusesShorterAndAcceptsLonger) {
  for (const SizeCase& c : kSizes) {
    SCOPED_TRACE(c.type);
    const auto code = c.from_guest ? GuestCode : HostCode;
    for (size_t size = 0; size <= 250; ++size) {
      const absl::StatusCode expected = size < c.size_bytes_min || size > 240
                                            ? absl::StatusCode::kInvalidArgument
                                            : absl::StatusCode::kOk;
      ASSERT_EQ(code(OfType(c.type, size), kAll), expected) << size;
    }
  }
}

// bad:C2
TEST(MessageSizeTest, RefusesTheOtherDirection) {
  for (const SizeCase& c : kSizes) {
    const auto code = c.from_guest ? HostCode : GuestCode;
    EXPECT_EQ(code(OfType(c.type, 240), kAll),
              absl::StatusCode::kPermissionDenied)
        << c.type;
  }
}

// bad:C2
TEST(MessageSizeTest, RefusesUnknownTypes) {
  for (uint32_t type : {0u, 30u, 255u, 0x80000001u, 0xffffffffu}) {
    EXPECT_EQ(GuestCode(OfType(type, 240)), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(HostCode(OfType(type, 240)), absl::StatusCode::kInvalidArgument);
  }
}

TEST(MessageSizeTest, RefusesTypesOfLaterVersions) {
  const auto unimplemented = absl::StatusCode::kUnimplemented;
  EXPECT_EQ(GuestCode(OfType(22, 16), {ProtocolVersion::kWin10, 0}),
            unimplemented);
  EXPECT_EQ(GuestCode(OfType(22, 16), {ProtocolVersion::kWin10Rs3, 0}),
            absl::StatusCode::kOk);
  EXPECT_EQ(GuestCode(OfType(18, 28), {ProtocolVersion::kWin81, 0}),
            unimplemented);
  EXPECT_EQ(GuestCode(OfType(25, 24), {ProtocolVersion::kCopper, 0}),
            unimplemented);
  EXPECT_EQ(HostCode(OfType(24, 16), {ProtocolVersion::kWin10Rs5, 0}),
            unimplemented);
}

TEST(MessageSizeTest, OfferBeforeWin7IsShort) {
  EXPECT_EQ(HostCode(OfType(1, 190), {ProtocolVersion::kWs2008, 0}),
            absl::StatusCode::kOk);
  EXPECT_EQ(EncodeOfferChannel({}, ProtocolVersion::kWs2008).bytes().size(),
            190u);
  EXPECT_EQ(EncodeOfferChannel({}, ProtocolVersion::kWin7).bytes().size(),
            196u);
}

// quirk:D15
TEST(MessageSizeTest, VersionResponseGrowsWithWhatIsGranted) {
  VersionResponseMessage message;
  const auto size = [&message](ProtocolVersion version) {
    return EncodeVersionResponse(message, version).bytes().size();
  };
  EXPECT_EQ(size(ProtocolVersion::kCopper), 16u);  // a refusal
  message.version_supported = 1;
  EXPECT_EQ(size(ProtocolVersion::kIron), 16u);
  EXPECT_EQ(size(ProtocolVersion::kCopper), 20u);
  message.supported_features = kFeatureServerMonitorPages;
  EXPECT_EQ(size(ProtocolVersion::kCopper), 40u);
}

TEST(MessageSizeTest, OpenTailCountsOnlyWhenGranted) {
  Bytes bytes(156, std::byte{0xff});
  const uint32_t type = 5;
  std::memcpy(bytes.data(), &type, sizeof(type));
  EXPECT_EQ(Guest<OpenChannelMessage>(bytes).event_flag, 0);
  const ProtocolContext granted = {ProtocolVersion::kCopper,
                                   kFeatureGuestSignalParameters};
  EXPECT_EQ(Guest<OpenChannelMessage>(bytes, granted).event_flag, 0xffff);
  bytes.resize(155);
  EXPECT_EQ(GuestCode(bytes, granted), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(EncodeOpenChannel({}, kFeatureInterruptRedirection).bytes().size(),
            156u);
}

TEST(MessageSizeTest, ContactWithClientIdMustCarryIt) {
  Bytes bytes =
      FromHex("0e00000000000000 0000060000000000 0000000008000000 +16 +15");
  EXPECT_EQ(GuestCode(bytes, {}), absl::StatusCode::kInvalidArgument);
  bytes[10] = std::byte{5};  // at 5.0 the bit means nothing
  EXPECT_EQ(GuestCode(bytes, {}), absl::StatusCode::kOk);
}

TEST(MessageSizeTest, ContactWithoutClientIdHasNone) {
  Bytes bytes = FromHex("0e00000000000000 0000060000000000 +24");
  bytes.resize(56, std::byte{0xee});
  EXPECT_EQ(Guest<InitiateContactMessage>(bytes, {}).client_id, Guid{});
}

// quirk:D20
TEST(MessageSizeTest, PaddedGpadlHeaderEndsAtAWholeWord) {
  EXPECT_EQ(Guest<DecodedGpadlHeader>(OfType(8, 240)).range_bytes.size(), 216u);
  EXPECT_EQ(Guest<DecodedGpadlBody>(OfType(9, 240)).range_bytes.size(), 224u);
}

TEST(MessageSizeTest, PageCountOfARange) {
  EXPECT_EQ(GpadlPageCount(0, 0), 0u);
  EXPECT_EQ(GpadlPageCount(1, 0), 1u);
  EXPECT_EQ(GpadlPageCount(4096, 0), 1u);
  EXPECT_EQ(GpadlPageCount(4096, 1), 2u);
  EXPECT_EQ(GpadlPageCount(4097, 0), 2u);
  EXPECT_EQ(GpadlPageCount(1, 4095), 1u);
  EXPECT_EQ(GpadlPageCount(1, 4096), 0u);
  EXPECT_EQ(GpadlPageCount(8190 * 4096, 0), 8190u);
  EXPECT_EQ(GpadlPageCount(8190 * 4096, 1), 0u);
  EXPECT_EQ(GpadlPageCount(0xffffffff, 0xfff), 0u);
}

}  // namespace
}  // namespace ferrybus
