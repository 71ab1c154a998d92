// SPDX-License-Identifier: MIT
//
// Which offer is a device's, and what a bus does when one is taken back.

#include "absl/status/status.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using Log = std::vector<std::string>;

class BusOffersTest : public ::testing::Test {
 protected:
  void TearDown() override { bus_.reset(); }

  TestGuest guest_;
  LoggingDevice device_;
  LoggingDevice other_;
  std::unique_ptr<Bus> bus_ = std::make_unique<Bus>(
      BusOptions(), guest_.memory.get(), &guest_.doorbell);
};

TEST_F(BusOffersTest, ADeviceThatIsOfferedAgainIsFoundAtItsNewestOffer) {
  EXPECT_EQ(bus_->FindOffer(device_), std::nullopt);
  const OfferId first = *bus_->Offer(TestParams(1), &device_);
  const OfferId others = *bus_->Offer(TestParams(2), &other_);
  EXPECT_EQ(bus_->FindOffer(device_), first);
  guest_.Connect(*bus_);
  guest_.Request(guest_.Open(*bus_, 1), 1);
  guest_.Pump(*bus_);
  // The old channel is there as long as its packet.
  device_.holds_after_close = true;
  ASSERT_TRUE(bus_->Rescind(first).ok());
  const OfferId second = *bus_->Offer(TestParams(3), &device_);
  guest_.Pump(*bus_);
  ASSERT_NE(bus_->channel(first), nullptr);
  EXPECT_EQ(bus_->FindOffer(device_), second);
  device_.held.clear();
  guest_.Pump(*bus_);
  ASSERT_EQ(bus_->channel(first), nullptr);
  EXPECT_EQ(bus_->FindOffer(device_), second);
  EXPECT_EQ(bus_->FindOffer(other_), others);
  ASSERT_TRUE(bus_->Rescind(second).ok());
  guest_.Pump(*bus_);
  EXPECT_EQ(bus_->FindOffer(device_), std::nullopt);
}

TEST_F(BusOffersTest, AnOfferIsTakenBackOnce) {
  const OfferId offer = *bus_->Offer(TestParams(1), &device_);
  guest_.Connect(*bus_);
  (void)guest_.Open(*bus_, 1);
  ASSERT_TRUE(bus_->Rescind(offer).ok());
  EXPECT_EQ(bus_->Rescind(offer).code(), absl::StatusCode::kNotFound);
  guest_.Pump(*bus_);
  EXPECT_EQ(bus_->Rescind(offer).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(guest_.rescinded.size(), 1u);
  EXPECT_EQ(device_.log, (Log{"opened", "started", "suspend", "closed"}));
}

// A primary channel stays while it has a sub-channel, as it was.
TEST_F(BusOffersTest, ARescindThatFailsChangesNothing) {
  const OfferId primary = *bus_->Offer(TestParams(1), &device_);
  OfferParams params = TestParams(1);
  params.sub_channel_index = 1;
  ASSERT_TRUE(bus_->Offer(params, &other_).ok());
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  EXPECT_EQ(bus_->Rescind(primary).code(),
            absl::StatusCode::kFailedPrecondition);
  guest_.Request(channel, 1);
  guest_.Pump(*bus_);
  EXPECT_EQ(device_.held.size(), 1u);
  device_.AnswerAll();
  guest_.Close(channel);
  guest_.Pump(*bus_);
  // And not kDisabled, as an offer that is gone.
  EXPECT_EQ(bus_->channel(primary)->link(), ChannelLink::kClosed);
  EXPECT_EQ(guest_.Open(*bus_, 1).open_status, 0u);
}

TEST_F(BusOffersTest, WhatIsOfferedToASuspendedBusStartsWithTheOthers) {
  guest_.Connect(*bus_);
  bus_->Suspend();
  ASSERT_TRUE(bus_->Offer(TestParams(1), &device_).ok());
  guest_.Pump(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  guest_.Request(channel, 1);
  guest_.Pump(*bus_);
  EXPECT_EQ(device_.TakeLog(), Log{"opened"});
  EXPECT_TRUE(device_.held.empty());
  bus_->Thaw();
  guest_.Pump(*bus_);
  EXPECT_EQ(device_.TakeLog(), Log{"started"});
  EXPECT_EQ(device_.held.size(), 1u);
  device_.AnswerAll();
}

// The doorbell finds the processor by itself, so any will do.
TEST_F(BusOffersTest, AGuestMayMoveItsInterrupts) {
  const OfferId offer = *bus_->Offer(TestParams(1), &device_);
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  ASSERT_TRUE(guest_.connection.ModifyChannel(ChannelId{1}, 0).ok());
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.CountOf(MessageType::kModifyChannelResponse), 1u);
  EXPECT_EQ(bus_->connection().FindOffer(offer)->target_vp, 0u);
  EXPECT_EQ(bus_->connection().counters().messages_refused, 0u);
  guest_.Request(channel, 1);
  guest_.Pump(*bus_);
  EXPECT_EQ(device_.held.size(), 1u);
  device_.AnswerAll();
}

// -- A device's own side -----------------------------------------------------

TEST_F(BusOffersTest, OnlyAPausedAndDrainedChannelIsSavedByItself) {
  const OfferId offer = *bus_->Offer(TestParams(1), &device_);
  guest_.Connect(*bus_);
  ServerChannel& its = *bus_->channel(offer);
  const auto refused = absl::StatusCode::kFailedPrecondition;
  its.Pause();
  EXPECT_EQ(its.BeginSave().status().code(), refused) << "not open";
  its.Start();
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  EXPECT_EQ(its.BeginSave().status().code(), refused) << "not paused";
  guest_.Request(channel, 1);
  guest_.Pump(*bus_);
  its.Pause();
  EXPECT_FALSE(its.IsDrained());
  EXPECT_EQ(its.BeginSave().status().code(), refused) << "not drained";
  device_.AnswerAll();
  ASSERT_TRUE(its.IsDrained());
  ASSERT_EQ(its.Send(Packet("12345678", 5)), SendStatus::kOk);
  const auto saved = its.BeginSave();
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(its.endpoint().run_state(), EndpointRunState::kFrozen);
  EXPECT_TRUE(saved->incoming.empty());
  EXPECT_EQ(saved->awaiting.size(), 1u);
  its.EndSave();
  its.Start();
  guest_.Pump(*bus_);
  EXPECT_EQ(device_.completions.size(), 1u);
}

TEST_F(BusOffersTest, AServerSendsNowOrNotAtAll) {
  const OfferId offer = *bus_->Offer(TestParams(1), &device_);
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  std::vector<std::string> seen;
  channel.end.events.on_packet = [&seen](IncomingPacket packet) {
    seen.push_back(testing::ToString(packet.payload()));
    packet.Complete();
  };
  ServerChannel& its = *bus_->channel(offer);
  EXPECT_EQ(its.SendNow(Packet("12345678", 5)), SendStatus::kNotSupported);
  const std::string large(1992, 'x');
  int sent = 0;
  while (its.SendNow(Packet(large)) == SendStatus::kOk) ++sent;
  EXPECT_EQ(sent, 2);
  EXPECT_EQ(its.SendNow(Packet(large)), SendStatus::kFull);
  EXPECT_EQ(bus_->in_flight().queued, 0u);
  guest_.Pump(*bus_);
  EXPECT_EQ(seen.size(), 2u) << "sent, and signalled";
}

TEST_F(BusOffersTest, ABatchOfAnswersIsPublishedAtItsEnd) {
  const OfferId offer = *bus_->Offer(TestParams(1), &device_);
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  guest_.Request(channel, 4);
  guest_.Pump(*bus_);
  const uint64_t rings = guest_.doorbell.rings;
  {
    const ServerChannel::BatchScope batch(*bus_->channel(offer));
    device_.AnswerAll();
    EXPECT_EQ(guest_.doorbell.rings, rings);
    guest_.Pump(*bus_, 1);
    EXPECT_EQ(guest_.answers(channel), 0u);
  }
  EXPECT_EQ(guest_.doorbell.rings, rings + 1);
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.answers(channel), 4u);
}

// -- Buffers of the guest ----------------------------------------------------

TEST_F(BusOffersTest, ABufferIsMappedOnceAndGivenBack) {
  const OfferId offer = *bus_->Offer(TestParams(1), &device_);
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  const uint64_t pages[] = {200, 202};
  const GpadlId gpadl =
      *guest_.connection.CreateGpadl(ChannelId{1}, pages, 5000, 100);
  guest_.Pump(*bus_);
  ServerChannel& its = *bus_->channel(offer);
  const GpadlHandle write = MakeGpadlHandle(gpadl, GuestAccess::kReadWrite);
  const GpadlHandle read = MakeGpadlHandle(gpadl, GuestAccess::kReadOnly);
  EXPECT_EQ(its.MapGpadl(read, GuestAccess::kReadWrite).status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(its.MapGpadl(MakeGpadlHandle(GpadlId{77}, GuestAccess::kReadOnly),
                         GuestAccess::kReadOnly)
                .status()
                .code(),
            absl::StatusCode::kNotFound);
  const auto mapped = its.MapGpadl(write, GuestAccess::kReadWrite);
  ASSERT_TRUE(mapped.ok()) << mapped.status();
  ASSERT_EQ(mapped->size(), 2u);
  EXPECT_EQ((*mapped)[0].iov_base,
            guest_.memory->Translate(200 * 4096 + 100, 1).data());
  EXPECT_EQ((*mapped)[0].iov_len, 3996u);
  EXPECT_EQ((*mapped)[1].iov_base,
            guest_.memory->Translate(202 * 4096, 1).data());
  EXPECT_EQ((*mapped)[1].iov_len, 1004u);
  EXPECT_EQ(its.MapGpadl(read, GuestAccess::kReadOnly).status().code(),
            absl::StatusCode::kAlreadyExists);
  // The guest's deletion waits.
  ASSERT_TRUE(guest_.connection.TeardownGpadl(gpadl).ok());
  guest_.Pump(*bus_);
  EXPECT_FALSE(channel.is_torn_down);
  EXPECT_TRUE(its.UnmapGpadl(write));
  EXPECT_FALSE(its.UnmapGpadl(write));
  guest_.Pump(*bus_);
  EXPECT_TRUE(channel.is_torn_down);
}

TEST_F(BusOffersTest, WhatADeviceHasMappedEndsWithTheChannel) {
  const OfferId offer = *bus_->Offer(TestParams(1), &device_);
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  ServerChannel& its = *bus_->channel(offer);
  const uint64_t page[] = {200};
  std::vector<GpadlId> gpadls;
  for (int i = 0; i < 2; ++i) {
    gpadls.push_back(
        *guest_.connection.CreateGpadl(ChannelId{1}, page, 4096, 0));
    guest_.Pump(*bus_);
    ASSERT_TRUE(its.MapGpadl(MakeGpadlHandle(gpadls[i], GuestAccess::kReadOnly),
                             GuestAccess::kReadOnly)
                    .ok());
  }
  EXPECT_EQ(its.mapped_gpadls(), 2u);
  guest_.Close(channel);
  guest_.Pump(*bus_);
  EXPECT_EQ(its.mapped_gpadls(), 0u);
  for (const GpadlId gpadl : gpadls) {
    ASSERT_TRUE(guest_.connection.TeardownGpadl(gpadl).ok());
    channel.is_torn_down = false;
    guest_.Pump(*bus_);
    EXPECT_TRUE(channel.is_torn_down);
  }
}

}  // namespace
}  // namespace ferrybus::vsp
