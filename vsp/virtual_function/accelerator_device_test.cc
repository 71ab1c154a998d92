// SPDX-License-Identifier: MIT
//
// What a channel's device refuses; what it does is in
// tests/accelerator/accelerator_channel_test.cc.

#include "ferrybus/vsp/virtual_function/accelerator_device.h"

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "ferrybus/vsp/virtual_function/accelerator_world.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using accelerator::Command;
using accelerator::Reply;
using accelerator::Status;

std::unique_ptr<AcceleratorHost> NewHost() {
  AcceleratorHostOptions options;
  options.has_port = false;
  return std::make_unique<AcceleratorHost>(1, options);
}

Command Numbered(uint64_t sequence, accelerator::Op op = {}) {
  Command command = {};
  command.op = op;
  command.sequence = sequence;
  return command;
}

std::string Ticket(uint64_t number) {
  return std::string(reinterpret_cast<const char*>(&number), sizeof(number));
}

class AcceleratorDeviceTest : public ::testing::Test {
 protected:
  void TearDown() override { bus_.reset(); }

  // A guest's channel to `device`.
  TestGuest::Channel& Open(Device* device) {
    offer_ = *bus_->Offer(TestParams(1), device);
    guest_.Connect(*bus_);
    return guest_.Open(*bus_, 1);
  }
  void Ask(TestGuest::Channel& channel, const std::string& payload,
           uint64_t tag) {
    ASSERT_EQ(channel.end.Request(payload, tag), SendStatus::kOk);
    channel.end.endpoint->Flush();
    guest_.Pump(*bus_);
  }
  void Ask(TestGuest::Channel& channel, const Command& command) {
    Ask(channel,
        std::string(reinterpret_cast<const char*>(&command), sizeof(command)),
        command.sequence);
  }
  static Reply ReplyIn(const std::string& payload) {
    Reply reply = {};
    EXPECT_GE(payload.size(), sizeof(reply));
    std::memcpy(&reply, payload.data(),
                std::min(payload.size(), sizeof(reply)));
    return reply;
  }

  TestGuest guest_;
  std::unique_ptr<AcceleratorHost> host_ = NewHost();
  AcceleratorDevice device_{&host_->accelerator};
  std::unique_ptr<Bus> bus_ = std::make_unique<Bus>(
      BusOptions(), guest_.memory.get(), &guest_.doorbell);
  OfferId offer_{};
};

TEST_F(AcceleratorDeviceTest, AnswersComeInTurnAlsoToWhatIsNoCommand) {
  TestGuest::Channel& channel = Open(&device_);
  Ask(channel, "too short", 1);
  Ask(channel, Numbered(7, static_cast<accelerator::Op>(99)));
  EXPECT_EQ(device_.in_flight(), 2u);
  EXPECT_EQ(guest_.answers(channel), 0u);
  host_->accelerator.Run(100);
  guest_.Pump(*bus_);
  const auto& answers = channel.end.events.completions;
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(ReplyIn(answers[0].second).status, Status::kMalformed);
  EXPECT_EQ(ReplyIn(answers[1].second).status, Status::kUnknownOp);
  EXPECT_EQ(ReplyIn(answers[1].second).sequence, 7u);
  EXPECT_EQ(device_.in_flight(), 0u);
}

// A function that is gone takes no commands, but its guest hears of it.
TEST_F(AcceleratorDeviceTest, ACommandThatIsNotTakenIsAnsweredAtOnce) {
  TestGuest::Channel& channel = Open(&device_);
  host_->accelerator.SetHold(Accelerator::kMigration, true);
  host_->accelerator.Retire();
  Ask(channel, Numbered(5));
  ASSERT_EQ(guest_.answers(channel), 1u);
  const Reply reply = ReplyIn(channel.end.events.completions[0].second);
  EXPECT_EQ(reply.status, Status::kBusy);
  EXPECT_EQ(reply.sequence, 5u);
  EXPECT_EQ(device_.in_flight(), 0u);
}

TEST_F(AcceleratorDeviceTest, OnlyItsOwnPacketsAreSaved) {
  TestGuest::Channel& channel = Open(&device_);
  Ask(channel, Numbered(5));
  host_->accelerator.SetHold(Accelerator::kMigration, true);
  PacketInfo other;
  other.slot = 200;
  std::vector<std::byte> out(8);
  const savestate::SizeAnswer answer =
      device_.SavePacket(other, absl::MakeSpan(out));
  EXPECT_EQ(answer.failure.code(), absl::StatusCode::kInternal);
  bus_->Suspend();
  bus_->Freeze();
  EXPECT_TRUE(bus_->Save().ok());
}

TEST_F(AcceleratorDeviceTest, APacketsStateIsATicketAndEachIsThereOnce) {
  LoggingDevice holder;
  TestGuest::Channel& channel = Open(&holder);
  guest_.Request(channel, 3);
  guest_.Pump(*bus_);
  ASSERT_EQ(holder.held.size(), 3u);
  for (const std::string& blob : {Ticket(1).substr(1), Ticket(1) + "x"}) {
    EXPECT_EQ(device_.RestorePacket(IncomingPacket(), AsBytes(blob)),
              absl::DataLossError("accelerator: a packet's state has " +
                                  std::to_string(blob.size()) +
                                  " bytes, must have 8"));
  }
  EXPECT_EQ(device_.in_flight(), 0u);
  const auto restore = [&](size_t index, uint64_t ticket) {
    const std::string blob = Ticket(ticket);
    return device_.RestorePacket(std::move(holder.held[index]), AsBytes(blob));
  };
  EXPECT_TRUE(restore(0, 1).ok());
  EXPECT_TRUE(restore(1, 2).ok());
  EXPECT_EQ(restore(2, 1),
            absl::DataLossError("accelerator: two packets of command 1"));
  EXPECT_EQ(device_.in_flight(), 2u);
  device_.OnClosed();
  EXPECT_EQ(device_.in_flight(), 0u);
  holder.held.clear();
}

TEST_F(AcceleratorDeviceTest, AChannelNeedsABusAndAnOffer) {
  AcceleratorChannel channel(&host_->accelerator);
  EXPECT_EQ(channel.SetBus(nullptr, TestParams(1)).code(),
            absl::StatusCode::kInvalidArgument);
  LoggingDevice other;
  ASSERT_TRUE(bus_->Offer(TestParams(1), &other).ok());
  EXPECT_EQ(channel.SetBus(bus_.get(), TestParams(1)).code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(channel.device(), nullptr);
  EXPECT_TRUE(channel.is_settled());
  EXPECT_TRUE(channel.SetBus(bus_.get(), TestParams(2)).ok());
  EXPECT_NE(channel.device(), nullptr);
  bus_.reset();
}

}  // namespace
}  // namespace ferrybus::vsp
