// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/msix_placement.h"

#include <optional>
#include <vector>

#include "ferrybus/vsp/virtual_function/msix_test_util.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using ::testing::ElementsAre;

TEST(MsixPlacementTest, CapabilityHasPcisBytes) {
  const MsixPlacement placement = {
      .vectors = 2048, .table = {4, 0x12345678}, .pending = {5, 0x9000}};
  ASSERT_TRUE(CheckPlacement(placement).ok());
  EXPECT_THAT(MsixCapability(placement, 0x60),
              ElementsAre(0x11, 0x60, 0xff, 0x07, 0x7c, 0x56, 0x34, 0x12, 0x05,
                          0x90, 0, 0));
}

TEST(MsixPlacementTest, ImpossiblePlacesAreRefused) {
  const auto refuses = [](const MsixPlacement& placement) {
    return CheckPlacement(placement).code() ==
           absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refuses({.vectors = 0, .table = {0, 0}, .pending = {1, 0}}));
  EXPECT_TRUE(refuses({.vectors = 2049, .table = {0, 0}, .pending = {1, 0}}));
  EXPECT_TRUE(refuses({.vectors = 1, .table = {6, 0}, .pending = {1, 0}}));
  EXPECT_TRUE(refuses({.vectors = 1, .table = {0, 4}, .pending = {1, 0}}));
  EXPECT_TRUE(refuses({.vectors = 1, .table = {0, 0}, .pending = {1, 12}}));
  EXPECT_TRUE(
      refuses({.vectors = 2, .table = {0, 0xfffffff0}, .pending = {1, 0}}));
  EXPECT_TRUE(refuses({.vectors = 2, .table = {0, 0}, .pending = {0, 24}}));
  EXPECT_FALSE(refuses({.vectors = 2, .table = {0, 0}, .pending = {0, 32}}));
}

// doc:MX19
TEST(MsixPlacementTest, PagesToInterceptAreDeclared) {
  EXPECT_THAT(
      MitigatedRanges(
          {.vectors = 257, .table = {2, 0x3000}, .pending = {4, 0x8ff8}}),
      ElementsAre(MsixMitigatedRange{2, 3, 2}, MsixMitigatedRange{4, 8, 2}));
  // In one page: one range.
  EXPECT_THAT(MitigatedRanges(
                  {.vectors = 8, .table = {0, 0x1000}, .pending = {0, 0x1080}}),
              ElementsAre(MsixMitigatedRange{0, 1, 1}));
}

// doc:MX13
TEST(MsixPlacementTest, TableAndBitsShareABarWithOtherRegisters) {
  MsixFixture f(4);
  const MsixPlacement placement = {
      .vectors = 4, .table = {1, 0x1000}, .pending = {1, 0x1800}};
  const MsixBars bars = MsixBars::Make(placement, &f.table).value();
  std::vector<std::byte> eight(8, std::byte{0x11});
  const auto bytes = absl::MakeSpan(eight);
  EXPECT_EQ(bars.Write(1, 0x1008, bytes.first(4)), MsixAccess::kDone);
  EXPECT_EQ(ReadEntry(f.table, 8) & 0xffffffff, 0x11111111u);
  EXPECT_EQ(bars.Write(1, 0x1800, bytes), MsixAccess::kReadOnly);
  (void)f.table.Raise(3);
  EXPECT_EQ(bars.Read(1, 0x1800, bytes), MsixAccess::kDone);
  EXPECT_EQ(eight[0], std::byte{8});
  EXPECT_EQ(bars.Read(1, 0x1038, bytes), MsixAccess::kDone);
  // Everything else there is the device's.
  for (uint64_t offset :
       {0x0ull, 0xff8ull, 0x1040ull, 0x17f8ull, 0x1808ull, ~0x7ull}) {
    EXPECT_EQ(bars.Read(1, offset, bytes), std::nullopt) << offset;
    EXPECT_EQ(bars.Write(1, offset, bytes), std::nullopt) << offset;
  }
  EXPECT_EQ(bars.Read(0, 0x1000, bytes), std::nullopt);
  // Over an edge: nobody's, and refused.
  EXPECT_EQ(bars.Write(1, 0xffc, bytes), MsixAccess::kBadSize);
  EXPECT_EQ(bars.Read(1, 0x103c, bytes), MsixAccess::kBadSize);
  std::vector<std::byte> page(4096);
  EXPECT_EQ(bars.Write(1, 0x0800, page), MsixAccess::kBadSize);
  EXPECT_EQ(f.table.counters().guest_writes, 1u);
}

TEST(MsixPlacementTest, BarsNeedATableOfTheSameSize) {
  MsixFixture f(4);
  const MsixPlacement placement = {
      .vectors = 5, .table = {1, 0}, .pending = {2, 0}};
  EXPECT_FALSE(MsixBars::Make(placement, &f.table).ok());
}

}  // namespace
}  // namespace ferrybus::vsp
