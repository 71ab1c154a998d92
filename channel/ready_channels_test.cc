// SPDX-License-Identifier: MIT

#include "ferrybus/channel/ready_channels.h"

#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace ferrybus {
namespace {

std::vector<uint32_t> Take(ReadyChannels& ready) {
  std::vector<uint32_t> taken;
  ready.Take([&](uint32_t channel) { taken.push_back(channel); });
  return taken;
}

// bad:C19
TEST(ReadyChannelsTest, UnknownNumbersAreIgnored) {
  ReadyChannels ready;
  ready.Set(2048);
  ready.Set(0xffffffff);
  EXPECT_FALSE(ready.Any());
  EXPECT_TRUE(Take(ready).empty());
}

TEST(ReadyChannelsTest, EachIsTakenOnce) {
  ReadyChannels ready;
  for (const uint32_t channel : {2047u, 0u, 63u, 64u, 63u}) ready.Set(channel);
  EXPECT_TRUE(ready.Any());
  EXPECT_EQ(Take(ready), (std::vector<uint32_t>{0, 63, 64, 2047}));
  EXPECT_FALSE(ready.Any());
}

TEST(ReadyChannelsTest, WhatIsSetWhileTakingStays) {
  ReadyChannels ready;
  ready.Set(5);
  int calls = 0;
  ready.Take([&](uint32_t channel) {
    ++calls;
    ready.Set(channel);
  });
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(Take(ready), std::vector<uint32_t>{5});
}

// promise:P3 promise:P13
TEST(ReadyChannelsTest, NothingIsLostBetweenThreads) {
  ReadyChannels ready;
  std::atomic<uint64_t> sent{0};
  std::atomic<uint64_t> seen{0};
  std::thread setter([&] {
    for (uint64_t i = 1; i <= 4000; ++i) {
      sent.store(i, std::memory_order_relaxed);
      ready.Set(70);
      while (seen < i) std::this_thread::yield();
    }
  });
  while (seen < 4000) {
    ready.Take([&](uint32_t) { seen = sent.load(std::memory_order_relaxed); });
  }
  setter.join();
}

}  // namespace
}  // namespace ferrybus
