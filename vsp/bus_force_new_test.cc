// SPDX-License-Identifier: MIT
//
// Channels that are not taken up again after a move, and callbacks of a save
// and a restore that wait for other threads.

#include <thread>

#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/bus_move_test_util.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using Log = std::vector<std::string>;

ChannelSettings ForcedNew() {
  ChannelSettings settings;
  settings.force_new_channel = true;
  return settings;
}

class ForceNewTest : public BusMoveTest {
 protected:
  // Channel 1 is not taken up again; channel 2 is.
  std::vector<DeviceOffer> ForcedDevices() {
    std::vector<DeviceOffer> devices = NextDevices();
    devices[0].settings = ForcedNew();
    return devices;
  }
  void Release(uint32_t id) {
    guest_.TearDown(guest_.channels[id]);
    guest_.Pump(*bus_);
    ASSERT_TRUE(guest_.connection.ReleaseRelid(ChannelId{id}).ok());
    guest_.channels.erase(id);
    guest_.Pump(*bus_);
  }
};

// doc:SR15
TEST_F(ForceNewTest, TheOldChannelIsRescindedThenANewOneOffered) {
  guest_.Connect(*bus_);
  TestGuest::Channel& abandoned = guest_.Open(*bus_, 1);
  TestGuest::Channel& kept = guest_.Open(*bus_, 2);
  guest_.Request(abandoned, 3);
  guest_.Request(kept, 2);
  guest_.Pump(*bus_);
  const std::string saved = Save();
  ASSERT_TRUE(Restore(saved, ForcedDevices()).ok());
  EXPECT_TRUE(next_device_.log.empty()) << "what was saved is dropped";
  EXPECT_EQ(next_other_.held.size(), 2u);

  bus_->Start();
  guest_.TakeTypes();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.rescinded, std::vector<ChannelId>{ChannelId{1}});
  EXPECT_EQ(guest_.CountOf(MessageType::kOfferChannel), 0u)
      << "a guest takes it for a second offer of the same";
  Release(1);
  EXPECT_EQ(guest_.CountOf(MessageType::kOfferChannel), 1u);
  EXPECT_EQ(guest_.CountOf(MessageType::kRescindChannelOffer), 1u);

  TestGuest::Channel& fresh = guest_.Open(*bus_, 3);
  EXPECT_EQ(next_device_.log, (Log{"opened", "started"}));
  guest_.Request(fresh, 1);
  guest_.Pump(*bus_);
  next_device_.AnswerAll();
  next_other_.AnswerAll();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.answers(fresh), 1u);
  EXPECT_EQ(guest_.answers(kept), 2u);
}

// doc:SR15
TEST_F(ForceNewTest, AMoveBeforeTheGuestLetsGoChangesNothing) {
  guest_.Connect(*bus_);
  (void)guest_.Open(*bus_, 1);
  ASSERT_TRUE(Restore(Save(), ForcedDevices()).ok());
  bus_->Start();
  guest_.Pump(*bus_);
  LoggingDevice third;
  LoggingDevice third_other;
  const std::vector<DeviceOffer> devices = {{TestParams(1), &third},
                                            {TestParams(2), &third_other}};
  ASSERT_TRUE(Restore(Save(), devices).ok());
  bus_->Start();
  guest_.TakeTypes();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.CountOf(MessageType::kOfferChannel), 0u);
  EXPECT_EQ(guest_.CountOf(MessageType::kRescindChannelOffer), 0u);
  Release(1);
  EXPECT_EQ(guest_.CountOf(MessageType::kOfferChannel), 1u);
  (void)guest_.Open(*bus_, 3);
  EXPECT_EQ(third.log, (Log{"opened", "started"}));
}

// A bus that is saved before it began is as the one it came from.
TEST_F(ForceNewTest, ItIsDecidedAnewByEachRestore) {
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  guest_.Request(channel, 1);
  guest_.Pump(*bus_);
  const std::string saved = Save();
  ASSERT_TRUE(Restore(saved, ForcedDevices()).ok());
  LoggingDevice third;
  LoggingDevice third_other;
  ASSERT_TRUE(
      Restore(saved, {{TestParams(1), &third}, {TestParams(2), &third_other}})
          .ok());
  bus_->Start();
  third.AnswerAll();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.answers(channel), 1u);
  EXPECT_TRUE(guest_.rescinded.empty());
}

// doc:SR15
TEST_F(ForceNewTest, ItsSubChannelsGoWithIt) {
  OfferParams sub = TestParams(1);
  sub.sub_channel_index = 1;
  LoggingDevice sub_device;
  LoggingDevice next_sub;
  ASSERT_TRUE(bus_->Offer(sub, &sub_device).ok());
  guest_.Connect(*bus_);
  (void)guest_.Open(*bus_, 1);
  (void)guest_.Open(*bus_, 3);
  std::vector<DeviceOffer> devices = ForcedDevices();
  devices.push_back({sub, &next_sub});
  ASSERT_TRUE(Restore(Save(), devices).ok());
  bus_->Start();
  guest_.TakeTypes();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.rescinded,
            (std::vector<ChannelId>{ChannelId{3}, ChannelId{1}}));
  // The sub-channel has to wait for its primary.
  Release(3);
  EXPECT_EQ(guest_.CountOf(MessageType::kOfferChannel), 0u);
  Release(1);
  EXPECT_EQ(guest_.CountOf(MessageType::kOfferChannel), 2u);
  (void)guest_.Open(*bus_, 4);
  (void)guest_.Open(*bus_, 5);
  EXPECT_EQ(next_device_.log, (Log{"opened", "started"}));
  EXPECT_EQ(next_sub.log, (Log{"opened", "started"}));
}

// A guest that waits for room has said so in the control page.
TEST_F(BusMoveTest, ASaveWritesNothingIntoTheRings) {
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  for (uint64_t i = 0; i < 200; ++i) {
    ASSERT_EQ(device_.channel->Send(Packet(testing::Numbered(i), 500 + i)),
              SendStatus::kOk);
  }
  device_.channel->Flush();
  ASSERT_GT(bus_->in_flight().queued, 0u);
  bus_->Suspend();
  bus_->Freeze();
  const auto control_pages = [&] {
    std::string bytes;
    for (const size_t page : {size_t{0}, channel.pages.size() / 2}) {
      const auto its =
          guest_.memory->Translate(channel.pages[page] * 4096, 4096);
      bytes += testing::ToString(its);
    }
    return bytes;
  };
  const std::string before = control_pages();
  EXPECT_NE(before.find_first_not_of('\0'), std::string::npos);
  ASSERT_TRUE(bus_->Save().ok());
  EXPECT_TRUE(control_pages() == before);
}

// A saved offer that no device has claimed.
TEST_F(BusMoveTest, AnUnclaimedOfferCanBeRescinded) {
  guest_.Connect(*bus_);
  (void)guest_.Open(*bus_, 1);
  bus_->Suspend();
  bus_->Freeze();
  const std::string saved = bus_->SaveConnection();
  bus_.reset();
  auto restored = Bus::RestoreConnection(AsBytes(saved), options_,
                                         guest_.memory.get(), &guest_.doorbell);
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_TRUE((*restored)->Rescind(first_).ok());
}

TEST_F(ForceNewTest, WithoutAMoveItMeansNothing) {
  bus_ = NewBus();
  ASSERT_TRUE(bus_->Offer(TestParams(1), &device_, ForcedNew()).ok());
  guest_.Connect(*bus_);
  EXPECT_EQ(guest_.Open(*bus_, 1).open_status, 0u);
}

// Waits for another thread that uses the channel meanwhile.
class WaitingDevice final : public Device {
 public:
  absl::Status OnOpened(ServerChannel& opened,
                        absl::Span<const std::byte>) override {
    channel_ = &opened;
    return absl::OkStatus();
  }
  void ProcessPacket(IncomingPacket packet) override {
    held.push_back(std::move(packet));
  }
  IncomingPolicy incoming_policy() const override {
    return IncomingPolicy::kResume;
  }
  savestate::SizeAnswer SavePacket(const PacketInfo&,
                                   absl::Span<std::byte>) override {
    UseElsewhere();
    return savestate::SizeAnswer::Ok(0);
  }
  absl::StatusOr<std::string> SaveDevice() override {
    UseElsewhere();
    return std::string();
  }
  absl::Status OnRestored(ServerChannel& restored,
                          absl::Span<const std::byte>) override {
    channel_ = &restored;
    UseElsewhere();
    return absl::OkStatus();
  }
  absl::Status RestorePacket(IncomingPacket packet,
                             absl::Span<const std::byte>) override {
    UseElsewhere();
    held.push_back(std::move(packet));
    return absl::OkStatus();
  }

  std::deque<IncomingPacket> held;
  int uses = 0;

 private:
  void UseElsewhere() {
    std::thread([this] {
      channel_->Flush();
      (void)channel_->Cancel(7);
      uses += channel_->endpoint().outstanding() < 100;
    }).join();
  }
  ServerChannel* channel_ = nullptr;
};

// doc:SR16
TEST_F(BusMoveTest, CallbacksOfASaveAndARestoreMayBlock) {
  WaitingDevice waiting;
  WaitingDevice next;
  ASSERT_TRUE(bus_->Offer(TestParams(3), &waiting).ok());
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 3);
  guest_.Request(channel, 2);
  guest_.Pump(*bus_);
  const std::string saved = Save();
  EXPECT_EQ(waiting.uses, 2 + 1);
  waiting.held.clear();
  std::vector<DeviceOffer> devices = NextDevices();
  devices.push_back({TestParams(3), &next});
  ASSERT_TRUE(Restore(saved, devices).ok());
  EXPECT_EQ(next.uses, 2 + 1);
  bus_->Start();
  for (IncomingPacket& packet : next.held) packet.Complete(packet.payload());
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.answers(channel), 2u);
}

}  // namespace
}  // namespace ferrybus::vsp
