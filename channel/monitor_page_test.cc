// SPDX-License-Identifier: MIT

#include "ferrybus/channel/monitor_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/server_connection.h"
#include "ferrybus/channel/signal_event.h"

namespace ferrybus {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kPage = 0x3000;

class MonitorPageTest : public ::testing::Test {
 protected:
  std::vector<int> Take(uint64_t address = kPage) {
    std::vector<int> taken;
    EXPECT_TRUE(TakeMonitorTriggers(*memory_, address,
                                    [&](uint8_t id) { taken.push_back(id); }));
    return taken;
  }
  bool TakeFails(uint64_t address) {
    return !TakeMonitorTriggers(*memory_, address,
                                [](uint8_t) { ADD_FAILURE(); });
  }

  std::unique_ptr<MemfdGuestMemory> memory_ =
      *MemfdGuestMemory::Create(8 * 4096);
};

TEST_F(MonitorPageTest, EachMonitorHasItsBitAndIsTakenOnce) {
  for (int id = 0; id < 128; ++id) {
    ASSERT_TRUE(SetMonitorTrigger(*memory_, kPage, static_cast<uint8_t>(id)));
    EXPECT_THAT(Take(), ElementsAre(id));
    EXPECT_THAT(Take(), IsEmpty());
  }
  EXPECT_FALSE(SetMonitorTrigger(*memory_, kPage, 128));
}

TEST_F(MonitorPageTest, BitsAreWhereTheGuestSetsThem) {
  // { u32 state, u32 0, { u32 pending, u32 armed }[4] }
  const uint32_t words[] = {0xffffffff, 0xffffffff, 0x1, 0xffffffff,
                            0x80000000, 0xffffffff, 0,   0xffffffff,
                            0x10,       0xffffffff};
  std::memcpy(memory_->Translate(kPage, 4096).data(), words, sizeof(words));
  EXPECT_THAT(Take(), ElementsAre(0, 63, 100));
  uint32_t left[10];
  std::memcpy(left, memory_->Translate(kPage, 4096).data(), sizeof(left));
  EXPECT_THAT(left, ElementsAre(0xffffffff, 0xffffffff, 0, 0xffffffff, 0,
                                0xffffffff, 0, 0xffffffff, 0, 0xffffffff));
}

TEST_F(MonitorPageTest, OnlyAWholePageOfRamWillDo) {
  EXPECT_TRUE(TakeFails(8 * 4096));
  EXPECT_TRUE(TakeFails(~uint64_t{0xfff}));
  EXPECT_TRUE(TakeFails(kPage + 8));
  EXPECT_FALSE(SetMonitorTrigger(*memory_, kPage + 8, 1));
  EXPECT_FALSE(SetMonitorTrigger(*memory_, 8 * 4096, 1));
}

TEST_F(MonitorPageTest, NoTriggerIsLost) {
  constexpr int kRounds = 20000;
  std::atomic<bool> written = false;
  std::thread guest([&] {
    for (int i = 0; i < kRounds; ++i) {
      SetMonitorTrigger(*memory_, kPage, static_cast<uint8_t>(i % 128));
    }
    written = true;
    SetMonitorTrigger(*memory_, kPage, 77);
  });
  bool seen = false;
  while (!seen) {
    for (int id : Take()) {
      EXPECT_LT(id, 128);
      seen = seen || (id == 77 && written);
    }
  }
  guest.join();
  // Whatever was set before the last one has been taken with it, or is there.
  Take();
  EXPECT_THAT(Take(), IsEmpty());
}

TEST_F(MonitorPageTest, TriggersFindTheirChannel) {
  TestHost host;
  OfferParams params = TestOffer(1);
  params.monitor_id = 42;
  const OfferId offer = *host.connection.AddOffer(params);
  (void)host.connection.AddOffer(TestOffer(2));
  host.ConnectGuest();
  EXPECT_EQ(host.connection.FindOfferByMonitorId(42), std::nullopt);
  host.OpenChannel(offer, 1, 1);
  EXPECT_EQ(host.connection.FindOfferByMonitorId(42), offer);
  EXPECT_EQ(host.connection.FindOfferByMonitorId(43), std::nullopt);
  EXPECT_EQ(host.connection.FindOfferByMonitorId(kNoMonitorId), std::nullopt);
}

// vector:S3
TEST(SignalEventTest, IsTheRegisterOfTheHypercall) {
  const uint64_t input = EncodeSignalEvent({.connection_id = 0x2001});
  const auto* bytes = reinterpret_cast<const std::byte*>(&input);
  EXPECT_EQ(ToHex({bytes, sizeof(input)}), "0120000000000000");
  const SignalEvent event = DecodeSignalEvent(input);
  EXPECT_EQ(event.connection_id, 0x2001u);
  EXPECT_EQ(event.flag_number, 0);
  EXPECT_EQ(DecodeSignalEvent(0xffff123400ffffff).flag_number, 0x1234);
  EXPECT_EQ(EncodeSignalEvent({.connection_id = 7, .flag_number = 3}),
            0x300000007u);
}

// bad:C19
TEST(SignalEventTest, FindsTheOpenChannelAndNoOther) {
  TestHost host;
  const OfferId offer = *host.connection.AddOffer(TestOffer(1));
  host.ConnectGuest();
  EXPECT_EQ(host.connection.FindOfferByConnectionId(0x2001), std::nullopt);
  host.OpenChannel(offer, 1, 1);
  EXPECT_EQ(host.connection.FindOfferByConnectionId(0x2001), offer);
  for (uint32_t id : {0u, 1u, 0x2000u, 0x2002u, 0x12001u, 0xffffffffu}) {
    EXPECT_EQ(host.connection.FindOfferByConnectionId(id), std::nullopt);
  }
  host.Handle(CloseMessage(1)).IgnoreError();
  host.connection.CloseCompleted(offer).IgnoreError();
  EXPECT_EQ(host.connection.FindOfferByConnectionId(0x2001), std::nullopt);
}

}  // namespace
}  // namespace ferrybus
