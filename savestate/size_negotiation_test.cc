// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/size_negotiation.h"

#include <algorithm>
#include <cstring>
#include <ostream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::savestate {
namespace {

using ::testing::HasSubstr;

constexpr SizingOptions kKmcl = {.dialect = SizingDialect::kKmcl};
constexpr SizingOptions kLiteral = {.dialect = SizingDialect::kKmcl,
                                    .literal_success = true};
constexpr SizingOptions kMutable = {.dialect = SizingDialect::kGpuP};
constexpr SizingOptions kImmutable = {.dialect = SizingDialect::kGpuP,
                                      .immutable = true};
constexpr SizingOptions kUserMode = {.dialect = SizingDialect::kUserMode};

SizeAnswer OtherFailure(uint64_t bytes) {
  return SizeAnswer::Failed(absl::UnavailableError("device busy"), bytes);
}
SizeAnswer InvalidArgument(uint64_t bytes) {
  return SizeAnswer::Failed(absl::InvalidArgumentError("E_INVALIDARG"), bytes);
}
SizeAnswer Pending(uint64_t bytes) {
  return {SizeAnswer::Code::kPending, bytes, {}};
}

constexpr auto Ok = SizeAnswer::Ok;
constexpr auto Keep = SizeAnswer::OkUntouched;
constexpr auto TooSmall = SizeAnswer::TooSmall;

// One row of the tables below: the callback's answers in order, and the
// outcome.
struct Case {
  const char* name;
  SizingOptions options;
  std::vector<SizeAnswer> answers;
  size_t calls;
  absl::StatusCode code;
  size_t blob_bytes = 0;
  const char* text = "";
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class SizeNegotiationTest : public ::testing::TestWithParam<Case> {};

// bad:S19 doc:XX1
TEST_P(SizeNegotiationTest, EndsAsTheTableSays) {
  const Case& row = GetParam();
  size_t calls = 0;
  const auto blob = NegotiateSize(
      row.options, "packet 17", [&](absl::Span<std::byte> buffer) {
        if (calls == 0) {
          EXPECT_EQ(buffer.data(), nullptr);
          EXPECT_EQ(buffer.size(), 0u);
        } else {
          const SizeAnswer& asked = row.answers[calls - 1];
          EXPECT_EQ(buffer.size(), asked.bytes);
          for (std::byte byte : buffer) EXPECT_EQ(byte, std::byte{0});
          std::memset(buffer.data(), 'x', buffer.size());
        }
        EXPECT_LT(calls, row.answers.size()) << "one call too many";
        return row.answers[std::min(calls++, row.answers.size() - 1)];
      });
  EXPECT_EQ(calls, row.calls);
  ASSERT_EQ(blob.status().code(), row.code) << blob.status();
  if (blob.ok()) {
    EXPECT_EQ(*blob, std::string(row.blob_bytes, 'x'));
  } else {
    EXPECT_THAT(std::string(blob.status().message()), HasSubstr("packet 17"));
    EXPECT_THAT(std::string(blob.status().message()), HasSubstr(row.text));
  }
}

constexpr auto kFine = absl::StatusCode::kOk;
constexpr auto kViolation = absl::StatusCode::kInvalidArgument;
constexpr auto kTooMuch = absl::StatusCode::kResourceExhausted;
constexpr auto kGaveUp = absl::StatusCode::kAborted;
constexpr auto kTheirs = absl::StatusCode::kUnavailable;

// The 15 vectors of the KMCL flavour; vector 15 is a test of its own below.
// vector:1 vector:2 vector:3 vector:4 vector:5 vector:6 vector:7 vector:8
// vector:9 vector:10 vector:11 vector:12 vector:13 vector:14
INSTANTIATE_TEST_SUITE_P(
    Kmcl, SizeNegotiationTest,
    ::testing::Values(
        Case{"V01NoState", kKmcl, {Ok(0)}, 1, kFine, 0},
        Case{"V01NoStateUntouched", kKmcl, {Keep()}, 1, kFine, 0},
        Case{"V02Plain", kKmcl, {TooSmall(100), Ok(100)}, 2, kFine, 100},
        Case{"V03Untouched", kKmcl, {TooSmall(100), Keep()}, 2, kFine, 100},
        Case{"V04Shrank", kKmcl, {TooSmall(100), Ok(60)}, 2, kFine, 60},
        Case{"V05ShrankToNone", kKmcl, {TooSmall(100), Ok(0)}, 2, kFine, 0},
        Case{"V06WrotePast",
             kKmcl,
             {TooSmall(100), Ok(101)},
             2,
             kViolation,
             0,
             "\"success\" with 101 bytes for a buffer of 100"},
        Case{"V07AnyFailureAsks",
             kKmcl,
             {OtherFailure(100), Ok(100)},
             2,
             kFine,
             100},
        Case{"V08RealFailure",
             kKmcl,
             {OtherFailure(0)},
             1,
             kTheirs,
             0,
             "device busy"},
        Case{"V08TooSmallForNothing", kKmcl, {TooSmall(0)}, 1, kViolation},
        Case{"V09SuccessWithSize",
             kKmcl,
             {Ok(100)},
             1,
             kViolation,
             0,
             "success means"},
        Case{"V09Literal", kLiteral, {Ok(100)}, 1, kFine, 0},
        Case{"V10GrewOnce",
             kKmcl,
             {TooSmall(100), TooSmall(200), Ok(200)},
             3,
             kFine,
             200},
        Case{"V10GrewTwice",
             kKmcl,
             {TooSmall(1), OtherFailure(2), TooSmall(3), Ok(3)},
             4,
             kFine,
             3},
        Case{"V11NeverSettles",
             kKmcl,
             {TooSmall(7), TooSmall(8), TooSmall(9), TooSmall(10)},
             4,
             kGaveUp,
             0,
             "does not settle"},
        Case{"V12FailsWithBuffer",
             kKmcl,
             {TooSmall(100), OtherFailure(100)},
             2,
             kTheirs,
             0,
             "device busy"},
        Case{"V12FailsAskingLess",
             kKmcl,
             {TooSmall(100), OtherFailure(99)},
             2,
             kTheirs},
        Case{"V12StillTooSmall",
             kKmcl,
             {TooSmall(100), TooSmall(100)},
             2,
             kViolation},
        Case{"V13Huge",
             kKmcl,
             {TooSmall(0xFFFFFFFF)},
             1,
             kTooMuch,
             0,
             "4294967295 bytes are asked for, the limit is 16777216"},
        Case{"V13HugeLater",
             kKmcl,
             {TooSmall(1), TooSmall(~uint64_t{0})},
             2,
             kTooMuch},
        Case{"V14Pending", kKmcl, {Pending(100)}, 1, kViolation, 0, "neither"},
        Case{"V14PendingLiteral", kLiteral, {Pending(100)}, 1, kFine, 0},
        Case{"V14PendingLater",
             kKmcl,
             {TooSmall(100), Pending(100)},
             2,
             kViolation},
        Case{"FailureWithoutReason",
             kKmcl,
             {SizeAnswer::Failed(absl::OkStatus())},
             1,
             kViolation},
        // 2^32 does not fit KMCL's u32, whatever the limit.
        Case{"MoreThan32Bits",
             {.dialect = SizingDialect::kKmcl, .bytes_max = ~uint64_t{0}},
             {TooSmall(uint64_t{1} << 32)},
             1,
             kTooMuch,
             0,
             "the limit is 4294967295"}),
    [](const auto& info) { return info.param.name; });

// vector:1 vector:2 vector:9 vector:11 vector:12 vector:13, GPU-P flavour
INSTANTIATE_TEST_SUITE_P(
    GpuP, SizeNegotiationTest,
    ::testing::Values(
        Case{"Plain", kImmutable, {Ok(100), Ok(100)}, 2, kFine, 100},
        Case{"Untouched", kImmutable, {Ok(100), Keep()}, 2, kFine, 100},
        Case{"NoState", kImmutable, {Ok(0)}, 1, kFine, 0},
        Case{"NoStateUntouched", kMutable, {Keep()}, 1, kFine, 0},
        Case{"TooSmallTolerated",
             kMutable,
             {TooSmall(100), Ok(100)},
             2,
             kFine,
             100},
        Case{"TooSmallForNothing", kMutable, {TooSmall(0)}, 1, kViolation},
        Case{"OtherFailureIsFinal", kMutable, {OtherFailure(100)}, 1, kTheirs},
        Case{"InvalidArgumentIsFinal",
             kMutable,
             {InvalidArgument(100)},
             1,
             absl::StatusCode::kInvalidArgument,
             0,
             "E_INVALIDARG"},
        Case{"Shrank", kImmutable, {Ok(100), Ok(60)}, 2, kFine, 60},
        Case{"WrotePast", kMutable, {Ok(100), Ok(101)}, 2, kViolation},
        Case{"ImmutableGrew",
             kImmutable,
             {Ok(100), TooSmall(101)},
             2,
             kGaveUp,
             0,
             "immutable data grew from 100 to 101"},
        Case{"MutableGrew",
             kMutable,
             {Ok(100), TooSmall(200), Ok(200)},
             3,
             kFine,
             200},
        Case{"MutableNeverSettles",
             kMutable,
             {Ok(7), TooSmall(8), TooSmall(9), TooSmall(10)},
             4,
             kGaveUp},
        Case{"FailsWithBuffer",
             kMutable,
             {Ok(100), OtherFailure(200)},
             2,
             kTheirs},
        Case{"Pending", kMutable, {Pending(100)}, 1, kViolation},
        Case{"Beyond32Bits",
             kMutable,
             {Ok(uint64_t{1} << 40)},
             1,
             kTooMuch,
             0,
             "1099511627776"}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    UserMode, SizeNegotiationTest,
    ::testing::Values(
        Case{"Plain", kUserMode, {Ok(100), Ok(100)}, 2, kFine, 100},
        Case{"NoState", kUserMode, {Ok(0)}, 1, kFine, 0},
        Case{"InvalidArgumentAsks",
             kUserMode,
             {InvalidArgument(100), Ok(100)},
             2,
             kFine,
             100},
        Case{"InvalidArgumentForNothing",
             kUserMode,
             {InvalidArgument(0)},
             1,
             absl::StatusCode::kInvalidArgument},
        Case{"OtherFailureIsFinal", kUserMode, {OtherFailure(100)}, 1, kTheirs},
        Case{"WroteLess", kUserMode, {Ok(100), Ok(60)}, 2, kFine, 60},
        Case{"Grew", kUserMode, {Ok(100), TooSmall(101)}, 2, kGaveUp},
        Case{"FailsWithBuffer",
             kUserMode,
             {Ok(100), InvalidArgument(200)},
             2,
             absl::StatusCode::kInvalidArgument}),
    [](const auto& info) { return info.param.name; });

// vector:15 promise:P10
TEST(SizeNegotiationTailTest, UnwrittenBytesAreZeroInEveryBuffer) {
  for (SizingDialect dialect :
       {SizingDialect::kKmcl, SizingDialect::kGpuP, SizingDialect::kUserMode}) {
    // Dirty heap of the very size that is asked for next.
    std::vector<std::string> dirt(16, std::string(100, '\xa5'));
    dirt.clear();
    int calls = 0;
    const auto blob = NegotiateSize({.dialect = dialect}, "packet 1",
                                    [&](absl::Span<std::byte> buffer) {
                                      if (++calls == 1)
                                        return SizeAnswer::TooSmall(100);
                                      std::memset(buffer.data(), 'x', 10);
                                      return SizeAnswer::Ok(100);
                                    });
    ASSERT_TRUE(blob.ok()) << blob.status();
    EXPECT_EQ(*blob, std::string(10, 'x') + std::string(90, '\0'));
  }
  // Bytes written into a buffer that was too small do not survive.
  int calls = 0;
  const auto blob =
      NegotiateSize(kKmcl, "packet 1", [&](absl::Span<std::byte> buffer) {
        if (++calls == 1) return SizeAnswer::TooSmall(50);
        if (calls == 2) std::memset(buffer.data(), 'x', buffer.size());
        return calls == 2 ? SizeAnswer::TooSmall(100) : SizeAnswer::Ok(100);
      });
  ASSERT_TRUE(blob.ok()) << blob.status();
  EXPECT_EQ(*blob, std::string(100, '\0'));
}

TEST(SizeNegotiationLimitTest, LimitIsInclusive) {
  SizingOptions options = kKmcl;
  options.bytes_max = 100;
  for (uint64_t size : {uint64_t{100}, uint64_t{101}}) {
    int calls = 0;
    const auto blob = NegotiateSize(options, "packet 1", [&](auto) {
      return ++calls == 1 ? SizeAnswer::TooSmall(size) : SizeAnswer::Ok(size);
    });
    EXPECT_EQ(blob.ok(), size == 100) << blob.status();
    EXPECT_EQ(calls, size == 100 ? 2 : 1);
  }
}

}  // namespace
}  // namespace ferrybus::savestate
