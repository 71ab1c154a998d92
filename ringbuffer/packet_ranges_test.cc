// SPDX-License-Identifier: MIT

#include "ferrybus/ringbuffer/packet_ranges.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "gtest/gtest.h"

namespace ferrybus::ringbuffer {
namespace {

using testing::Bytes;
using testing::FromHex;

constexpr PacketType kGpa = PacketType::kDataUsingGpaDirect;
constexpr PacketType kPages = PacketType::kDataUsingTransferPages;

void Append32(Bytes* out, uint32_t value) {
  for (int i = 0; i < 4; ++i) {
    out->push_back(static_cast<std::byte>(value >> (8 * i)));
  }
}

// A GPA-direct list of one range.
Bytes OneRange(uint32_t byte_count, uint32_t byte_offset, uint32_t pages) {
  Bytes list;
  Append32(&list, 0);
  Append32(&list, 1);
  Append32(&list, byte_count);
  Append32(&list, byte_offset);
  for (uint32_t i = 0; i < pages; ++i) {
    Append32(&list, 100 + i);
    Append32(&list, 0);
  }
  return list;
}

RangeResult Walk(const Bytes& list, std::vector<GpaRange>* ranges = nullptr) {
  return ForEachGpaRange(list, [&](const GpaRange& range) {
    if (ranges != nullptr) ranges->push_back(range);
    return true;
  });
}

// vector:P3
TEST(PacketRangesTest, WalksTheRangesOfAGpaDirectPacket) {
  const Bytes list = FromHex(
      "0000000002000000 00020000000e0000 4523010000000000"
      "0001000000000000 7707000000000000");
  ASSERT_EQ(CheckRangeList(kGpa, list), RangeResult::kOk);
  std::vector<GpaRange> ranges;
  ASSERT_EQ(Walk(list, &ranges), RangeResult::kOk);
  ASSERT_EQ(ranges.size(), 2u);
  EXPECT_EQ(ranges[0].byte_count, 0x200u);
  EXPECT_EQ(ranges[0].byte_offset, 0xe00u);
  EXPECT_EQ(ranges[0].page_count, 1u);
  EXPECT_EQ(ranges[0].page_number(0), 0x12345u);
  EXPECT_EQ(ranges[1].byte_count, 0x100u);
  EXPECT_EQ(ranges[1].byte_offset, 0u);
  EXPECT_EQ(ranges[1].page_number(0), 0x777u);
}

TEST(PacketRangesTest, PagesAreCountedFromTheOffset) {
  struct Case {
    uint32_t byte_count, byte_offset, pages;
  };
  for (const Case& c :
       {Case{1, 0, 1}, Case{4096, 0, 1}, Case{4097, 0, 2}, Case{1, 4095, 1},
        Case{2, 4095, 2}, Case{4096, 1, 2}, Case{65536, 4095, 17}}) {
    std::vector<GpaRange> ranges;
    const Bytes list = OneRange(c.byte_count, c.byte_offset, c.pages);
    EXPECT_EQ(Walk(list, &ranges), RangeResult::kOk);
    ASSERT_EQ(ranges.size(), 1u);
    EXPECT_EQ(ranges[0].page_count, c.pages);
    EXPECT_EQ(ranges[0].page_number(c.pages - 1), 100 + c.pages - 1);
    // One page number short.
    EXPECT_EQ(Walk(OneRange(c.byte_count, c.byte_offset, c.pages - 1)),
              RangeResult::kListTruncated);
  }
}

TEST(PacketRangesTest, StopsWhenTheCallerHasEnough) {
  const Bytes list = FromHex(
      "0000000002000000 0100000000000000 0100000000000000"
      "0100000000000000 0200000000000000");
  int calls = 0;
  EXPECT_EQ(ForEachGpaRange(list,
                            [&](const GpaRange&) {
                              ++calls;
                              return false;
                            }),
            RangeResult::kOk);
  EXPECT_EQ(calls, 1);
}

// Older Linux storage drivers send room for 32 page numbers whatever the
// range needs, so that bytes follow the last range.
TEST(PacketRangesTest, UnusedPageNumbersAfterTheLastRangeAreAccepted) {
  const Bytes list = OneRange(4096, 0, 32);
  EXPECT_EQ(CheckRangeList(kGpa, list), RangeResult::kOk);
  std::vector<GpaRange> ranges;
  EXPECT_EQ(Walk(list, &ranges), RangeResult::kOk);
  ASSERT_EQ(ranges.size(), 1u);
  EXPECT_EQ(ranges[0].page_count, 1u);
}

// bad:R15
// vector:X9
TEST(PacketRangesTest, CountsOfAGpaListAreHeldAgainstItsBytes) {
  struct Case {
    uint32_t count;
    RangeResult result;
  };
  for (const Case& c :
       {Case{0, RangeResult::kNoRanges}, Case{1, RangeResult::kOk},
        Case{2, RangeResult::kOk}, Case{3, RangeResult::kTooManyRanges},
        Case{0x0fffffff, RangeResult::kTooManyRanges},
        Case{0x10000001, RangeResult::kTooManyRanges},
        Case{0xffffffff, RangeResult::kTooManyRanges}}) {
    Bytes list;
    Append32(&list, 0xdeadbeef);  // the reserved word may hold anything
    Append32(&list, c.count);
    list.resize(8 + 2 * 16);
    EXPECT_EQ(CheckRangeList(kGpa, list), c.result) << c.count;
  }
}

// bad:R15
// vector:X10
TEST(PacketRangesTest, TransferPageCountsMustMatchExactly) {
  struct Case {
    uint32_t count;
    RangeResult result;
  };
  for (const Case& c :
       {Case{0, RangeResult::kNoRanges}, Case{1, RangeResult::kTrailingBytes},
        Case{2, RangeResult::kOk}, Case{3, RangeResult::kTooManyRanges},
        Case{0x20000000, RangeResult::kTooManyRanges},
        Case{0xffffffff, RangeResult::kTooManyRanges}}) {
    Bytes list;
    Append32(&list, 0xcafe);
    Append32(&list, c.count);
    list.resize(8 + 2 * 8);
    EXPECT_EQ(CheckRangeList(kPages, list), c.result) << c.count;
  }
}

TEST(PacketRangesTest, AListNeedsItsHeader) {
  for (PacketType type : {kGpa, kPages}) {
    EXPECT_EQ(CheckRangeList(type, {}), RangeResult::kListTooShort);
    EXPECT_EQ(CheckRangeList(type, Bytes(7)), RangeResult::kListTooShort);
    EXPECT_EQ(CheckRangeList(type, Bytes(8)), RangeResult::kNoRanges);
  }
  EXPECT_EQ(Walk({}), RangeResult::kListTooShort);
  EXPECT_EQ(CheckRangeList(PacketType::kDataInBand, {}), RangeResult::kOk);
  EXPECT_EQ(CheckRangeList(PacketType::kCompletion, {}), RangeResult::kOk);
}

// bad:R16
TEST(PacketRangesTest, UnsoundRangesAreNamed) {
  EXPECT_EQ(Walk(OneRange(0, 0, 1)), RangeResult::kEmptyRange);
  EXPECT_EQ(Walk(OneRange(1, 0x1000, 1)), RangeResult::kBadOffset);
  EXPECT_EQ(Walk(OneRange(1, 0xffffffff, 1)), RangeResult::kBadOffset);
  // Offset plus count does not fit 32 bits: 2^20 pages, not 1.
  EXPECT_EQ(Walk(OneRange(0xffffffff, 0xfff, 1)), RangeResult::kTooManyPages);
  EXPECT_EQ(Walk(OneRange(0xfffff001, 0xfff, 1)), RangeResult::kTooManyPages);
  EXPECT_EQ(Walk(OneRange(0xfffff000, 0, 1)), RangeResult::kListTruncated);
  EXPECT_EQ(Walk(OneRange(0xfffff001, 0, 1)), RangeResult::kTooManyPages);
}

// bad:R16
TEST(PacketRangesTest, ALaterRangeMayBeTheUnsoundOne) {
  Bytes list = OneRange(4096, 0, 1);
  list[4] = std::byte{2};
  EXPECT_EQ(Walk(list), RangeResult::kListTruncated);
  Append32(&list, 1);
  EXPECT_EQ(Walk(list), RangeResult::kListTruncated);  // half a header
  Append32(&list, 0);
  EXPECT_EQ(Walk(list), RangeResult::kListTruncated);  // no page number
  list.resize(list.size() + 8);
  EXPECT_EQ(Walk(list), RangeResult::kOk);
}

TEST(PacketRangesTest, EveryResultHasItsOwnName) {
  std::vector<std::string> names;
  for (int i = 0; i <= static_cast<int>(RangeResult::kListTruncated); ++i) {
    const std::string name = RangeResultName(static_cast<RangeResult>(i));
    EXPECT_NE(name, "unknown");
    EXPECT_EQ(std::count(names.begin(), names.end(), name), 0);
    names.push_back(name);
  }
}

}  // namespace
}  // namespace ferrybus::ringbuffer
