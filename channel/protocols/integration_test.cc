// SPDX-License-Identifier: MIT

#include "ferrybus/channel/protocols/integration.h"

#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "ferrybus/channel/protocols/device_classes.h"
#include "gtest/gtest.h"

namespace ferrybus::ic {
namespace {

std::string Hex(absl::Span<const std::byte> bytes) {
  return absl::BytesToHexString(
      {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

// vector:P12 (behind descriptor and pipe header)
TEST(IntegrationTest, NegotiationHasTheDocumentedBytes) {
  Header header;
  header.framework = {1, 0};
  header.message = {1, 0};
  EXPECT_EQ(
      Hex(BuildMessage(header, BuildNegotiateBody({{1, 0}, {3, 0}}, {{3, 0}}))),
      "0100000000000100"
      "0000140000000000"
      "0003000002000100"
      "0000000001000000"
      "0300000003000000");
}

// vector:P13 (behind descriptor and pipe header)
TEST(IntegrationTest, HeartbeatHasTheDocumentedBytes) {
  Header header;
  header.framework = {3, 0};
  header.type = MessageType::kHeartbeat;
  header.message = {3, 0};
  header.transaction = 5;
  HeartbeatBody body;
  body.sequence = 41;
  EXPECT_EQ(Hex(BuildMessage(header, BytesOf(body))),
            "0300000001000300"
            "0000280000000000"
            "0503000029000000"
            "0000000000000000"
            "0000000000000000"
            "0000000000000000"
            "0000000000000000"
            "00000000");
}

TEST(IntegrationTest, MessagesComeBackAsTheyWere) {
  Header header;
  header.framework = {3, 0};
  header.type = MessageType::kShutdown;
  header.message = {3, 2};
  header.status = kStatusFail;
  header.transaction = 200;
  header.flags = kFlagTransaction | kFlagResponse;
  const uint32_t number = 0x12345678;
  std::vector<std::byte> message = BuildMessage(header, BytesOf(number));
  message.resize(message.size() + 3);  // what the ring adds
  Header parsed;
  absl::Span<const std::byte> body;
  ASSERT_TRUE(ParseMessage(message, &parsed, &body));
  EXPECT_EQ(parsed.message, (Version{3, 2}));
  EXPECT_EQ(parsed.status, kStatusFail);
  EXPECT_EQ(parsed.transaction, 200);
  EXPECT_EQ(Hex(body), "78563412");
}

TEST(IntegrationTest, MessagesShorterThanTheySayAreRefused) {
  const std::vector<std::byte> message =
      BuildMessage(Header(), BuildNegotiateBody({{1, 0}}, {{1, 0}}));
  Header header;
  absl::Span<const std::byte> body;
  for (size_t bytes = 0; bytes < message.size(); ++bytes) {
    EXPECT_FALSE(
        ParseMessage(absl::MakeConstSpan(message).first(bytes), &header, &body))
        << bytes;
  }
  EXPECT_TRUE(ParseMessage(message, &header, &body));
}

TEST(IntegrationTest, VersionListsAreBounded) {
  std::vector<Version> framework;
  std::vector<Version> message;
  const std::vector<Version> fifty(50, Version{3, 0});
  std::vector<std::byte> body = BuildNegotiateBody(fifty, fifty);
  EXPECT_TRUE(ParseNegotiateBody(body, &framework, &message));
  EXPECT_EQ(framework.size() + message.size(), 100u);
  // One more than there are bytes for.
  body.pop_back();
  EXPECT_FALSE(ParseNegotiateBody(body, &framework, &message));
  const std::vector<Version> more(51, Version{3, 0});
  EXPECT_FALSE(ParseNegotiateBody(BuildNegotiateBody(fifty, more), &framework,
                                  &message));
  // Counts whose sum does not fit into 16 bits.
  const NegotiateHead head = {0xffff, 0xffff, 0};
  EXPECT_FALSE(ParseNegotiateBody(BytesOf(head), &framework, &message));
}

TEST(IntegrationTest, GuestsFindTheirDrivers) {
  EXPECT_EQ(kHeartbeatInterface.ToString(),
            "57164f39-9115-4e78-ab55-382f3bd5422d");
  EXPECT_EQ(kShutdownInterface.ToString(),
            "0e0b6031-5213-4934-818b-38d90ced39db");
  EXPECT_EQ(kTimeSyncInterface.ToString(),
            "9527e630-d0ae-497b-adce-e80ab0175caf");
  EXPECT_EQ(kKeyValueInterface.ToString(),
            "a9a0f4e7-5a45-4d96-b827-8a841e8c03e6");
}

}  // namespace
}  // namespace ferrybus::ic
