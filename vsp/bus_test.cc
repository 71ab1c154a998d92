// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/bus.h"

#include <poll.h>

#include <random>

#include "absl/status/status.h"
#include "ferrybus/channel/message_codec.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using testing::AnnouncedSeed;
using testing::Numbered;
using testing::NumberIn;

using Log = std::vector<std::string>;

class FaultLog final : public BusObserver {
 public:
  void OnChannelFault(const ServerChannel& channel,
                      const std::string& reason) override {
    faults.push_back(
        std::to_string(static_cast<uint32_t>(channel.channel_id())) + ": " +
        reason);
  }
  std::vector<std::string> faults;
};

bool IsReadable(int fd) {
  pollfd poll_fd = {fd, POLLIN, 0};
  return poll(&poll_fd, 1, 0) == 1;
}

class BusTest : public ::testing::Test {
 protected:
  BusTest()
      : bus_(std::make_unique<Bus>(BusOptions(), guest_.memory.get(),
                                   &guest_.doorbell, &observer_)) {
    first_ = *bus_->Offer(TestParams(1), &device_);
    second_ = *bus_->Offer(TestParams(2), &other_);
  }

  void SendRaw(const EncodedMessage& message) {
    (void)bus_->HandleMessage(message.bytes(), kMessageConnectionClassic);
  }

  FaultLog observer_;
  TestGuest guest_;
  LoggingDevice device_;
  LoggingDevice other_;
  std::unique_ptr<Bus> bus_;
  OfferId first_{};
  OfferId second_{};
};

// -- Order of callbacks ------------------------------------------------------

// doc:ST4
TEST_F(BusTest, ADeviceSeesOpenedStartedSuspendClosed) {
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  EXPECT_EQ(channel.open_status, 0u);
  EXPECT_EQ(device_.TakeLog(), (Log{"opened", "started"}));
  guest_.Request(channel, 3);
  guest_.Pump(*bus_);
  EXPECT_EQ(device_.held.size(), 3u);
  device_.AnswerAll();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.answers(channel), 3u);
  guest_.Close(channel);
  guest_.Pump(*bus_);
  EXPECT_EQ(device_.TakeLog(), (Log{"suspend", "closed"}));
  EXPECT_TRUE(other_.log.empty());
}

// doc:ST4
TEST_F(BusTest, SuspendAndThawPairUp) {
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  (void)device_.TakeLog();
  bus_->Suspend();
  bus_->Suspend();
  EXPECT_EQ(device_.TakeLog(), Log{"suspend"});
  (void)guest_.Open(*bus_, 2);
  EXPECT_EQ(other_.TakeLog(), Log{"opened"});
  bus_->Freeze();
  bus_->Thaw();
  EXPECT_EQ(device_.TakeLog(), Log{"started"});
  EXPECT_EQ(other_.TakeLog(), Log{"started"});
  bus_->Freeze();
  bus_->Thaw();
  EXPECT_TRUE(device_.TakeLog().empty()) << "started twice";
  bus_->Suspend();
  guest_.Close(channel);
  guest_.Pump(*bus_);
  EXPECT_EQ(device_.TakeLog(), (Log{"suspend", "closed"}));
}

// doc:KC24
TEST_F(BusTest, AChannelMayHaveASignalOfItsOwn) {
  testing::CountingDoorbell own;
  LoggingDevice device;
  ChannelSettings settings;
  settings.dedicated_doorbell = &own;
  ASSERT_TRUE(bus_->Offer(TestParams(9), &device, settings).ok());
  guest_.Connect(*bus_);
  constexpr uint32_t id = 3;
  TestGuest::Channel& shared = guest_.Open(*bus_, 1);
  TestGuest::Channel& dedicated = guest_.Open(*bus_, id);
  const uint64_t before = guest_.doorbell.rings;
  guest_.Request(dedicated, 1);
  guest_.Pump(*bus_);
  device.AnswerAll();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.answers(dedicated), 1u);
  EXPECT_EQ(own.rings, 1u);
  EXPECT_EQ(own.last_channel, id);
  EXPECT_EQ(guest_.doorbell.rings, before);
  guest_.Request(shared, 1);
  guest_.Pump(*bus_);
  device_.AnswerAll();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.doorbell.rings, before + 1);
  bus_.reset();
}

// doc:ST13
TEST_F(BusTest, ADeviceMayRefuseToOpen) {
  guest_.Connect(*bus_);
  device_.open_status = absl::InternalError("no");
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  EXPECT_NE(channel.open_status, 0u);
  EXPECT_EQ(device_.TakeLog(), Log{"opened"});
  device_.open_status = absl::OkStatus();
  channel.end.endpoint->Detach();
  EXPECT_EQ(guest_.Open(*bus_, 1).open_status, 0u);
  EXPECT_EQ(device_.TakeLog(), (Log{"opened", "started"}));
}

TEST_F(BusTest, ADeviceMayRescindItselfInAnyCallback) {
  for (const std::string where : {"opened", "started", "packet"}) {
    SCOPED_TRACE(where);
    TestGuest guest;
    LoggingDevice device;
    Bus bus(BusOptions(), guest.memory.get(), &guest.doorbell);
    const OfferId offer = *bus.Offer(TestParams(1), &device);
    const auto rescind = [&] { EXPECT_TRUE(bus.Rescind(offer).ok()); };
    if (where == "opened") device.on_opened = rescind;
    if (where == "started") device.on_started = rescind;
    if (where == "packet") {
      device.on_packet = [&](IncomingPacket& packet) {
        rescind();
        EXPECT_EQ(packet.Complete(), CompleteResult::kGone);
      };
    }
    guest.Connect(bus);
    TestGuest::Channel& channel = guest.Open(bus, 1);
    if (where == "packet") {
      guest.Request(channel, 3);
      guest.Pump(bus);
    }
    EXPECT_EQ(device.log.back(), "closed");
    EXPECT_EQ(guest.rescinded.size(), 1u);
    EXPECT_EQ(bus.channel(offer), nullptr);
  }
}

// -- Rescind -----------------------------------------------------------------

// bad:C11 promise:P9
TEST_F(BusTest, OfferAndRescindLeaveNothingBehind) {
  guest_.Connect(*bus_);
  for (int i = 0; i < 10000; ++i) {
    auto device = std::make_unique<LoggingDevice>();
    const absl::StatusOr<OfferId> offer =
        bus_->Offer(TestParams(9), device.get());
    ASSERT_TRUE(offer.ok()) << offer.status().ToString();
    guest_.Pump(*bus_);
    ASSERT_TRUE(bus_->Rescind(*offer).ok());
    guest_.Pump(*bus_);
    ASSERT_EQ(bus_->channel(*offer), nullptr);
    ASSERT_EQ(guest_.rescinded.size(), 1u);
    ASSERT_TRUE(guest_.connection.ReleaseRelid(guest_.rescinded[0]).ok());
    guest_.rescinded.clear();
    guest_.Pump(*bus_);
    // The device may end now.
  }
  EXPECT_EQ(guest_.Open(*bus_, 1).open_status, 0u);
}

TEST_F(BusTest, ARescindedChannelLivesUntilItsPacketsEnd) {
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  guest_.Request(channel, 2);
  guest_.Pump(*bus_);
  device_.holds_after_close = true;
  ASSERT_TRUE(bus_->Rescind(first_).ok());
  guest_.Pump(*bus_);
  EXPECT_TRUE(guest_.rescinded.empty());
  EXPECT_NE(bus_->channel(first_), nullptr);
  device_.held.clear();
  EXPECT_TRUE(IsReadable(bus_->wake_fd()));
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.rescinded.size(), 1u);
  EXPECT_EQ(bus_->channel(first_), nullptr);
}

// The new offer gets the old one's number.
TEST_F(BusTest, ANumberThatIsUsedAgainIsTheNewOffers) {
  guest_.Connect(*bus_);
  ASSERT_TRUE(bus_->Rescind(first_).ok());
  while (bus_->has_outgoing()) {
    (void)guest_.connection.HandleMessage(bus_->outgoing_front());
    bus_->PopOutgoing();
  }
  ASSERT_TRUE(guest_.connection.ReleaseRelid(ChannelId{1}).ok());
  // Not polled between.
  SendRaw(EncodeMessage(RelidReleasedMessage{.channel_id = ChannelId{1}}));
  guest_.connection.PopOutgoing();
  LoggingDevice next;
  const OfferId offer = *bus_->Offer(TestParams(3), &next);
  guest_.Pump(*bus_);
  ASSERT_EQ(bus_->channel(offer)->channel_id(), ChannelId{1});
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  guest_.Request(channel, 1);
  guest_.Pump(*bus_);
  EXPECT_EQ(next.held.size(), 1u);
  next.AnswerAll();
  bus_.reset();
}

// -- Closing with packets in flight ------------------------------------------

// bad:C6 bad:G7
TEST_F(BusTest, MemoryIsGivenBackWhenTheLastPacketHasEnded) {
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  guest_.Request(channel, 3);
  guest_.Pump(*bus_);
  device_.holds_after_close = true;
  guest_.Close(channel);
  guest_.TearDown(channel);
  guest_.Pump(*bus_);
  EXPECT_EQ(device_.log.back(), "closed");
  EXPECT_FALSE(channel.is_torn_down);
  EXPECT_EQ(device_.held[0].Complete(), CompleteResult::kGone);
  EXPECT_EQ(NumberIn(device_.held[1].payload()), 1u);
  device_.held.pop_back();
  guest_.Pump(*bus_);
  EXPECT_FALSE(channel.is_torn_down);
  EXPECT_FALSE(IsReadable(bus_->wake_fd()));
  device_.held.clear();
  EXPECT_TRUE(IsReadable(bus_->wake_fd()));
  guest_.Pump(*bus_);
  EXPECT_TRUE(channel.is_torn_down);
  EXPECT_TRUE(observer_.faults.empty());
}

// There is no message that says that a close is complete.
// bad:C6
TEST_F(BusTest, AGuestMayOpenAgainBeforeTheCloseIsComplete) {
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  guest_.Request(channel, 1);
  guest_.Pump(*bus_);
  device_.holds_after_close = true;
  guest_.Close(channel);
  TestGuest::Channel& again = guest_.Open(*bus_, 1);
  EXPECT_NE(again.open_status, 0u);
  device_.held.clear();
  guest_.Pump(*bus_);
  EXPECT_EQ(again.open_status, 0u);
  guest_.Request(again, 1);
  guest_.Pump(*bus_);
  device_.AnswerAll();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.answers(again), 1u);
}

// bad:C10
TEST_F(BusTest, UnloadIsAnsweredWhenTheLastPacketHasEnded) {
  guest_.Connect(*bus_);
  guest_.Request(guest_.Open(*bus_, 1), 1);
  guest_.Request(guest_.Open(*bus_, 2), 1);
  guest_.Pump(*bus_);
  device_.holds_after_close = true;
  (void)guest_.TakeTypes();
  ASSERT_TRUE(guest_.connection.Unload().ok());
  guest_.Pump(*bus_);
  EXPECT_TRUE(guest_.TakeTypes().empty());
  EXPECT_EQ(device_.log.back(), "closed");
  EXPECT_EQ(other_.log.back(), "closed");
  device_.held.clear();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.TakeTypes(),
            std::vector<uint32_t>{TypeNumber(MessageType::kUnloadResponse)});
}

// bad:C18
TEST_F(BusTest, ARebootedGuestIsAnsweredWhenTheOldOneIsGone) {
  guest_.Connect(*bus_);
  guest_.Request(guest_.Open(*bus_, 1), 2);
  guest_.Pump(*bus_);
  device_.holds_after_close = true;
  (void)guest_.TakeTypes();
  ASSERT_TRUE(guest_.connection.Connect().ok());
  guest_.Pump(*bus_);
  EXPECT_TRUE(guest_.TakeTypes().empty());
  // The old ring is no longer touched, whatever is done with the packets.
  const std::vector<std::byte> before(
      guest_.memory->Translate(0, 64 * 4096).begin(),
      guest_.memory->Translate(0, 64 * 4096).end());
  EXPECT_EQ(device_.held[0].Complete(), CompleteResult::kGone);
  device_.held.clear();
  guest_.Pump(*bus_);
  EXPECT_EQ(guest_.CountOf(MessageType::kVersionResponse), 1u);
  EXPECT_TRUE(std::equal(before.begin(), before.end(),
                         guest_.memory->Translate(0, 64 * 4096).begin()));
  ASSERT_TRUE(guest_.connection.RequestOffers().ok());
  guest_.Pump(*bus_);
  guest_.ForgetChannels();
  EXPECT_EQ(guest_.Open(*bus_, 1).open_status, 0u);
}

// -- A hostile guest ---------------------------------------------------------

// bad:C19
TEST_F(BusTest, SignalsForWhatIsNotOpenAreIgnored) {
  for (uint32_t id = 0; id < 5000; ++id) bus_->Signal(id);
  bus_->Signal(0xffffffff);
  EXPECT_FALSE(bus_->Poll());
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  guest_.Close(channel);
  guest_.Pump(*bus_);
  for (uint32_t id = 0; id < 2048; ++id) bus_->Signal(id);
  EXPECT_FALSE(bus_->Poll());
}

// bad:C20 promise:P8 promise:P9
TEST_F(BusTest, AMessageFloodIsSurvived) {
  std::mt19937_64 random(AnnouncedSeed("//vsp:bus_test"));
  guest_.Connect(*bus_);
  for (int i = 0; i < 50000; ++i) {
    std::vector<std::byte> message(random() % 60);
    for (std::byte& byte : message) {
      byte =
          static_cast<std::byte>(random() % 4 == 0 ? random() : random() % 4);
    }
    if (message.size() > 4) {
      message[0] = static_cast<std::byte>(random() % 26);
      message[1] = message[2] = message[3] = std::byte{0};
    }
    (void)bus_->HandleMessage(message, kMessageConnectionClassic);
    if (random() % 8 == 0) (void)bus_->Poll();
    while (bus_->has_outgoing() && random() % 16 != 0) {
      (void)bus_->outgoing_front();
      bus_->PopOutgoing();
    }
  }
  // And the bus still serves.
  while (bus_->has_outgoing()) bus_->PopOutgoing();
  guest_.Connect(*bus_);
  EXPECT_EQ(guest_.Open(*bus_, 1).open_status, 0u);
}

// A GPADL may name a page twice: the rings then lie on each other, and the
// guest sees its own channel fault or starve; nobody else's.
// bad:R24 bad:G8 promise:P8
TEST_F(BusTest, RingsThatLieOnEachOtherHarmOnlyTheirChannel) {
  guest_.Connect(*bus_);
  TestGuest::Channel& good = guest_.Open(*bus_, 2);
  const std::vector<std::vector<uint64_t>> layouts = {
      {200, 200, 200, 200},
      {200, 201, 200, 201},
      {200, 201, 201, 200},
      {200, 201, 202, 201},
      {200, 201, 202, 200},
      {200, 201, 200, 202},
      {good.pages[0], good.pages[1], good.pages[2], good.pages[3]}};
  std::mt19937_64 random(AnnouncedSeed("//vsp:bus_test"));
  uint32_t gpadl = 0x100;
  for (const std::vector<uint64_t>& pages : layouts) {
    std::string range(8 + pages.size() * 8, '\0');
    const uint32_t head[2] = {static_cast<uint32_t>(pages.size() * 4096), 0};
    std::memcpy(&range[0], head, 8);
    std::memcpy(&range[8], pages.data(), pages.size() * 8);
    ++gpadl;
    SendRaw(EncodeGpadlHeader(
        {.channel_id = ChannelId{1},
         .gpadl_id = GpadlId{gpadl},
         .range_buffer_size_bytes = static_cast<uint16_t>(range.size()),
         .range_count = 1},
        testing::ToBytes(range)));
    SendRaw(EncodeOpenChannel({.channel_id = ChannelId{1},
                               .open_id = 1,
                               .ring_gpadl = GpadlId{gpadl},
                               .downstream_page_offset = 2},
                              0));
    const bool is_good = pages[0] == good.pages[0];
    for (int i = 0; i < 300; ++i) {
      // Any word of the rings at any time.
      for (int n = 0; n < 4 && !is_good; ++n) {
        std::byte* const page =
            guest_.memory->Translate(pages[random() % 4] * 4096, 4096).data();
        const uint32_t word = static_cast<uint32_t>(
            random() % 3 == 0 ? random() : random() % 512 * 8);
        std::memcpy(page + random() % 40 * 4, &word, 4);
      }
      bus_->Signal(1);
      (void)bus_->Poll();
      device_.AnswerAll();
      if (device_.channel != nullptr) {
        (void)device_.channel->Send(Packet("12345678"));
        device_.channel->Flush();
      }
    }
    SendRaw(EncodeMessage(CloseChannelMessage{.channel_id = ChannelId{1}}));
    (void)bus_->Poll();
    device_.held.clear();
  }
  if (bus_->channel(second_)->endpoint().run_state() ==
      EndpointRunState::kFaulted) {
    // The last layout was the guest's own attack on its other channel.
    guest_.Close(good);
    guest_.Pump(*bus_);
    guest_.Open(*bus_, 2);
  }
  EXPECT_EQ(bus_->channel(second_)->endpoint().fault_reason(), "");
}

// bad:R27 bad:R28
TEST_F(BusTest, APollTakesNoMoreThanItsBudget) {
  BusOptions options;
  options.poll_budget = 4;
  TestGuest guest;
  LoggingDevice device;
  Bus bus(options, guest.memory.get(), &guest.doorbell);
  (void)bus.Offer(TestParams(1), &device);
  guest.Connect(bus);
  TestGuest::Channel& channel = guest.Open(bus, 1);
  guest.Request(channel, 10);
  EXPECT_TRUE(bus.Poll());
  EXPECT_EQ(device.held.size(), 4u);
  EXPECT_TRUE(bus.Poll());
  EXPECT_FALSE(bus.Poll());
  EXPECT_EQ(device.held.size(), 10u);
  device.AnswerAll();
}

// bad:R13
TEST_F(BusTest, AFaultIsToldOnceForEachOpening) {
  guest_.Connect(*bus_);
  for (size_t opening = 1; opening <= 2; ++opening) {
    TestGuest::Channel& channel = guest_.Open(*bus_, 1);
    ASSERT_EQ(channel.open_status, 0u);
    guest_.Request(channel, 1);
    guest_.memory->Translate((channel.pages[1]) * 4096, 1)[0] = std::byte{99};
    for (int i = 0; i < 3; ++i) {
      bus_->Signal(1);
      (void)bus_->Poll();
    }
    ASSERT_EQ(observer_.faults.size(), opening);
    EXPECT_EQ(observer_.faults.back(), "1: incoming ring: unknown packet type");
    channel.end.events.completions.clear();
    guest_.Close(channel);
    guest_.Pump(*bus_);
  }
  EXPECT_EQ(guest_.Open(*bus_, 2).open_status, 0u);
}

// -- Ends --------------------------------------------------------------------

TEST_F(BusTest, APacketMayOutliveTheBus) {
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  guest_.Request(channel, 3);
  guest_.Pump(*bus_);
  bus_.reset();
  EXPECT_EQ(NumberIn(device_.held[1].payload()), 1u);
  EXPECT_EQ(device_.held[1].Complete(), CompleteResult::kGone);
  device_.held.clear();
}

TEST_F(BusTest, ADeviceMayDropItsPacketsBeforeTheBusEnds) {
  guest_.Connect(*bus_);
  TestGuest::Channel& channel = guest_.Open(*bus_, 1);
  guest_.Request(channel, 3);
  guest_.Pump(*bus_);
  device_.held.clear();
  EXPECT_TRUE(IsReadable(bus_->wake_fd())) << "nobody would tell";
  (void)bus_->Poll();
  ASSERT_EQ(observer_.faults.size(), 1u);
  EXPECT_NE(observer_.faults[0].find("dropped"), std::string::npos);
  EXPECT_EQ(bus_->in_flight().incoming, 0u);
}

}  // namespace
}  // namespace ferrybus::vsp
