// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/page_block.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace ferrybus::migration {
namespace {

constexpr uint64_t kPage = 4096;

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string RandomPages(uint64_t pages) {
  std::mt19937_64 random(pages);
  std::string text(pages * kPage, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

PageBlock Encoded(const std::string& plain, const std::vector<PageRun>& runs,
                  bool may_compress = true) {
  PageEncoder encoder;
  PageBlock block;
  block.session = std::string(16, 's');
  encoder.Encode(plain, runs, kPage, may_compress, &block);
  return block;
}

// doc:MG12 doc:MG13
TEST(PageBlockTest, PagesInSeveralPiecesArriveAsTheyWere) {
  const std::string noise = RandomPages(2);
  const std::string text(2 * kPage, 'a');
  const std::string zeros(kPage, '\0');
  // Pages 3 and 4, 9, 100 and 101.
  const std::string plain = noise + zeros + text;
  PageBlock block = Encoded(plain, {{3, 2}, {9, 1}, {100, 2}});
  EXPECT_EQ(block.runs, (std::vector<PageRun>{{3, 2}, {100, 2}}));
  EXPECT_EQ(block.zero_runs, (std::vector<PageRun>{{9, 1}}));
  EXPECT_EQ(block.encoding, PageEncoding::kZstd);
  absl::StatusOr<PageBlock> parsed = ParseBlock(AsBytes(SerializeBlock(block)));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const absl::StatusOr<uint64_t> size = PlainSizeBytes(*parsed, kPage, 102);
  ASSERT_TRUE(size.ok());
  EXPECT_EQ(*size, 4 * kPage);
  EXPECT_EQ(*DecodePages(*std::move(parsed), *size), noise + text);
}

TEST(PageBlockTest, AllOfZerosHasNoData) {
  const PageBlock block = Encoded(std::string(4 * kPage, '\0'), {{0, 4}});
  EXPECT_TRUE(block.runs.empty());
  EXPECT_TRUE(block.data.empty());
  EXPECT_LT(SerializeBlock(block).size(), 100u);
  // Not a page of zeros.
  std::string last(kPage, '\0');
  last.back() = 1;
  EXPECT_EQ(Encoded(last, {{0, 1}}).runs.size(), 1u);
  last.back() = 0;
  last.front() = 1;
  EXPECT_EQ(Encoded(last, {{0, 1}}).runs.size(), 1u);
}

// doc:MG13: what does not shrink is left as it is, and not tried each time.
TEST(PageBlockTest, CompressesWhereItPays) {
  PageEncoder encoder;
  const std::vector<PageRun> runs = {{0, 8}};
  int tried = 0;
  for (int i = 0; i < 100; ++i) {
    // Every second one would shrink, if it were tried.
    PageBlock block;
    encoder.Encode(i % 2 == 0 ? RandomPages(8) : std::string(8 * kPage, 'a'),
                   runs, kPage, true, &block);
    tried += block.encoding == PageEncoding::kZstd ? 1 : 0;
    if (i % 2 == 0) {
      EXPECT_EQ(block.encoding, PageEncoding::kPlain);
    }
  }
  EXPECT_GT(tried, 0);
  EXPECT_LT(tried, 50);
  EXPECT_EQ(Encoded(std::string(kPage, 'a'), {{0, 1}}, false).encoding,
            PageEncoding::kPlain);
}

// bad:T2: nothing is decompressed beyond the pages that were named.
TEST(PageBlockTest, WrongSizesAreRefused) {
  const std::string text(8 * kPage, 'a');
  for (uint64_t pages : {1, 7, 9, 100}) {
    PageBlock block = Encoded(text, {{0, 8}});
    block.runs = {{0, pages}};
    const absl::StatusOr<uint64_t> size = PlainSizeBytes(block, kPage, 1000);
    ASSERT_TRUE(size.ok());
    EXPECT_EQ(DecodePages(std::move(block), *size).status().code(),
              absl::StatusCode::kDataLoss)
        << pages;
  }
  for (const std::vector<PageRun>& runs : {std::vector<PageRun>{},
                                           {{0, 0}},
                                           {{10, 1}},
                                           {{9, 2}},
                                           {{~0ull, 1}},
                                           {{1, ~0ull}},
                                           {{0, 5}, {5, 6}}}) {
    PageBlock block = Encoded(text, {{0, 8}});
    block.runs = runs;
    EXPECT_FALSE(PlainSizeBytes(block, kPage, 10).ok());
  }
  // More than a block may have.
  PageBlock block = Encoded(text, {{0, 8}});
  block.runs = {{0, kBlockBytesMax / kPage}, {0, 1}};
  EXPECT_FALSE(PlainSizeBytes(block, kPage, uint64_t{1} << 30).ok());
}

// Every bit of a block is covered by its checksum, or by the checks.
TEST(PageBlockTest, AnyFlippedBitIsRefused) {
  const std::string bytes =
      SerializeBlock(Encoded(std::string(kPage, 'a'), {{5, 1}}));
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] ^= static_cast<char>(1 << bit % 8);
    EXPECT_FALSE(ParseBlock(AsBytes(damaged)).ok()) << "bit " << bit;
  }
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(ParseBlock(AsBytes(bytes.substr(0, size))).ok());
  }
}

}  // namespace
}  // namespace ferrybus::migration
