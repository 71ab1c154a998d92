// SPDX-License-Identifier: MIT
//
// Files of other releases: older, newer, and through several hands.  Releases
// that do not exist yet are made of the golden files, as docs/SAVE_STATE.md
// says that they may differ.

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/channel/endpoint_test_util.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/tests/golden/golden_bus.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::golden {
namespace {

using ::absl::StatusCode;
using savestate::KnownSection;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr auto kOptional = savestate::SectionKind::kOptional;
constexpr auto kRequired = savestate::SectionKind::kRequired;

// -- Whole buses -------------------------------------------------------------

// The sections of a file, to be written again with a difference.
struct Content {
  struct Section {
    std::string name;
    uint64_t instance;
    uint32_t version;
    savestate::SectionKind kind;
    std::string body;
  };

  explicit Content(const std::string& file) {
    const auto frame = savestate::Frame::Parse(vsp::AsBytes(file));
    EXPECT_TRUE(frame.ok()) << frame.status();
    for (const savestate::Section& section : frame->sections()) {
      sections.push_back({std::string(section.name), section.instance,
                          section.version, section.kind,
                          ::ferrybus::testing::ToString(section.body)});
    }
  }
  void Add(const std::string& name, savestate::SectionKind kind) {
    sections.push_back({name, 5, 1, kind, "of the future"});
  }
  std::string File() const {
    savestate::FrameWriter writer("ferrybus of the future");
    for (const Section& each : sections) {
      writer.AddSection(each.name, each.instance, each.version, each.kind,
                        each.body);
    }
    return *writer.Finish();
  }

  std::vector<Section> sections;
};

std::vector<GoldenBus> Unsealed() {
  std::vector<GoldenBus> buses = GoldenBuses();
  std::erase_if(buses, [](const GoldenBus& each) { return each.is_sealed; });
  return buses;
}

class GoldenVersionsTest : public ::testing::TestWithParam<GoldenBus> {
 protected:
  GoldenRig rig_{GetParam()};
  Content content_{rig_.saved()};
};

// bad:S5 promise:P5
TEST_P(GoldenVersionsTest, ANewerVersionOfAnySectionIsRefused) {
  for (Content::Section& section : content_.sections) {
    for (const uint32_t version :
         {uint32_t{2}, uint32_t{3}, std::numeric_limits<uint32_t>::max()}) {
      for (const auto kind : {kRequired, kOptional}) {
        const Content::Section was = section;
        section.version = version;
        section.kind = kind;
        const absl::Status status = rig_.Try(content_.File()).restored;
        EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
        EXPECT_THAT(status.message(),
                    AllOf(HasSubstr(savestate::DescribeSection(
                              section.name, section.instance)),
                          HasSubstr("this reader knows up to 1"),
                          HasSubstr("ferrybus of the future")));
        section = was;
      }
    }
  }
}

// bad:S6 promise:P5
TEST_P(GoldenVersionsTest, AnUnknownOptionalSectionIsSkippedAndReported) {
  content_.Add("weather", kOptional);
  const Outcome outcome = rig_.Try(content_.File());
  ASSERT_TRUE(outcome.restored.ok()) << outcome.restored;
  EXPECT_EQ(outcome.broken, "");
  EXPECT_THAT(outcome.skipped, ElementsAre("\"weather\" instance 5"));
  EXPECT_EQ(Content(outcome.saved).sections.size() + 1,
            content_.sections.size());
}

// bad:S6 promise:P5
TEST_P(GoldenVersionsTest, ARefusalListsAllThatIsInTheWay) {
  content_.sections[0].version = 7;
  content_.Add("weather", kOptional);
  content_.Add("gravity", kRequired);
  content_.Add("magnetism", kRequired);
  const Outcome outcome = rig_.Try(content_.File());
  EXPECT_EQ(outcome.restored.code(), StatusCode::kUnimplemented);
  EXPECT_THAT(outcome.restored.message(),
              AllOf(HasSubstr("\"connection\" instance 0 has version 7"),
                    HasSubstr("\"gravity\" instance 5 is unknown"),
                    HasSubstr("\"magnetism\" instance 5 is unknown"),
                    Not(HasSubstr("weather"))));
  EXPECT_THAT(outcome.skipped, IsEmpty());
}

// A, which is newer, to B, to C: what B could not know is lost on the way, is
// reported once, and nothing else is.
// bad:S23 promise:P5
TEST_P(GoldenVersionsTest, ThreeHopsEndWhereTwoDo) {
  const Outcome direct = rig_.Try(rig_.saved());
  content_.Add("weather", kOptional);
  const Outcome b = rig_.Try(content_.File());
  ASSERT_TRUE(b.restored.ok()) << b.restored;
  const Outcome c = rig_.Try(b.saved);
  ASSERT_TRUE(c.restored.ok()) << c.restored;
  EXPECT_THAT(c.skipped, IsEmpty());
  EXPECT_TRUE(c.saved == b.saved);
  EXPECT_TRUE(c.saved == direct.saved);
}

INSTANTIATE_TEST_SUITE_P(AllFiles, GoldenVersionsTest,
                         ::testing::ValuesIn(Unsealed()),
                         [](const ::testing::TestParamInfo<GoldenBus>& info) {
                           return info.param.name;
                         });

// -- Releases ----------------------------------------------------------------

// A release: the sections it writes, all of which it reads, from version 1.
struct Release {
  const char* name;
  std::vector<KnownSection> required;
  std::vector<KnownSection> optional;

  std::vector<KnownSection> known() const {
    std::vector<KnownSection> all = required;
    all.insert(all.end(), optional.begin(), optional.end());
    return all;
  }
  std::string Write() const {
    savestate::FrameWriter writer(name);
    for (const KnownSection& each : required) {
      writer.AddSection(std::string(each.name), 0, each.max_version, kRequired,
                        "");
    }
    for (const KnownSection& each : optional) {
      writer.AddSection(std::string(each.name), 0, each.max_version, kOptional,
                        "");
    }
    return *writer.Finish();
  }
};

// "yes", "yes, but for ..." or "no: ...", as `reader` takes `file`.
std::string Answer(const Release& reader, const std::string& file) {
  const auto frame = savestate::Frame::Parse(vsp::AsBytes(file));
  const auto skipped = savestate::CheckKnownSections(*frame, reader.known());
  if (!skipped.ok()) {
    EXPECT_EQ(skipped.status().code(), StatusCode::kUnimplemented);
    const std::string text(skipped.status().message());
    return "no: " + text.substr(text.find("): ") + 3);
  }
  if (skipped->empty()) return "yes";
  std::string answer = "yes, but for";
  for (const savestate::Section& section : *skipped) {
    answer += " " + std::string(section.name);
  }
  return answer;
}

const Release kOlder = {"N-1", {{"connection", 1}, {"channel", 1}}, {}};
const Release kThis = {
    "N", {{"connection", 1}, {"channel", 2}}, {{"weather", 1}}};
const Release kNewerOptional = {"N+1, optional",
                                {{"connection", 1}, {"channel", 2}},
                                {{"weather", 1}, {"tides", 1}}};
const Release kNewerRequired = {
    "N+1, required",
    {{"connection", 1}, {"channel", 2}, {"gravity", 1}},
    {{"weather", 2}, {"tides", 1}}};

// promise:P5 bad:S5 bad:S6
TEST(ReleaseMatrixTest, EachReleaseReadsItsOwnAndOlderOnes) {
  EXPECT_EQ(Answer(kOlder, kOlder.Write()), "yes");
  EXPECT_EQ(Answer(kThis, kOlder.Write()), "yes");
  EXPECT_EQ(Answer(kThis, kThis.Write()), "yes");
  for (const Release& writer : {kOlder, kThis, kNewerOptional}) {
    EXPECT_EQ(Answer(kNewerOptional, writer.Write()), "yes") << writer.name;
    EXPECT_EQ(Answer(kNewerRequired, writer.Write()), "yes") << writer.name;
  }
}

// promise:P5 bad:S5 bad:S6
TEST(ReleaseMatrixTest, NewerOnesAreReadWhereNothingIsInTheWay) {
  EXPECT_EQ(Answer(kThis, kNewerOptional.Write()), "yes, but for tides");
  EXPECT_EQ(Answer(kThis, kNewerRequired.Write()),
            "no: \"gravity\" instance 0 is unknown and required; "
            "\"weather\" instance 0 has version 2, this reader knows up to 1");
  EXPECT_EQ(Answer(kOlder, kThis.Write()),
            "no: \"channel\" instance 0 has version 2, this reader knows up "
            "to 1");
  EXPECT_EQ(Answer(kOlder, kNewerRequired.Write()),
            "no: \"channel\" instance 0 has version 2, this reader knows up "
            "to 1; \"gravity\" instance 0 is unknown and required");
}

}  // namespace
}  // namespace ferrybus::golden
