// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/frame.h"

#include <string>
#include <string_view>
#include <vector>

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

std::string_view AsText(absl::Span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Three sections; the table entries are at 64, 128 and 192, the bodies ("abc",
// nothing, ten digits) at 256, 264 and 264; 280 bytes in all.
std::string ThreeSections() {
  FrameWriter writer("test");
  writer.AddSection("one", 0, 1, SectionKind::kRequired, "abc");
  writer.AddSection("two", 5, 2, SectionKind::kOptional, "");
  writer.AddSection("two", 4, 1, SectionKind::kRequired, "0123456789");
  return writer.Finish().value();
}

constexpr size_t kFirstEntry = 64;
constexpr size_t kSecondEntry = 128;
constexpr size_t kThirdEntry = 192;

std::string WithU32(std::string file, size_t offset, uint32_t value) {
  StoreU32(file.data() + offset, value);
  FixChecksums(&file);
  return file;
}

std::string WithU64(std::string file, size_t offset, uint64_t value) {
  StoreU64(file.data() + offset, value);
  FixChecksums(&file);
  return file;
}

void ExpectRefused(const std::string& file, absl::StatusCode code,
                   std::string_view text, const FrameLimits& limits = {}) {
  const absl::Status status = Frame::Parse(AsBytes(file), limits).status();
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(text)));
}

TEST(FrameTest, GivesBackWhatWasWritten) {
  const std::string file = ThreeSections();
  ASSERT_EQ(file.size(), 280u);
  const auto frame = Frame::Parse(AsBytes(file));
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->producer(), "test");
  ASSERT_EQ(frame->sections().size(), 3u);
  const Section& third = frame->sections()[2];
  EXPECT_EQ(third.name, "two");
  EXPECT_EQ(third.instance, 4u);
  EXPECT_EQ(third.version, 1u);
  EXPECT_EQ(third.kind, SectionKind::kRequired);
  EXPECT_EQ(AsText(third.body), "0123456789");
  EXPECT_EQ(frame->sections()[1].kind, SectionKind::kOptional);
  EXPECT_TRUE(frame->sections()[1].body.empty());
}

TEST(FrameTest, FindsByNameAndInstance) {
  const std::string file = ThreeSections();
  const auto frame = Frame::Parse(AsBytes(file));
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->Find("two", 4), &frame->sections()[2]);
  EXPECT_EQ(frame->Find("two", 5), &frame->sections()[1]);
  EXPECT_EQ(frame->Find("one"), &frame->sections()[0]);
  EXPECT_EQ(frame->Find("two"), nullptr);
  EXPECT_EQ(frame->Find("three"), nullptr);
}

TEST(FrameTest, AcceptsAFrameWithoutSections) {
  const auto file = FrameWriter("").Finish();
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->size(), kFrameHeaderBytes);
  const auto frame = Frame::Parse(AsBytes(*file));
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_TRUE(frame->sections().empty());
  EXPECT_EQ(frame->Find("one"), nullptr);
}

// promise:P11
TEST(FrameTest, SameSectionsGiveSameBytes) {
  EXPECT_EQ(ThreeSections(), ThreeSections());
}

// bad:S4
TEST(FrameTest, RefusesAnotherMagic) {
  std::string file = ThreeSections();
  file.replace(0, 8, "GIF89a\0\0", 8);
  FixChecksums(&file);
  ExpectRefused(file, absl::StatusCode::kInvalidArgument, "not a Ferrybus");
  ExpectRefused("GIF", absl::StatusCode::kInvalidArgument, "not a Ferrybus");
  ExpectRefused("", absl::StatusCode::kDataLoss, "truncated: 0 bytes");
}

// bad:S4
TEST(FrameTest, RefusesBigEndian) {
  std::string file = ThreeSections();
  file.replace(kFrameVersionOffset, 4, std::string_view("\0\0\0\1", 4));
  ExpectRefused(file, absl::StatusCode::kInvalidArgument, "big-endian");
}

// bad:S4 bad:S5
TEST(FrameTest, RefusesAnotherFrameVersionSayingFoundAndExpected) {
  for (uint32_t version : {0u, 2u, 3u, 0xFFFFFFFFu}) {
    std::string file = WithU32(ThreeSections(), kFrameVersionOffset, version);
    // A future frame may have any size and table.
    file += "whatever comes after the header";
    ExpectRefused(file, absl::StatusCode::kUnimplemented,
                  "frame version " + std::to_string(version));
    ExpectRefused(file, absl::StatusCode::kUnimplemented, "knows version 1");
  }
}

TEST(FrameTest, RefusesOtherHeaderFields) {
  const std::string file = ThreeSections();
  ExpectRefused(WithU32(file, kHeaderBytesOffset, 128),
                absl::StatusCode::kInvalidArgument, "header size 128");
  ExpectRefused(WithU32(file, kFrameFlagsOffset, 1),
                absl::StatusCode::kUnimplemented, "unknown frame flags 0x1");
  ExpectRefused(WithU64(file, kTotalBytesOffset, 288),
                absl::StatusCode::kDataLoss, "truncated: 280 bytes of 288");
  ExpectRefused(WithU64(file, kTotalBytesOffset, 272),
                absl::StatusCode::kInvalidArgument, "8 bytes after the end");
  // Padded names have one spelling, and stay printable.
  std::string producer = file;
  producer[kProducerOffset + 10] = 'x';
  FixChecksums(&producer);
  ExpectRefused(producer, absl::StatusCode::kInvalidArgument, "producer");
  producer = file;
  producer[kProducerOffset] = '\x1b';
  FixChecksums(&producer);
  ExpectRefused(producer, absl::StatusCode::kInvalidArgument, "producer");
}

TEST(FrameTest, RefusesATotalThatIsNotAligned) {
  std::string file = ThreeSections() + "1234";
  ExpectRefused(WithU64(file, kTotalBytesOffset, file.size()),
                absl::StatusCode::kInvalidArgument, "multiple of 8");
}

// bad:S7
TEST(FrameTest, RefusesASectionCountBeyondTheFile) {
  const std::string file = ThreeSections();
  ExpectRefused(WithU32(file, kSectionCountOffset, 4),
                absl::StatusCode::kInvalidArgument, "4 section table entries");
  ExpectRefused(WithU32(file, kSectionCountOffset, 0xFFFFFFFF),
                absl::StatusCode::kResourceExhausted, "4294967295 sections");
  // Fewer: the bodies no longer start right after the table.
  ExpectRefused(WithU32(file, kSectionCountOffset, 2),
                absl::StatusCode::kInvalidArgument, "contiguous");
  ExpectRefused(WithU32(file, kSectionCountOffset, 0),
                absl::StatusCode::kInvalidArgument, "ends at byte 64");
}

// bad:S7
TEST(FrameTest, RefusesTheSameSectionTwice) {
  std::string file = ThreeSections();
  StoreU64(file.data() + kThirdEntry + kInstanceOffset, 5);
  FixChecksums(&file);
  ExpectRefused(file, absl::StatusCode::kInvalidArgument,
                "\"two\" instance 5 appears twice (table entries at bytes 128 "
                "and 192)");
}

// bad:S7
TEST(FrameTest, RefusesReorderedEntries) {
  std::string file = ThreeSections();
  const std::string first = file.substr(kFirstEntry, kSectionEntryBytes);
  file.replace(kFirstEntry, kSectionEntryBytes,
               file.substr(kThirdEntry, kSectionEntryBytes));
  file.replace(kThirdEntry, kSectionEntryBytes, first);
  FixChecksums(&file);
  ExpectRefused(file, absl::StatusCode::kInvalidArgument,
                "\"two\" instance 4: offset 264 at byte 104");
}

// bad:S7
TEST(FrameTest, RefusesOverlapsGapsAndLengthsBeyondTheFile) {
  const std::string file = ThreeSections();
  const size_t length = kFirstEntry + kBodyLengthOffset;
  // Longer: the next body would overlap it.  Shorter: a gap.
  ExpectRefused(WithU64(file, length, 9), absl::StatusCode::kInvalidArgument,
                "\"two\" instance 5: offset 264 at byte 168");
  ExpectRefused(WithU64(file, length, 0), absl::StatusCode::kInvalidArgument,
                "expected 256");
  ExpectRefused(WithU64(file, kThirdEntry + kBodyLengthOffset, 17),
                absl::StatusCode::kInvalidArgument, "only 16 bytes follow");
  // A gap at the end is trailing bytes in disguise.
  ExpectRefused(WithU64(file, kThirdEntry + kBodyLengthOffset, 8),
                absl::StatusCode::kInvalidArgument, "ends at byte 272");
  for (uint64_t huge : {uint64_t{1} << 63, ~uint64_t{0}, ~uint64_t{7}}) {
    ExpectRefused(WithU64(file, length, huge),
                  absl::StatusCode::kResourceExhausted, "\"one\" instance 0");
    ExpectRefused(WithU64(file, kFirstEntry + kBodyOffsetOffset, huge),
                  absl::StatusCode::kInvalidArgument, "expected 256");
    // No limit configured: the arithmetic alone must hold.
    ExpectRefused(WithU64(file, length, huge),
                  absl::StatusCode::kInvalidArgument, "bytes follow",
                  {.body_bytes_max = ~uint64_t{0}});
  }
}

// bad:S5
TEST(FrameTest, RefusesUnknownFlagsReservedFieldsAndVersionZero) {
  const std::string file = ThreeSections();
  ExpectRefused(WithU32(file, kSecondEntry + kSectionFlagsOffset, 2),
                absl::StatusCode::kUnimplemented,
                "\"two\" instance 5: unknown flags 0x2 at byte 164");
  ExpectRefused(WithU32(file, kSecondEntry + kReservedOffset, 1),
                absl::StatusCode::kUnimplemented, "at byte 188");
  ExpectRefused(WithU32(file, kFirstEntry + kSectionVersionOffset, 0),
                absl::StatusCode::kInvalidArgument, "version 0 at byte 96");
}

TEST(FrameTest, RefusesNamesThatAreNotPlain) {
  const std::string_view names[] = {
      "", "a b", "a\nb", "a/b", "\xc3\xa4", std::string_view("a\0b", 3)};
  for (std::string_view name : names) {
    std::string file = ThreeSections();
    file.replace(kFirstEntry, 24, 24, '\0');
    file.replace(kFirstEntry, name.size(), name);
    FixChecksums(&file);
    ExpectRefused(file, absl::StatusCode::kInvalidArgument,
                  "section name at byte 64");
  }
}

TEST(FrameTest, RefusesPaddingThatIsNotZero) {
  std::string file = ThreeSections();
  file[262] = '\1';
  FixChecksums(&file);
  ExpectRefused(file, absl::StatusCode::kDataLoss,
                "\"one\" instance 0: padding at byte 262");
}

TEST(FrameTest, NamesTheDamagedSection) {
  std::string file = ThreeSections();
  file[270] ^= 0x10;
  ExpectRefused(file, absl::StatusCode::kDataLoss,
                "section \"two\" instance 4 damaged: 10 bytes from byte 264");
}

TEST(FrameTest, HoldsTheReaderToItsLimits) {
  const std::string file = ThreeSections();
  EXPECT_TRUE(Frame::Parse(AsBytes(file), {280, 3, 10}).ok());
  ExpectRefused(file, absl::StatusCode::kResourceExhausted, "limit is 279",
                {279, 3, 10});
  ExpectRefused(file, absl::StatusCode::kResourceExhausted, "limit is 2",
                {280, 2, 10});
  ExpectRefused(file, absl::StatusCode::kResourceExhausted, "limit is 9",
                {280, 3, 9});
}

TEST(FrameWriterTest, RefusesWhatNoReaderWouldTake) {
  const auto refuse = [](FrameWriter writer) {
    return writer.Finish().status().code();
  };
  const auto with = [](std::string name, uint32_t version, size_t body_bytes,
                       FrameLimits limits = {}) {
    FrameWriter writer("test", limits);
    writer.AddSection(name, 0, version, SectionKind::kRequired,
                      std::string(body_bytes, 'x'));
    return writer;
  };
  EXPECT_EQ(refuse(with("a b", 1, 1)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refuse(with("", 1, 1)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refuse(with(std::string(25, 'a'), 1, 1)),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refuse(with("a", 0, 1)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refuse(FrameWriter(std::string(25, 'a'))),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refuse(FrameWriter("a\n")), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refuse(with("a", 1, 9, {.body_bytes_max = 8})),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(refuse(with("a", 1, 9, {.total_bytes_max = 143})),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(refuse(with("a", 1, 9, {.sections_max = 0})),
            absl::StatusCode::kResourceExhausted);
  FrameWriter twice;
  twice.AddSection("a", 3, 1, SectionKind::kRequired, "");
  twice.AddSection("a", 3, 2, SectionKind::kOptional, "");
  EXPECT_EQ(refuse(twice), absl::StatusCode::kAlreadyExists);
}

TEST(FrameWriterTest, ReachesTheDefaultSectionLimit) {
  FrameWriter writer;
  for (uint64_t i = 0; i < 8192; ++i) {
    writer.AddSection("channel", i, 1, SectionKind::kRequired, "x");
  }
  const auto file = writer.Finish();
  ASSERT_TRUE(file.ok()) << file.status();
  const auto frame = Frame::Parse(AsBytes(*file));
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->sections().size(), 8192u);
  EXPECT_NE(frame->Find("channel", 8191), nullptr);
}

constexpr KnownSection kKnown[] = {{"one", 1}, {"two", 2}};

// bad:S6
TEST(KnownSectionsTest, SkipsAndReportsUnknownOptionalSections) {
  FrameWriter writer;
  writer.AddSection("one", 0, 1, SectionKind::kRequired, "abc");
  writer.AddSection("later", 9, 4, SectionKind::kOptional, "new things");
  const std::string file = writer.Finish().value();
  const auto frame = Frame::Parse(AsBytes(file));
  ASSERT_TRUE(frame.ok()) << frame.status();
  const auto skipped = CheckKnownSections(*frame, kKnown);
  ASSERT_TRUE(skipped.ok()) << skipped.status();
  ASSERT_EQ(skipped->size(), 1u);
  EXPECT_EQ(skipped->front().name, "later");
  EXPECT_EQ(skipped->front().instance, 9u);
}

// bad:S6
TEST(KnownSectionsTest, RefusesUnknownRequiredSectionsByName) {
  FrameWriter writer("ferrybus 9.9");
  writer.AddSection("later", 1, 1, SectionKind::kRequired, "");
  writer.AddSection("even-later", 0, 1, SectionKind::kRequired, "");
  const std::string file = writer.Finish().value();
  const auto frame = Frame::Parse(AsBytes(file));
  ASSERT_TRUE(frame.ok()) << frame.status();
  const absl::Status status = CheckKnownSections(*frame, kKnown).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("\"later\" instance 1 is unknown and required; "
                        "\"even-later\" instance 0 is unknown"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("ferrybus 9.9"));
}

// bad:S5 promise:P5
TEST(KnownSectionsTest, TakesOlderVersionsAndRefusesNewerOnes) {
  for (SectionKind kind : {SectionKind::kRequired, SectionKind::kOptional}) {
    for (uint32_t version : {1u, 2u, 3u, 4u, 0xFFFFFFFFu}) {
      FrameWriter writer;
      writer.AddSection("two", 0, version, kind, "");
      const std::string file = writer.Finish().value();
      const auto frame = Frame::Parse(AsBytes(file));
      ASSERT_TRUE(frame.ok()) << frame.status();
      const absl::Status status = CheckKnownSections(*frame, kKnown).status();
      if (version <= 2) {
        EXPECT_TRUE(status.ok()) << status;
      } else {
        EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
        EXPECT_THAT(std::string(status.message()),
                    HasSubstr("has version " + std::to_string(version) +
                              ", this reader knows up to 2"));
      }
    }
  }
}

TEST(KnownSectionsTest, KeepsTheRefusalShort) {
  FrameWriter writer;
  for (uint64_t i = 0; i < 1000; ++i) {
    writer.AddSection("later", i, 1, SectionKind::kRequired, "");
  }
  const std::string file = writer.Finish().value();
  const auto frame = Frame::Parse(AsBytes(file));
  ASSERT_TRUE(frame.ok()) << frame.status();
  const absl::Status status = CheckKnownSections(*frame, kKnown).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("992 more"));
  EXPECT_LT(status.message().size(), 1000u);
}

}  // namespace
}  // namespace ferrybus::savestate
