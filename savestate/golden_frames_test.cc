// SPDX-License-Identifier: MIT
//
// Golden frames against the writer and the reader of today, and every small
// damage done to them.

#include "ferrybus/savestate/golden_frames.h"

#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "ferrybus/savestate/frame_fixup.h"
#include "ferrybus/savestate/frame_layout.h"
#include "ferrybus/savestate/frame_report.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::savestate {
namespace {

absl::Span<const std::byte> AsBytes(std::string_view text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

std::string ReadGolden(const std::string& file_name) {
  std::ifstream in("savestate/golden/" + file_name, std::ios::binary);
  EXPECT_TRUE(in.good()) << file_name;
  return {std::istreambuf_iterator<char>(in), {}};
}

class GoldenFramesTest : public ::testing::TestWithParam<GoldenFrame> {
 protected:
  std::string golden_ = ReadGolden(GetParam().file_name);
};

// bad:S24 promise:P5 promise:P11
TEST_P(GoldenFramesTest, WriterStillMakesTheSameBytes) {
  const auto file = GetParam().writer.Finish();
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*file, golden_);
}

// bad:S23
TEST_P(GoldenFramesTest, WritingWhatWasReadGivesTheSameBytes) {
  const auto frame = Frame::Parse(AsBytes(golden_));
  ASSERT_TRUE(frame.ok()) << frame.status();
  FrameWriter writer{std::string(frame->producer())};
  for (const Section& section : frame->sections()) {
    writer.AddSection(
        std::string(section.name), section.instance, section.version,
        section.kind,
        std::string(reinterpret_cast<const char*>(section.body.data()),
                    section.body.size()));
  }
  EXPECT_EQ(writer.Finish().value(), golden_);
}

// bad:S1 promise:P8
TEST_P(GoldenFramesTest, EveryPrefixIsDataLoss) {
  for (size_t length = 0; length < golden_.size(); ++length) {
    // A heap copy of exactly that length, so that the address sanitizer sees
    // a read past its end.
    const std::string prefix = golden_.substr(0, length);
    const std::vector<char> exact(prefix.begin(), prefix.end());
    const auto frame = Frame::Parse(AsBytes({exact.data(), exact.size()}));
    ASSERT_EQ(frame.status().code(), absl::StatusCode::kDataLoss)
        << length << ": " << frame.status();
    DescribeHeader(AsBytes({exact.data(), exact.size()})).ToString();
  }
}

// bad:S2 promise:P8
TEST_P(GoldenFramesTest, EveryBitFlipIsDataLoss) {
  for (size_t bit = 0; bit < golden_.size() * 8; ++bit) {
    std::string damaged = golden_;
    damaged[bit / 8] ^= static_cast<char>(1 << (bit % 8));
    const auto frame = Frame::Parse(AsBytes(damaged));
    ASSERT_EQ(frame.status().code(), absl::StatusCode::kDataLoss)
        << "bit " << bit % 8 << " of byte " << bit / 8 << ": "
        << frame.status();
    ASSERT_FALSE(DescribeHeader(AsBytes(damaged)).verdict.ok());
  }
}

// bad:S3
TEST_P(GoldenFramesTest, EveryBitFlipWithChecksumsFixedKeepsTheShape) {
  const auto before = Frame::Parse(AsBytes(golden_));
  ASSERT_TRUE(before.ok()) << before.status();
  size_t accepted = 0;
  for (size_t bit = 0; bit < golden_.size() * 8; ++bit) {
    std::string damaged = golden_;
    damaged[bit / 8] ^= static_cast<char>(1 << (bit % 8));
    FixChecksums(&damaged);
    const auto after = Frame::Parse(AsBytes(damaged));
    if (!after.ok()) continue;
    ++accepted;
    // A lie may change a name, an instance, a version, the kind, a body's
    // content, or its length within its last 8 bytes; never where bodies are.
    ASSERT_EQ(after->sections().size(), before->sections().size());
    for (size_t i = 0; i < after->sections().size(); ++i) {
      const auto was = before->sections()[i].body;
      const auto is = after->sections()[i].body;
      ASSERT_EQ(AlignBody(is.size()), AlignBody(was.size()));
      ASSERT_EQ(is.data() - AsBytes(damaged).data(),
                was.data() - AsBytes(golden_).data());
    }
  }
  // Every bit of a body is free, so the test did get past the checksums.
  size_t body_bits = 0;
  for (const Section& section : before->sections()) {
    body_bits += section.body.size() * 8;
  }
  EXPECT_GE(accepted, body_bits);
}

TEST_P(GoldenFramesTest, ReportAgreesWithTheReader) {
  const auto frame = Frame::Parse(AsBytes(golden_));
  const FrameReport report = DescribeHeader(AsBytes(golden_));
  EXPECT_TRUE(report.verdict.ok());
  EXPECT_TRUE(report.header_crc_ok && report.table_crc_ok && report.magic_ok);
  ASSERT_EQ(report.sections.size(), frame->sections().size());
  for (size_t i = 0; i < report.sections.size(); ++i) {
    EXPECT_EQ(report.sections[i].name, frame->sections()[i].name);
    EXPECT_EQ(report.sections[i].instance, frame->sections()[i].instance);
    EXPECT_EQ(report.sections[i].length, frame->sections()[i].body.size());
    EXPECT_EQ(report.sections[i].body, SectionReport::Body::kGood);
  }
}

INSTANTIATE_TEST_SUITE_P(AllFiles, GoldenFramesTest,
                         ::testing::ValuesIn(GoldenFrames()),
                         [](const ::testing::TestParamInfo<GoldenFrame>& info) {
                           const std::string& name = info.param.file_name;
                           return name.substr(0, name.find('.'));
                         });

}  // namespace
}  // namespace ferrybus::savestate
