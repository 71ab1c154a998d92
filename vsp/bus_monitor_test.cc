// SPDX-License-Identifier: MIT

// Signals by monitor page, from the guest's bit to the device's packet.

#include <memory>

#include "ferrybus/channel/monitor_page.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

constexpr uint64_t kHostPage = 200 * 4096;
constexpr uint64_t kGuestPage = 201 * 4096;

class BusMonitorTest : public ::testing::Test {
 protected:
  BusMonitorTest() : bus_(BusOptions(), guest_.memory.get(), &guest_.doorbell) {
    OfferParams params = TestParams(1);
    params.monitor_id = 42;
    EXPECT_TRUE(bus_.Offer(params, &device_).ok());
    EXPECT_TRUE(bus_.Offer(TestParams(2), &other_).ok());
  }

  // A packet is in the ring, and no signal was sent.
  void RequestUnsignalled(TestGuest::Channel& channel) {
    channel.end.doorbell.on_ring = [] {};
    guest_.Request(channel, 1);
  }
  bool Trigger(uint8_t monitor_id) {
    return SetMonitorTrigger(*guest_.memory, kGuestPage, monitor_id);
  }

  TestGuest guest_{256, MonitorPages{kHostPage, kGuestPage}};
  LoggingDevice device_;
  LoggingDevice other_;
  Bus bus_;
};

TEST_F(BusMonitorTest, ATriggerIsASignalOfItsChannel) {
  EXPECT_FALSE(bus_.PollMonitors());
  guest_.Connect(bus_);
  TestGuest::Channel& channel = guest_.Open(bus_, 1);
  TestGuest::Channel& other = guest_.Open(bus_, 2);
  RequestUnsignalled(channel);
  RequestUnsignalled(other);
  // No bit, no signal.
  EXPECT_TRUE(bus_.PollMonitors());
  bus_.Poll();
  EXPECT_EQ(device_.held.size(), 0u);
  ASSERT_TRUE(Trigger(42));
  EXPECT_TRUE(bus_.PollMonitors());
  bus_.Poll();
  EXPECT_EQ(device_.held.size(), 1u);
  EXPECT_EQ(other_.held.size(), 0u);
  device_.AnswerAll();
  bus_.Signal(2);
  bus_.Poll();
  other_.AnswerAll();
}

// bad:C19
TEST_F(BusMonitorTest, TriggersForNothingAreIgnored) {
  guest_.Connect(bus_);
  for (int id = 0; id < 128; ++id) {
    ASSERT_TRUE(Trigger(static_cast<uint8_t>(id)));
  }
  // Also of a channel that is not open.
  EXPECT_TRUE(bus_.PollMonitors());
  EXPECT_FALSE(bus_.Poll());
  EXPECT_TRUE(device_.log.empty());
}

TEST_F(BusMonitorTest, AFrozenBusLeavesTheTriggersToTheNextOwner) {
  guest_.Connect(bus_);
  TestGuest::Channel& channel = guest_.Open(bus_, 1);
  RequestUnsignalled(channel);
  ASSERT_TRUE(Trigger(42));
  bus_.Suspend();
  bus_.Freeze();
  EXPECT_FALSE(bus_.PollMonitors());
  bool is_there = false;
  EXPECT_TRUE(TakeMonitorTriggers(*guest_.memory, kGuestPage,
                                  [&](uint8_t id) { is_there = id == 42; }));
  EXPECT_TRUE(is_there);
}

TEST(BusMonitorPagesTest, AGuestMayHaveNone) {
  TestGuest guest;
  Bus bus(BusOptions(), guest.memory.get(), &guest.doorbell);
  guest.Connect(bus);
  EXPECT_FALSE(bus.PollMonitors());
}

}  // namespace
}  // namespace ferrybus::vsp
