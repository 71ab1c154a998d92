// SPDX-License-Identifier: MIT

#include "ferrybus/channel/ring_pair.h"

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

class RingPairTest : public ::testing::Test {
 protected:
  std::unique_ptr<MemfdGuestMemory> memory_ =
      *MemfdGuestMemory::Create(16 * 4096);
};

TEST_F(RingPairTest, TheSecondRingStartsAtItsPage) {
  const absl::StatusOr<RingPair> pair =
      RingPair::Map(*memory_, {9, 3, 4, 7, 1}, 3);
  ASSERT_TRUE(pair.ok());
  EXPECT_EQ(pair->guest_to_host.view().data_bytes, 8192u);
  EXPECT_EQ(pair->host_to_guest.view().data_bytes, 4096u);
  memory_->Translate(9 * 4096, 1)[0] = std::byte{1};
  memory_->Translate(4 * 4096, 1)[0] = std::byte{2};
  memory_->Translate(7 * 4096, 1)[0] = std::byte{3};
  EXPECT_EQ(pair->guest_to_host.view().control[0], std::byte{1});
  EXPECT_EQ(pair->guest_to_host.view().data[4096], std::byte{2});
  // The data area follows itself.
  EXPECT_EQ(pair->guest_to_host.view().data[8192 + 4096], std::byte{2});
  EXPECT_EQ(pair->host_to_guest.view().control[0], std::byte{3});
}

// bad:R24
TEST_F(RingPairTest, EachRingNeedsTwoPages) {
  for (const uint32_t offset : {0u, 1u, 3u, 4u, 0xffffffffu}) {
    EXPECT_EQ(RingPair::Map(*memory_, {1, 2, 3, 4}, offset).status().code(),
              absl::StatusCode::kInvalidArgument)
        << offset;
  }
  EXPECT_FALSE(RingPair::Map(*memory_, {}, 2).ok());
  EXPECT_FALSE(RingPair::Map(*memory_, {1, 2, 3}, 2).ok());
  EXPECT_TRUE(RingPair::Map(*memory_, {1, 2, 3, 4}, 2).ok());
}

// bad:G10
TEST_F(RingPairTest, PagesOutsideRamAreRefused) {
  for (const uint64_t page : {uint64_t{16}, uint64_t{1} << 52, ~uint64_t{0}}) {
    EXPECT_EQ(RingPair::Map(*memory_, {1, 2, 3, page}, 2).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace ferrybus
