// SPDX-License-Identifier: MIT

#include "ferrybus/channel/protocols/vstor.h"

#include <cstring>

#include "gtest/gtest.h"

namespace ferrybus::vstor {
namespace {

TEST(VstorTest, SrbFieldsStandAtTheirWireOffsets) {
  Srb srb = {};
  srb.length_bytes = 52;
  srb.lun = 0x19;
  srb.transfer_bytes = 0x24252627;
  srb.cdb_or_sense[0] = 0x28;
  srb.timeout_s = 0x38393a3b;
  Packet packet = {};
  packet.operation = Operation::kExecuteSrb;
  SetBody(srb, packet);

  uint8_t bytes[64];
  std::memcpy(bytes, &packet, sizeof(bytes));
  EXPECT_EQ(bytes[0], 3);
  EXPECT_EQ(bytes[12], 52);
  EXPECT_EQ(bytes[19], 0x19);
  EXPECT_EQ(bytes[24], 0x27);
  EXPECT_EQ(bytes[28], 0x28);
  EXPECT_EQ(bytes[56], 0x3b);
}

TEST(VstorTest, PropertiesStandAtTheirWireOffsets) {
  Packet packet = {};
  packet.body[16 - 12] = 7;
  packet.body[20 - 12] = kPropertyMultiChannel;
  packet.body[24 - 12 + 2] = 0x10;
  const auto properties = GetBody<ChannelProperties>(packet);
  EXPECT_EQ(properties.max_channels, 7);
  EXPECT_EQ(properties.flags, kPropertyMultiChannel);
  EXPECT_EQ(properties.max_transfer_bytes, 0x100000u);
}

}  // namespace
}  // namespace ferrybus::vstor
