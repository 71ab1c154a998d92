// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/bus_immutable_persist.h"

#include <string>

#include "absl/status/status.h"
#include "ferrybus/vsp/bus_immutable.pb.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

absl::StatusOr<BusImmutable> Parse(const std::string& bytes) {
  return ParseBusImmutable(
      {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
}

BusImmutable Usual() {
  BusImmutable usual = {.guest_pages = 0x123456789, .offers = {{}, {}}};
  for (uint8_t i = 0; i < 16; ++i) {
    usual.offers[0].interface_type.bytes[i] = i;
    usual.offers[1].interface_instance.bytes[i] = 0xf0 | i;
  }
  usual.offers[1].sub_channel_index = 7;
  return usual;
}

v1::BusImmutable UsualMessage() {
  v1::BusImmutable message;
  EXPECT_TRUE(message.ParseFromString(SerializeBusImmutable(Usual())));
  return message;
}

TEST(BusImmutablePersistTest, WhatIsWrittenIsRead) {
  const BusImmutable usual = Usual();
  const auto read = Parse(SerializeBusImmutable(usual));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->guest_pages, usual.guest_pages);
  ASSERT_EQ(read->offers.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(read->offers[i].interface_type, usual.offers[i].interface_type);
    EXPECT_EQ(read->offers[i].interface_instance,
              usual.offers[i].interface_instance);
    EXPECT_EQ(read->offers[i].sub_channel_index,
              usual.offers[i].sub_channel_index);
  }
}

TEST(BusImmutablePersistTest, AnotherVersionIsRefusedByItsNumber) {
  for (const uint32_t version : {0u, 2u}) {
    v1::BusImmutable message = UsualMessage();
    message.set_version(version);
    const absl::Status status = Parse(message.SerializeAsString()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(status.message(), "immutable data of a bus: format version " +
                                    std::to_string(version) +
                                    ", this host has 1");
  }
}

TEST(BusImmutablePersistTest, AGuidHasSixteenBytes) {
  for (const size_t bytes : {0u, 15u, 17u}) {
    v1::BusImmutable message = UsualMessage();
    message.mutable_offers(1)->set_interface_type(std::string(bytes, 'x'));
    const absl::Status status = Parse(message.SerializeAsString()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message(), "immutable data of a bus: a GUID of " +
                                    std::to_string(bytes) + " bytes");
    message = UsualMessage();
    message.mutable_offers(0)->set_interface_instance(std::string(bytes, 'x'));
    EXPECT_FALSE(Parse(message.SerializeAsString()).ok());
  }
}

TEST(BusImmutablePersistTest, OtherBytesAreRefused) {
  const std::string usual = SerializeBusImmutable(Usual());
  EXPECT_FALSE(Parse(usual.substr(0, usual.size() - 1)).ok());
  EXPECT_FALSE(Parse("").ok());
  v1::BusImmutable message = UsualMessage();
  message.mutable_offers(0)->set_interface_type(
      std::string(size_t{1} << 20, 'x'));
  EXPECT_EQ(Parse(message.SerializeAsString()).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace ferrybus::vsp
