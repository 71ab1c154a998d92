// SPDX-License-Identifier: MIT

#include "ferrybus/tools/migrate/sizes.h"

#include "gtest/gtest.h"

namespace ferrybus::migrate_tool {
namespace {

TEST(SizesTest, ReadsWhatPeopleWrite) {
  EXPECT_EQ(*ParseSize("0"), 0u);
  EXPECT_EQ(*ParseSize("4096"), 4096u);
  EXPECT_EQ(*ParseSize("64KiB"), 65536u);
  EXPECT_EQ(*ParseSize("1.5GiB"), uint64_t{3} << 29);
  EXPECT_EQ(*ParseSize("50MB/s"), 50000000u);
  EXPECT_EQ(*ParseSize("7B"), 7u);
}

TEST(SizesTest, RefusesTheRest) {
  for (const char* text :
       {"", "x", "-1", "KiB", "1XB", "nan", "inf", "1e30", "1 000"}) {
    EXPECT_FALSE(ParseSize(text).ok()) << text;
  }
}

TEST(SizesTest, WritesTheLargestUnit) {
  EXPECT_EQ(SizeText(0), "0 B");
  EXPECT_EQ(SizeText(1536), "1.5 KiB");
  EXPECT_EQ(SizeText(double{1 << 30}), "1.0 GiB");
}

}  // namespace
}  // namespace ferrybus::migrate_tool
