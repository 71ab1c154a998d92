// SPDX-License-Identifier: MIT

#include "ferrybus/vsc/guest_pages.h"

#include <algorithm>
#include <random>
#include <set>

#include "absl/status/status.h"
#include "ferrybus/channel/endpoint_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsc {
namespace {

class GuestPagesTest : public ::testing::Test {
 protected:
  std::unique_ptr<MemfdGuestMemory> memory_ =
      *MemfdGuestMemory::Create(64 * 4096);
  GuestPages pages_{memory_.get()};
};

TEST_F(GuestPagesTest, ARunIsContiguousZeroedAndNeverPageZero) {
  std::fill_n(memory_->Translate(4096, 4096).data(), 4096, std::byte{0xa5});
  const PageRun run = *pages_.Allocate(3);
  EXPECT_EQ(run.first_page, 1u);
  EXPECT_EQ(run.gpa(), 4096u);
  EXPECT_EQ(run.page_numbers(), (std::vector<uint64_t>{1, 2, 3}));
  ASSERT_EQ(pages_.bytes(run).size(), 3u * 4096);
  for (const std::byte byte : pages_.bytes(run)) ASSERT_EQ(byte, std::byte{0});
}

TEST_F(GuestPagesTest, WhatIsNotThereIsRefused) {
  EXPECT_EQ(pages_.Allocate(64).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(pages_.Allocate(0).ok());
  EXPECT_FALSE(pages_.Allocate(~uint64_t{0}).ok());
  EXPECT_TRUE(pages_.Allocate(63).ok());
  EXPECT_FALSE(pages_.Allocate(1).ok());
}

TEST_F(GuestPagesTest, FreedNeighboursJoin) {
  const PageRun a = *pages_.Allocate(20);
  const PageRun b = *pages_.Allocate(20);
  const PageRun c = *pages_.Allocate(23);
  pages_.Free(a);
  pages_.Free(c);
  EXPECT_FALSE(pages_.Allocate(24).ok());
  pages_.Free(b);
  pages_.Free(PageRun());
  EXPECT_EQ(pages_.Allocate(63)->first_page, 1u);
}

TEST_F(GuestPagesTest, RandomUseNeitherOverlapsNorLoses) {
  std::mt19937_64 random(testing::AnnouncedSeed("//vsc:guest_pages_test"));
  std::vector<PageRun> runs;
  for (int i = 0; i < 20000; ++i) {
    if (random() % 2 == 0 || runs.empty()) {
      const absl::StatusOr<PageRun> run = pages_.Allocate(1 + random() % 9);
      if (run.ok()) runs.push_back(*run);
    } else {
      std::swap(runs[random() % runs.size()], runs.back());
      pages_.Free(runs.back());
      runs.pop_back();
    }
    std::set<uint64_t> used;
    for (const PageRun& run : runs) {
      for (const uint64_t page : run.page_numbers()) {
        ASSERT_TRUE(page >= 1 && page < 64 && used.insert(page).second);
      }
    }
  }
  for (const PageRun& run : runs) pages_.Free(run);
  EXPECT_TRUE(pages_.Allocate(63).ok());
}

}  // namespace
}  // namespace ferrybus::vsc
