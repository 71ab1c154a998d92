// SPDX-License-Identifier: MIT

#include "ferrybus/vsc/bus.h"

#include "absl/status/status.h"
#include "ferrybus/channel/endpoint_test_util.h"
#include "ferrybus/channel/ring_pair.h"
#include "ferrybus/channel/server_connection.h"
#include "gtest/gtest.h"

namespace ferrybus::vsc {
namespace {

using testing::EndpointEnd;
using testing::Numbered;
using testing::NumberIn;
using testing::ToBytes;

constexpr uint64_t kRamPages = 64;

Guid Type(uint8_t number) {
  Guid guid;
  guid.bytes[0] = number;
  return guid;
}

// Counts, and does what it was told to do.
class TestDriver final : public Driver {
 public:
  void OnOpened(ClientChannel& opened) override {
    channel = &opened;
    ++opens;
  }
  void OnCompletion(uint64_t, absl::Span<const std::byte>) override {
    ++completions;
    if (on_completion) on_completion();
  }
  void OnClosed() override {
    channel = nullptr;
    ++closes;
  }
  void OnRoom() override {
    ++rooms;
    if (on_room) on_room();
  }

  ClientChannel* channel = nullptr;
  int opens = 0;
  int completions = 0;
  int closes = 0;
  int rooms = 0;
  std::function<void()> on_completion;
  std::function<void()> on_room;
};

// A host: its connection's state machine and one channel's endpoint.
class TestHost final : public ServerEvents {
 public:
  explicit TestHost(const GuestMemory* memory)
      : memory_(memory), connection(Options(), this) {
    end.Create(EndpointSide::kHost, EndpointLimits(), memory);
  }
  ~TestHost() override { PacketEndpoint::Retire(std::move(end.endpoint)); }

  void OnConnected(const Contact&) override {}
  void OnDisconnected() override {}
  void OnOpenRequested(OfferId offer, const OpenRequest& request,
                       const GpadlView& ring) override {
    if (refuses) {
      (void)connection.OpenCompleted(offer, 5);
      return;
    }
    auto rings =
        RingPair::Map(*memory_, ring.pages, request.downstream_page_offset);
    ASSERT_TRUE(rings.ok());
    ASSERT_TRUE(end.endpoint->Attach(*std::move(rings), 1).ok());
    end.endpoint->Start();
    (void)connection.OpenCompleted(offer, 0);
  }
  void OnCloseRequested(OfferId offer) override {
    end.endpoint->Detach();
    (void)connection.CloseCompleted(offer);
  }
  bool OnModifyRequested(OfferId, uint32_t) override { return true; }
  void OnGpadlTeardownRequested(OfferId, GpadlId) override {}

 private:
  static ServerConnectionOptions Options() {
    ServerConnectionOptions options;
    options.ram_page_count = kRamPages;
    return options;
  }
  const GuestMemory* const memory_;

 public:
  ServerConnection connection;
  EndpointEnd end;
  bool refuses = false;
};

class BusTest : public ::testing::Test {
 protected:
  BusTest()
      : memory_(*MemfdGuestMemory::Create(kRamPages * 4096)),
        pages_(memory_.get()),
        host_(memory_.get()) {
    options_.ring_data_pages = 1;
    bus_ = std::make_unique<Bus>(options_, memory_.get(), &pages_, &doorbell_);
    bus_->AddDriver(Type(7), &driver_);
    host_.end.events.on_packet = [](IncomingPacket packet) {
      packet.Complete(packet.payload());
    };
    host_.end.doorbell.on_ring = [this] { bus_->Signal(1); };
  }

  OfferId Offer() {
    OfferParams params;
    params.interface_type = Type(7);
    params.interface_instance = Type(instance_++);
    return *host_.connection.AddOffer(params);
  }
  bool GuestSays() {
    if (!bus_->has_outgoing()) return false;
    (void)host_.connection.HandleMessage(bus_->outgoing_front());
    bus_->PopOutgoing();
    return true;
  }
  bool HostSays() {
    if (!host_.connection.has_outgoing()) return false;
    (void)bus_->HandleMessage(host_.connection.outgoing_front());
    host_.connection.PopOutgoing();
    return true;
  }
  void Messages() {
    while (GuestSays() || HostSays()) {
    }
  }
  void Pump() {
    for (int i = 0; i < 50; ++i) {
      Messages();
      (void)host_.end.endpoint->Poll(64);
      (void)bus_->Poll();
    }
  }
  void Connect() {
    ASSERT_TRUE(bus_->Connect().ok());
    Pump();
  }
  SendResult Send(const std::string& payload) {
    Request request;
    request.payload = ToBytes(payload);
    return driver_.channel->Send(request);
  }
  bool AllPagesAreFree() {
    const absl::StatusOr<PageRun> all = pages_.Allocate(kRamPages - 1);
    if (all.ok()) pages_.Free(*all);
    return all.ok();
  }

  BusOptions options_;
  std::unique_ptr<MemfdGuestMemory> memory_;
  GuestPages pages_;
  testing::CountingDoorbell doorbell_;
  TestHost host_;
  TestDriver driver_;
  uint8_t instance_ = 1;
  std::unique_ptr<Bus> bus_;
};

TEST_F(BusTest, ADriverGetsItsChannelAndItsAnswers) {
  Offer();
  Connect();
  ASSERT_EQ(driver_.opens, 1);
  EXPECT_TRUE(bus_->status().ok()) << bus_->status().ToString();
  ASSERT_EQ(Send(Numbered(1)), SendResult::kOk);
  driver_.channel->Flush();
  Pump();
  EXPECT_EQ(driver_.completions, 1);
  ASSERT_TRUE(bus_->Close(&driver_).ok());
  Pump();
  EXPECT_EQ(driver_.closes, 1);
  EXPECT_TRUE(AllPagesAreFree());
  EXPECT_EQ(bus_->Close(&driver_).code(), absl::StatusCode::kNotFound);
}

// The natural moment: the last answer is in.
TEST_F(BusTest, ADriverMayCloseItsChannelInACompletion) {
  Offer();
  Connect();
  driver_.on_completion = [this] { EXPECT_TRUE(bus_->Close(&driver_).ok()); };
  ASSERT_EQ(Send(Numbered(1)), SendResult::kOk);
  ASSERT_EQ(Send(Numbered(2)), SendResult::kOk);
  driver_.channel->Flush();
  Pump();
  EXPECT_EQ(driver_.completions, 1);
  EXPECT_EQ(driver_.closes, 1);
  EXPECT_TRUE(AllPagesAreFree());
}

// promise:P3
TEST_F(BusTest, WhatADriverSendsFromOnRoomIsSeen) {
  Offer();
  Connect();
  const std::string payload = Numbered(1) + std::string(992, 'x');
  int sent = 0;
  driver_.on_room = [&] {
    while (sent < 30 && Send(payload) == SendResult::kOk) ++sent;
  };
  driver_.on_room();
  driver_.channel->Flush();
  EXPECT_LT(sent, 10);
  // Only signals move things from here on.
  uint64_t rings = 0;
  for (int i = 0; i < 100; ++i) {
    if (std::exchange(rings, doorbell_.rings) != doorbell_.rings) {
      while (host_.end.endpoint->Poll(64)) {
      }
    }
    (void)bus_->Poll();
  }
  EXPECT_EQ(sent, 30);
  EXPECT_EQ(driver_.completions, 30);
}

TEST_F(BusTest, AnOpenThatIsRefusedGivesItsPagesBack) {
  host_.refuses = true;
  Offer();
  Connect();
  EXPECT_EQ(driver_.opens, 0);
  EXPECT_EQ(bus_->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(AllPagesAreFree());
}

TEST_F(BusTest, ARescindClosesAndGivesEverythingBack) {
  const OfferId offer = Offer();
  Connect();
  ASSERT_TRUE(host_.connection.RescindOffer(offer).ok());
  Pump();
  EXPECT_EQ(driver_.closes, 1);
  EXPECT_TRUE(AllPagesAreFree());
  EXPECT_FALSE(host_.connection.FindOffer(offer).has_value());
  EXPECT_TRUE(bus_->status().ok()) << bus_->status().ToString();
  Offer();
  Pump();
  EXPECT_EQ(driver_.opens, 2);
}

// At every message of an opening.
TEST_F(BusTest, ARescindWhileOpeningGivesEverythingBack) {
  for (int step = 0; step < 12; ++step) {
    SCOPED_TRACE(step);
    TestDriver driver;
    bus_ = std::make_unique<Bus>(options_, memory_.get(), &pages_, &doorbell_);
    bus_->AddDriver(Type(7), &driver);
    const OfferId offer = Offer();
    ASSERT_TRUE(bus_->Connect().ok());
    for (int i = 0; i < step; ++i) {
      if (!HostSays()) (void)GuestSays();
    }
    ASSERT_TRUE(host_.connection.RescindOffer(offer).ok());
    Pump();
    EXPECT_EQ(driver.opens, driver.closes);
    EXPECT_TRUE(AllPagesAreFree());
    EXPECT_FALSE(host_.connection.FindOffer(offer).has_value());
    // An open that the guest had sent is never answered after a rescind.
    Offer();
    Pump();
    EXPECT_EQ(driver.opens, driver.closes + 1);
    ASSERT_TRUE(bus_->Unload().ok());
    Pump();
    EXPECT_TRUE(AllPagesAreFree());
    for (uint32_t id = 1; id < 40; ++id) {
      const auto left = host_.connection.FindOfferByChannelId(ChannelId{id});
      if (left.has_value()) (void)host_.connection.RescindOffer(*left);
    }
  }
}

// At every message of an opening: the host may be opening the channel, or have
// opened it, without the driver's knowledge.
TEST_F(BusTest, ADriverRemovedWhileOpeningMayComeAgain) {
  for (int step = 0; step < 14; ++step) {
    SCOPED_TRACE(step);
    TestDriver driver;
    bus_ = std::make_unique<Bus>(options_, memory_.get(), &pages_, &doorbell_);
    bus_->AddDriver(Type(7), &driver);
    const OfferId offer = Offer();
    ASSERT_TRUE(bus_->Connect().ok());
    for (int i = 0; i < step; ++i) {
      if (!HostSays()) (void)GuestSays();
    }
    bus_->RemoveDriver(&driver);
    Pump();
    EXPECT_EQ(driver.opens, driver.closes);
    EXPECT_EQ(bus_->channel(&driver), nullptr);
    EXPECT_TRUE(AllPagesAreFree());
    EXPECT_EQ(host_.connection.FindOffer(offer)->state,
              ServerChannelState::kClosed);
    bus_->AddDriver(Type(7), &driver);
    Pump();
    EXPECT_EQ(driver.opens, driver.closes + 1);
    ASSERT_TRUE(bus_->Unload().ok());
    Pump();
    EXPECT_TRUE(AllPagesAreFree());
    (void)host_.connection.RescindOffer(offer);
  }
}

// An open that a rescind has overtaken is never answered, also when nobody is
// interested any more.
TEST_F(BusTest, ARescindAfterTheDriverWasRemovedGivesEverythingBack) {
  for (int step = 0; step < 14; ++step) {
    SCOPED_TRACE(step);
    TestDriver driver;
    bus_ = std::make_unique<Bus>(options_, memory_.get(), &pages_, &doorbell_);
    bus_->AddDriver(Type(7), &driver);
    const OfferId offer = Offer();
    ASSERT_TRUE(bus_->Connect().ok());
    for (int i = 0; i < step; ++i) {
      if (!HostSays()) (void)GuestSays();
    }
    bus_->RemoveDriver(&driver);
    ASSERT_TRUE(host_.connection.RescindOffer(offer).ok());
    Pump();
    EXPECT_EQ(driver.opens, driver.closes);
    EXPECT_TRUE(AllPagesAreFree());
    EXPECT_FALSE(host_.connection.FindOffer(offer).has_value());
    ASSERT_TRUE(bus_->Unload().ok());
    Pump();
  }
}

// Open, closed and opened again between two polls.
TEST_F(BusTest, AChannelThatIsOpenedAgainIsToldOnce) {
  Offer();
  ASSERT_TRUE(bus_->Connect().ok());
  Messages();
  bus_->RemoveDriver(&driver_);
  Messages();
  ASSERT_EQ(bus_->channel(&driver_), nullptr);
  bus_->AddDriver(Type(7), &driver_);
  Messages();
  Pump();
  EXPECT_EQ(driver_.opens, 1);
  EXPECT_EQ(driver_.closes, 0);
}

TEST_F(BusTest, AnOfferThatCouldNotBeOpenedDoesNotKeepItsDriver) {
  const absl::StatusOr<PageRun> hog = pages_.Allocate(kRamPages - 1);
  ASSERT_TRUE(hog.ok());
  Offer();
  Connect();
  EXPECT_EQ(bus_->status().code(), absl::StatusCode::kResourceExhausted);
  pages_.Free(*hog);
  Offer();
  Pump();
  EXPECT_EQ(driver_.opens, 1);
}

// The host may write to them until it says that it has let go.
TEST_F(BusTest, PagesAreNotUsedAgainWhileTheHostHasThem) {
  Offer();
  Connect();
  ASSERT_TRUE(bus_->Close(&driver_).ok());
  while (GuestSays()) EXPECT_FALSE(AllPagesAreFree());
  EXPECT_FALSE(AllPagesAreFree());
  Messages();
  EXPECT_TRUE(AllPagesAreFree());
}

TEST_F(BusTest, UnloadClosesAndGivesEverythingBack) {
  Offer();
  Connect();
  ASSERT_TRUE(bus_->Unload().ok());
  Pump();
  EXPECT_EQ(driver_.closes, 1);
  EXPECT_TRUE(AllPagesAreFree());
  EXPECT_EQ(bus_->connection().phase(), ClientPhase::kDisconnected);
}

// promise:P8
TEST_F(BusTest, AHostThatBreaksTheRingLosesTheChannelOnly) {
  Offer();
  Connect();
  ASSERT_EQ(Send(Numbered(1)), SendResult::kOk);
  // The host-to-guest ring's write index.
  const uint32_t bad = 3;
  std::memcpy(memory_->Translate(3 * 4096, 4).data(), &bad, 4);
  bus_->Signal(1);
  (void)bus_->Poll();
  EXPECT_EQ(driver_.closes, 1);
  EXPECT_EQ(bus_->status().code(), absl::StatusCode::kDataLoss);
  Pump();
  EXPECT_TRUE(AllPagesAreFree());
}

TEST_F(BusTest, BuffersBecomeRanges) {
  Offer();
  Connect();
  std::vector<iovec> seen;
  host_.end.events.on_packet = [&](IncomingPacket packet) {
    const auto buffers = packet.guest_buffers();
    ASSERT_TRUE(buffers.ok()) << buffers.status().ToString();
    seen.assign(buffers->begin(), buffers->end());
    packet.Complete();
  };
  const GuestBuffer buffers[] = {{20 * 4096 + 100, 8000}, {40 * 4096, 4096}};
  Request request;
  request.buffers = buffers;
  ASSERT_EQ(driver_.channel->Send(request), SendResult::kOk);
  driver_.channel->Flush();
  Pump();
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0].iov_base, memory_->Translate(20 * 4096 + 100, 1).data());
  EXPECT_EQ(seen[0].iov_len, 8000u);
  EXPECT_EQ(seen[1].iov_len, 4096u);
  const GuestBuffer bad[] = {{4096, 0}};
  request.buffers = bad;
  EXPECT_EQ(driver_.channel->Send(request), SendResult::kTooLarge);
  const GuestBuffer huge[] = {{4096, 0xffffffff}};
  request.buffers = huge;
  EXPECT_EQ(driver_.channel->Send(request), SendResult::kTooLarge);
}

}  // namespace
}  // namespace ferrybus::vsc
