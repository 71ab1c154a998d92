// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/shadow_memory.h"

#include <gtest/gtest.h>

#include <vector>

namespace ferrybus::migration {
namespace {

constexpr uint64_t kPages = 10;

class ShadowMemoryTest : public testing::Test {
 protected:
  std::byte Query(const DirtyQuery& query) {
    std::byte bits[2] = {std::byte{0xff}, std::byte{0xff}};
    EXPECT_TRUE(shadow_.Query(basis_, query, bits).ok());
    return bits[0];
  }
  std::byte First(uint64_t page) {
    std::byte value{};
    EXPECT_TRUE(
        shadow_.Read(page * kPageSizeMin, absl::MakeSpan(&value, 1)).ok());
    return value;
  }

  std::vector<std::byte> memory_{kPages * kPageSizeMin};
  ShadowMemory shadow_{1, absl::MakeSpan(memory_)};
  const MemoryRange all_{0, kPages* kPageSizeMin};
  BasisId basis_ = *shadow_.CreateBasis(1, {&all_, 1});
};

// doc:DT4 doc:DT6 doc:DT8
TEST_F(ShadowMemoryTest, FindsWhatWasWritten) {
  ASSERT_TRUE(shadow_.StartTracking(basis_).ok());
  EXPECT_EQ(Query({.clear = true}), std::byte{0});
  memory_[3 * kPageSizeMin + 17] = std::byte{1};
  EXPECT_EQ(Query({}), std::byte{8});
  EXPECT_EQ(Query({.clear = true}), std::byte{8});
  EXPECT_EQ(Query({.clear = true}), std::byte{0});
}

// What is read is what was compared: a page that was written and written back
// between the two is found nevertheless, or was never sent.
TEST_F(ShadowMemoryTest, WrittenBackIsNotLost) {
  ASSERT_TRUE(shadow_.StartTracking(basis_).ok());
  memory_[0] = std::byte{1};
  ASSERT_EQ(Query({.clear = true}), std::byte{1});
  memory_[0] = std::byte{2};
  EXPECT_EQ(First(0), std::byte{1});
  EXPECT_EQ(Query({.clear = true}), std::byte{1});
  EXPECT_EQ(First(0), std::byte{2});
  memory_[0] = std::byte{1};
  EXPECT_EQ(First(0), std::byte{2});
  EXPECT_EQ(Query({.clear = true}), std::byte{1});
  EXPECT_EQ(First(0), std::byte{1});
}

// doc:DT7
TEST_F(ShadowMemoryTest, SubRange) {
  ASSERT_TRUE(shadow_.StartTracking(basis_).ok());
  memory_[0] = memory_[4 * kPageSizeMin] = std::byte{1};
  EXPECT_EQ(Query({.size_bytes = 2 * kPageSizeMin,
                   .offset_bytes = 3 * kPageSizeMin,
                   .clear = true}),
            std::byte{2});
  EXPECT_EQ(Query({.clear = true}), std::byte{1});
}

TEST_F(ShadowMemoryTest, UntrackedIsReadAsItIs) {
  memory_[0] = std::byte{7};
  EXPECT_EQ(First(0), std::byte{7});
  ASSERT_TRUE(shadow_.StartTracking(basis_).ok());
  memory_[0] = std::byte{8};
  EXPECT_EQ(First(0), std::byte{7});
  ASSERT_TRUE(shadow_.StopTracking(basis_).ok());
  EXPECT_EQ(First(0), std::byte{8});
}

TEST_F(ShadowMemoryTest, WrongCallsChangeNothing) {
  std::byte bits[2];
  EXPECT_EQ(shadow_.Query(basis_, {}, bits).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(shadow_.StopTracking(basis_).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(shadow_.StartTracking(9).code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(shadow_.StartTracking(basis_).ok());
  EXPECT_EQ(shadow_.StartTracking(basis_).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(shadow_.DestroyBasis(basis_).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(shadow_.CreateBasis(1, {&all_, 1}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(shadow_.CreateBasis(2, {&all_, 1}).status().code(),
            absl::StatusCode::kInvalidArgument);
  for (const DirtyQuery& query :
       {DirtyQuery{.size_bytes = 1}, DirtyQuery{.size_bytes = 1 << 20},
        DirtyQuery{.size_bytes = kPageSizeMin, .range_index = 1},
        DirtyQuery{.size_bytes = kPageSizeMin,
        .offset_bytes = ~uint64_t{0} << 12},
        DirtyQuery{.size_bytes = kPageSizeMin, .offset_bytes = 1}}) {
    EXPECT_EQ(shadow_.Query(basis_, query, bits).code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(shadow_.Query(basis_, {}, {bits, 1}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(shadow_.Read(~uint64_t{0}, bits).ok());
  EXPECT_FALSE(shadow_.Write(kPages * kPageSizeMin - 1, bits).ok());
}

}  // namespace
}  // namespace ferrybus::migration
