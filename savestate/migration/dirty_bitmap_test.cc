// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/dirty_bitmap.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/dirty_tracking.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

constexpr uint64_t kPage = kPageSizeMin;

// Pages of a basis with their bits: "0110".
std::string Bits(DirtyBitmap& dirty, BasisId basis, uint64_t pages,
                 const DirtyQuery& query = {}) {
  std::vector<std::byte> bytes((pages + 7) / 8);
  if (!dirty.Query(basis, query, absl::MakeSpan(bytes)).ok()) return "refused";
  std::string text;
  for (uint64_t page = 0; page < bytes.size() * 8; ++page) {
    const bool bit =
        ((bytes[page / 8] >> (page % 8)) & std::byte{1}) != std::byte{0};
    if (page < pages) {
      text += bit ? '1' : '0';
    } else if (bit) {
      text += "+trailing";
    }
  }
  return text;
}

BasisId Tracked(DirtyBitmap& dirty, const std::vector<MemoryRange>& ranges,
                uint32_t segment = 1) {
  const auto basis = dirty.CreateBasis(segment, ranges);
  EXPECT_TRUE(basis.ok()) << basis.status();
  EXPECT_TRUE(dirty.StartTracking(*basis).ok());
  return *basis;
}

StatusCode CreateCode(DirtyBitmap& dirty,
                      const std::vector<MemoryRange>& ranges,
                      uint32_t segment = 1) {
  return dirty.CreateBasis(segment, ranges).status().code();
}

// doc:DT2 doc:DT6
TEST(DirtyBitmapTest, RangesInAnyOrderAreConcatenatedAsGiven) {
  DirtyBitmap dirty({{.id = 1, .size_bytes = 100 * kPage}});
  // 3 pages, 1 page, 5 pages; the first two touch each other.
  const BasisId basis = Tracked(
      dirty, {{50 * kPage, 3 * kPage}, {49 * kPage, kPage}, {0, 5 * kPage}});
  dirty.MarkWritten(1, 50 * kPage, 1);
  dirty.MarkWritten(1, 49 * kPage + 5, 1);
  dirty.MarkWritten(1, 4 * kPage, kPage);
  EXPECT_EQ(Bits(dirty, basis, 9), "100100001");
  dirty.MarkWritten(1, 0, 100 * kPage);
  EXPECT_EQ(Bits(dirty, basis, 9), "111111111");
}

// doc:DT2
TEST(DirtyBitmapTest, RefusesBadRanges) {
  DirtyBitmap dirty(
      {{.id = 1, .size_bytes = 8 * kPage}, {.id = 2, .size_bytes = 8 * kPage}});
  const auto refused = StatusCode::kInvalidArgument;
  EXPECT_EQ(CreateCode(dirty, {}), refused);
  EXPECT_EQ(CreateCode(dirty, {{0, kPage}}, 0), refused);
  EXPECT_EQ(CreateCode(dirty, {{0, kPage}}, 3), refused);
  EXPECT_EQ(CreateCode(dirty, {{0, 0}}), refused);
  EXPECT_EQ(CreateCode(dirty, {{1, kPage}}), refused);
  EXPECT_EQ(CreateCode(dirty, {{0, kPage - 1}}), refused);
  EXPECT_EQ(CreateCode(dirty, {{0, 9 * kPage}}), refused);
  EXPECT_EQ(CreateCode(dirty, {{8 * kPage, kPage}}), refused);
  EXPECT_EQ(CreateCode(dirty, {{9 * kPage, kPage}}), refused);
  EXPECT_EQ(CreateCode(dirty, {{kPage, ~uint64_t{0} - kPage + 1}}), refused);
  EXPECT_EQ(CreateCode(dirty, {{~uint64_t{0} - kPage + 1, 2 * kPage}}),
            refused);
  EXPECT_EQ(CreateCode(dirty, {{4 * kPage, kPage}, {4 * kPage, kPage}}),
            refused);
  EXPECT_EQ(CreateCode(dirty, {{4 * kPage, 2 * kPage}, {3 * kPage, 2 * kPage}}),
            refused);
  EXPECT_EQ(CreateCode(dirty, {{0, 8 * kPage}, {7 * kPage, kPage}}), refused);
  EXPECT_EQ(CreateCode(dirty, {{7 * kPage, kPage}, {0, 7 * kPage}}, 2),
            StatusCode::kOk);
}

// doc:DT3
TEST(DirtyBitmapTest, BasisIsDestroyedOnceAndOnlyWhenNotTracked) {
  DirtyBitmap dirty({{.id = 1, .size_bytes = 8 * kPage}});
  const BasisId basis = Tracked(dirty, {{0, kPage}});
  EXPECT_EQ(dirty.DestroyBasis(basis).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(Bits(dirty, basis, 1), "0");
  EXPECT_TRUE(dirty.StopTracking(basis).ok());
  EXPECT_TRUE(dirty.DestroyBasis(basis).ok());
  EXPECT_EQ(dirty.DestroyBasis(basis).code(), StatusCode::kNotFound);
  EXPECT_EQ(dirty.StartTracking(basis).code(), StatusCode::kNotFound);
  EXPECT_EQ(dirty.StopTracking(basis).code(), StatusCode::kNotFound);
  EXPECT_EQ(dirty.Query(basis, {}, {}).code(), StatusCode::kNotFound);
  EXPECT_EQ(dirty.DestroyBasis(0).code(), StatusCode::kNotFound);
  // Its number does not come again.
  EXPECT_NE(Tracked(dirty, {{0, kPage}}), basis);
}

// doc:DT4
TEST(DirtyBitmapTest, StartingClearsAllBits) {
  DirtyBitmap dirty({{.id = 1, .size_bytes = 200 * kPage}});
  const BasisId basis = Tracked(dirty, {{0, 200 * kPage}});
  dirty.MarkWritten(1, 0, 200 * kPage);
  EXPECT_EQ(dirty.StartTracking(basis).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(Bits(dirty, basis, 200), std::string(200, '1'));
  EXPECT_TRUE(dirty.StopTracking(basis).ok());
  EXPECT_EQ(dirty.StopTracking(basis).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(dirty.Query(basis, {}, {}).code(), StatusCode::kFailedPrecondition);
  dirty.MarkWritten(1, 0, 200 * kPage);  // not tracked: not remembered
  EXPECT_TRUE(dirty.StartTracking(basis).ok());
  EXPECT_EQ(Bits(dirty, basis, 200), std::string(200, '0'));
  // Also of another basis, which gets the memory of the first.
  dirty.MarkWritten(1, 0, 200 * kPage);
  EXPECT_TRUE(dirty.StopTracking(basis).ok());
  EXPECT_TRUE(dirty.DestroyBasis(basis).ok());
  EXPECT_EQ(Bits(dirty, Tracked(dirty, {{0, 200 * kPage}}), 200),
            std::string(200, '0'));
}

// doc:DT5 doc:DT11
TEST(DirtyBitmapTest, OverlappingUsersDoNotDisturbEachOther) {
  DirtyBitmap dirty({{.id = 1, .size_bytes = 8 * kPage}});
  const BasisId first = Tracked(dirty, {{0, 6 * kPage}});
  const BasisId second = Tracked(dirty, {{4 * kPage, 4 * kPage}});
  dirty.MarkWritten(1, 3 * kPage, 2 * kPage);
  EXPECT_EQ(Bits(dirty, first, 6, {.clear = true}), "000110");
  EXPECT_EQ(Bits(dirty, second, 4), "1000");
  EXPECT_TRUE(dirty.StopTracking(first).ok());
  dirty.MarkWritten(1, 5 * kPage, kPage);
  EXPECT_EQ(Bits(dirty, second, 4, {.clear = true}), "1100");
  EXPECT_TRUE(dirty.StartTracking(first).ok());
  EXPECT_EQ(Bits(dirty, first, 6), "000000");
}

// doc:DT11 doc:DT10
TEST(DirtyBitmapTest, SegmentsHaveTheirOwnPagesAndBits) {
  DirtyBitmap dirty(
      {{.id = 7, .size_bytes = 8 * kPage},
       {.id = 3, .size_bytes = 16 << 20, .page_size_bytes = 2 << 20}});
  const BasisId small = Tracked(dirty, {{0, 8 * kPage}}, 7);
  const BasisId large = Tracked(dirty, {{0, 16 << 20}}, 3);
  dirty.MarkWritten(3, (4 << 20) - 1, 2);
  EXPECT_EQ(Bits(dirty, small, 8), "00000000");
  EXPECT_EQ(Bits(dirty, large, 8), "01100000");
  dirty.MarkWritten(7, 7 * kPage, kPage);
  EXPECT_EQ(Bits(dirty, small, 8), "00000001");
  EXPECT_EQ(Bits(dirty, large, 8), "01100000");
}

// doc:DT7
TEST(DirtyBitmapTest, SubrangeIsOfOneRangeFromItsStart) {
  DirtyBitmap dirty({{.id = 1, .size_bytes = 300 * kPage}});
  const BasisId basis =
      Tracked(dirty, {{200 * kPage, 100 * kPage}, {0, 100 * kPage}});
  dirty.MarkWritten(1, 63 * kPage, 2 * kPage);
  dirty.MarkWritten(1, 210 * kPage, kPage);
  DirtyQuery query = {
      .size_bytes = 4 * kPage, .range_index = 1, .offset_bytes = 62 * kPage};
  EXPECT_EQ(Bits(dirty, basis, 4, query), "0110");
  query = {.size_bytes = kPage, .range_index = 0, .offset_bytes = 10 * kPage};
  EXPECT_EQ(Bits(dirty, basis, 1, query), "1");
  // Without a size the two others do not count.
  query = {.size_bytes = 0, .range_index = 9, .offset_bytes = 1};
  EXPECT_EQ(Bits(dirty, basis, 200, query), Bits(dirty, basis, 200));
}

// doc:DT7
TEST(DirtyBitmapTest, RefusesBadSubranges) {
  DirtyBitmap dirty({{.id = 1, .size_bytes = 8 * kPage}});
  const BasisId basis = Tracked(dirty, {{2 * kPage, 4 * kPage}});
  dirty.MarkWritten(1, 0, 8 * kPage);
  const uint64_t far = ~uint64_t{0} - kPage + 1;
  for (const DirtyQuery& query : std::vector<DirtyQuery>{
           {.size_bytes = kPage, .range_index = 1},
           {.size_bytes = kPage, .range_index = ~uint64_t{0}},
           {.size_bytes = kPage - 1},
           {.size_bytes = kPage, .offset_bytes = 1},
           {.size_bytes = 5 * kPage},
           {.size_bytes = kPage, .offset_bytes = 4 * kPage},
           {.size_bytes = 2 * kPage, .offset_bytes = far},
           {.size_bytes = far, .offset_bytes = kPage}}) {
    DirtyQuery clearing = query;
    clearing.clear = true;
    EXPECT_EQ(Bits(dirty, basis, 8, clearing), "refused");
  }
  EXPECT_EQ(Bits(dirty, basis, 4), "1111");
}

// doc:DT7
TEST(DirtyBitmapTest, WritesOnlyTheBytesThatItNeeds) {
  DirtyBitmap dirty({{.id = 1, .size_bytes = 100 * kPage}});
  const BasisId basis = Tracked(dirty, {{3 * kPage, 90 * kPage}});
  dirty.MarkWritten(1, 0, 100 * kPage);
  for (uint64_t pages = 1; pages <= 90; ++pages) {
    std::vector<std::byte> bytes(20, std::byte{0xA5});
    const DirtyQuery query = {.size_bytes = pages * kPage};
    const size_t needed = (pages + 7) / 8;
    EXPECT_EQ(dirty.Query(basis, query, absl::MakeSpan(bytes).first(needed - 1))
                  .code(),
              StatusCode::kInvalidArgument);
    EXPECT_TRUE(dirty.Query(basis, query, absl::MakeSpan(bytes)).ok());
    EXPECT_EQ(bytes[needed - 1], std::byte(0xFF >> (needed * 8 - pages)));
    EXPECT_EQ(bytes[needed], std::byte{0xA5});
  }
}

// doc:DT8
TEST(DirtyBitmapTest, OnlyAClearingQueryClearsAndOnlyItsPart) {
  DirtyBitmap dirty({{.id = 1, .size_bytes = 200 * kPage}});
  const BasisId basis = Tracked(dirty, {{0, 200 * kPage}});
  dirty.MarkWritten(1, 0, 200 * kPage);
  EXPECT_EQ(Bits(dirty, basis, 200), std::string(200, '1'));
  EXPECT_EQ(Bits(dirty, basis, 200), std::string(200, '1'));
  // Crosses words, with a whole one in the middle.
  const DirtyQuery query = {
      .size_bytes = 90 * kPage, .offset_bytes = 60 * kPage, .clear = true};
  EXPECT_EQ(Bits(dirty, basis, 90, query), std::string(90, '1'));
  EXPECT_EQ(Bits(dirty, basis, 90, query), std::string(90, '0'));
  EXPECT_EQ(Bits(dirty, basis, 200),
            std::string(60, '1') + std::string(90, '0') + std::string(50, '1'));
}

// doc:DT9
TEST(DirtyBitmapTest, ClearingLeavesTheBitsOfNeighbours) {
  DirtyBitmap dirty({{.id = 1, .size_bytes = 64 * kPage}});
  const BasisId first = Tracked(dirty, {{0, 10 * kPage}});
  const BasisId second = Tracked(dirty, {{10 * kPage, 10 * kPage}});
  dirty.MarkWritten(1, 0, 64 * kPage);
  EXPECT_EQ(Bits(dirty, first, 10, {.clear = true}), "1111111111");
  EXPECT_EQ(Bits(dirty, second, 10, {.clear = true}), "1111111111");
  dirty.MarkWritten(1, 9 * kPage, 2 * kPage);
  EXPECT_EQ(Bits(dirty, first, 10), "0000000001");
  EXPECT_EQ(Bits(dirty, second, 10), "1000000000");
}

// doc:DT10
TEST(DirtyBitmapTest, AnyPowerOfTwoFrom4KiBOn) {
  for (uint64_t page = 4096; page <= uint64_t{1} << 40; page *= 2) {
    DirtyBitmap dirty(
        {{.id = 1, .size_bytes = 9 * page, .page_size_bytes = page}});
    const BasisId basis = Tracked(dirty, {{page, 8 * page}});
    dirty.MarkWritten(1, 3 * page - 1, 1);
    dirty.MarkWritten(1, 5 * page, 2 * page);
    dirty.MarkWritten(1, 9 * page - 1, ~uint64_t{0});
    EXPECT_EQ(Bits(dirty, basis, 8), "01001101") << page;
    EXPECT_EQ(CreateCode(dirty, {{page / 2, page}}),
              StatusCode::kInvalidArgument);
  }
  for (uint64_t page : {0, 1, 2048, 4095, 4097, 12288}) {
    DirtyBitmap dirty(
        {{.id = 1, .size_bytes = 12288 * 4096, .page_size_bytes = page}});
    dirty.MarkWritten(1, 0, 1);
    EXPECT_THAT(dirty.CreateBasis(1, {{0, 12288 * 4096}}).status().message(),
                HasSubstr("power of two"));
  }
  DirtyBitmap dirty({{.id = 1, .size_bytes = kPage + 1}});
  EXPECT_THAT(dirty.CreateBasis(1, {{0, kPage}}).status().message(),
              HasSubstr("whole pages"));
}

// doc:DT12
TEST(DirtyBitmapTest, SmallBufferGetsThroughAll) {
  DirtyBitmap dirty({{.id = 1, .size_bytes = 1000 * kPage}});
  const BasisId basis =
      Tracked(dirty, {{500 * kPage, 123 * kPage}, {0, 77 * kPage}});
  for (uint64_t page = 0; page < 1000; page += 3) {
    dirty.MarkWritten(1, page * kPage, 1);
  }
  const std::string whole = Bits(dirty, basis, 200);
  std::string parts;
  const uint64_t pages[] = {123, 77};
  for (uint64_t range = 0; range < 2; ++range) {
    for (uint64_t page = 0; page < pages[range]; page += 8) {
      const uint64_t count = std::min<uint64_t>(8, pages[range] - page);
      parts += Bits(dirty, basis, count,
                    {.size_bytes = count * kPage,
                     .range_index = range,
                     .offset_bytes = page * kPage,
                     .clear = true});
    }
  }
  EXPECT_EQ(parts, whole);
  EXPECT_EQ(Bits(dirty, basis, 200), std::string(200, '0'));
}

TEST(DirtyBitmapTest, MarksOutsideAreIgnored) {
  DirtyBitmap dirty({{.id = 1, .size_bytes = 4 * kPage}});
  const BasisId basis = Tracked(dirty, {{0, 4 * kPage}});
  dirty.MarkWritten(2, 0, kPage);
  dirty.MarkWritten(1, 0, 0);
  dirty.MarkWritten(1, 4 * kPage, kPage);
  dirty.MarkWritten(1, ~uint64_t{0}, ~uint64_t{0});
  EXPECT_EQ(Bits(dirty, basis, 4), "0000");
  dirty.MarkWritten(1, 3 * kPage + 1, ~uint64_t{0});
  EXPECT_EQ(Bits(dirty, basis, 4), "0001");
}

TEST(DirtyBitmapTest, HasLimits) {
  // Two planes of 16 words.
  DirtyBitmap dirty({{.id = 1, .size_bytes = 1024 * kPage}},
                    {.bitmap_bytes_max = 2 * 16 * 8 + 7, .ranges_max = 2});
  const auto exhausted = StatusCode::kResourceExhausted;
  EXPECT_EQ(CreateCode(dirty, {{0, kPage}, {kPage, kPage}, {2 * kPage, kPage}}),
            exhausted);
  const auto basis = dirty.CreateBasis(1, {{0, kPage}, {kPage, kPage}});
  ASSERT_TRUE(basis.ok());
  EXPECT_EQ(CreateCode(dirty, {{0, kPage}}), StatusCode::kOk);
  EXPECT_EQ(CreateCode(dirty, {{0, kPage}}), exhausted);
  EXPECT_TRUE(dirty.DestroyBasis(*basis).ok());
  EXPECT_EQ(CreateCode(dirty, {{0, kPage}}), StatusCode::kOk);

  DirtyBitmap many({{.id = 1, .size_bytes = kPage}});
  for (int i = 0; i < DirtyBitmap::kBasesMax; ++i) {
    const BasisId tracked = Tracked(many, {{0, kPage}});
    many.MarkWritten(1, 0, 1);
    EXPECT_EQ(Bits(many, tracked, 1), "1");
  }
  EXPECT_EQ(CreateCode(many, {{0, kPage}}), exhausted);

  DirtyBitmap huge({{.id = 1, .size_bytes = ~uint64_t{0} - kPage + 1}});
  EXPECT_EQ(CreateCode(huge, {{0, kPage}}), exhausted);
}

}  // namespace
}  // namespace ferrybus::migration
