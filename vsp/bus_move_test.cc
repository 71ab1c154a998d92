// SPDX-License-Identifier: MIT
//
// A bus is saved and restored at awkward moments and with the wrong devices.

#include "absl/status/status.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/bus_move_test_util.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using testing::Numbered;

using Log = std::vector<std::string>;

// -- Order and once ----------------------------------------------------------

// doc:SR12 doc:SR14
TEST_F(BusMoveTest, CallbacksOfARestoreComeInOrder) {
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  guest_.Request(channel, 2);
  guest_.Pump(*bus_);
  const std::string saved = Save();
  ASSERT_TRUE(Restore(saved, NextDevices()).ok());
  EXPECT_EQ(next_device_.log, (Log{"restored state", "packet", "packet"}));
  bus_->Start();
  EXPECT_EQ(next_device_.log.back(), "started");
  EXPECT_TRUE(next_other_.log.empty());
  next_device_.AnswerAll();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.answers(channel), 2u);
}

// promise:P3
TEST_F(BusMoveTest, StartWakesBothSides) {
  guest_.Connect(*bus_);
  (void)guest_.Open(*bus_, 1);
  const std::string saved = Save();
  ASSERT_TRUE(Restore(saved, NextDevices()).ok());
  const uint64_t rings = guest_.doorbell.rings;
  EXPECT_FALSE(IsReadable(bus_->wake_fd()));
  bus_->Start();
  EXPECT_EQ(guest_.doorbell.rings, rings + 1);
  EXPECT_TRUE(IsReadable(bus_->wake_fd()));
}

// doc:SR9 doc:SR8
TEST_F(BusMoveTest, ADevicesOwnRequestsAreAnsweredAfterwards) {
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  guest_.Pump(*bus_);
  for (uint64_t i = 0; i < 200; ++i) {
    const std::string payload = Numbered(i);
    ASSERT_EQ(device_.channel->Send(Packet(payload, 500 + i)), SendStatus::kOk);
  }
  device_.channel->Flush();
  ASSERT_GT(bus_->in_flight().queued, 0u);
  const std::string saved = Save();
  (void)channel.end.endpoint->Poll(30);
  ASSERT_TRUE(Restore(saved, NextDevices()).ok());
  EXPECT_EQ(bus_->in_flight().awaiting, 200u);
  bus_->Start();
  guest_.Pump(*bus_, 1000);
  ASSERT_EQ(next_device_.completions.size(), 200u);
  for (uint64_t i = 0; i < 200; ++i) {
    EXPECT_EQ(next_device_.completions[i].first, 500 + i);
    EXPECT_EQ(next_device_.completions[i].second, Numbered(i));
  }
}

// -- Awkward moments ---------------------------------------------------------

TEST_F(BusMoveTest, ASaveNeedsAFrozenBus) {
  EXPECT_EQ(CodeOf(bus_->Save()), absl::StatusCode::kFailedPrecondition);
}

// bad:S23 promise:P11
TEST_F(BusMoveTest, SavingTwiceGivesTheSameBytes) {
  guest_.Connect(*bus_);
  guest_.Request(guest_.Open(*bus_, 1), 5);
  guest_.Pump(*bus_);
  const std::string saved = Save();
  EXPECT_EQ(saved, *bus_->Save());
  ASSERT_TRUE(Restore(saved, NextDevices()).ok());
  EXPECT_EQ(saved, *bus_->Save());
  bus_->Start();
  bus_->Suspend();
  bus_->Freeze();
  EXPECT_EQ(saved, *bus_->Save());
}

// bad:C12
TEST_F(BusMoveTest, OffersWaitForTheGuestToAsk) {
  ASSERT_TRUE(guest_.connection.Connect().ok());
  guest_.Pump(*bus_);
  const std::string saved = Save();
  ASSERT_TRUE(Restore(saved, NextDevices()).ok());
  bus_->Start();
  (void)guest_.TakeTypes();
  guest_.Pump(*bus_);
  EXPECT_TRUE(guest_.TakeTypes().empty());
  ASSERT_TRUE(guest_.connection.RequestOffers().ok());
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.CountOf(MessageType::kOfferChannel), 2u);
  EXPECT_EQ(guest_.Open(*bus_, 1).open_status, 0u);
}

// bad:C17
TEST_F(BusMoveTest, AHalfBuiltGpadlIsFinishedAfterwards) {
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.StartGpadl(1, 40);
  // The first of several messages.
  ASSERT_TRUE(bus_->HandleMessage(guest_.connection.outgoing_front(), 1).ok());
  guest_.connection.PopOutgoing();
  const std::string saved = Save();
  ASSERT_TRUE(Restore(saved, NextDevices()).ok());
  bus_->Start();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.types.back(), TypeNumber(MessageType::kGpadlCreated));
  guest_.TearDown(channel);
  guest_.Pump(*bus_);
  EXPECT_TRUE(channel.is_torn_down);
}

// bad:C13
TEST_F(BusMoveTest, MessagesThatWaitForTheGuestMove) {
  ASSERT_TRUE(guest_.connection.Connect().ok());
  guest_.Pump(*bus_);
  ASSERT_TRUE(guest_.connection.RequestOffers().ok());
  ASSERT_TRUE(bus_->HandleMessage(guest_.connection.outgoing_front(), 1).ok());
  guest_.connection.PopOutgoing();
  ASSERT_TRUE(bus_->has_outgoing());
  const std::string saved = Save();
  EXPECT_FALSE(bus_->has_outgoing());
  ASSERT_TRUE(Restore(saved, NextDevices()).ok());
  EXPECT_FALSE(bus_->has_outgoing());
  bus_->Start();
  // No channel is open, but there is something to do.
  EXPECT_TRUE(IsReadable(bus_->wake_fd()));
  (void)guest_.TakeTypes();
  guest_.Pump(*bus_);
  EXPECT_EQ(
      guest_.TakeTypes(),
      (std::vector<uint32_t>{TypeNumber(MessageType::kOfferChannel),
                             TypeNumber(MessageType::kOfferChannel),
                             TypeNumber(MessageType::kAllOffersDelivered)}));
}

// The next owner would tell the guest that its memory is free while the old
// one's device still uses it.
// bad:C6 bad:G7 promise:P1
TEST_F(BusMoveTest, PacketsOfAClosedChannelAreWaitedFor) {
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  guest_.Request(channel, 2);
  guest_.Pump(*bus_);
  device_.holds_after_close = true;
  guest_.Close(channel);
  guest_.TearDown(channel);
  guest_.Pump(*bus_);
  bus_->Suspend();
  EXPECT_FALSE(bus_->IsQuiescent());
  bus_->Freeze();
  EXPECT_EQ(CodeOf(bus_->Save()), absl::StatusCode::kFailedPrecondition);
  device_.held.clear();
  EXPECT_TRUE(bus_->IsQuiescent());
  const std::string saved = *bus_->Save();
  ASSERT_TRUE(Restore(saved, NextDevices()).ok());
  bus_->Start();
  guest_.Pump(*bus_);
  EXPECT_TRUE(channel.is_torn_down);
  EXPECT_TRUE(next_device_.log.empty())
      << "a device that was never up was told " << next_device_.log[0];
  EXPECT_EQ(guest_.Open(*bus_, 1).open_status, 0u);
}

// The source goes on.
// bad:C6 promise:P7
TEST_F(BusMoveTest, AFrozenCloseIsFinishedAfterTheThaw) {
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  guest_.Request(channel, 1);
  guest_.Pump(*bus_);
  device_.holds_after_close = true;
  guest_.Close(channel);
  guest_.TearDown(channel);
  guest_.Pump(*bus_);
  bus_->Freeze();
  device_.held.clear();
  (void)bus_->Poll();
  EXPECT_FALSE(channel.is_torn_down);
  bus_->Thaw();
  EXPECT_TRUE(IsReadable(bus_->wake_fd()));
  guest_.Pump(*bus_);
  EXPECT_TRUE(channel.is_torn_down);
}

TEST_F(BusMoveTest, AFrozenBusTakesNoMessages) {
  guest_.Connect(*bus_);
  (void)Save();
  EXPECT_FALSE(bus_->can_accept_message());
  EXPECT_EQ(bus_->HandleMessage({}, 1).code(), absl::StatusCode::kUnavailable);
  bus_->Thaw();
  EXPECT_TRUE(bus_->can_accept_message());
}

// bad:S16 promise:P7
TEST_F(BusMoveTest, WhatCouldNotBeRestoredIsNotSaved) {
  guest_.Connect(*bus_);
  guest_.Request(guest_.Open(*bus_, 1), 6);
  guest_.Pump(*bus_);
  device_.blob_bytes = size_t{15} << 20;
  bus_->Suspend();
  bus_->Freeze();
  const absl::StatusOr<std::string> saved = bus_->Save();
  EXPECT_EQ(CodeOf(saved), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(saved.status().message().find("\"channel\""), std::string::npos);
  device_.blob_bytes = 8;
  EXPECT_TRUE(bus_->Save().ok());
}

// bad:K12
TEST_F(BusMoveTest, FaultedChannelsAmongManyAreSavedAsFaulted) {
  constexpr uint32_t kChannels = 200;
  TestGuest guest(2000);
  std::deque<LoggingDevice> devices(kChannels);
  std::deque<LoggingDevice> next(kChannels);
  Bus bus(options_, guest.memory.get(), &guest.doorbell, &observer_);
  std::vector<DeviceOffer> offers;
  for (uint32_t i = 0; i < kChannels; ++i) {
    const OfferParams params = TestParams(static_cast<uint8_t>(i));
    ASSERT_TRUE(bus.Offer(params, &devices[i]).ok());
    offers.push_back({params, &next[i]});
  }
  guest.Connect(bus);
  for (uint32_t id = 1; id <= kChannels; ++id) {
    TestGuest::Channel& channel = guest.Open(bus, id);
    guest.Request(channel, 1);
    if (id % 20 == 0) {
      guest.memory->Translate(channel.pages[1] * 4096, 1)[0] = std::byte{99};
    }
  }
  guest.Pump(bus);
  EXPECT_EQ(observer_.faults.size(), 10u);
  bus.Suspend();
  bus.Freeze();
  const absl::StatusOr<std::string> saved = bus.Save();
  ASSERT_TRUE(saved.ok()) << saved.status().ToString();
  auto restored = Bus::Restore(AsBytes(*saved), options_, guest.memory.get(),
                               &guest.doorbell, offers, &observer_);
  ASSERT_TRUE(restored.ok()) << restored.status().ToString();
  EXPECT_EQ(*(*restored)->Save(), *saved);
  observer_.faults.clear();
  (*restored)->Start();
  guest.Pump(**restored);
  EXPECT_EQ(observer_.faults.size(), 10u);
  for (uint32_t id = 1; id <= kChannels; ++id) {
    next[id - 1].AnswerAll();
  }
  guest.Pump(**restored);
  for (uint32_t id = 1; id <= kChannels; ++id) {
    EXPECT_EQ(guest.answers(guest.channels[id]), id % 20 == 0 ? 0u : 1u) << id;
  }
  // A faulted channel can be closed and opened again.
  guest.Close(guest.channels[20]);
  guest.Pump(**restored);
  EXPECT_EQ(next[19].log.back(), "closed");
  EXPECT_EQ(guest.Open(**restored, 20).open_status, 0u);
  for (LoggingDevice& device : devices) device.held.clear();
}

// bad:S14
TEST_F(BusMoveTest, ARingOfAnotherMomentComesUpFaultedAndSaysWhy) {
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  guest_.Request(channel, 1);
  guest_.Pump(*bus_);
  const std::string saved = Save();
  // The old owner goes on after all, and answers.
  bus_->Thaw();
  device_.AnswerAll();
  guest_.Pump(*bus_);
  ASSERT_EQ(guest_.answers(channel), 1u);
  ASSERT_TRUE(Restore(saved, NextDevices()).ok());
  bus_->Start();
  (void)bus_->Poll();
  ASSERT_EQ(observer_.faults.size(), 1u);
  EXPECT_NE(
      observer_.faults[0].find("write index 32, the saved state says 32 and 0"),
      std::string::npos)
      << observer_.faults[0];
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.answers(channel), 1u) << "answered twice";
  guest_.Close(channel);
  guest_.Pump(*bus_);
  EXPECT_EQ(next_device_.log, (Log{"restored state", "closed"}));
  EXPECT_EQ(guest_.Open(*bus_, 1).open_status, 0u);
}

// -- Devices -----------------------------------------------------------------

// bad:S11 bad:S17 promise:P4
TEST_F(BusMoveTest, AnOpenChannelNeedsItsDevice) {
  guest_.Connect(*bus_);
  guest_.Request(guest_.Open(*bus_, 1), 1);
  guest_.Pump(*bus_);
  const std::string saved = Save();
  for (const std::vector<DeviceOffer>& devices :
       {std::vector<DeviceOffer>{},
        std::vector<DeviceOffer>{{TestParams(2), &next_other_}},
        std::vector<DeviceOffer>{{TestParams(7), &next_device_}}}) {
    const absl::Status status = Restore(saved, devices);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_NE(status.message().find("instance"), std::string::npos);
  }
  EXPECT_TRUE(next_device_.log.empty());
  EXPECT_TRUE(Restore(saved, NextDevices()).ok());
}

TEST_F(BusMoveTest, ADeviceWhoseChannelIsClosedMayBeMissing) {
  guest_.Connect(*bus_);
  guest_.Request(guest_.Open(*bus_, 1), 1);
  guest_.Pump(*bus_);
  const std::string saved = Save();
  ASSERT_TRUE(Restore(saved, {{TestParams(1), &next_device_}}).ok());
  bus_->Start();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.rescinded, std::vector<ChannelId>{ChannelId{2}});
  next_device_.AnswerAll();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.answers(guest_.channels[1]), 1u);
}

TEST_F(BusMoveTest, OrderAndNumberOfDevicesDoNotMatter) {
  guest_.Connect(*bus_);
  guest_.Request(guest_.Open(*bus_, 1), 1);
  guest_.Request(guest_.Open(*bus_, 2), 2);
  guest_.Pump(*bus_);
  const std::string saved = Save();
  LoggingDevice extra;
  ASSERT_TRUE(Restore(saved, {{TestParams(9), &extra},
                              {TestParams(2), &next_other_},
                              {TestParams(1), &next_device_}})
                  .ok());
  bus_->Start();
  EXPECT_EQ(next_device_.held.size(), 1u);
  EXPECT_EQ(next_other_.held.size(), 2u);
  next_device_.AnswerAll();
  next_other_.AnswerAll();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.answers(guest_.channels[1]), 1u);
  EXPECT_EQ(guest_.answers(guest_.channels[2]), 2u);
  EXPECT_EQ(guest_.Open(*bus_, 3).open_status, 0u);
  EXPECT_EQ(extra.log.front(), "opened");
  guest_.Close(guest_.channels[3]);
  guest_.Pump(*bus_);
}

// bad:S10 promise:P4
TEST_F(BusMoveTest, OneDeviceTwiceIsRefusedAndTakenBack) {
  guest_.Connect(*bus_);
  guest_.Request(guest_.Open(*bus_, 1), 1);
  guest_.Pump(*bus_);
  const std::string saved = Save();
  EXPECT_EQ(Restore(saved, {{TestParams(1), &next_device_},
                            {TestParams(1), &next_other_}})
                .code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(next_device_.log.empty());
  EXPECT_TRUE(Restore(saved, NextDevices()).ok());
}

// bad:S17
TEST_F(BusMoveTest, AnOfferThatTheGuestKnowsOtherwiseIsRefused) {
  guest_.Connect(*bus_);
  guest_.Request(guest_.Open(*bus_, 1), 1);
  guest_.Pump(*bus_);
  const std::string saved = Save();
  OfferParams other = TestParams(1);
  other.mmio_megabytes = 8;
  EXPECT_EQ(Restore(saved, {{other, &next_device_}}).code(),
            absl::StatusCode::kFailedPrecondition);
}

// Only a device that was told that it is up is told that it is not.
// bad:S18 promise:P4
TEST_F(BusMoveTest, ARefusedRestoreClosesWhatWasUp) {
  guest_.Connect(*bus_);
  guest_.Request(guest_.Open(*bus_, 1), 2);
  guest_.Request(guest_.Open(*bus_, 2), 2);
  guest_.Pump(*bus_);
  const std::string saved = Save();

  next_device_.restore_status = absl::InternalError("told to");
  EXPECT_EQ(Restore(saved, NextDevices()).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(next_device_.TakeLog(), Log{"restored state"});
  EXPECT_TRUE(next_other_.TakeLog().empty());

  next_device_.restore_status = absl::OkStatus();
  next_other_.restore_status = absl::InternalError("told to");
  EXPECT_EQ(Restore(saved, NextDevices()).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(next_device_.TakeLog(),
            (Log{"restored state", "packet", "packet", "closed"}));
  EXPECT_EQ(next_other_.TakeLog(), Log{"restored state"});
  EXPECT_TRUE(next_device_.held.empty());

  next_other_.restore_status = absl::OkStatus();
  ASSERT_TRUE(Restore(saved, NextDevices()).ok());
  bus_->Start();
  next_device_.AnswerAll();
  next_other_.AnswerAll();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.answers(guest_.channels[1]), 2u);
  EXPECT_EQ(guest_.answers(guest_.channels[2]), 2u);
}

// A restore that was not started has told the guest nothing.
// bad:S17 promise:P4
TEST_F(BusMoveTest, BytesCanBeRestoredAgainAfterARestoreThatWasNotStarted) {
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  guest_.Request(channel, 2);
  guest_.Pump(*bus_);
  const std::string saved = Save();
  for (int i = 0; i < 3; ++i) {
    next_device_.held.clear();
    ASSERT_TRUE(Restore(saved, NextDevices()).ok());
    next_device_.AnswerAll();
    guest_.Pump(*bus_);
    EXPECT_EQ(guest_.answers(channel), 0u);
  }
  ASSERT_TRUE(Restore(saved, NextDevices()).ok());
  bus_->Start();
  next_device_.AnswerAll();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.answers(channel), 2u);
}

// bad:S25
TEST_F(BusMoveTest, LessMemoryThanTheGuestHadIsRefused) {
  guest_.Connect(*bus_);
  guest_.Request(guest_.Open(*bus_, 1), 1);
  guest_.Pump(*bus_);
  const std::string saved = Save();
  const auto small = *MemfdGuestMemory::Create(4096);
  const std::vector<DeviceOffer> devices = NextDevices();
  EXPECT_FALSE(Bus::Restore(AsBytes(saved), options_, small.get(),
                            &guest_.doorbell, devices)
                   .ok());
  EXPECT_TRUE(next_device_.log.empty());
}

}  // namespace
}  // namespace ferrybus::vsp
