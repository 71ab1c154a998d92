// SPDX-License-Identifier: MIT
//
// Sub-channels of a storage device: asked for once, no handshake of their own,
// one disk behind all of them.

#include <cstring>
#include <memory>
#include <utility>

#include "ferrybus/savestate/size_negotiation.h"
#include "ferrybus/vsp/storage/storage_device_test_util.h"

namespace ferrybus::vsp {
namespace {

using vstor::Operation;

vstor::Packet CreateSubChannels(uint16_t count) {
  vstor::Packet packet =
      FakeStorageGuest::MakeOperation(Operation::kCreateMultiChannels);
  vstor::SetBody(vstor::SubChannelRequest{.count = count}, packet);
  return packet;
}

class SubChannelTest : public StorageDeviceTest {
 protected:
  void SetUp() override {
    Make({}, {.serial = "S1", .requests_max = 4, .sub_channels_max = 2});
  }

  uint32_t Ask(uint16_t count) {
    return guest_.Reply(guest_.Send(*device_, CreateSubChannels(count))).status;
  }
  Device& sub(uint16_t index) { return *device_->sub_channel(index); }
  uint64_t Read(FakeStorageGuest& guest, Device& device, uint32_t block) {
    return guest.ExecuteSrb(device, Read10(block, 1), vstor::kDataIn,
                            {guest.Buffer(size_t{block} * 512, 512)});
  }

  // One for each channel, with the same memory: slots are a channel's own.
  FakeStorageGuest first_{absl::MakeSpan(memory_)};
  FakeStorageGuest second_{absl::MakeSpan(memory_)};
};

TEST_F(SubChannelTest, TheGuestLearnsHowManyThereAre) {
  const auto send = [&](const vstor::Packet& packet) {
    return guest_.Reply(guest_.Send(*device_, packet));
  };
  send(FakeStorageGuest::MakeOperation(Operation::kBeginInitialization));
  vstor::Packet version =
      FakeStorageGuest::MakeOperation(Operation::kQueryProtocolVersion);
  vstor::SetBody(vstor::ProtocolVersion{vstor::kVersionWin10, 0}, version);
  send(version);
  const auto properties = vstor::GetBody<vstor::ChannelProperties>(
      send(FakeStorageGuest::MakeOperation(Operation::kQueryProperties)));
  EXPECT_EQ(properties.max_channels, 2);
  EXPECT_EQ(properties.flags, vstor::kPropertyMultiChannel);
}

// bad:P1
TEST_F(SubChannelTest, TheyAreAskedForOnceAfterTheHandshake) {
  EXPECT_EQ(Ask(1), vstor::kStatusInvalidDeviceState);
  Initialize();
  EXPECT_EQ(device_->sub_channels_wanted(), 0);
  EXPECT_EQ(Ask(0), vstor::kStatusInvalidParameter);
  EXPECT_EQ(Ask(3), vstor::kStatusInvalidParameter);
  EXPECT_EQ(Ask(2), vstor::kStatusSuccess);
  EXPECT_EQ(Ask(1), vstor::kStatusInvalidDeviceState);
  EXPECT_EQ(device_->sub_channels_wanted(), 2);
  device_->OnClosed();
  EXPECT_EQ(device_->sub_channels_wanted(), 0);
}

TEST_F(SubChannelTest, WithoutThemTheyAreNotSupported) {
  Make({}, {.serial = "S1"});
  Initialize();
  EXPECT_EQ(Ask(1), vstor::kStatusNotSupported);
}

TEST_F(SubChannelTest, AllReachTheSameDisk) {
  Initialize();
  ASSERT_EQ(Ask(2), vstor::kStatusSuccess);
  // The same slot in each channel.
  const uint64_t a = Read(guest_, *device_, 5);
  const uint64_t b = Read(first_, sub(1), 6);
  const uint64_t c = Read(second_, sub(2), 7);
  device_->Poll();
  EXPECT_TRUE(IsGood(guest_.SrbReply(a), 512));
  EXPECT_TRUE(IsGood(first_.SrbReply(b), 512));
  EXPECT_TRUE(IsGood(second_.SrbReply(c), 512));
  EXPECT_EQ(std::memcmp(memory_.data() + 5 * 512, &disk_[5 * 512], 3 * 512), 0);
}

// bad:P1
TEST_F(SubChannelTest, NothingElseGoesThroughThem) {
  Initialize();
  ASSERT_EQ(Ask(1), vstor::kStatusSuccess);
  for (const Operation operation :
       {Operation::kBeginInitialization, Operation::kQueryProperties,
        Operation::kEndInitialization, Operation::kCreateMultiChannels}) {
    const uint64_t id =
        first_.Send(sub(1), FakeStorageGuest::MakeOperation(operation));
    EXPECT_EQ(first_.Reply(id).status, vstor::kStatusInvalidDeviceState);
  }
  EXPECT_EQ(device_->phase(), VstorPhase::kReady);
  EXPECT_EQ(device_->sub_channels_wanted(), 1);
}

TEST_F(SubChannelTest, AChannelThatClosesTakesOnlyItsOwnRequests) {
  Make({.queue_depth = 1}, {.serial = "S1", .sub_channels_max = 2});
  Initialize();
  ASSERT_EQ(Ask(2), vstor::kStatusSuccess);
  const uint64_t a = Read(guest_, *device_, 1);
  const uint64_t b = Read(first_, sub(1), 2);   // waits
  const uint64_t c = Read(second_, sub(2), 3);  // waits
  sub(1).OnClosed();
  EXPECT_TRUE(first_.answered(b));
  for (int i = 0; i < 3; ++i) device_->Poll();
  EXPECT_TRUE(IsGood(guest_.SrbReply(a), 512));
  EXPECT_TRUE(IsGood(second_.SrbReply(c), 512));
  EXPECT_EQ(device_->in_flight(), 0u);
}

// promise:P1: each channel's packets, at their own slots, at the next owner.
TEST_F(SubChannelTest, RequestsMoveWithTheirChannel) {
  Make({.queue_depth = 1}, {.serial = "S1", .sub_channels_max = 2});
  Initialize();
  ASSERT_EQ(Ask(2), vstor::kStatusSuccess);
  Read(guest_, *device_, 1);
  const uint64_t b = Read(first_, sub(1), 2);
  const uint64_t c = Read(second_, sub(2), 3);
  const auto save = [](Device& device, const PacketInfo& info) {
    return *savestate::NegotiateSize({}, "packet",
                                     [&](absl::Span<std::byte> out) {
                                       return device.SavePacket(info, out);
                                     });
  };
  const std::string state = *device_->SaveDevice();
  const std::string blob_b = save(sub(1), first_.info(b));
  const std::string blob_c = save(sub(2), second_.info(c));
  const auto bytes = [](const std::string& text) {
    return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                               text.size());
  };

  const auto restored = [&](uint16_t sub_channels) {
    return *StorageDevice::Create(
        std::make_unique<MemoryBackend>(&disk_, MemoryBackendOptions()),
        {.serial = "S1", .sub_channels_max = sub_channels});
  };
  EXPECT_TRUE(absl::IsFailedPrecondition(
      restored(1)->OnRestored(FakeStorageGuest::Channel(), bytes(state))));

  const auto next = restored(2);
  ASSERT_TRUE(next->OnRestored(FakeStorageGuest::Channel(), bytes(state)).ok());
  EXPECT_EQ(next->sub_channels_wanted(), 2);
  FakeStorageGuest first(absl::MakeSpan(memory_));
  FakeStorageGuest second(absl::MakeSpan(memory_));
  uint64_t b2 = 0, c2 = 0;
  ASSERT_TRUE(next->sub_channel(1)
                  ->RestorePacket(first.Adopt(first_, b, &b2), bytes(blob_b))
                  .ok());
  ASSERT_TRUE(next->sub_channel(2)
                  ->RestorePacket(second.Adopt(second_, c, &c2), bytes(blob_c))
                  .ok());
  next->OnStarted();
  next->sub_channel(1)->OnStarted();
  next->Poll();
  EXPECT_TRUE(IsGood(first.SrbReply(b2), 512));
  EXPECT_FALSE(second.answered(c2));  // has not started
  next->sub_channel(2)->OnStarted();
  next->Poll();
  EXPECT_TRUE(IsGood(second.SrbReply(c2), 512));
  EXPECT_EQ(next->counters().reissued, 2u);
  for (int i = 0; i < 4; ++i) device_->Poll();  // of the old owner
}

}  // namespace
}  // namespace ferrybus::vsp
