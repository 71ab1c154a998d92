// SPDX-License-Identifier: MIT
//
// Sub-channels on a bus: offered when the guest asks, rescinded when it has
// closed the disk.

#include "ferrybus/vsp/storage/sub_channel_offers.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/vsp/bus_test_util.h"
#include "ferrybus/vsp/storage/fake_storage_guest.h"
#include "ferrybus/vsp/storage/memory_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

class SubChannelOffersTest : public ::testing::Test {
 protected:
  SubChannelOffersTest()
      : disk_(1 << 20),
        memory_(4096),
        device_(*StorageDevice::Create(std::make_unique<MemoryBackend>(&disk_),
                                       {.serial = "S", .sub_channels_max = 3})),
        offers_(device_.get(), TestParams(1)) {}

  void Ask(uint16_t count) {
    ASSERT_TRUE(storage_.Initialize(*device_));
    vstor::Packet packet =
        FakeStorageGuest::MakeOperation(vstor::Operation::kCreateMultiChannels);
    vstor::SetBody(vstor::SubChannelRequest{.count = count}, packet);
    storage_.Send(*device_, packet);
  }

  MemoryDisk disk_;
  std::vector<std::byte> memory_;
  FakeStorageGuest storage_{absl::MakeSpan(memory_)};
  std::unique_ptr<StorageDevice> device_;
  SubChannelOffers offers_;
};

// bad:C15
TEST_F(SubChannelOffersTest, FollowTheGuest) {
  TestGuest guest;
  Bus bus(BusOptions(), guest.memory.get(), &guest.doorbell);
  ASSERT_TRUE(bus.Offer(TestParams(1), device_.get()).ok());
  guest.Connect(bus);
  for (int round = 0; round < 2; ++round) {
    TestGuest::Channel& primary = guest.Open(bus, 1);
    ASSERT_EQ(primary.open_status, 0u);
    ASSERT_TRUE(offers_.Update(bus).ok());
    EXPECT_EQ(offers_.count(), 0);
    Ask(2);
    guest.TakeTypes();
    ASSERT_TRUE(offers_.Update(bus).ok());
    ASSERT_TRUE(offers_.Update(bus).ok());
    guest.Pump(bus);
    EXPECT_EQ(offers_.count(), 2);
    EXPECT_EQ(guest.CountOf(MessageType::kOfferChannel), 2u);

    guest.Close(primary);
    guest.Pump(bus);
    ASSERT_TRUE(offers_.Update(bus).ok());
    guest.Pump(bus);
    EXPECT_EQ(offers_.count(), 0);
    EXPECT_EQ(guest.CountOf(MessageType::kRescindChannelOffer), 2u);
    for (const ChannelId rescinded : std::exchange(guest.rescinded, {})) {
      ASSERT_TRUE(guest.connection.ReleaseRelid(rescinded).ok());
    }
    guest.TearDown(primary);
    guest.Pump(bus);
    guest.ForgetChannels();
  }
}

// The next owner takes back what the one before offered.
// bad:C15 promise:P1
TEST_F(SubChannelOffersTest, FollowTheGuestAfterARestore) {
  TestGuest guest;
  auto bus =
      std::make_unique<Bus>(BusOptions(), guest.memory.get(), &guest.doorbell);
  ASSERT_TRUE(bus->Offer(TestParams(1), device_.get()).ok());
  guest.Connect(*bus);
  TestGuest::Channel& primary = guest.Open(*bus, 1);
  Ask(2);
  ASSERT_TRUE(offers_.Update(*bus).ok());
  guest.Pump(*bus);
  ASSERT_EQ(offers_.count(), 2);
  ASSERT_EQ(guest.Open(*bus, 2).open_status, 0u);  // the other one is not used
  bus->Suspend();
  bus->Freeze();
  const std::string saved = *bus->Save();
  bus.reset();

  const auto next =
      *StorageDevice::Create(std::make_unique<MemoryBackend>(&disk_),
                             {.serial = "S", .sub_channels_max = 3});
  SubChannelOffers offers(next.get(), TestParams(1));
  std::vector<DeviceOffer> devices = {{TestParams(1), next.get()}};
  for (const DeviceOffer& offer : offers.Offers(offers_.count())) {
    devices.push_back(offer);
  }
  auto restored = Bus::Restore(AsBytes(saved), BusOptions(), guest.memory.get(),
                               &guest.doorbell, devices);
  ASSERT_TRUE(restored.ok()) << restored.status();
  bus = *std::move(restored);
  bus->Start();
  guest.Pump(*bus);
  ASSERT_TRUE(offers.Update(*bus).ok());
  EXPECT_EQ(offers.count(), 2);
  EXPECT_TRUE(guest.rescinded.empty());

  guest.Close(primary);
  guest.Pump(*bus);
  ASSERT_TRUE(offers.Update(*bus).ok());
  guest.Pump(*bus);
  EXPECT_EQ(offers.count(), 0);
  EXPECT_THAT(guest.rescinded,
              ::testing::UnorderedElementsAre(ChannelId{2}, ChannelId{3}));
  guest.ForgetChannels();
}

TEST_F(SubChannelOffersTest, ARestoreTakesNoMoreThanTheDeviceHas) {
  EXPECT_TRUE(offers_.Offers(0).empty());
  const std::vector<DeviceOffer> offers = offers_.Offers(~uint64_t{0});
  ASSERT_EQ(offers.size(), 3u);
  EXPECT_EQ(offers[2].params.sub_channel_index, 3);
  EXPECT_EQ(offers[2].device, device_->sub_channel(3));
  EXPECT_TRUE(offers[2].params.IsSubChannelOf(TestParams(1)));
}

}  // namespace
}  // namespace ferrybus::vsp
