// SPDX-License-Identifier: MIT

#include "ferrybus/vsc/channel_spreader.h"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <iterator>
#include <map>
#include <thread>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/vsc/client_channel.h"
#include "gtest/gtest.h"

namespace ferrybus::vsc {
namespace {

// Holds a few requests, in the order sent.
class SmallChannel final : public ClientChannel {
 public:
  SendResult Send(const Request& request) override {
    if (tags.size() >= room) return SendResult::kFull;
    tags.push_back(request.tag);
    return SendResult::kOk;
  }
  void Flush() override {}
  uint32_t requests_in_flight() const override {
    return static_cast<uint32_t>(tags.size());
  }

  size_t room = 4;
  std::deque<uint64_t> tags;
};

struct Device {
  explicit Device(size_t count) : channels(count) {
    for (SmallChannel& channel : channels) pointers.push_back(&channel);
  }
  std::vector<SmallChannel> channels;
  std::vector<ClientChannel*> pointers;
};

using Spreader = ChannelSpreader<ClientChannel>;

TEST(ChannelSpreaderTest, ProcessorsAreDealtOutEvenly) {
  for (size_t count : {1u, 2u, 3u, 5u, 8u}) {
    Device device(count);
    const Spreader spreader(device.pointers);
    std::vector<uint32_t> cpus_of(count);
    for (uint32_t cpu = 0; cpu < 32; ++cpu) {
      ++cpus_of[spreader.PickForCpu(cpu)];
    }
    const auto [fewest, most] =
        std::minmax_element(cpus_of.begin(), cpus_of.end());
    EXPECT_LE(*most - *fewest, 1u) << count;
  }
}

// Hashes are not all good: these differ in low, middle or high bits only.
TEST(ChannelSpreaderTest, FlowsAreSpreadWhicheverBitsTheyDifferIn) {
  constexpr uint64_t kFlows = 4096;
  for (size_t count : {2u, 3u, 8u}) {
    Device device(count);
    const Spreader spreader(device.pointers);
    for (int shift : {0, 3, 12, 20, 32, 40, 52}) {
      std::vector<uint64_t> flows_of(count);
      for (uint64_t flow = 0; flow < kFlows; ++flow) {
        const size_t pick = spreader.PickForFlow(flow << shift);
        ASSERT_LT(pick, count);
        ++flows_of[pick];
      }
      for (uint64_t flows : flows_of) {
        EXPECT_GT(flows, kFlows / count * 8 / 10) << count << " " << shift;
        EXPECT_LT(flows, kFlows / count * 12 / 10) << count << " " << shift;
      }
    }
  }
}

// promise:P2
TEST(ChannelSpreaderTest, AFullChannelReordersNoFlow) {
  constexpr uint64_t kFlows = 10;
  constexpr uint64_t kRequests = 200;
  // Each channel is answered before and after each other one.
  constexpr size_t kDrains[] = {0, 2, 1, 1, 0, 2, 2, 0, 1};
  Device device(3);
  Spreader spreader(device.pointers);
  std::map<uint64_t, uint64_t> next_of_flow;
  std::map<uint64_t, uint64_t> answered_of_flow;
  uint64_t full = 0;
  // Each flow sends when it can; one channel is drained at a time.
  for (uint64_t round = 0; round < kFlows * kRequests; ++round) {
    for (uint64_t flow = 0; flow < kFlows; ++flow) {
      uint64_t& next = next_of_flow[flow];
      if (next == kRequests) continue;
      const size_t pick = spreader.PickForFlow(flow);
      Request request;
      request.tag = flow << 32 | next;
      if (spreader.channel(pick).Send(request) != SendResult::kOk) {
        ++full;
        continue;
      }
      spreader.OnSent(pick);
      ++next;
    }
    const size_t drained = kDrains[round % std::size(kDrains)];
    for (uint64_t tag : device.channels[drained].tags) {
      EXPECT_EQ(tag & 0xffffffff, answered_of_flow[tag >> 32]++);
      spreader.OnCompleted(drained);
    }
    device.channels[drained].tags.clear();
  }
  EXPECT_GT(full, 0u);
  for (uint64_t flow = 0; flow < kFlows; ++flow) {
    EXPECT_EQ(answered_of_flow[flow], kRequests) << flow;
  }
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(spreader.outstanding(i), 0u);
}

TEST(ChannelSpreaderTest, TheLeastLoadedIsTheOneWithTheFewestUnanswered) {
  Device device(4);
  Spreader spreader(device.pointers);
  for (size_t pick : {0, 0, 0, 1, 2, 2, 3, 3}) spreader.OnSent(pick);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(spreader.PickLeastLoaded(), 1u);
  spreader.OnSent(1);
  spreader.OnSent(1);
  spreader.OnCompleted(3);
  spreader.OnCompleted(3);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(spreader.PickLeastLoaded(), 3u);
}

TEST(ChannelSpreaderTest, EquallyLoadedChannelsTakeTurns) {
  Device device(4);
  Spreader spreader(device.pointers);
  for (uint32_t load : {0u, 1u, 2u}) {
    std::vector<int> picks_of(4);
    for (int i = 0; i < 12; ++i) ++picks_of[spreader.PickLeastLoaded()];
    EXPECT_EQ(picks_of, std::vector<int>({3, 3, 3, 3})) << load;
    for (size_t i = 0; i < 4; ++i) spreader.OnSent(i);
  }
}

// promise:P13
TEST(ChannelSpreaderTest, SeveralThreadsCountTogether) {
  constexpr uint32_t kRounds = 1000000;
  Device device(1);
  Spreader spreader(device.pointers);
  const auto work = [&] {
    for (uint32_t i = 0; i < kRounds; ++i) spreader.OnSent(0);
    for (uint32_t i = 1; i < kRounds; ++i) spreader.OnCompleted(0);
  };
  std::thread first(work);
  std::thread second(work);
  work();
  first.join();
  second.join();
  EXPECT_EQ(spreader.outstanding(0), 3u);
}

TEST(ChannelSpreaderDeathTest, NeedsAChannel) {
  EXPECT_DEATH(Spreader(absl::Span<ClientChannel* const>()), "misused");
}

}  // namespace
}  // namespace ferrybus::vsc
