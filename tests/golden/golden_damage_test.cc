// SPDX-License-Identifier: MIT
//
// Every small damage to every golden file: each prefix and each flipped bit,
// then each flipped bit under checksums that were made right again.

#include <cstdio>
#include <string>
#include <tuple>

#include "ferrybus/savestate/frame_fixup.h"
#include "ferrybus/savestate/seal.h"
#include "ferrybus/tests/golden/golden_bus.h"
#include "gtest/gtest.h"

namespace ferrybus::golden {
namespace {

// Each file in parts, so that the shards of the test have as much to do.
constexpr size_t kParts = 4;

class GoldenDamageTest
    : public ::testing::TestWithParam<std::tuple<GoldenBus, size_t>> {
 protected:
  GoldenDamageTest()
      : golden_(std::get<0>(GetParam())),
        part_(std::get<1>(GetParam())),
        rig_(golden_),
        file_(rig_.saved()) {}

  std::string Flipped(size_t bit) const {
    std::string flipped = file_;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    return flipped;
  }
  void Print(const char* what, size_t cases, size_t restored) const {
    std::printf("%s, part %zu: %zu %s, %zu restored\n",
                golden_.file_name().c_str(), part_, cases, what, restored);
    all_cases_ += cases;
  }
  static void TearDownTestSuite() {
    std::printf("%zu cases in this shard\n", all_cases_);
  }

  static inline size_t all_cases_ = 0;
  const GoldenBus golden_;
  const size_t part_;
  GoldenRig rig_;
  const std::string file_;  // that of the folder: golden_buses_test
};

// bad:S1 promise:P8
TEST_P(GoldenDamageTest, EveryPrefixIsDataLoss) {
  size_t cases = 0;
  for (size_t size = part_; size < file_.size(); size += kParts, ++cases) {
    const Outcome outcome = rig_.Try(file_.substr(0, size));
    ASSERT_EQ(outcome.restored.code(), absl::StatusCode::kDataLoss) << size;
    ASSERT_EQ(outcome.broken, "");
  }
  Print("prefixes", cases, 0);
}

// bad:S2 promise:P8
TEST_P(GoldenDamageTest, EveryFlippedBitIsDataLoss) {
  size_t cases = 0;
  for (size_t bit = part_; bit < file_.size() * 8; bit += kParts, ++cases) {
    const Outcome outcome = rig_.Try(Flipped(bit));
    ASSERT_EQ(outcome.restored.code(), absl::StatusCode::kDataLoss) << bit;
    ASSERT_EQ(outcome.broken, "");
  }
  Print("flipped bits", cases, 0);
}

// bad:S3 promise:P4 promise:P8
TEST_P(GoldenDamageTest, EveryFlippedBitUnderGoodChecksumsIsRefusedOrSound) {
  size_t cases = 0;
  size_t restored = 0;
  for (size_t bit = part_; bit < file_.size() * 8; bit += kParts) {
    std::string flipped = Flipped(bit);
    savestate::FixChecksums(&flipped);
    if (flipped == file_) continue;  // it was in a checksum
    ++cases;
    if (golden_.is_sealed) {
      ASSERT_FALSE(
          savestate::OpenSeal(vsp::AsBytes(flipped), {GoldenKey()}, 42).ok())
          << bit;
    }
    const Outcome outcome = rig_.Try(flipped);
    ASSERT_EQ(outcome.broken, "")
        << "bit " << bit % 8 << " of byte " << bit / 8;
    restored += outcome.restored.ok() ? 1 : 0;
  }
  Print("flipped bits under good checksums", cases, restored);
  EXPECT_EQ(restored != 0, !golden_.is_sealed);
  // What was refused or taken has left nothing behind.
  EXPECT_EQ(rig_.Try(file_).restored.ok(), !golden_.is_sealed);
}

INSTANTIATE_TEST_SUITE_P(
    AllFiles, GoldenDamageTest,
    ::testing::Combine(::testing::ValuesIn(GoldenBuses()),
                       ::testing::Range(size_t{0}, kParts)),
    [](const ::testing::TestParamInfo<std::tuple<GoldenBus, size_t>>& info) {
      return std::get<0>(info.param).name + "_" +
             std::to_string(std::get<1>(info.param));
    });

}  // namespace
}  // namespace ferrybus::golden
