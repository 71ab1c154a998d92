// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/documented_dirty_tracking.h"

#include <cstddef>
#include <string>
#include <vector>

#include "ferrybus/vsp/virtual_function/documented_driver.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using absl::StatusCode;
using migration::BasisId;
using migration::DirtyQuery;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kPage = 4096;

class DocumentedDirtyTrackingTest : public ::testing::Test {
 protected:
  BasisId Tracked(const std::vector<migration::MemoryRange>& ranges) {
    const auto basis = tracking_.CreateBasis(1, ranges);
    EXPECT_TRUE(basis.ok()) << basis.status();
    EXPECT_TRUE(tracking_.StartTracking(*basis).ok());
    driver_.calls.clear();
    return *basis;
  }
  absl::StatusOr<std::string> Bits(BasisId basis, size_t pages,
                                   const DirtyQuery& query = {}) {
    std::vector<std::byte> bytes((pages + 7) / 8);
    const auto status = tracking_.Query(basis, query, absl::MakeSpan(bytes));
    if (!status.ok()) return status;
    std::string text;
    for (size_t i = 0; i < bytes.size() * 8; ++i) {
      text +=
          (bytes[i / 8] >> (i % 8) & std::byte{1}) == std::byte{0} ? '0' : '1';
    }
    return text;
  }

  DocumentedDriver driver_;
  // The function has pages 4 to 11 and 20 to 29.
  DocumentedDirtyTracking tracking_{
      driver_.functions(),
      {{.id = 1,
        .ranges = {{4 * kPage, 8 * kPage}, {20 * kPage, 10 * kPage}}}}};
};

// doc:DT2 doc:DT4 doc:DT6 doc:DT7 doc:DT8
TEST_F(DocumentedDirtyTrackingTest, AsksTheDriver) {
  const BasisId basis =
      Tracked({{25 * kPage, 5 * kPage}, {4 * kPage, 6 * kPage}});
  driver_.Write(1, 26 * kPage, 1);
  driver_.Write(1, 9 * kPage, 1);
  driver_.Write(1, 10 * kPage, 1);  // not in the basis
  EXPECT_EQ(*Bits(basis, 11), "0100000000100000");
  EXPECT_EQ(driver_.last_query.SubrangeSize, 0u);
  EXPECT_EQ(driver_.last_query.BufferSize, 2u);
  EXPECT_EQ(*Bits(basis, 2,
                  {.size_bytes = 2 * kPage,
                   .range_index = 1,
                   .offset_bytes = 4 * kPage,
                   .clear = true}),
            "01000000");
  EXPECT_EQ(driver_.last_query.SubrangeIndex, 1u);
  EXPECT_EQ(driver_.last_query.SubrangeOffset, 4 * kPage);
  EXPECT_EQ(driver_.last_query.SubrangeSize, 2 * kPage);
  EXPECT_EQ(*Bits(basis, 11, {.range_index = 77, .clear = true}),
            "0100000000000000");
  EXPECT_EQ(*Bits(basis, 11), "0000000000000000");
  EXPECT_THAT(driver_.calls,
              ElementsAre("dirty 0", "dirty 1", "dirty 1", "dirty 0"));
}

// doc:DT2 doc:DT7 doc:DT9
TEST_F(DocumentedDirtyTrackingTest, KeepsWhatIsPromisedToTheDriver) {
  const std::vector<std::vector<migration::MemoryRange>> bad = {
      {},
      {{4 * kPage, 9 * kPage}},                      // beyond its piece
      {{0, kPage}},                                  // another function's
      {{10 * kPage, 11 * kPage}},                    // across both pieces
      {{4 * kPage, 2 * kPage}, {5 * kPage, kPage}},  // overlap
      {{4 * kPage + 1, kPage}},
      {{4 * kPage, kPage / 2}}};
  for (const auto& ranges : bad) {
    EXPECT_EQ(tracking_.CreateBasis(1, ranges).status().code(),
              StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(tracking_.CreateBasis(2, {{4 * kPage, kPage}}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_THAT(driver_.calls, IsEmpty());
  const BasisId basis = Tracked({{4 * kPage, 4 * kPage}});
  EXPECT_EQ(tracking_.StartTracking(basis).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(tracking_.DestroyBasis(basis).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(Bits(basis, 8, {.size_bytes = 5 * kPage}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(Bits(basis, 0).status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(driver_.calls, IsEmpty());
  EXPECT_TRUE(tracking_.StopTracking(basis).ok());
  EXPECT_EQ(tracking_.StopTracking(basis).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(Bits(basis, 4).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(tracking_.DestroyBasis(basis).ok());
  EXPECT_EQ(tracking_.DestroyBasis(basis).code(), StatusCode::kNotFound);
  EXPECT_THAT(driver_.calls, ElementsAre("stop", "destroy"));
}

// doc:DT5 doc:DT11
TEST_F(DocumentedDirtyTrackingTest, SeveralBasesAtOnce) {
  const BasisId first = Tracked({{4 * kPage, 4 * kPage}});
  const BasisId second = Tracked({{6 * kPage, 4 * kPage}});
  driver_.Write(1, 6 * kPage, 1);
  EXPECT_EQ(*Bits(first, 4, {.clear = true}), "00100000");
  EXPECT_TRUE(tracking_.StopTracking(first).ok());
  EXPECT_EQ(*Bits(second, 4), "10000000");
}

// doc:DT6
TEST_F(DocumentedDirtyTrackingTest, ChecksTheAnswers) {
  const BasisId basis = Tracked({{4 * kPage, 3 * kPage}});
  driver_.leaves_trailing_bits = true;
  EXPECT_EQ(*Bits(basis, 3), "00000000");
  driver_.answers_queries = false;  // all written, for all we know
  EXPECT_EQ(*Bits(basis, 3), "11100000");
  driver_.answers_queries = true;
  driver_.writes_beyond = true;
  EXPECT_EQ(Bits(basis, 3).status().code(), StatusCode::kInternal);
  driver_.writes_beyond = false;
  driver_.tracking_status = STATUS_PENDING;
  EXPECT_EQ(Bits(basis, 3).status().code(), StatusCode::kInternal);
  driver_.tracking_status = STATUS_INVALID_PARAMETER;
  EXPECT_EQ(Bits(basis, 3).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(tracking_.StopTracking(basis).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Bits(basis, 3).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(tracking_.StartTracking(basis).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(Bits(basis, 3).status().code(), StatusCode::kFailedPrecondition);
}

// doc:DT3
TEST_F(DocumentedDirtyTrackingTest, BasisThatIsNotDestroyedIsFatal) {
  const BasisId other = Tracked({{8 * kPage, kPage}});
  const auto basis = tracking_.CreateBasis(1, {{4 * kPage, kPage}});
  driver_.destroy_status = STATUS_PENDING;  // even this
  EXPECT_EQ(tracking_.DestroyBasis(*basis).code(), StatusCode::kInternal);
  driver_.destroy_status = STATUS_SUCCESS;
  EXPECT_EQ(tracking_.StopTracking(other).code(), StatusCode::kInternal);
  EXPECT_EQ(tracking_.CreateBasis(1, {{4 * kPage, kPage}}).status().code(),
            StatusCode::kInternal);
}

// doc:DT2
TEST_F(DocumentedDirtyTrackingTest, HasLimits) {
  driver_.gives_handles = false;
  EXPECT_EQ(tracking_.CreateBasis(1, {{4 * kPage, kPage}}).status().code(),
            StatusCode::kResourceExhausted);
  driver_.gives_handles = true;
  for (size_t i = 0; i < DocumentedDirtyTracking::kBasesMax; ++i) {
    EXPECT_TRUE(tracking_.CreateBasis(1, {{4 * kPage, kPage}}).ok());
  }
  EXPECT_EQ(tracking_.CreateBasis(1, {{4 * kPage, kPage}}).status().code(),
            StatusCode::kResourceExhausted);
  const std::vector<migration::MemoryRange> many(
      DocumentedDirtyTracking::kRangesMax + 1);
  EXPECT_EQ(tracking_.CreateBasis(1, many).status().code(),
            StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace ferrybus::vsp
