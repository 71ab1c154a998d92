// SPDX-License-Identifier: MIT

#include "ferrybus/vsc/bus.h"

#include "absl/status/status.h"
#include "ferrybus/channel/message_codec.h"
#include "ferrybus/vsc/bus_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsc {
namespace {

using testing::Numbered;

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

// At every message of the closing, or before it.
TEST_F(BusTest, WhatIsOfferedWhileARescindedChannelClosesIsOpenedAfterIt) {
  for (int step = 0; step < 8; ++step) {
    SCOPED_TRACE(step);
    TestDriver driver;
    bus_ = std::make_unique<Bus>(options_, memory_.get(), &pages_, &doorbell_);
    bus_->AddDriver(Type(7), &driver);
    const OfferId offer = Offer();
    Connect();
    ASSERT_EQ(driver.opens, 1);
    if (step == 0) Offer();
    ASSERT_TRUE(host_.connection.RescindOffer(offer).ok());
    for (int i = 1; i < step; ++i) {
      if (!HostSays()) (void)GuestSays();
    }
    if (step > 0) Offer();
    Pump();
    EXPECT_EQ(driver.closes, 1);
    EXPECT_EQ(driver.opens, 2);
    ASSERT_TRUE(bus_->Unload().ok());
    Pump();
    EXPECT_EQ(driver.closes, 2);
    EXPECT_TRUE(AllPagesAreFree());
    RescindAll();
  }
}

TEST_F(BusTest, WhatARemovedDriverHadGoesToOneThatWaits) {
  Offer();
  Connect();
  TestDriver waiting;
  bus_->AddDriver(Type(7), &waiting);
  bus_->RemoveDriver(&driver_);
  EXPECT_EQ(driver_.closes, 1);
  Pump();
  EXPECT_EQ(waiting.opens, 1);
  EXPECT_EQ(waiting.closes, 0);
}

TEST_F(BusTest, WhatItsDriverClosedStaysClosedWhenAnotherDriverComes) {
  Offer();
  Connect();
  ASSERT_TRUE(bus_->Close(&driver_).ok());
  Pump();
  TestDriver other;
  bus_->AddDriver(Type(8), &other);
  Pump();
  EXPECT_EQ(driver_.opens, 1);
  EXPECT_EQ(driver_.closes, 1);
  EXPECT_EQ(other.opens, 0);
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
    RescindAll();
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

// -- What a host may refuse --------------------------------------------------

TEST_F(BusTest, AHostThatSpeaksNoVersionOfOursIsReported) {
  ASSERT_TRUE(bus_->Connect().ok());
  const VersionResponseMessage refusal;
  int tries = 0;
  for (; bus_->has_outgoing() && tries < 100; ++tries) {
    bus_->PopOutgoing();
    ASSERT_TRUE(
        bus_->HandleMessage(
                EncodeVersionResponse(refusal, ProtocolVersion{}).bytes())
            .ok());
  }
  EXPECT_GT(tries, 1);
  EXPECT_EQ(bus_->status(),
            absl::UnimplementedError(
                "the host refused every version; the last tried was 0x20004"));
  EXPECT_EQ(bus_->connection().phase(), ClientPhase::kDisconnected);
}

TEST_F(BusTest, ARingThatTheHostRefusesGivesItsPagesBack) {
  // To this host the guest has no RAM but its first page.
  TestHost host(memory_.get(), 1);
  OfferParams params;
  params.interface_type = Type(7);
  ASSERT_TRUE(host.connection.AddOffer(params).ok());
  ASSERT_TRUE(bus_->Connect().ok());
  for (bool more = true; more; (void)bus_->Poll()) {
    more = false;
    for (; bus_->has_outgoing(); bus_->PopOutgoing(), more = true) {
      (void)host.connection.HandleMessage(bus_->outgoing_front());
    }
    for (; host.connection.has_outgoing(); host.connection.PopOutgoing()) {
      (void)bus_->HandleMessage(host.connection.outgoing_front());
      more = true;
    }
  }
  ASSERT_EQ(driver_.failures.size(), 1u);
  EXPECT_EQ(driver_.failures[0],
            absl::UnavailableError("channel 1: the host refused the ring "
                                   "buffer, status 0x8000ffff"));
  EXPECT_EQ(bus_->status(), driver_.failures[0]);
  EXPECT_EQ(driver_.opens, 0);
  EXPECT_TRUE(AllPagesAreFree());
  EXPECT_EQ(bus_->channel(&driver_), nullptr);
}

// More pages than one GPADL can name.
TEST_F(BusTest, ARingThatIsTooLongGivesItsPagesBack) {
  const auto memory = *MemfdGuestMemory::Create(10000 * 4096);
  GuestPages pages(memory.get());
  bus_ = std::make_unique<Bus>(options_, memory.get(), &pages, &doorbell_);
  DriverSettings settings;
  settings.outgoing_ring_pages = 9000;
  bus_->AddDriver(Type(7), &driver_, settings);
  Offer();
  Connect();
  ASSERT_EQ(driver_.failures.size(), 1u);
  EXPECT_EQ(driver_.failures[0].code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(bus_->channel(&driver_), nullptr);
  EXPECT_TRUE(pages.Allocate(9999).ok());
}

// -- Which offer is whose ----------------------------------------------------

TEST_F(BusTest, ADriverGetsTheInstanceThatItWants) {
  TestDriver second;
  DriverSettings settings;
  settings.instance = Type(2);
  bus_->RemoveDriver(&driver_);
  bus_->AddDriver(Type(7), &second, settings);
  bus_->AddDriver(Type(8), &driver_);
  Offer();
  Connect();
  EXPECT_EQ(second.opens, 0);
  Offer();
  Pump();
  ASSERT_EQ(second.opens, 1);
  EXPECT_EQ(bus_->channel(&second)->offer().interface_instance, Type(2));
  EXPECT_EQ(driver_.opens, 0) << "of another type";
  ASSERT_TRUE(bus_->Unload().ok());
  Pump();
}

// An answer to a socket's request is an offer with a flag; others of its names
// are not.
TEST_F(BusTest, OnlyTheHostsAnswerOpensASocket) {
  bus_->RemoveDriver(&driver_);
  Connect();
  ASSERT_TRUE(
      bus_->ConnectSocket(Type(7), Type(1), &driver_, DriverSettings()).ok());
  ASSERT_EQ(Type(instance_), Type(1));
  // Before the host has seen the request.
  Offer();
  while (HostSays()) {
  }
  (void)bus_->Poll();
  EXPECT_EQ(bus_->channel(&driver_), nullptr);
  // This host has no sockets.
  Pump();
  ASSERT_EQ(driver_.failures.size(), 1u);
  EXPECT_NE(driver_.failures[0].message().find("refused the socket"),
            absl::string_view::npos);
  EXPECT_EQ(driver_.opens, 0);
}

TEST_F(BusTest, ASocketThatNobodyAnsweredEndsWithTheConnection) {
  bus_->RemoveDriver(&driver_);
  Connect();
  ASSERT_TRUE(
      bus_->ConnectSocket(Type(9), Type(3), &driver_, DriverSettings()).ok());
  EXPECT_EQ(
      bus_->ConnectSocket(Type(9), Type(3), &driver_, DriverSettings()).code(),
      absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(bus_->Unload().ok());
  bus_->PopOutgoing();  // the request is lost
  Pump();
  ASSERT_EQ(driver_.failures.size(), 1u);
  EXPECT_NE(driver_.failures[0].message().find("before the host answered"),
            absl::string_view::npos);
  EXPECT_EQ(driver_.failures[0].code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace ferrybus::vsc
