// SPDX-License-Identifier: MIT
#include "ferrybus/channel/guid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ferrybus {
namespace {

TEST(GuidTest, StoresFirstThreeFieldsLittleEndian) {
  constexpr Guid kGuid = GuidLiteral("00112233-4455-6677-8899-aabbccddeeff");
  EXPECT_THAT(kGuid.bytes, testing::ElementsAre(
                               0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
                               0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff));
  EXPECT_EQ(kGuid.ToString(), "00112233-4455-6677-8899-aabbccddeeff");
}

TEST(GuidTest, ParsesUpperCase) {
  EXPECT_EQ(ParseGuid("BA6163D9-04A1-4D29-B605-72E2FFB1DC7F"),
            ParseGuid("ba6163d9-04a1-4d29-b605-72e2ffb1dc7f"));
}

TEST(GuidTest, RefusesWhatIsNotAGuid) {
  EXPECT_EQ(ParseGuid(""), std::nullopt);
  EXPECT_EQ(ParseGuid("ba6163d9-04a1-4d29-b605-72e2ffb1dc7"), std::nullopt);
  EXPECT_EQ(ParseGuid("ba6163d9-04a1-4d29-b605-72e2ffb1dc7f0"), std::nullopt);
  EXPECT_EQ(ParseGuid("ba6163d9-04a1-4d29-b605072e2ffb1dc7f"), std::nullopt);
  EXPECT_EQ(ParseGuid("ba6163d9-04a1-4d29-b605-72e2ffb1dc7g"), std::nullopt);
}

}  // namespace
}  // namespace ferrybus
