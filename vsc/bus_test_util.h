// SPDX-License-Identifier: MIT
//
// A driver, a host and a bus between them, for the tests of vsc::Bus and its
// channels.
//
// Ownership: BusTest owns all of them.  Thread safety: none.

#ifndef FERRYBUS_VSC_BUS_TEST_UTIL_H_
#define FERRYBUS_VSC_BUS_TEST_UTIL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/channel/endpoint_test_util.h"
#include "ferrybus/channel/ring_pair.h"
#include "ferrybus/channel/server_connection.h"
#include "ferrybus/vsc/bus.h"
#include "gtest/gtest.h"

namespace ferrybus::vsc {

inline constexpr uint64_t kRamPages = 64;

inline Guid Type(uint8_t number) {
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
  void OnCompletion(uint64_t tag, absl::Span<const std::byte>) override {
    ++completions;
    last_tag = tag;
    if (on_completion) on_completion();
  }
  void OnClosed() override {
    channel = nullptr;
    ++closes;
  }
  void OnStarted() override { ++starts; }
  void OnSuspend() override { ++suspends; }
  void OnPacket(IncomingPacket packet) override {
    packets.push_back(testing::ToString(packet.payload()));
    packet.Complete();
  }
  void OnSent(uint64_t tag) override { sent.push_back(tag); }
  void OnOpenFailed(const absl::Status& status) override {
    failures.push_back(status);
  }
  void OnGpadlCreated(GpadlHandle gpadl, bool accepted) override {
    created.emplace_back(gpadl, accepted);
  }
  void OnGpadlDeleted(GpadlHandle gpadl) override { deleted.push_back(gpadl); }
  void OnRoom() override {
    ++rooms;
    if (on_room) on_room();
  }

  ClientChannel* channel = nullptr;
  int opens = 0;
  int starts = 0;
  int suspends = 0;
  int completions = 0;
  uint64_t last_tag = 0;
  int closes = 0;
  int rooms = 0;
  std::vector<std::string> packets;
  std::vector<uint64_t> sent;
  std::vector<absl::Status> failures;
  std::vector<std::pair<GpadlHandle, bool>> created;
  std::vector<GpadlHandle> deleted;
  std::function<void()> on_completion;
  std::function<void()> on_room;
};

// A host: its connection's state machine and one channel's endpoint.
class TestHost final : public ServerEvents {
 public:
  explicit TestHost(const GuestMemory* memory, uint64_t ram_pages = kRamPages)
      : memory_(memory), connection(Options(ram_pages), this) {
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
  static ServerConnectionOptions Options(uint64_t ram_pages) {
    ServerConnectionOptions options;
    options.ram_page_count = ram_pages;
    return options;
  }
  const GuestMemory* const memory_;

 public:
  ServerConnection connection;
  testing::EndpointEnd end;
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

  OfferId Offer(uint16_t flags = 0) {
    OfferParams params;
    params.interface_type = Type(7);
    params.flags = flags;
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
    request.payload = testing::ToBytes(payload);
    return driver_.channel->Send(request);
  }
  void RescindAll() {
    for (uint32_t id = 1; id < 40; ++id) {
      const auto left = host_.connection.FindOfferByChannelId(ChannelId{id});
      if (left.has_value()) (void)host_.connection.RescindOffer(*left);
    }
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

}  // namespace ferrybus::vsc

#endif  // FERRYBUS_VSC_BUS_TEST_UTIL_H_
