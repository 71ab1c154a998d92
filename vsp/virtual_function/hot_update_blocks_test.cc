// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/hot_update_blocks.h"

#include <cstdint>
#include <string>
#include <vector>

#include "ferrybus/vsp/virtual_function/hot_update_test_util.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using ::testing::ElementsAre;
using Ranges = std::vector<HotUpdateRange>;
using absl::StatusCode;

constexpr uint64_t kPage = kHotUpdatePageBytes;
constexpr uint64_t kPages = 16;

class HotUpdateBlocksTest : public ::testing::Test {
 protected:
  HotUpdateBlocksTest() {
    memory_.Number();
    blocks_.Open();
  }
  const std::byte* Page(uint64_t page) const {
    return memory_.bytes().data() + page * kPage;
  }
  StatusCode SaveList(std::vector<uint64_t> pages, uint64_t first_byte,
                      uint64_t size_bytes) {
    return blocks_.SavePageList({pages, first_byte, size_bytes}).code();
  }

  DeviceMemory memory_{kPages};
  HotUpdateBlocks blocks_{memory_.bytes(),
                          {.blocks_max = 6,
                           .metadata_bytes_max = 100,
                           .copied_bytes_max = 3 * kPage,
                           .ranges_max = 5}};
};

// doc:HU1 doc:HU3
TEST_F(HotUpdateBlocksTest, EachFormGivesTheBytesThatWereSaved) {
  const auto metadata = ToBytes("what it is");
  ASSERT_TRUE(blocks_.SaveRanges(Ranges{{1, 2}, {5, 1}}, metadata).ok());
  const std::vector<uint64_t> pages = {9, 10, 8};
  ASSERT_TRUE(blocks_.SavePageList({pages, 4000, 5000}).ok());
  std::vector<std::byte> buffer = ToBytes(std::string(4097, 'x'));
  ASSERT_TRUE(blocks_.SaveBuffer(buffer, metadata).ok());
  buffer.assign(buffer.size(), std::byte{0});  // it was copied

  const HotUpdateBlock ranges = blocks_.Take(0);
  EXPECT_THAT(ranges.segments,
              ElementsAre(memory_.bytes().subspan(kPage, 2 * kPage),
                          memory_.bytes().subspan(5 * kPage, kPage)));
  EXPECT_EQ(ranges.segments[0].data(), Page(1));  // in place
  EXPECT_EQ(ranges.size_bytes, 3 * kPage);
  EXPECT_EQ(ToText(ranges.metadata), "what it is");
  EXPECT_EQ(ranges.copy, nullptr);

  const HotUpdateBlock list = blocks_.Take(1);
  EXPECT_THAT(list.segments,
              ElementsAre(memory_.bytes().subspan(9 * kPage + 4000, 4192),
                          memory_.bytes().subspan(8 * kPage, 808)));
  EXPECT_EQ(list.segments[1].data(), Page(8));
  EXPECT_EQ(list.size_bytes, 5000u);
  EXPECT_TRUE(list.metadata.empty());

  const HotUpdateBlock copy = blocks_.Take(2);
  EXPECT_EQ(ToText(Joined(copy)), std::string(4097, 'x'));
  EXPECT_EQ(copy.size_bytes, 4097u);
  // doc: the tail of the last page is zero.
  EXPECT_EQ(copy.copy[1].bytes[1], std::byte{0});
  EXPECT_EQ(copy.copy[1].bytes[kPage - 1], std::byte{0});
}

// bad:H2
TEST_F(HotUpdateBlocksTest, RefusesBadRanges) {
  const uint64_t top = ~uint64_t{0};
  const Ranges bad[] = {
      {},
      {{0, 0}},
      {{3, 1}, {4, 0}},
      {{16, 1}},
      {{15, 2}},
      {{0, 17}},
      {{1, top}},
      {{top, 1}},
      {{top, top}},
      {{uint64_t{1} << 40, 1}},
      {{uint64_t{1} << 52, 1}},
      {{4, 2}, {2, 1}},          // not ascending
      {{4, 2}, {5, 1}},          // one over the other
      {{4, 2}, {4, 2}},          // twice
      {{1, 1}, {2, 1}, {15, 2}}  // the last one
  };
  for (const Ranges& ranges : bad) {
    EXPECT_EQ(blocks_.SaveRanges(ranges).code(), StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(blocks_.size(), 0u);
  // Nothing of them was recorded.
  EXPECT_TRUE(blocks_.SaveRanges(Ranges{{0, 16}}).ok());
}

// bad:H2
TEST_F(HotUpdateBlocksTest, RefusesBadLists) {
  constexpr StatusCode kBad = StatusCode::kInvalidArgument;
  EXPECT_EQ(SaveList({}, 0, 1), kBad);
  EXPECT_EQ(SaveList({}, 0, 0), kBad);
  EXPECT_EQ(SaveList({1}, 0, 0), kBad);
  EXPECT_EQ(SaveList({1}, 0, kPage + 1), kBad);
  EXPECT_EQ(SaveList({1}, 1, kPage), kBad);
  EXPECT_EQ(SaveList({1, 2}, 0, kPage), kBad);
  EXPECT_EQ(SaveList({1, 2}, kPage, kPage), kBad);
  EXPECT_EQ(SaveList({1}, 1, ~uint64_t{0}), kBad);
  EXPECT_EQ(SaveList({1}, ~uint64_t{0}, 2), kBad);
  EXPECT_EQ(SaveList({1, 1}, 0, 2 * kPage), kBad);
  EXPECT_EQ(SaveList({1, 2, 1}, 0, 3 * kPage), kBad);
  EXPECT_EQ(SaveList({16}, 0, kPage), kBad);
  EXPECT_EQ(SaveList({~uint64_t{0}, 0}, 0, 2 * kPage), kBad);
  EXPECT_EQ(SaveList(std::vector<uint64_t>(17, 0), 0, 17 * kPage), kBad);
  EXPECT_EQ(blocks_.size(), 0u);
  EXPECT_EQ(SaveList({15, 1}, kPage - 1, kPage + 1), StatusCode::kOk);
}

// doc:HU4
TEST_F(HotUpdateBlocksTest, SavesNoPageTwiceInOneUpdate) {
  ASSERT_TRUE(blocks_.SaveRanges(Ranges{{2, 2}, {8, 2}}).ok());
  const Ranges bad[] = {{{2, 1}}, {{3, 1}},  {{1, 2}},         {{3, 2}},
                        {{1, 8}}, {{0, 16}}, {{5, 1}, {9, 1}}, {{9, 3}}};
  for (const Ranges& ranges : bad) {
    EXPECT_EQ(blocks_.SaveRanges(ranges).code(), StatusCode::kInvalidArgument)
        << ranges[0].first_page;
  }
  EXPECT_EQ(SaveList({5, 8}, 0, 2 * kPage), StatusCode::kInvalidArgument);
  EXPECT_EQ(SaveList({3}, 5, 1), StatusCode::kInvalidArgument);
  EXPECT_EQ(blocks_.size(), 1u);
  // Their neighbours, and what only refused calls named.
  EXPECT_TRUE(blocks_.SaveRanges(Ranges{{1, 1}, {4, 2}}).ok());
  // A buffer is a copy: the same bytes may be saved so, too.
  EXPECT_TRUE(blocks_.SaveBuffer({Page(2), kPage}).ok());
  EXPECT_TRUE(blocks_.SaveBuffer({Page(2), kPage}).ok());
}

// bad:H3
TEST_F(HotUpdateBlocksTest, MetadataUpToItsLimit) {
  const Ranges first = {{0, 1}};
  for (size_t size : {size_t{101}, size_t{4096}, size_t{1} << 20}) {
    const std::vector<std::byte> metadata(size);
    EXPECT_EQ(blocks_.SaveRanges(first, metadata).code(),
              StatusCode::kInvalidArgument);
    EXPECT_EQ(blocks_.SaveBuffer(metadata, metadata).code(),
              StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(blocks_.size(), 0u);
  const std::vector<std::byte> most(100, std::byte{7});
  EXPECT_TRUE(blocks_.SaveRanges(first, most).ok());
  EXPECT_TRUE(blocks_.SaveRanges(Ranges{{1, 1}}).ok());
  EXPECT_EQ(blocks_.Take(0).metadata, most);
  EXPECT_TRUE(blocks_.Take(1).metadata.empty());
}

// doc:HU19
TEST_F(HotUpdateBlocksTest, CapsOnWhatIsCopied) {
  const std::vector<std::byte> metadata(100);
  const std::vector<std::byte> buffer(2 * kPage);
  EXPECT_EQ(blocks_.SaveBuffer({}).code(), StatusCode::kInvalidArgument);
  ASSERT_TRUE(blocks_.SaveBuffer(buffer, metadata).ok());
  EXPECT_EQ(blocks_.copied_bytes(), 2 * kPage + 100);
  // One page is left, less 100 bytes; a byte needs a page.
  EXPECT_EQ(blocks_.SaveBuffer({buffer.data(), 1}).code(),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(blocks_.size(), 1u);
  blocks_.Clear();
  EXPECT_EQ(blocks_.copied_bytes(), 0u);
  // To the last byte.
  EXPECT_TRUE(blocks_.SaveBuffer(buffer).ok());
  EXPECT_EQ(blocks_.SaveBuffer({buffer.data(), 1}, {buffer.data(), 1}).code(),
            StatusCode::kResourceExhausted);
  EXPECT_TRUE(blocks_.SaveBuffer({buffer.data(), 1}).ok());
  EXPECT_EQ(blocks_.copied_bytes(), 3 * kPage);
  EXPECT_EQ(blocks_.SaveRanges(Ranges{{0, 1}}, {buffer.data(), 1}).code(),
            StatusCode::kResourceExhausted);
  // Pages in place are not copied.
  EXPECT_TRUE(blocks_.SaveRanges(Ranges{{0, 16}}).ok());
  EXPECT_EQ(blocks_.copied_bytes(), 3 * kPage);
}

// doc:HU19
TEST_F(HotUpdateBlocksTest, CapsOnBlocksAndRanges) {
  EXPECT_EQ(
      blocks_
          .SaveRanges(Ranges{{0, 1}, {2, 1}, {4, 1}, {6, 1}, {8, 1}, {10, 1}})
          .code(),
      StatusCode::kResourceExhausted);
  // Four single pages, and then a run of three, which is one range.
  ASSERT_TRUE(blocks_.SaveRanges(Ranges{{0, 1}, {2, 1}, {4, 1}, {6, 1}}).ok());
  EXPECT_EQ(SaveList({8, 10}, 0, 2 * kPage), StatusCode::kResourceExhausted);
  EXPECT_EQ(SaveList({8, 9, 10}, 0, 3 * kPage), StatusCode::kOk);
  const std::vector<std::byte> byte(1);
  blocks_.Clear();
  for (uint64_t i = 0; i < 5; ++i) {
    EXPECT_TRUE(blocks_.SaveRanges(Ranges{{i, 1}}).ok());
  }
  EXPECT_TRUE(blocks_.SaveBuffer(byte).ok());
  EXPECT_EQ(blocks_.SaveBuffer(byte).code(), StatusCode::kResourceExhausted);
}

// doc:HU5
TEST_F(HotUpdateBlocksTest, TakesBlocksOnlyWhileAsked) {
  const std::vector<std::byte> byte(1);
  const std::vector<uint64_t> pages = {3};
  blocks_.Close();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(blocks_.SaveBuffer(byte).code(), StatusCode::kFailedPrecondition);
    EXPECT_EQ(blocks_.SaveRanges(Ranges{{0, 1}}).code(),
              StatusCode::kFailedPrecondition);
    EXPECT_EQ(blocks_.SavePageList({pages, 0, 1}).code(),
              StatusCode::kFailedPrecondition);
  }
  EXPECT_EQ(blocks_.size(), 0u);
  blocks_.Open();
  EXPECT_TRUE(blocks_.SaveRanges(Ranges{{0, 1}}).ok());
  EXPECT_TRUE(blocks_.SaveRanges(Ranges{{1, 1}}).ok());
}

}  // namespace
}  // namespace ferrybus::vsp
