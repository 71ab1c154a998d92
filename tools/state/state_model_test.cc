// SPDX-License-Identifier: MIT
//
// What `inspect` shows: of a good file all of it, of others what can be read.

#include "ferrybus/tools/state/state_model.h"

#include <string>

#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/frame_fixup.h"
#include "ferrybus/tools/state/state_sections.h"
#include "ferrybus/tools/state/state_test_util.h"
#include "ferrybus/tools/state/state_text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::state_tool {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Json ModelOf(const std::string& file,
             const ModelOptions& options = ModelOptions()) {
  return DescribeState(AsBytes(file), options);
}

bool IsPrintable(const std::string& text) {
  for (char c : text) {
    if ((c < 0x20 || c > 0x7e) && c != '\n') return false;
  }
  return true;
}

TEST(StateModelTest, ShowsConnectionOffersAndGpadls) {
  const Json model = ModelOf(SavedBus());
  EXPECT_TRUE(model["frame"]["accepted"].get<bool>());
  EXPECT_EQ(model["frame"]["section_count"], 5u);
  const Json& connection = model["connection"];
  EXPECT_EQ(connection["phase"], "connected");
  EXPECT_EQ(connection["contact"]["version"], "5.3");
  EXPECT_EQ(connection["offers"]["count"], 4u);
  EXPECT_EQ(connection["offers"]["listed"][0]["device"], "storage (SCSI)");
  EXPECT_EQ(connection["offers"]["listed"][2]["device"],
            "socket, vsock port 22");
  EXPECT_EQ(connection["gpadls"]["count"], 5u);
  EXPECT_EQ(connection["gpadls"]["listed"][4]["state"], "in progress");
}

TEST(StateModelTest, DecodesDeviceStateByTypeOfTheOffer) {
  const Json channels = ModelOf(SavedBus())["channels"]["listed"];
  ASSERT_EQ(channels.size(), 4u);
  const Json& disk = channels[0]["device_state"];
  EXPECT_EQ(disk["format"], "storage");
  EXPECT_EQ(disk["phase"], "ready");
  EXPECT_EQ(disk["disk_bytes"], 64u << 20);
  EXPECT_EQ(disk["serial"], "disk\\x1b[31m1");
  const Json& unknown = channels[1]["device_state"];
  EXPECT_EQ(unknown["format"], "unknown");
  EXPECT_EQ(unknown["bytes"], 9u);
  EXPECT_EQ(unknown["hex"], "6f7061717565200102");
  EXPECT_EQ(channels[2]["device_state"]["format"], "socket");
  EXPECT_EQ(channels[2]["device_state"]["front_bytes_read"], 7u);
  EXPECT_EQ(channels[3]["device_state"]["format"], "service");
  EXPECT_EQ(channels[3]["device_state"]["phase"], "negotiating");
}

TEST(StateModelTest, ShowsPacketsInFlightByKind) {
  const Json channels = ModelOf(SavedBus())["channels"]["listed"];
  EXPECT_EQ(channels[0]["incoming"]["count"], 3u);
  const Json& packet = channels[0]["incoming"]["listed"][1];
  EXPECT_EQ(packet["type"], "in band");
  EXPECT_TRUE(packet["completion_requested"].get<bool>());
  EXPECT_EQ(packet["device"]["format"], "storage");
  EXPECT_EQ(packet["payload"]["bytes"], 8u);
  EXPECT_FALSE(packet["payload"].contains("hex"));
  EXPECT_EQ(channels[1]["queued"]["count"], 1u);
  EXPECT_EQ(channels[1]["queued"]["listed"][0]["payload"]["bytes"], 2000u);
  EXPECT_EQ(channels[1]["awaiting"]["count"], 3u);
}

TEST(StateModelTest, ListsAreCutWithTheNumberOfTheRest) {
  const std::string file = SavedBus(30);
  const Json cut = ModelOf(file)["channels"]["listed"][0]["incoming"];
  EXPECT_EQ(cut["count"], 30u);
  EXPECT_EQ(cut["listed"].size(), 12u);
  EXPECT_EQ(cut["rest"], 18u);
  const Json all =
      ModelOf(file, ModelOptions::All())["channels"]["listed"][0]["incoming"];
  EXPECT_EQ(all["listed"].size(), 30u);
  EXPECT_EQ(all["rest"], 0u);
  EXPECT_THAT(InspectText(ModelOf(file)), HasSubstr("and 18 more; --all"));
}

// promise:P9
// What a file makes grow stays bounded, whatever is asked for.
TEST(StateModelTest, AModelHasALargestSize) {
  const std::string file =
      WithChannel(SavedBus(), 1, [](savestate::v1::ChannelState& channel) {
        for (size_t i = 0; i < kElementsMax + 10; ++i) {
          (void)channel.mutable_endpoint()->add_awaiting();
        }
      });
  const Json channels = ModelOf(file, ModelOptions::All())["channels"];
  const Json& awaiting = channels["listed"][0]["awaiting"];
  EXPECT_EQ(awaiting["count"], kElementsMax + 10);
  EXPECT_LT(awaiting["listed"].size(), kElementsMax);
  EXPECT_GT(awaiting["rest"], 0u);
}

// promise:P8
TEST(StateModelTest, EveryPrefixIsShown) {
  const std::string file = SavedBus();
  for (size_t size = 0; size < file.size(); size += 7) {
    const Json model = ModelOf(file.substr(0, size));
    EXPECT_FALSE(model["frame"]["accepted"].get<bool>()) << size;
    EXPECT_TRUE(IsPrintable(InspectText(model))) << size;
  }
  const Json cut = ModelOf(file.substr(0, file.size() - 8));
  EXPECT_EQ(cut["sections"]["listed"][4]["body"], "missing");
  EXPECT_EQ(cut["channels"]["listed"][0]["incoming"]["count"], 3u);
  EXPECT_THAT(cut["channels"]["listed"][3]["problem"].get<std::string>(),
              HasSubstr("missing"));
}

TEST(StateModelTest, ADamagedBodyIsNamedAndNotDecoded) {
  std::string file = SavedBus();
  file[file.size() - 9] = static_cast<char>(file[file.size() - 9] ^ 4);
  const Json model = ModelOf(file);
  EXPECT_EQ(model["sections"]["listed"][4]["body"], "damaged");
  EXPECT_FALSE(model["channels"]["listed"][3].contains("incoming"));
  const std::string text = InspectText(model);
  EXPECT_THAT(text, HasSubstr("REFUSED"));
  EXPECT_THAT(text, HasSubstr("not decoded: the body is damaged"));
}

TEST(StateModelTest, AFileOfANewerFrameVersionShowsItsHeader) {
  std::string file = SavedBus();
  file[8] = 2;
  savestate::FixChecksums(&file);
  const Json model = ModelOf(file);
  EXPECT_EQ(model["frame"]["frame_version"], 2u);
  EXPECT_TRUE(model["frame"]["header_crc_ok"].get<bool>());
  EXPECT_EQ(model["sections"]["count"], 0u);
  EXPECT_THAT(InspectText(model), HasSubstr("version 2"));
}

// What comes from the file never reaches a terminal as it is.
TEST(StateModelTest, TextIsPrintableWhateverTheFileHolds) {
  const std::string evil = "\x1b]0;x\x07\r\n\xff\xfe";
  std::string file =
      WithChannel(SavedBus(), 2, [&evil](savestate::v1::ChannelState& channel) {
        channel.mutable_endpoint()->set_fault_reason(evil);
        channel.set_device_state(evil);
      });
  const Json model = ModelOf(file);
  EXPECT_TRUE(IsPrintable(InspectText(model)));
  EXPECT_TRUE(IsPrintable(ToJsonText(model)));
  EXPECT_THAT(InspectText(model), HasSubstr("FAULTED: \\x1b]0;x\\x07"));
}

TEST(StateModelTest, JsonReadsBackAndKeepsItsKeys) {
  const Json model = ModelOf(SavedBus());
  const Json read = Json::parse(ToJsonText(model), nullptr, false);
  EXPECT_EQ(read, model);
  std::string keys;
  for (const auto& [key, value] : model.items()) keys += key + " ";
  EXPECT_EQ(keys, "frame seal connection channels sections ");
}

TEST(StateModelTest, TextIsAlignedWithoutBlanksAtTheEnd) {
  const std::string text = TableText({{"a", "bb"}, {"cccc", "d"}}, "  ");
  EXPECT_EQ(text, "  a     bb\n  cccc  d\n");
  EXPECT_THAT(InspectText(ModelOf(SavedBus())), Not(HasSubstr(" \n")));
}

}  // namespace
}  // namespace ferrybus::state_tool
