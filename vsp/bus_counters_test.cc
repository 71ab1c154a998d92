// SPDX-License-Identifier: MIT

// A bus's counters page, read here and in another process.

#include <sys/wait.h>
#include <unistd.h>

#include <memory>

#include "ferrybus/channel/counters_page.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

class BusCountersTest : public ::testing::Test {
 protected:
  BusCountersTest() { offer_ = *bus_.Offer(TestParams(1), &device_); }
  void TearDown() override {
    device_.held.clear();
    guest_.ForgetChannels();
  }
  BusOptions Options() {
    BusOptions options;
    options.counters = page_.get();
    return options;
  }

  TestGuest guest_;
  LoggingDevice device_;
  std::unique_ptr<CountersPage> page_ = *CountersPage::Create();
  std::unique_ptr<CountersReader> reader_ = *CountersReader::Map(page_->fd());
  Bus bus_{Options(), guest_.memory.get(), &guest_.doorbell};
  OfferId offer_{};
};

TEST_F(BusCountersTest, EachCounterCountsItsOwn) {
  EXPECT_EQ(*reader_->Read(1), ChannelCounters());
  EXPECT_FALSE(reader_->Read(2).ok());
  guest_.Connect(bus_);
  TestGuest::Channel& channel = guest_.Open(bus_, 1);
  guest_.Request(channel, 5);
  guest_.Pump(bus_);
  ChannelCounters now = *reader_->Read(1);
  EXPECT_EQ(now.packets_in, 5u);
  EXPECT_EQ(now.bytes_in, 40u);
  EXPECT_EQ(now.in_flight, 5u);
  EXPECT_EQ(now.packets_out, 0u);
  EXPECT_GE(now.signals_in, 1u);
  EXPECT_EQ(now.signals_out, 0u);

  // Between polls the page stands still, unless somebody asks.
  device_.AnswerAll();
  EXPECT_EQ(reader_->Read(1)->in_flight, 5u);
  bus_.PublishCounters();
  EXPECT_EQ(reader_->Read(1)->in_flight, 0u);
  EXPECT_EQ(reader_->Read(1)->packets_out, 5u);
  EXPECT_EQ(reader_->Read(1)->bytes_out, 40u);
  EXPECT_GE(reader_->Read(1)->signals_out, 1u);

  ASSERT_EQ(device_.channel->Send(Packet("own", 7)), SendStatus::kOk);
  bus_.PublishCounters();
  EXPECT_EQ(reader_->Read(1)->awaiting, 1u);
  device_.channel->Flush();
  guest_.Pump(bus_);
  now = *reader_->Read(1);
  EXPECT_EQ(now.awaiting, 0u);
  EXPECT_EQ(now.completions_in, 1u);
  EXPECT_EQ(now.completions_unmatched, 0u);
  EXPECT_EQ(now.faults, 0u);
}

TEST_F(BusCountersTest, FaultsAreCountedOverOpenings) {
  guest_.Connect(bus_);
  for (uint64_t opening = 1; opening <= 2; ++opening) {
    TestGuest::Channel& channel = guest_.Open(bus_, 1);
    EXPECT_EQ(reader_->Read(1)->packets_in, 0u);
    guest_.Request(channel, 1);
    guest_.memory->Translate((channel.pages[1]) * 4096, 1)[0] = std::byte{99};
    bus_.Signal(1);
    (void)bus_.Poll();
    EXPECT_EQ(reader_->Read(1)->faults, opening);
    channel.end.events.completions.clear();
    guest_.Close(channel);
    guest_.Pump(bus_);
  }
  ASSERT_TRUE(bus_.Rescind(offer_).ok());
  guest_.Pump(bus_);
  EXPECT_EQ(reader_->Read(1).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(BusCountersTest, SignalsOfAnyNumberAreTaken) {
  for (uint32_t id : {0u, 1u, 2u, 2047u, 2048u, ~0u}) bus_.Signal(id);
  EXPECT_FALSE(bus_.Poll());
}

// Numbers of one moment: what is in flight came in and was not answered.
int WatchUntil(int fd, uint64_t packets) {
  const auto reader = CountersReader::Map(fd);
  if (!reader.ok()) return 1;
  ChannelCounters last;
  while (last.packets_out < packets) {
    const auto now = (*reader)->Read(1);
    if (!now.ok()) continue;
    if (now->packets_in - now->packets_out != now->in_flight) return 2;
    if (now->packets_in < last.packets_in) return 3;
    if (now->bytes_in != 8 * now->packets_in) return 4;
    last = *now;
  }
  return 0;
}

// bad:P8
TEST_F(BusCountersTest, AnotherProcessWatchesTheTraffic) {
  constexpr uint64_t kPackets = 20'000;
  guest_.Connect(bus_);
  TestGuest::Channel& channel = guest_.Open(bus_, 1);
  const pid_t watcher = fork();
  if (watcher == 0) {
    alarm(120);  // if the end never comes
    _exit(WatchUntil(page_->fd(), kPackets));
  }
  ASSERT_GT(watcher, 0);
  for (uint64_t sent = 0; sent < kPackets; sent += 10) {
    guest_.Request(channel, 10);
    guest_.Pump(bus_);
    device_.AnswerAll();
    guest_.Pump(bus_);
  }
  bus_.PublishCounters();
  EXPECT_EQ(guest_.answers(channel), kPackets);
  int status = 0;
  ASSERT_EQ(waitpid(watcher, &status, 0), watcher);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace ferrybus::vsp
