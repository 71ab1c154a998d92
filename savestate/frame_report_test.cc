// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/frame_report.h"

#include <string>
#include <string_view>

#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/frame_fixup.h"
#include "ferrybus/savestate/frame_layout.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::savestate {
namespace {

using ::testing::HasSubstr;

absl::Span<const std::byte> AsBytes(std::string_view text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

std::string TwoSections() {
  FrameWriter writer("test 1.0");
  writer.AddSection("one", 0, 1, SectionKind::kRequired, "abcdefgh");
  writer.AddSection("two", 5, 2, SectionKind::kOptional, "12345678");
  return writer.Finish().value();
}

// bad:S4
TEST(FrameReportTest, PrintsTheHeaderOfAFutureVersion) {
  std::string file = TwoSections();
  StoreU32(file.data() + kFrameVersionOffset, 7);
  FixChecksums(&file);
  const FrameReport report = DescribeHeader(AsBytes(file));
  EXPECT_TRUE(report.magic_ok);
  EXPECT_TRUE(report.header_crc_ok);
  EXPECT_EQ(report.frame_version, 7u);
  EXPECT_EQ(report.producer, "test 1.0");
  // The table of an unknown version is not guessed at.
  EXPECT_TRUE(report.sections.empty());
  EXPECT_EQ(report.verdict.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(report.ToString(),
              HasSubstr("frame version   7 (this reader: 1)"));
}

TEST(FrameReportTest, SaysWhichBodiesAreDamagedOrMissing) {
  std::string file = TwoSections();
  file[kFrameHeaderBytes + 2 * kSectionEntryBytes] ^= 1;
  FrameReport report = DescribeHeader(AsBytes(file));
  ASSERT_EQ(report.sections.size(), 2u);
  EXPECT_EQ(report.sections[0].body, SectionReport::Body::kDamaged);
  EXPECT_EQ(report.sections[1].body, SectionReport::Body::kGood);
  EXPECT_THAT(report.ToString(), HasSubstr("\"one\" instance 0 version 1"));

  report = DescribeHeader(AsBytes(file).subspan(0, file.size() - 1));
  ASSERT_EQ(report.sections.size(), 2u);
  EXPECT_EQ(report.sections[1].body, SectionReport::Body::kMissing);
  // The table is cut: what is left of it is shown.
  report = DescribeHeader(AsBytes(file).subspan(0, 130));
  EXPECT_FALSE(report.table_crc_ok);
  EXPECT_EQ(report.sections.size(), 1u);
}

TEST(FrameReportTest, ReadsNoBodyTwice) {
  std::string file = TwoSections();
  char* second = file.data() + kFrameHeaderBytes + kSectionEntryBytes;
  StoreU64(second + kBodyOffsetOffset,
           kFrameHeaderBytes + 2 * kSectionEntryBytes);
  FixChecksums(&file);
  const FrameReport report = DescribeHeader(AsBytes(file));
  ASSERT_EQ(report.sections.size(), 2u);
  EXPECT_EQ(report.sections[0].body, SectionReport::Body::kGood);
  EXPECT_EQ(report.sections[1].body, SectionReport::Body::kUnchecked);
}

TEST(FrameReportTest, EscapesNames) {
  std::string file = TwoSections();
  file.replace(kProducerOffset, 6, "\x1b[31m\n");
  file.replace(kFrameHeaderBytes, 3, "\xff\"\0", 3);
  const FrameReport report = DescribeHeader(AsBytes(file));
  EXPECT_THAT(report.producer, HasSubstr("\\x1b[31m\\n"));
  const std::string text = report.ToString();
  EXPECT_THAT(text, HasSubstr("\\xff\\\""));
  for (const char c : text) {
    EXPECT_TRUE(c == '\n' || (c >= 0x20 && c < 0x7f)) << int{c};
  }
}

TEST(FrameReportTest, SaysSoWhenThereIsNoHeader) {
  const FrameReport report = DescribeHeader(AsBytes("FERRY"));
  EXPECT_FALSE(report.has_header);
  EXPECT_THAT(report.ToString(), HasSubstr("no header"));
  EXPECT_FALSE(DescribeHeader({}).has_header);
}

}  // namespace
}  // namespace ferrybus::savestate
