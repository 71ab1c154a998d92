// SPDX-License-Identifier: MIT

#include "ferrybus/vsc/guest_port.h"

#include <poll.h>
#include <sys/socket.h>

#include <vector>

#include "absl/status/status.h"
#include "ferrybus/channel/transport/message_socket.h"
#include "ferrybus/vsc/bus_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsc {
namespace {

// A bus whose host is behind a port: only messages and signals get there.
class GuestPortTest : public ::testing::Test {
 protected:
  GuestPortTest()
      : memory_(*MemfdGuestMemory::Create(kRamPages * 4096)),
        pages_(memory_.get()),
        pair_(*CreatePort(memory_->file())),
        host_socket_(pair_.host.messages.get(), MessageSocket::Role::kHost),
        host_(memory_.get()),
        port_(*GuestPort::Open(*DuplicatePort(pair_.guest))),
        bus_(std::make_unique<Bus>(Options(), memory_.get(), &pages_,
                                   port_->doorbell())) {
    bus_->AddDriver(Type(7), &driver_);
    OfferParams params;
    params.interface_type = Type(7);
    EXPECT_TRUE(host_.connection.AddOffer(params).ok());
    host_.end.events.on_packet = [](IncomingPacket packet) {
      packet.Complete(packet.payload());
    };
  }

  static BusOptions Options() {
    BusOptions options;
    options.ring_data_pages = 1;
    return options;
  }
  void HostServes() {
    for (auto message = host_socket_.Receive(); message.ok();
         message = host_socket_.Receive()) {
      (void)host_.connection.HandleMessage(message->payload(),
                                           message->connection_id);
    }
    while (host_.connection.has_outgoing()) {
      if (!host_socket_.Send(0, host_.connection.outgoing_front())) return;
      host_.connection.PopOutgoing();
    }
  }
  void Connect() {
    ASSERT_TRUE(bus_->Connect().ok());
    for (int i = 0; i < 20; ++i) {
      (void)port_->Pump(*bus_);
      HostServes();
    }
    ASSERT_EQ(driver_.opens, 1);
  }
  bool Wakes() const {
    pollfd fds[2] = {{port_->wait_fds()[0], POLLIN, 0},
                     {port_->wait_fds()[1], POLLIN, 0}};
    return poll(fds, 2, 0) > 0;
  }
  bool HostIsWoken() const {
    pollfd fd = {pair_.host.host_event.get(), POLLIN, 0};
    return poll(&fd, 1, 0) > 0;
  }

  std::unique_ptr<MemfdGuestMemory> memory_;
  GuestPages pages_;
  PortPair pair_;
  MessageSocket host_socket_;
  TestHost host_;
  TestDriver driver_;
  std::unique_ptr<GuestPort> port_;
  std::unique_ptr<Bus> bus_;
};

TEST_F(GuestPortTest, APortWithoutAPageOfSignalsIsRefused) {
  Port port = *DuplicatePort(pair_.guest);
  port.signals = UniqueFd();
  EXPECT_FALSE(GuestPort::Open(std::move(port)).ok());
}

TEST_F(GuestPortTest, MessagesAndSignalsGoBothWays) {
  Connect();
  EXPECT_EQ(bus_->connection().phase(), ClientPhase::kConnected);
  EXPECT_FALSE(Wakes());
  EXPECT_FALSE(HostIsWoken());
  Request request;
  request.payload = testing::ToBytes("12345678");
  ASSERT_EQ(driver_.channel->Send(request), SendResult::kOk);
  driver_.channel->Flush();
  EXPECT_TRUE(HostIsWoken());
  (void)host_.end.endpoint->Poll(64);
  const SignalPage page = *SignalPage::Map(pair_.host.signals.get());
  SignalSender sender(page, SignalDirection::kHostToGuest,
                      pair_.host.guest_event.get());
  EXPECT_FALSE(port_->Pump(*bus_));
  EXPECT_EQ(driver_.completions, 0) << "nobody was signalled";
  sender.Ring(1);
  EXPECT_TRUE(Wakes());
  (void)port_->Pump(*bus_);
  EXPECT_EQ(driver_.completions, 1);
  EXPECT_FALSE(Wakes());
}

TEST_F(GuestPortTest, WhatIsNoMessageIsSkipped) {
  ASSERT_TRUE(bus_->Connect().ok());
  (void)port_->Pump(*bus_);
  ASSERT_EQ(send(pair_.host.messages.get(), "x", 1, MSG_DONTWAIT), 1);
  HostServes();
  for (int i = 0; i < 20; ++i) {
    (void)port_->Pump(*bus_);
    HostServes();
  }
  EXPECT_EQ(bus_->connection().phase(), ClientPhase::kConnected);
  EXPECT_FALSE(port_->peer_gone());
}

TEST_F(GuestPortTest, AFloodIsTakenInPortions) {
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(send(pair_.host.messages.get(), "x", 1, MSG_DONTWAIT), 1);
  }
  EXPECT_TRUE(port_->Pump(*bus_));
  EXPECT_TRUE(Wakes());
  EXPECT_FALSE(port_->Pump(*bus_));
  EXPECT_FALSE(Wakes());
}

TEST_F(GuestPortTest, AHostThatIsGoneIsNoticedOnce) {
  Connect();
  EXPECT_FALSE(port_->peer_gone());
  { const UniqueFd closed = std::move(pair_.host.messages); }
  EXPECT_FALSE(port_->Pump(*bus_));
  EXPECT_TRUE(port_->peer_gone());
  EXPECT_FALSE(port_->Pump(*bus_)) << "a caller would spin";
}

TEST_F(GuestPortTest, AHostThatReadsNothingLosesNothing) {
  Connect();
  const int small = 1;  // the kernel takes its least
  ASSERT_EQ(setsockopt(pair_.guest.messages.get(), SOL_SOCKET, SO_SNDBUF,
                       &small, sizeof(small)),
            0);
  RingChannel& channel = *bus_->channel(&driver_);
  const std::vector<uint64_t> page = {40};
  constexpr size_t kBuffers = 200;
  for (size_t i = 0; i < kBuffers; ++i) {
    ASSERT_TRUE(
        channel.CreateGpadl(page, 4096, 0, GuestAccess::kReadWrite).ok());
  }
  EXPECT_TRUE(port_->Pump(*bus_)) << "the rest has to be sent";
  EXPECT_TRUE(bus_->has_outgoing());
  EXPECT_TRUE(port_->Pump(*bus_));
  for (size_t i = 0; i < 2 * kBuffers && driver_.created.size() < kBuffers;
       ++i) {
    HostServes();
    (void)port_->Pump(*bus_);
  }
  ASSERT_EQ(driver_.created.size(), kBuffers);
  for (size_t i = 1; i < kBuffers; ++i) {
    EXPECT_TRUE(driver_.created[i].second);
    EXPECT_LT(driver_.created[i - 1].first, driver_.created[i].first);
  }
  EXPECT_FALSE(port_->Pump(*bus_));
}

}  // namespace
}  // namespace ferrybus::vsc
