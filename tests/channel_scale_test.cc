// SPDX-License-Identifier: MIT
//
// As many channels as there can be on one connection, and what a packet
// allocates on its way through the whole stack: nothing.

#include <array>
#include <cstring>
#include <deque>
#include <map>
#include <vector>

#include "ferrybus/ringbuffer/testing/allocation_count.h"
#include "ferrybus/tests/testing/bus_pair.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

using ringbuffer::testing::AllocationCount;
using testing::BusPair;
using testing::EchoDevice;
using testing::EchoDriver;
using testing::EchoOffer;

constexpr uint32_t kRingPages = 4;  // of a channel: two control, two data

class ScaleTest : public ::testing::Test {
 protected:
  void OpenAll(uint32_t channels) {
    for (uint32_t i = 0; i < channels; ++i) {
      const auto offer = pair_.host->Offer(EchoOffer(i), &device_);
      ASSERT_TRUE(offer.ok()) << offer.status();
      offers_.push_back(*offer);
      drivers_.emplace_back();
      pair_.guest.AddDriver(EchoOffer(i).interface_type, &drivers_.back());
    }
    pair_.Connect();
    ASSERT_TRUE(pair_.guest.status().ok()) << pair_.guest.status();
    EXPECT_EQ(CountOpen(), channels);
  }

  size_t CountOpen() const {
    size_t open = 0;
    for (const EchoDriver& driver : drivers_) open += driver.channel != nullptr;
    return open;
  }

  // Each open channel carries `count` requests and their answers.
  void RequestAll(uint64_t count) {
    std::array<std::byte, 64> payload = {};
    for (EchoDriver& driver : drivers_) {
      if (driver.channel != nullptr)
        driver.Request(absl::MakeSpan(payload), count);
    }
    pair_.Pump();
    for (const EchoDriver& driver : drivers_) {
      ASSERT_EQ(driver.answers, driver.requests);
      ASSERT_EQ(driver.wrong, 0u);
    }
  }

  // Rings of one data page each.
  static vsc::BusOptions SmallRings() {
    vsc::BusOptions options;
    options.ring_data_pages = 1;
    return options;
  }

  static constexpr uint64_t kRamPages = 1 + kMaxChannelId * kRingPages;

  EchoDevice device_;
  std::deque<EchoDriver> drivers_;
  std::vector<OfferId> offers_;
  BusPair pair_{kRamPages, SmallRings()};
};

TEST_F(ScaleTest, OpensUsesAndClosesEveryChannelThatAConnectionCanHave) {
  OpenAll(kMaxChannelId);
  // All of guest RAM is in rings now.
  EXPECT_FALSE(pair_.pages.Allocate(1).ok());
  EXPECT_FALSE(pair_.host->Offer(EchoOffer(kMaxChannelId), &device_).ok());
  RequestAll(3);
  for (const EchoDriver& driver : drivers_) EXPECT_EQ(driver.answers, 3u);

  // Half of them end from this side, half from the other.
  for (size_t i = 0; i < offers_.size(); ++i) {
    if (i % 2 == 0) {
      ASSERT_TRUE(pair_.host->Rescind(offers_[i]).ok());
    } else {
      ASSERT_TRUE(pair_.guest.Close(&drivers_[i]).ok());
    }
  }
  pair_.Pump();
  EXPECT_EQ(CountOpen(), 0u);
  for (size_t i = 0; i < offers_.size(); ++i) {
    EXPECT_EQ(pair_.guest.channel(&drivers_[i]), nullptr);
    EXPECT_EQ(pair_.host->channel(offers_[i]) == nullptr, i % 2 == 0);
  }
  // And every page of their rings is free.
  EXPECT_TRUE(pair_.pages.Allocate(kMaxChannelId * kRingPages).ok());
}

TEST_F(ScaleTest, GivesTheNumbersOfRescindedChannelsAway) {
  OpenAll(kMaxChannelId);
  for (const OfferId offer : offers_) {
    ASSERT_TRUE(pair_.host->Rescind(offer).ok());
  }
  pair_.Pump();
  ASSERT_EQ(CountOpen(), 0u);
  // The drivers wait for the next ones.
  for (uint32_t i = 0; i < kMaxChannelId; ++i) {
    ASSERT_TRUE(pair_.host->Offer(EchoOffer(10'000 + i), &device_).ok());
  }
  pair_.Pump();
  EXPECT_EQ(CountOpen(), kMaxChannelId);
  RequestAll(1);
}

TEST(SubChannelScaleTest, OpensSixtyFourBesideTheirPrimary) {
  constexpr uint32_t kSubChannels = 64;
  vsp::TestGuest guest(1024);
  testing::CountingDoorbell doorbell;
  vsp::Bus bus({}, guest.memory.get(), &doorbell);
  std::deque<vsp::LoggingDevice> devices;
  std::vector<OfferId> offers;
  for (uint16_t i = 0; i <= kSubChannels; ++i) {
    OfferParams params = EchoOffer(1);
    params.sub_channel_index = i;
    const auto offer = bus.Offer(params, &devices.emplace_back());
    ASSERT_TRUE(offer.ok()) << offer.status();
    offers.push_back(*offer);
  }
  guest.Connect(bus);
  std::vector<vsp::TestGuest::Channel*> channels;
  for (const OfferId offer : offers) {
    const uint32_t id = static_cast<uint32_t>(bus.channel(offer)->channel_id());
    channels.push_back(&guest.Open(bus, id));
    ASSERT_EQ(channels.back()->open_status, 0u);
  }
  for (vsp::TestGuest::Channel* channel : channels) guest.Request(*channel, 1);
  for (vsp::TestGuest::Channel* channel : channels) {
    bus.Signal(static_cast<uint32_t>(channel->id));
  }
  guest.Pump(bus);
  for (vsp::LoggingDevice& device : devices) {
    ASSERT_EQ(device.held.size(), 1u);
    device.AnswerAll();
  }
  guest.Pump(bus);
  for (vsp::TestGuest::Channel* channel : channels) {
    EXPECT_EQ(guest.answers(*channel), 1u);
    guest.Close(*channel);
    guest.TearDown(*channel);
  }
  guest.Pump(bus);
  for (vsp::TestGuest::Channel* channel : channels) {
    EXPECT_TRUE(channel->is_torn_down);
  }
}

class AllocationTest : public ::testing::TestWithParam<size_t> {};

TEST_P(AllocationTest, APacketCostsNoneThroughTheWholeStack) {
  constexpr uint64_t kDepth = 32;
  EchoDevice device;
  EchoDriver driver;
  BusPair pair(256);
  ASSERT_TRUE(pair.host->Offer(EchoOffer(1), &device).ok());
  pair.guest.AddDriver(EchoOffer(1).interface_type, &driver);
  pair.Connect();
  ASSERT_NE(driver.channel, nullptr);
  std::vector<std::byte> payload(GetParam());
  const auto round = [&] {
    driver.Request(absl::MakeSpan(payload), kDepth);
    pair.Pump();
  };
  for (int i = 0; i < 4; ++i) round();
  const uint64_t before = AllocationCount();
  for (int i = 0; i < 100; ++i) round();
  EXPECT_EQ(AllocationCount(), before);
  EXPECT_EQ(driver.answers, 104 * kDepth);
  EXPECT_EQ(driver.wrong, 0u);
}

INSTANTIATE_TEST_SUITE_P(Payloads, AllocationTest, ::testing::Values(64, 1024));

}  // namespace
}  // namespace ferrybus
