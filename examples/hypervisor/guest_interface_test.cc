// SPDX-License-Identifier: MIT
//
// What a guest reaches of the hypervisor itself: hypercalls, registers, SynIC,
// the bridge.  No KVM is needed.

#include <array>
#include <atomic>
#include <cstring>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/channel/transport/message_socket.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/channel/transport/signal_page.h"
#include "ferrybus/examples/hypervisor/bus_bridge.h"
#include "ferrybus/examples/hypervisor/hypercalls.h"
#include "ferrybus/examples/hypervisor/hyperv.h"
#include "ferrybus/examples/hypervisor/hyperv_msrs.h"
#include "ferrybus/examples/hypervisor/synic.h"
#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::hypervisor {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr uint64_t kRamBytes = 64 * 4096;
constexpr uint64_t kMessagePage = 0x5000;
constexpr uint64_t kFlagsPage = 0x6000;
constexpr uint64_t kSlot = kMessagePage + 2 * 256;
constexpr uint64_t kFlags = kFlagsPage + 2 * 256;

class RecordingSink final : public HypercallSink {
 public:
  HypercallStatus PostMessage(uint32_t connection_id,
                              absl::Span<const std::byte> payload) override {
    messages.emplace_back(connection_id, payload.size());
    return HypercallStatus::kSuccess;
  }
  HypercallStatus SignalEvent(uint64_t input) override {
    signals.push_back(input);
    return HypercallStatus::kSuccess;
  }
  std::vector<std::pair<uint32_t, size_t>> messages;
  std::vector<uint64_t> signals;
};

class GuestInterfaceTest : public testing::Test {
 protected:
  GuestInterfaceTest()
      : memory_(*MemfdGuestMemory::Create(kRamBytes)),
        synic_(memory_.get(), 2, [this](uint32_t vp, uint64_t sint) {
          interrupts_.emplace_back(vp, sint);
        }) {}

  template <typename T>
  void Put(uint64_t address, T value) {
    std::memcpy(memory_->Translate(address, sizeof(T)).data(), &value,
                sizeof(T));
  }
  template <typename T>
  T Get(uint64_t address) const {
    T value;
    std::memcpy(&value, memory_->Translate(address, sizeof(T)).data(),
                sizeof(T));
    return value;
  }
  HypercallStatus Call(uint64_t control, uint64_t input) {
    return HandleHypercall({control, input}, *memory_, &sink_);
  }
  void PutMessage(uint64_t address, uint32_t type, uint32_t bytes) {
    Put<uint32_t>(address, 4);
    Put<uint32_t>(address + 8, type);
    Put<uint32_t>(address + 12, bytes);
  }
  void EnableSynic(uint32_t vp) {
    synic_.WriteMsr(vp, kMsrMessagePage, kMessagePage | kPageEnable);
    synic_.WriteMsr(vp, kMsrEventFlagsPage, kFlagsPage | kPageEnable);
    synic_.WriteMsr(vp, kMsrSint0 + kVmbusSint, 0xf3);
    synic_.WriteMsr(vp, kMsrSynicControl, kPageEnable);
  }

  std::unique_ptr<MemfdGuestMemory> memory_;
  RecordingSink sink_;
  std::vector<std::pair<uint32_t, uint64_t>> interrupts_;
  Synic synic_;
};

// -- Hypercalls

TEST_F(GuestInterfaceTest, PostMessageTakesACopyOfTheInput) {
  PutMessage(0x1000, 1, 240);
  EXPECT_EQ(Call(kHypercallPostMessage, 0x1000), HypercallStatus::kSuccess);
  EXPECT_THAT(sink_.messages, ElementsAre(Pair(4, 240)));
}

TEST_F(GuestInterfaceTest, WrongMessagesGetAStatusAndNothingElse) {
  PutMessage(0x1000, 1, 241);
  EXPECT_EQ(Call(kHypercallPostMessage, 0x1000),
            HypercallStatus::kInvalidParameter);
  PutMessage(0x1000, 2, 16);
  EXPECT_EQ(Call(kHypercallPostMessage, 0x1000),
            HypercallStatus::kInvalidParameter);
  PutMessage(0x1000, 1, 16);
  EXPECT_EQ(Call(kHypercallPostMessage, 0x1004),
            HypercallStatus::kInvalidAlignment);
  EXPECT_EQ(Call(kHypercallPostMessage, 0x1f08),
            HypercallStatus::kInvalidAlignment);
  for (const uint64_t address : {kRamBytes, ~uint64_t{4095}}) {
    EXPECT_EQ(Call(kHypercallPostMessage, address),
              HypercallStatus::kInvalidParameter);
  }
  EXPECT_EQ(Call(kHypercallPostMessage | kHypercallFast, 0x1000),
            HypercallStatus::kInvalidInput);
  EXPECT_THAT(sink_.messages, IsEmpty());
}

TEST_F(GuestInterfaceTest, SignalEventComesInARegisterOrInMemory) {
  EXPECT_EQ(Call(kHypercallSignalEvent | kHypercallFast, 0x2003),
            HypercallStatus::kSuccess);
  Put<uint64_t>(0x1ff8, 0x2004);
  EXPECT_EQ(Call(kHypercallSignalEvent, 0x1ff8), HypercallStatus::kSuccess);
  EXPECT_EQ(Call(kHypercallSignalEvent, kRamBytes),
            HypercallStatus::kInvalidParameter);
  EXPECT_THAT(sink_.signals, ElementsAre(0x2003, 0x2004));
}

TEST_F(GuestInterfaceTest, UnknownHypercallsAreRefused) {
  EXPECT_EQ(Call(0, 0), HypercallStatus::kInvalidCode);
  EXPECT_EQ(Call(0x46, 0), HypercallStatus::kInvalidCode);
  EXPECT_EQ(Call(kHypercallSignalEvent | uint64_t{1} << 32, 0x1000),
            HypercallStatus::kInvalidInput);
}

// -- SynIC

TEST_F(GuestInterfaceTest, MessagesNeedThePageAndTheControlRegister) {
  const std::array<std::byte, 16> payload = {};
  EXPECT_EQ(synic_.PostMessage(0, payload), Synic::Delivery::kDropped);
  EnableSynic(0);
  synic_.WriteMsr(0, kMsrSynicControl, 0);
  EXPECT_EQ(synic_.PostMessage(0, payload), Synic::Delivery::kDropped);
  EnableSynic(0);
  EXPECT_EQ(synic_.PostMessage(0, payload), Synic::Delivery::kDelivered);
  EXPECT_EQ(synic_.PostMessage(1, payload), Synic::Delivery::kDropped);
  EXPECT_EQ(synic_.PostMessage(2, payload), Synic::Delivery::kDropped);
  synic_.WriteMsr(0, kMsrMessagePage, kRamBytes | kPageEnable);
  EXPECT_EQ(synic_.PostMessage(0, payload), Synic::Delivery::kDropped);
  EXPECT_THAT(interrupts_, ElementsAre(Pair(0, 0xf3)));
}

// bad:C13
TEST_F(GuestInterfaceTest, ABusySlotIsLeftAloneAndMarked) {
  EnableSynic(0);
  const std::array<std::byte, 3> first = {std::byte{1}, std::byte{2},
                                          std::byte{3}};
  const std::array<std::byte, 1> second = {std::byte{9}};
  ASSERT_EQ(synic_.PostMessage(0, first), Synic::Delivery::kDelivered);
  EXPECT_EQ(Get<uint32_t>(kSlot), 1u);
  EXPECT_EQ(Get<uint8_t>(kSlot + 4), 3);
  EXPECT_EQ(Get<uint8_t>(kSlot + 5), 0);
  EXPECT_EQ(synic_.PostMessage(0, second), Synic::Delivery::kSlotBusy);
  EXPECT_EQ(Get<uint8_t>(kSlot + 5), 1);  // another one waits
  EXPECT_EQ(Get<uint8_t>(kSlot + 18), 3);
  Put<uint32_t>(kSlot, 0);
  EXPECT_EQ(synic_.PostMessage(0, second), Synic::Delivery::kDelivered);
  EXPECT_EQ(Get<uint8_t>(kSlot + 16), 9);
  EXPECT_EQ(interrupts_.size(), 2u);
}

TEST_F(GuestInterfaceTest, AnEventFlagInterruptsOnceUntilTheGuestTakesIt) {
  EnableSynic(1);
  synic_.SetEventFlag(1, 37);
  synic_.SetEventFlag(1, 37);
  EXPECT_EQ(Get<uint64_t>(kFlags), uint64_t{1} << 37);
  EXPECT_EQ(interrupts_.size(), 1u);
  Put<uint64_t>(kFlags, 0);
  synic_.SetEventFlag(1, 37);
  EXPECT_EQ(interrupts_.size(), 2u);
}

TEST_F(GuestInterfaceTest, EventFlagsGoNowhereElse) {
  EnableSynic(0);
  synic_.SetEventFlag(0, 2048);
  synic_.SetEventFlag(1, 1);  // has no page
  synic_.SetEventFlag(2, 1);
  synic_.WriteMsr(0, kMsrEventFlagsPage, ~uint64_t{0});
  synic_.SetEventFlag(0, 1);
  EXPECT_THAT(interrupts_, IsEmpty());
}

// -- Registers

TEST_F(GuestInterfaceTest, TheHypercallPageComesWithTheGuestsId) {
  HypervMsrs msrs(memory_.get(), &synic_, 0);
  const auto no_tsc = [] { return uint64_t{0}; };
  EXPECT_TRUE(msrs.Write(0, kMsrHypercall, 0x3001, no_tsc));
  EXPECT_EQ(Get<uint32_t>(0x3000), 0u);
  EXPECT_TRUE(msrs.Write(0, kMsrGuestOsId, 0x8100, no_tsc));
  EXPECT_TRUE(msrs.Write(0, kMsrHypercall, 0x3001, no_tsc));
  EXPECT_EQ(Get<uint32_t>(0x3000), 0x00c300e7u | kHypercallPort << 8);
  EXPECT_FALSE(msrs.Write(0, kMsrHypercall, kRamBytes | 1, no_tsc));
}

TEST_F(GuestInterfaceTest, UnknownRegistersFault) {
  HypervMsrs msrs(memory_.get(), &synic_, 0);
  uint64_t value = 0;
  EXPECT_FALSE(msrs.Read(0, 0x400000ff, &value));
  EXPECT_FALSE(msrs.Write(0, 0x400000ff, 1, [] { return uint64_t{0}; }));
  EXPECT_FALSE(msrs.Write(0, kMsrVpIndex, 1, [] { return uint64_t{0}; }));
  EXPECT_TRUE(msrs.Read(1, kMsrVpIndex, &value));
  EXPECT_EQ(value, 1u);
}

TEST_F(GuestInterfaceTest, TheTimePageAgreesWithTheTimeRegister) {
  HypervMsrs msrs(memory_.get(), &synic_, 0);
  constexpr uint64_t kTsc = 5'000'000'000;
  constexpr uint64_t kHz = 2'500'000'000;
  msrs.SetTscFrequency(kHz);
  uint64_t before = 0, after = 0;
  EXPECT_TRUE(msrs.Read(0, kMsrTimeRefCount, &before));
  EXPECT_TRUE(msrs.Write(0, kMsrReferenceTsc, 0x4001, [] { return kTsc; }));
  EXPECT_TRUE(msrs.Read(0, kMsrTimeRefCount, &after));
  EXPECT_EQ(Get<uint32_t>(0x4000), 1u);
  __extension__ using Wide = unsigned __int128;
  const auto time =
      static_cast<uint64_t>(Wide{kTsc} * Get<uint64_t>(0x4008) >> 64) +
      Get<uint64_t>(0x4010);
  EXPECT_GE(time, before);
  EXPECT_LE(time, after);
  EXPECT_FALSE(
      msrs.Write(0, kMsrReferenceTsc, kRamBytes | 1, [] { return kTsc; }));
}

// -- Bridge

class BusBridgeTest : public GuestInterfaceTest {
 protected:
  void SetUp() override {
    PortPair port = *CreatePort(memory_->file());
    host_ = std::move(port.host);
    bridge_ = *BusBridge::Open(std::move(port.guest), &synic_);
    signals_.emplace(*SignalPage::Map(host_.signals.get()));
  }

  Port host_;
  std::optional<SignalPage> signals_;
  std::unique_ptr<BusBridge> bridge_;
};

TEST_F(BusBridgeTest, SignalsOfChannelsReachTheHostOthersNobody) {
  EXPECT_EQ(bridge_->SignalEvent(0x2005), HypercallStatus::kSuccess);
  for (const uint64_t wrong :
       {uint64_t{0}, uint64_t{5}, uint64_t{0x2000}, uint64_t{0x3005},
        uint64_t{0x2005} | uint64_t{1} << 32, ~uint64_t{0}}) {
    EXPECT_EQ(bridge_->SignalEvent(wrong),
              HypercallStatus::kInvalidConnectionId);
  }
  std::vector<uint32_t> taken;
  SignalReceiver(*signals_, SignalDirection::kGuestToHost,
                 host_.host_event.get())
      .Take([&](uint32_t channel) { taken.push_back(channel); });
  EXPECT_THAT(taken, ElementsAre(5));
}

// KVM rings for the channels that are open, here and where the guest goes on.
TEST_F(BusBridgeTest, DoorbellsFollowTheChannels) {
  std::vector<std::pair<uint32_t, bool>> switched;
  const auto open_bridge = [&](PortPair port) {
    const int event = port.guest.host_event.get();
    return *BusBridge::Open(
        std::move(port.guest), &synic_,
        [&switched, event](uint32_t connection_id, int its_event, bool on) {
          EXPECT_EQ(its_event, event);
          switched.emplace_back(connection_id, on);
        });
  };
  const auto bridge = open_bridge(*CreatePort(memory_->file()));
  const auto post = [&bridge](const auto& message) {
    EXPECT_EQ(
        bridge->PostMessage(
            4, {reinterpret_cast<const std::byte*>(&message), sizeof(message)}),
        HypercallStatus::kSuccess);
  };
  const auto open = [&post](uint32_t channel) {
    OpenChannelMessage message;
    message.channel_id = ChannelId{channel};
    post(message);
  };
  open(5);
  open(5);
  open(9);
  open(0);
  open(2048);
  EXPECT_THAT(switched, ElementsAre(Pair(0x2005, true), Pair(0x2009, true)));
  switched.clear();
  CloseChannelMessage close;
  close.channel_id = ChannelId{5};
  post(close);
  post(close);
  EXPECT_THAT(switched, ElementsAre(Pair(0x2005, false)));
  switched.clear();

  const Port host;
  PortPair port = *CreatePort(memory_->file());
  const PortState state = bridge->Drain(host_);
  const auto next = open_bridge(std::move(port));
  next->Fill(state);
  EXPECT_THAT(switched, ElementsAre(Pair(0x2009, true)));
  switched.clear();
  // The guest begins anew.
  post(UnloadMessage());
  EXPECT_THAT(switched, ElementsAre(Pair(0x2009, false)));
  EXPECT_EQ(bridge->hypercalls(), 8u);
}

// Each doorbell takes the kernel's time, so a guest that opens all
// channel numbers gets a few.
TEST_F(BusBridgeTest, DoorbellsAreLimited) {
  std::vector<uint32_t> on;
  PortPair port = *CreatePort(memory_->file());
  const auto bridge =
      *BusBridge::Open(std::move(port.guest), &synic_,
                       [&on](uint32_t connection_id, int, bool is_on) {
                         if (is_on) {
                           on.push_back(connection_id);
                         } else {
                           std::erase(on, connection_id);
                         }
                       });
  MessageSocket host(port.host.messages.get(), MessageSocket::Role::kHost);
  const auto post = [&](const auto& message) {
    ASSERT_EQ(
        bridge->PostMessage(
            4, {reinterpret_cast<const std::byte*>(&message), sizeof(message)}),
        HypercallStatus::kSuccess);
    ASSERT_TRUE(host.Receive().ok());
  };
  for (uint32_t channel = 1; channel <= kMaxChannelId; ++channel) {
    OpenChannelMessage open;
    open.channel_id = ChannelId{channel};
    post(open);
  }
  EXPECT_EQ(on.size(), 64u);
  CloseChannelMessage close;
  close.channel_id = ChannelId{1};
  post(close);
  EXPECT_EQ(on.size(), 63u);
  OpenChannelMessage open;
  open.channel_id = ChannelId{1};
  post(open);
  EXPECT_EQ(on.size(), 64u);
  post(UnloadMessage());
  EXPECT_THAT(on, IsEmpty());
}

TEST_F(BusBridgeTest, AFullSocketIsBackPressure) {
  const std::array<std::byte, 240> payload = {};
  EXPECT_EQ(bridge_->PostMessage(7, payload),
            HypercallStatus::kInvalidConnectionId);
  HypercallStatus status = HypercallStatus::kSuccess;
  for (int i = 0; i < 100'000 && status == HypercallStatus::kSuccess; ++i) {
    status = bridge_->PostMessage(4, payload);
  }
  EXPECT_EQ(status, HypercallStatus::kInsufficientBuffers);
}

TEST_F(BusBridgeTest, MessagesWaitForTheSlotAndFlagsGoToTheChannelsProcessor) {
  EnableSynic(0);
  EnableSynic(1);
  OpenChannelMessage open;
  open.channel_id = ChannelId{9};
  open.target_vp = 1;
  EXPECT_EQ(bridge_->PostMessage(
                4, {reinterpret_cast<const std::byte*>(&open), sizeof(open)}),
            HypercallStatus::kSuccess);
  MessageSocket host(host_.messages.get(), MessageSocket::Role::kHost);
  const std::array<std::byte, 1> one = {std::byte{1}}, two = {std::byte{2}};
  ASSERT_TRUE(host.Send(0, one));
  ASSERT_TRUE(host.Send(0, two));
  SignalSender(*signals_, SignalDirection::kHostToGuest,
               host_.guest_event.get())
      .Ring(9);

  std::thread runner([this] { bridge_->Run(); });
  const auto wait_for = [](auto condition) {
    while (!condition()) std::this_thread::yield();
  };
  const auto type_at_slot = [this] {
    return std::atomic_ref<uint32_t>(
        *reinterpret_cast<uint32_t*>(memory_->Translate(kSlot, 4).data()));
  };
  wait_for([&] { return type_at_slot().load() == 1; });
  EXPECT_EQ(Get<uint8_t>(kSlot + 16), 1);
  type_at_slot().store(0);
  wait_for([&] { return type_at_slot().load() == 1; });
  EXPECT_EQ(Get<uint8_t>(kSlot + 16), 2);
  bridge_->Stop();
  runner.join();
  EXPECT_EQ(Get<uint32_t>(kFlags), uint32_t{1} << 9);
  EXPECT_THAT(interrupts_, testing::Contains(Pair(1, 0xf3)));
}

// promise:P1: what neither side had taken goes on in another process's port.
TEST_F(BusBridgeTest, WhatIsUnderWayComesOutAndGoesInElsewhere) {
  EnableSynic(0);
  EnableSynic(1);
  OpenChannelMessage open;
  open.channel_id = ChannelId{9};
  open.target_vp = 1;
  ASSERT_EQ(bridge_->PostMessage(
                4, {reinterpret_cast<const std::byte*>(&open), sizeof(open)}),
            HypercallStatus::kSuccess);
  ASSERT_EQ(bridge_->SignalEvent(0x2005), HypercallStatus::kSuccess);
  MessageSocket host(host_.messages.get(), MessageSocket::Role::kHost);
  for (const std::byte number : {std::byte{1}, std::byte{2}, std::byte{3}}) {
    ASSERT_TRUE(host.Send(0, {&number, 1}));
  }
  SignalSender(*signals_, SignalDirection::kHostToGuest,
               host_.guest_event.get())
      .Ring(9);

  const PortState state = bridge_->Drain(host_);
  // The guest got what it could get.
  EXPECT_EQ(Get<uint8_t>(kSlot + 16), 1);
  EXPECT_EQ(Get<uint32_t>(kFlags), uint32_t{1} << 9);
  ASSERT_EQ(state.to_guest.size(), 2u);
  EXPECT_EQ(state.to_guest[0].bytes[0], std::byte{2});
  EXPECT_EQ(state.to_guest[1].bytes[0], std::byte{3});
  ASSERT_EQ(state.to_host.size(), 1u);
  EXPECT_EQ(state.to_host[0].connection_id, 4u);
  EXPECT_EQ(state.to_host[0].payload().size(), sizeof(open));
  EXPECT_THAT(state.signals, ElementsAre(5));
  ASSERT_EQ(state.target_vps.size(), 1u);
  EXPECT_TRUE(bridge_->Drain(host_).to_host.empty());

  PortPair port = *CreatePort(memory_->file());
  const auto next = *BusBridge::Open(std::move(port.guest), &synic_);
  next->Fill(state);
  const PortState again = next->Drain(port.host);
  ASSERT_EQ(again.to_guest.size(), 2u);
  EXPECT_EQ(again.to_guest[1].bytes[0], std::byte{3});
  ASSERT_EQ(again.to_host.size(), 1u);
  EXPECT_EQ(again.to_host[0].connection_id, 4u);
  EXPECT_THAT(again.signals, ElementsAre(5));
  ASSERT_EQ(again.target_vps.size(), 1u);
  EXPECT_EQ(again.target_vps[0].channel_id, 9u);
  EXPECT_EQ(again.target_vps[0].vp, 1u);
}

// One processor storms: hypercalls with any registers, signals of its channel,
// messages until the socket is full.  Another's channel goes on: each of its
// signals and messages arrives, in order.
TEST_F(BusBridgeTest, AStormOnOneChannelLeavesTheOthersAlone) {
  constexpr uint32_t kRounds = 2000;
  EnableSynic(0);
  EnableSynic(1);
  const uint64_t seed = ringbuffer::testing::TestSeed(
      "//examples/hypervisor:guest_interface_test", "BusBridgeTest.AStorm*");
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> storms = 0;
  std::thread storm([&] {
    std::mt19937_64 random(seed);
    while (!stop) {
      (void)HandleHypercall({random() & 0x1007f, random() % (2 * kRamBytes)},
                            *memory_, bridge_.get());
      (void)HandleHypercall({kHypercallPostMessage, random() % kRamBytes & ~7u},
                            *memory_, bridge_.get());
      (void)bridge_->SignalEvent(0x2005);
      const std::array<std::byte, 240> garbage = {std::byte(random())};
      (void)bridge_->PostMessage(
          4, absl::MakeConstSpan(garbage).first(random() % 241));
      ++storms;
    }
  });
  std::thread runner([this] { bridge_->Run(); });

  MessageSocket host(host_.messages.get(), MessageSocket::Role::kHost);
  SignalReceiver signals(*signals_, SignalDirection::kGuestToHost,
                         host_.host_event.get());
  const std::atomic_ref<uint32_t> slot_type(
      *reinterpret_cast<uint32_t*>(memory_->Translate(kSlot, 4).data()));
  for (uint32_t round = 0; round < kRounds; ++round) {
    ASSERT_EQ(bridge_->SignalEvent(0x2009), HypercallStatus::kSuccess);
    bool seen = false;
    while (!seen) {
      signals.Take([&](uint32_t channel) { seen = seen || channel == 9; });
    }
    const std::byte number{static_cast<uint8_t>(round)};
    ASSERT_TRUE(host.Send(0, {&number, 1}));
    while (slot_type.load() != 1) std::this_thread::yield();
    ASSERT_EQ(Get<uint8_t>(kSlot + 16), static_cast<uint8_t>(round));
    slot_type.store(0);
  }
  while (storms < kRounds) std::this_thread::yield();
  stop = true;
  storm.join();
  bridge_->Stop();
  runner.join();
}

}  // namespace
}  // namespace ferrybus::hypervisor
