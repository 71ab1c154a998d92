// SPDX-License-Identifier: MIT
//
// What a saved bus may consist of, and a restore in pieces.

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "ferrybus/channel/endpoint_persist.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/bus_move_test_util.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using savestate::SectionKind;
using Log = std::vector<std::string>;

struct Part {
  std::string name;
  uint64_t instance = 0;
  uint32_t version = 1;
  SectionKind kind = SectionKind::kRequired;
  std::string body;
};

std::vector<Part> PartsOf(const std::string& saved) {
  std::vector<Part> parts;
  const auto frame = savestate::Frame::Parse(AsBytes(saved));
  EXPECT_TRUE(frame.ok()) << frame.status();
  for (const savestate::Section& each : frame->sections()) {
    parts.push_back({.name = std::string(each.name),
                     .instance = each.instance,
                     .body = testing::ToString(each.body)});
  }
  return parts;
}

std::string Assemble(const std::vector<Part>& parts) {
  savestate::FrameWriter writer;
  for (const Part& each : parts) {
    writer.AddSection(each.name, each.instance, each.version, each.kind,
                      each.body);
  }
  return *writer.Finish();
}

class SkipLog final : public BusObserver {
 public:
  void OnSectionSkipped(std::string_view name, uint64_t instance) override {
    skipped.emplace_back(name, instance);
  }
  std::vector<std::pair<std::string, uint64_t>> skipped;
};

class BusRestoreTest : public BusMoveTest {
 protected:
  // Channel 1 is open, with requests in flight; channel 2 is not.
  std::string SaveOne(uint64_t requests = 1) {
    guest_.Connect(*bus_);
    guest_.Request(guest_.Open(*bus_, 1), requests);
    guest_.Pump(*bus_);
    return Save();
  }
  void StartConnection(const std::string& connection) {
    bus_ = *Bus::RestoreConnection(AsBytes(connection), options_,
                                   guest_.memory.get(), &guest_.doorbell,
                                   &observer_);
    first_ = *bus_->Offer(TestParams(1), &next_device_);
    second_ = *bus_->Offer(TestParams(2), &next_other_);
    for (auto& [id, channel] : guest_.channels) {
      channel.end.doorbell.on_ring = [this, id = id] { bus_->Signal(id); };
    }
  }
};

TEST_F(BusRestoreTest, SectionsThatDoNotBelongTogetherAreRefused) {
  const std::string saved = SaveOne();
  const std::vector<Part> usual = PartsOf(saved);
  ASSERT_EQ(usual.size(), 2u);
  EXPECT_EQ(Assemble(usual).size(), saved.size());
  const struct {
    std::function<void(std::vector<Part>*)> edit;
    absl::StatusCode code;
    std::string text;
  } cases[] = {
      {[](auto* parts) { parts->erase(parts->begin()); },
       absl::StatusCode::kInvalidArgument, "has no section \"connection\""},
      {[](auto* parts) { parts->pop_back(); },
       absl::StatusCode::kInvalidArgument,
       "is missing, but the channel is open"},
      {[](auto* parts) {
         parts->push_back(parts->back());
         parts->back().instance = 2;
       },
       absl::StatusCode::kInvalidArgument,
       "has 2 sections \"channel\", but 1 open channels"},
      {[](auto* parts) { parts->back().body += "x"; },
       absl::StatusCode::kInvalidArgument, "channel"},
      {[](auto* parts) { parts->back().version = 2; },
       absl::StatusCode::kUnimplemented, "channel"},
      {[](auto* parts) { parts->push_back({.name = "later", .body = "x"}); },
       absl::StatusCode::kUnimplemented, "later"}};
  for (const auto& each : cases) {
    std::vector<Part> parts = usual;
    each.edit(&parts);
    const absl::Status status = Restore(Assemble(parts), NextDevices());
    EXPECT_EQ(status.code(), each.code) << status;
    EXPECT_NE(status.message().find(each.text), absl::string_view::npos)
        << status;
  }
  EXPECT_TRUE(next_device_.log.empty());
  EXPECT_TRUE(Restore(Assemble(usual), NextDevices()).ok());
}

TEST_F(BusRestoreTest, WhatANewerBuildMayAddIsSkippedAndTold) {
  std::vector<Part> parts = PartsOf(SaveOne());
  parts.push_back({.name = "later",
                   .instance = 9,
                   .kind = SectionKind::kOptional,
                   .body = "x"});
  const std::vector<DeviceOffer> devices = NextDevices();
  SkipLog log;
  const auto restored =
      Bus::Restore(AsBytes(Assemble(parts)), options_, guest_.memory.get(),
                   &guest_.doorbell, devices, &log);
  ASSERT_TRUE(restored.ok()) << restored.status();
  const std::vector<std::pair<std::string, uint64_t>> expected = {{"later", 9}};
  EXPECT_EQ(log.skipped, expected);
  parts.erase(parts.begin() + 1);
  log.skipped.clear();
  EXPECT_TRUE(Bus::RestoreConnection(AsBytes(Assemble(parts)), options_,
                                     guest_.memory.get(), &guest_.doorbell,
                                     &log)
                  .ok());
  EXPECT_EQ(log.skipped, expected);
  // Without anybody to tell.
  EXPECT_TRUE(Bus::RestoreConnection(AsBytes(Assemble(parts)), options_,
                                     guest_.memory.get(), &guest_.doorbell)
                  .ok());
  next_device_.held.clear();
}

// -- In pieces ---------------------------------------------------------------

TEST_F(BusRestoreTest, AConnectionIsAFrameOfItsOwn) {
  const auto restore = [this](const std::string& bytes) {
    return Bus::RestoreConnection(AsBytes(bytes), options_, guest_.memory.get(),
                                  &guest_.doorbell)
        .status();
  };
  const std::string connection = bus_->SaveConnection();
  EXPECT_TRUE(restore(connection).ok());
  EXPECT_EQ(restore(connection.substr(1)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(restore(SaveOne()).code(), absl::StatusCode::kUnimplemented)
      << "the channels would be lost";
  EXPECT_EQ(restore(Assemble({})).message(),
            restore(Assemble({{.name = "other",
                               .kind = SectionKind::kOptional,
                               .body = "x"}}))
                .message());
  EXPECT_EQ(restore(Assemble({})),
            absl::InvalidArgumentError(
                "the saved state has no section \"connection\""));
  EXPECT_FALSE(
      restore(Assemble({{.name = "connection", .body = "\xff"}})).ok());
}

TEST_F(BusRestoreTest, AChannelIsRestoredOnceAndOnlyIfItWasOpen) {
  const std::string saved = SaveOne(3);
  const std::string connection = bus_->SaveConnection();
  const auto snapshot =
      ParseChannelSnapshot(AsBytes(PartsOf(saved)[1].body), {}, "channel 1");
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  StartConnection(connection);
  const absl::Status refused = absl::FailedPreconditionError(
      "the channel was not open when it was saved, or is restored already");
  EXPECT_EQ(bus_->RestoreChannel(second_, *snapshot), refused);
  EXPECT_EQ(bus_->RestoreChannel(OfferId{99}, *snapshot), refused);
  ASSERT_TRUE(bus_->RestoreChannel(first_, *snapshot).ok());
  EXPECT_EQ(bus_->RestoreChannel(first_, *snapshot), refused);
  EXPECT_EQ(next_device_.held.size(), 3u);
  EXPECT_EQ(next_device_.log.front(), "restored state");
  EXPECT_TRUE(next_other_.log.empty());
  bus_->Start();
  next_device_.AnswerAll();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.answers(guest_.channels[1]), 3u);
  EXPECT_TRUE(guest_.rescinded.empty());
}

// The guest is told of what its owner did not take up.
TEST_F(BusRestoreTest, AChannelThatIsNotRestoredIsRescinded) {
  const std::string saved = SaveOne();
  const std::string connection = bus_->SaveConnection();
  const auto snapshot =
      ParseChannelSnapshot(AsBytes(PartsOf(saved)[1].body), {}, "channel 1");
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  StartConnection(connection);
  next_device_.restore_status = absl::InternalError("told to");
  EXPECT_EQ(bus_->RestoreChannel(first_, *snapshot),
            absl::InternalError("told to"));
  EXPECT_EQ(next_device_.TakeLog(), Log{"restored state"});
  // Or when it is up: then it is told that it is not.
  next_device_.restore_status = absl::OkStatus();
  next_device_.blob_bytes = 4;
  EXPECT_EQ(bus_->RestoreChannel(first_, *snapshot),
            absl::InvalidArgumentError("blob"));
  EXPECT_EQ(next_device_.TakeLog(),
            (Log{"restored state", "packet", "closed"}));
  bus_->Start();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.rescinded, std::vector<ChannelId>{ChannelId{1}});
  EXPECT_EQ(guest_.Open(*bus_, 2).open_status, 0u);
}

}  // namespace
}  // namespace ferrybus::vsp
