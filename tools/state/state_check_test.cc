// SPDX-License-Identifier: MIT
//
// validate, --explain, diff and upgrade, on states of a real bus.

#include "ferrybus/tools/state/state_check.h"

#include <string>

#include "ferrybus/savestate/frame.h"
#include "ferrybus/tools/state/state_diff.h"
#include "ferrybus/tools/state/state_sections.h"
#include "ferrybus/tools/state/state_test_util.h"
#include "ferrybus/tools/state/state_text.h"
#include "ferrybus/tools/state/state_upgrade.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::state_tool {
namespace {

using savestate::v1::ChannelState;
using savestate::v1::ConnectionState;
using ::testing::HasSubstr;

Findings Check(const std::string& file, const CheckOptions& options = {}) {
  return CheckState(AsBytes(file), options);
}

// All of them, one on a line.
std::string Problems(const Findings& findings) {
  std::string text;
  for (const Finding& finding : findings.list()) {
    text += finding.section + " " + std::to_string(finding.instance) + ": " +
            finding.problem + "\n";
  }
  return text;
}

Json Diff(const std::string& before, const std::string& after) {
  const auto model = DiffStates(AsBytes(before), AsBytes(after), 1000);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *model : Json();
}

// -- validate ----------------------------------------------------------------

TEST(StateCheckTest, AStateOfARealBusIsValid) {
  const Findings findings = Check(SavedBus());
  EXPECT_TRUE(findings.ok()) << Problems(findings);
  EXPECT_TRUE(findings.list().empty());
}

// promise:P8
TEST(StateCheckTest, NoPrefixAndNoFlipIsValid) {
  const std::string file = SavedBus();
  for (size_t size = 0; size < file.size(); size += 5) {
    EXPECT_FALSE(Check(file.substr(0, size)).ok()) << size;
  }
  for (size_t bit = 0; bit < file.size() * 8; bit += 37) {
    std::string flipped = file;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ 1 << bit % 8);
    EXPECT_FALSE(Check(flipped).ok()) << bit;
  }
}

TEST(StateCheckTest, EveryBadPacketIsListed) {
  const std::string file =
      WithChannel(SavedBus(), 1, [](ChannelState& channel) {
        auto& endpoint = *channel.mutable_endpoint();
        endpoint.mutable_incoming(0)->set_type(11);
        endpoint.mutable_incoming(2)->set_extension("odd");
        endpoint.add_queued()->set_type(5);
        endpoint.add_awaiting()->set_transaction_id(0);
        endpoint.add_awaiting()->set_transaction_id(4);
        endpoint.add_awaiting()->set_transaction_id(4);
      });
  const Findings findings = Check(file);
  const std::string problems = Problems(findings);
  EXPECT_EQ(findings.error_count(), 5u) << problems;
  EXPECT_THAT(problems, HasSubstr("channel 1: incoming packet 0"));
  EXPECT_THAT(problems, HasSubstr("channel 1: incoming packet 2"));
  EXPECT_THAT(problems, HasSubstr("channel 1: queued packet 0"));
  EXPECT_THAT(problems, HasSubstr("channel 1: awaiting packet 0"));
  EXPECT_THAT(problems, HasSubstr("transaction id 4 is out of range or taken"));
  EXPECT_GT(findings.list()[0].offset, 64u);
  EXPECT_FALSE(findings.list()[0].action.empty());
}

TEST(StateCheckTest, RingsAreChecked) {
  const std::string file =
      WithChannel(SavedBus(), 1, [](ChannelState& channel) {
        channel.mutable_endpoint()->mutable_incoming_ring()->set_own_index(3);
      });
  EXPECT_THAT(Problems(Check(file)), HasSubstr("not multiples of 8"));
}

TEST(StateCheckTest, TheConnectionIsChecked) {
  const std::string file =
      WithConnection(SavedBus(), [](ConnectionState& connection) {
        connection.mutable_offers(1)->set_channel_id(1);
      });
  EXPECT_THAT(Problems(Check(file)), HasSubstr("channel 1 twice"));
}

TEST(StateCheckTest, ConnectionAndChannelsBelongTogether) {
  const std::string missing = WithoutSection(SavedBus(), "channel", 2);
  EXPECT_THAT(Problems(Check(missing)),
              HasSubstr("channel 2: the section is missing"));
  const std::string alone = WithoutSection(SavedBus(), "connection", 0);
  EXPECT_THAT(Problems(Check(alone)), HasSubstr("no such section"));
  const std::string more = WithSection(SavedBus(), "channel", 1, true);
  EXPECT_THAT(Problems(Check(more)),
              HasSubstr("no offer of the connection has this channel number"));
}

TEST(StateCheckTest, DeviceStatesOfOurFormatsAreChecked) {
  std::string file = WithChannel(SavedBus(), 1, [](ChannelState& channel) {
    channel.set_device_state("\x08\x09");
    channel.mutable_endpoint()->mutable_incoming(1)->set_device_blob(
        "\x08\x07");
  });
  EXPECT_EQ(Check(file).error_count(), 2u);
  EXPECT_THAT(Problems(Check(file)), HasSubstr("storage state: phase is 9"));
  EXPECT_TRUE(Check(file, {.has_opaque_devices = true}).ok());
}

TEST(StateCheckTest, UnknownAndNewerSections) {
  const Findings optional = Check(WithSection(SavedBus(), "later", 1, false));
  EXPECT_TRUE(optional.ok());
  EXPECT_EQ(optional.list().size(), 1u);
  EXPECT_FALSE(Check(WithSection(SavedBus(), "later", 1, true)).ok());
  EXPECT_THAT(Problems(Check(WithSection(SavedBus(), "channel", 2, false))),
              HasSubstr("section version 2, this build reads 1 to 1"));
}

TEST(StateCheckTest, FindingsAreCountedBeyondTheirList) {
  Findings findings;
  for (size_t i = 0; i < kFindingsMax + 5; ++i) findings.Add({});
  EXPECT_EQ(findings.list().size(), kFindingsMax);
  EXPECT_EQ(findings.rest(), 5u);
  const Json json = ToJson(findings, 3);
  EXPECT_EQ(json["errors"], kFindingsMax + 5);
  EXPECT_EQ(json["findings"]["rest"], kFindingsMax + 2);
}

// -- explain -----------------------------------------------------------------

TEST(StateNeedsTest, SaysWhatATargetMustHave) {
  const Json needs = DescribeNeeds(AsBytes(SavedBus()));
  EXPECT_TRUE(needs["this_build_reads_it"].get<bool>());
  const Json& target = needs["target"];
  EXPECT_EQ(target["protocol_version"], "5.3");
  EXPECT_EQ(target["highest_vp"], 0u);
  EXPECT_GT(target["ram_pages"], 16u);
  EXPECT_EQ(target["devices"]["count"], 4u);
  EXPECT_TRUE(target["limits_above_default"].empty());
}

TEST(StateNeedsTest, SaysWhichLimitsAreTooLow) {
  const std::string file =
      WithChannel(SavedBus(), 2, [](ChannelState& channel) {
        channel.mutable_endpoint()->mutable_awaiting(0)->set_transaction_id(
            300);
      });
  const Json limits =
      DescribeNeeds(AsBytes(file))["target"]["limits_above_default"];
  ASSERT_EQ(limits.size(), 1u);
  EXPECT_EQ(limits[0]["limit"], "EndpointLimits::max_awaiting");
  EXPECT_EQ(limits[0]["needed"], 300u);
}

TEST(StateNeedsTest, SaysWhichSectionsAreInTheWay) {
  const std::string file = WithSection(
      WithSection(SavedBus(), "channel", 3, true), "later", 1, true);
  const Json needs = DescribeNeeds(AsBytes(file));
  EXPECT_FALSE(needs["this_build_reads_it"].get<bool>());
  Json result = {{"valid", false}, {"explain", needs}};
  const std::string text = ValidateText(result);
  EXPECT_THAT(text, HasSubstr("refused: too new"));
  EXPECT_THAT(text, HasSubstr("refused: unknown and required"));
}

// -- diff --------------------------------------------------------------------

TEST(StateDiffTest, AFileIsTheSameAsItself) {
  const Json model = Diff(SavedBus(), SavedBus());
  EXPECT_TRUE(model["same"].get<bool>()) << DiffText(model);
  EXPECT_EQ(DiffText(model), "same\n");
}

TEST(StateDiffTest, NamesTheFieldThatChanged) {
  const Json model = Diff(SavedBus(), OtherSavedBus());
  EXPECT_EQ(DiffText(model),
            "~ channel 3/device_state/front_bytes_read: 7 -> 8\n"
            "1 difference\n");
}

TEST(StateDiffTest, MatchesPacketsByTransaction) {
  const std::string after =
      WithChannel(SavedBus(), 1, [](ChannelState& channel) {
        auto& incoming = *channel.mutable_endpoint()->mutable_incoming();
        incoming.DeleteSubrange(0, 1);
        incoming.Mutable(0)->mutable_payload()->back() ^= 1;
        incoming.Add()->set_transaction_id(77);
      });
  const std::string text = DiffText(Diff(SavedBus(), after));
  EXPECT_THAT(text, HasSubstr("- channel 1/incoming/transaction_id 1: "));
  EXPECT_THAT(text,
              HasSubstr("~ channel 1/incoming/transaction_id 2/payload/hex: "));
  EXPECT_THAT(text, HasSubstr("+ channel 1/incoming/transaction_id 77: "));
  EXPECT_THAT(text, HasSubstr("3 differences"));
}

TEST(StateDiffTest, SeesAnotherOrderOfPackets) {
  const std::string after =
      WithChannel(SavedBus(), 1, [](ChannelState& channel) {
        channel.mutable_endpoint()->mutable_incoming()->SwapElements(0, 2);
      });
  EXPECT_THAT(DiffText(Diff(SavedBus(), after)),
              HasSubstr("~ channel 1/incoming/order"));
}

TEST(StateDiffTest, SeesOffersGpadlsAndSectionsComeAndGo) {
  std::string after =
      WithConnection(SavedBus(), [](ConnectionState& connection) {
        connection.mutable_gpadls()->RemoveLast();
        connection.mutable_offers(1)->set_monitor_id(3);
      });
  after = WithoutSection(WithSection(after, "later", 1, false), "channel", 2);
  const std::string text = DiffText(Diff(SavedBus(), after));
  EXPECT_THAT(text, HasSubstr("- connection/gpadls/gpadl 0x"));
  EXPECT_THAT(text, HasSubstr("~ connection/offers/offer 1/monitor_id: 255 -> "
                              "3"));
  EXPECT_THAT(text, HasSubstr("- channel 2: "));
  EXPECT_THAT(text, HasSubstr("+ later instance 9: 4 bytes"));
}

// Bytes that no model shows must not be taken for the same.
TEST(StateDiffTest, WhatAModelDoesNotShowStillDiffers) {
  // An unknown field within the disk's state, which its parser ignores.
  const auto with_field = [](const char* field) {
    return WithChannel(SavedBus(), 1, [field](ChannelState& channel) {
      channel.mutable_device_state()->append(field);
    });
  };
  const Json model =
      Diff(with_field("\xf8\x07\x01"), with_field("\xf8\x07\x02"));
  EXPECT_FALSE(model["same"].get<bool>());
}

TEST(StateDiffTest, RefusesWhatIsNoFrame) {
  const std::string file = SavedBus();
  const auto first = DiffStates(AsBytes("no"), AsBytes(file), 1);
  EXPECT_THAT(std::string(first.status().message()),
              HasSubstr("the first file"));
  EXPECT_FALSE(DiffStates(AsBytes(file), AsBytes("no"), 1).ok());
}

// -- upgrade -----------------------------------------------------------------

TEST(StateUpgradeTest, KeepsEachByteOfTodaysVersions) {
  const std::string file = WithSection(SavedBus(), "later", 4, false);
  const auto upgraded = UpgradeState(AsBytes(file), CheckOptions());
  ASSERT_TRUE(upgraded.ok()) << upgraded.status();
  EXPECT_EQ(upgraded->file, file);
  ASSERT_EQ(upgraded->notes.size(), 1u);
  EXPECT_THAT(upgraded->notes[0], HasSubstr("\"later\" instance 9"));
}

TEST(StateUpgradeTest, RefusesWhatValidateRefuses) {
  const std::string file = WithoutSection(SavedBus(), "channel", 2);
  const auto upgraded = UpgradeState(AsBytes(file), CheckOptions());
  EXPECT_EQ(upgraded.status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace ferrybus::state_tool
