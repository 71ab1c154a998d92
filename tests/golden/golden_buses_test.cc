// SPDX-License-Identifier: MIT
//
// The golden files against the writer and the reader of today.

#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <utility>

#include "ferrybus/channel/endpoint_test_util.h"
#include "ferrybus/savestate/seal.h"
#include "ferrybus/tests/golden/golden_bus.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::golden {
namespace {

using ::testing::HasSubstr;

std::string ReadGolden(const GoldenBus& golden) {
  std::ifstream in("tests/golden/files/" + golden.file_name(),
                   std::ios::binary);
  EXPECT_TRUE(in.good()) << golden.file_name();
  return {std::istreambuf_iterator<char>(in), {}};
}

class GoldenBusesTest : public ::testing::TestWithParam<GoldenBus> {
 protected:
  // What is in the seal, if there is one.
  std::string Opened() const {
    if (!GetParam().is_sealed) return file_;
    auto opened = savestate::OpenSeal(vsp::AsBytes(file_), {GoldenKey()}, 42);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return opened.ok() ? opened->frame : "";
  }

  const std::string file_ = ReadGolden(GetParam());
};

// bad:S24 promise:P5 promise:P11
TEST_P(GoldenBusesTest, TheSameBytesAreWrittenToday) {
  GoldenRig rig(GetParam());
  EXPECT_TRUE(rig.saved() == file_);
}

TEST_P(GoldenBusesTest, AFileIsSmall) {
  EXPECT_LE(file_.size(), size_t{20} * 1024);
}

// The file of the folder, not the one made today.
// bad:S23 bad:S24 promise:P5
TEST_P(GoldenBusesTest, RestoresAndSavesTheSameBytes) {
  GoldenRig rig(GetParam());
  const std::string opened = Opened();
  const Outcome outcome = rig.Try(opened);
  ASSERT_TRUE(outcome.restored.ok()) << outcome.restored;
  EXPECT_EQ(outcome.broken, "");
  EXPECT_TRUE(outcome.saved == opened);
}

// bad:S17 promise:P4
TEST_P(GoldenBusesTest, ARefusalChangesNothing) {
  GoldenRig rig(GetParam());
  std::string cut = Opened();
  cut.pop_back();
  EXPECT_EQ(rig.Try(cut).restored.code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(rig.Try(Opened()).restored.ok());
}

INSTANTIATE_TEST_SUITE_P(AllFiles, GoldenBusesTest,
                         ::testing::ValuesIn(GoldenBuses()),
                         [](const ::testing::TestParamInfo<GoldenBus>& info) {
                           return info.param.name;
                         });

// bad:S22
TEST(GoldenFilesTest, ASealedFileIsNotRestoredAsItIs) {
  int sealed = 0;
  for (const GoldenBus& golden : GoldenBuses()) {
    if (!golden.is_sealed) continue;
    ++sealed;
    GoldenRig rig(golden);
    const Outcome outcome = rig.Try(ReadGolden(golden));
    EXPECT_EQ(outcome.restored.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(outcome.restored.message(), HasSubstr("OpenSeal"));
  }
  EXPECT_GT(sealed, 0);
}

TEST(GoldenFilesTest, ThereAreEnoughOfThemAndNoTwoAreAlike) {
  std::set<std::string> files;
  for (const GoldenBus& golden : GoldenBuses()) {
    files.insert(ReadGolden(golden));
  }
  EXPECT_EQ(files.size(), GoldenBuses().size());
  EXPECT_GE(files.size(), 16u);
}

}  // namespace
}  // namespace ferrybus::golden
