// SPDX-License-Identifier: MIT

#include "ferrybus/vsc/ring_channel.h"

#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "ferrybus/vsc/bus_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsc {
namespace {

using testing::Numbered;
using testing::ToBytes;

constexpr uint64_t kNotRam = 1000;  // a page number

class FunctionWaiter final : public Waiter {
 public:
  explicit FunctionWaiter(std::function<bool()> wait) : wait_(wait) {}
  bool Wait() override { return wait_(); }

 private:
  std::function<bool()> wait_;
};

class RingChannelTest : public BusTest {
 protected:
  RingChannel& channel() { return *bus_->channel(&driver_); }

  void OpenOne(uint16_t flags = 0) {
    offer_ = Offer(flags);
    Connect();
    ASSERT_EQ(driver_.opens, 1);
  }
  // Sends `payload` and waits, at most until `wait` says false; without it, as
  // long as it takes.
  SyncResult Ask(const std::string& payload, size_t room_bytes,
                 std::function<bool()> wait = nullptr) {
    room_.assign(room_bytes, std::byte{0xee});
    if (!wait) {
      wait = [this] {
        Pump();
        return true;
      };
    }
    FunctionWaiter waiter(wait);
    Request request;
    request.payload = ToBytes(payload);
    return channel().SendAndWait(request, absl::MakeSpan(room_), &bytes_,
                                 waiter);
  }
  absl::StatusOr<GpadlHandle> Create(
      const std::vector<uint64_t>& pages,
      GuestAccess access = GuestAccess::kReadWrite) {
    return channel().CreateGpadl(
        pages, static_cast<uint32_t>(pages.size() * 4096), 0, access);
  }
  void HostSends(const std::string& payload) {
    ASSERT_EQ(host_.end.Send(payload), SendStatus::kOk);
    host_.end.endpoint->Flush();
  }

  OfferId offer_{};
  std::vector<std::byte> room_;
  size_t bytes_ = 0;
};

// -- Sending and waiting -----------------------------------------------------

TEST_F(RingChannelTest, WaitingForAnAnswerGivesIt) {
  OpenOne();
  EXPECT_EQ(Ask("12345678", 20), SyncResult::kOk);
  ASSERT_EQ(bytes_, 8u);
  EXPECT_EQ(testing::ToString({room_.data(), 8}), "12345678");
  EXPECT_EQ(room_[8], std::byte{0xee});
  EXPECT_EQ(driver_.completions, 0) << "the driver was told, too";
  EXPECT_EQ(channel().requests_in_flight(), 0u);
}

TEST_F(RingChannelTest, AnAnswerThatDoesNotFitIsLost) {
  OpenOne();
  EXPECT_EQ(Ask("1234567812345678", 8), SyncResult::kReplyTooLarge);
  EXPECT_EQ(bytes_, 0u);
  EXPECT_EQ(channel().requests_in_flight(), 0u);
  EXPECT_EQ(Ask("12345678", 8), SyncResult::kOk);
}

TEST_F(RingChannelTest, AnAnswerThatComesTooLateIsDropped) {
  OpenOne();
  EXPECT_EQ(Ask("12345678", 8, [] { return false; }), SyncResult::kCancelled);
  EXPECT_EQ(bytes_, 0u);
  Pump();
  EXPECT_EQ(driver_.completions, 0);
  EXPECT_EQ(room_, std::vector<std::byte>(8, std::byte{0xee}));
  EXPECT_EQ(channel().requests_in_flight(), 0u);
}

// The last look comes after the last wait.
TEST_F(RingChannelTest, AnAnswerThatComesWithTheEndOfTheTimeCounts) {
  OpenOne();
  EXPECT_EQ(Ask("12345678", 8,
                [this] {
                  Pump();
                  return false;
                }),
            SyncResult::kOk);
}

// The channel ends while somebody is inside it.
TEST_F(RingChannelTest, AWaitEndsWithTheChannel) {
  OpenOne();
  host_.end.events.on_packet = nullptr;  // it is kept
  bool is_over = false;
  const SyncResult result = Ask("12345678", 8, [&] {
    if (!std::exchange(is_over, true)) {
      EXPECT_TRUE(host_.connection.RescindOffer(offer_).ok());
    }
    host_.end.events.held.clear();
    Pump();
    EXPECT_EQ(bus_->channel(&driver_), nullptr);
    return true;
  });
  EXPECT_EQ(result, SyncResult::kClosed);
  EXPECT_EQ(bytes_, 0u);
  EXPECT_EQ(driver_.closes, 1);
  Pump();
  EXPECT_TRUE(AllPagesAreFree());
}

TEST_F(RingChannelTest, WhatCannotBeSentIsNotWaitedFor) {
  OpenOne();
  const auto never = [] {
    ADD_FAILURE() << "it waits";
    return false;
  };
  EXPECT_EQ(Ask(std::string(5000, 'x'), 8, never), SyncResult::kTooLarge);
  while (Send(std::string(992, 'x')) == SendResult::kOk) {
  }
  EXPECT_EQ(Ask(std::string(992, 'x'), 8, never), SyncResult::kFull);
  EXPECT_EQ(bytes_, 0u);
  RingChannel& its = channel();
  ASSERT_TRUE(bus_->Close(&driver_).ok());
  FunctionWaiter waiter(never);
  Request request;
  EXPECT_EQ(its.SendAndWait(request, {}, &bytes_, waiter), SyncResult::kClosed);
  EXPECT_EQ(its.Send(request), SendResult::kClosed);
}

TEST_F(RingChannelTest, APipeHasNoAnswers) {
  OpenOne(kOfferNamedPipeMode);
  EXPECT_EQ(Ask("12345678", 8, [] { return true; }), SyncResult::kNotSupported);
  EXPECT_EQ(Send("12345678"), SendResult::kNotSupported);
  Request request;
  request.payload = ToBytes("12345678");
  request.wants_completion = false;
  EXPECT_EQ(driver_.channel->Send(request), SendResult::kOk);
}

TEST_F(RingChannelTest, ACancelledRequestIsNotAnswered) {
  OpenOne();
  for (uint64_t tag : {5, 6}) {
    Request request;
    request.payload = ToBytes("12345678");
    request.tag = tag;
    ASSERT_EQ(channel().Send(request), SendResult::kOk);
  }
  EXPECT_EQ(channel().requests_in_flight(), 2u);
  EXPECT_TRUE(channel().Cancel(5));
  EXPECT_FALSE(channel().Cancel(5));
  EXPECT_FALSE(channel().Cancel(7));
  channel().Flush();
  Pump();
  EXPECT_EQ(driver_.completions, 1);
  EXPECT_EQ(driver_.last_tag, 6u);
  EXPECT_EQ(channel().requests_in_flight(), 0u);
}

TEST_F(RingChannelTest, QueuedRequestsAreToldWhenTheyAreInTheRing) {
  OpenOne();
  const std::string payload(1992, 'x');
  std::vector<uint64_t> tags;
  channel().Reserve(8);
  for (uint64_t tag = 1; tag <= 6; ++tag) {
    Request request;
    request.payload = ToBytes(payload);
    request.tag = tag;
    request.may_queue = true;
    request.wants_sent = true;
    ASSERT_EQ(channel().Send(request), SendResult::kOk);
    tags.push_back(tag);
  }
  channel().Flush();
  (void)bus_->Poll();
  EXPECT_EQ(driver_.sent, (std::vector<uint64_t>{1, 2}));
  Pump();
  EXPECT_EQ(driver_.sent, tags);
  EXPECT_EQ(driver_.completions, 6);
}

// -- Pages by number ---------------------------------------------------------

TEST_F(RingChannelTest, PagesAreOneRangeInTheirOrder) {
  OpenOne();
  std::vector<iovec> seen;
  host_.end.events.on_packet = [&](IncomingPacket packet) {
    const auto buffers = packet.guest_buffers();
    ASSERT_TRUE(buffers.ok()) << buffers.status().ToString();
    seen.assign(buffers->begin(), buffers->end());
    packet.Complete();
  };
  const uint64_t pages[] = {40, 38, 50};
  Request request;
  request.page_numbers = pages;
  ASSERT_EQ(channel().Send(request), SendResult::kOk);
  channel().Flush();
  Pump();
  ASSERT_EQ(seen.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(seen[i].iov_base, memory_->Translate(pages[i] * 4096, 1).data());
    EXPECT_EQ(seen[i].iov_len, 4096u);
  }
  const std::vector<uint64_t> many(
      channel().endpoint().limits().max_packet_bytes / 8 + 1, 40);
  request.page_numbers = many;
  EXPECT_EQ(channel().Send(request), SendResult::kTooLarge);
}

// -- Start and pause ---------------------------------------------------------

TEST_F(RingChannelTest, APausedChannelTakesNoPackets) {
  OpenOne();
  EXPECT_EQ(driver_.starts, 1);
  EXPECT_EQ(channel().run(), ChannelRun::kActive);
  channel().Pause();
  EXPECT_EQ(driver_.suspends, 1);
  EXPECT_EQ(channel().run(), ChannelRun::kPaused);
  EXPECT_EQ(channel().link(), ChannelLink::kOpen);
  EXPECT_TRUE(channel().IsDrained());
  HostSends("12345678");
  Pump();
  EXPECT_TRUE(driver_.packets.empty());
  channel().Start();
  Pump();
  EXPECT_EQ(driver_.starts, 2);
  EXPECT_EQ(driver_.packets, std::vector<std::string>{"12345678"});
}

TEST_F(RingChannelTest, ItsCountersAreTheDrivers) {
  EXPECT_EQ(bus_->counters(&driver_).packets_sent, 0u);
  OpenOne();
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(Send("12345678"), SendResult::kOk);
  }
  channel().Flush();
  HostSends("1234");
  Pump();
  const EndpointCounters counters = bus_->counters(&driver_);
  EXPECT_EQ(counters.packets_sent, 3u);
  EXPECT_EQ(counters.completions_received, 3u);
  EXPECT_EQ(counters.packets_received, 1u);
  EXPECT_EQ(channel().offer().interface_type, Type(7));
  TestDriver other;
  EXPECT_EQ(bus_->counters(&other).packets_sent, 0u);
}

// -- GPADLs ------------------------------------------------------------------

TEST_F(RingChannelTest, ABufferIsAnnouncedAndTakenBack) {
  OpenOne();
  const auto written = Create({40, 41});
  const auto read = Create({42}, GuestAccess::kReadOnly);
  ASSERT_TRUE(written.ok() && read.ok());
  EXPECT_EQ(AccessOf(*written), GuestAccess::kReadWrite);
  EXPECT_EQ(AccessOf(*read), GuestAccess::kReadOnly);
  EXPECT_TRUE(driver_.created.empty());
  Pump();
  EXPECT_EQ(driver_.created, (std::vector<std::pair<GpadlHandle, bool>>{
                                 {*written, true}, {*read, true}}));
  EXPECT_EQ(host_.connection.AcquireGpadl(offer_, IdOf(*written))->pages.size(),
            2u);
  EXPECT_TRUE(channel().DeleteGpadl(*read).ok());
  EXPECT_TRUE(channel().DeleteGpadl(*written).ok());
  Pump();
  EXPECT_EQ(driver_.deleted, std::vector<GpadlHandle>{*read})
      << "the host still uses the other one";
  EXPECT_TRUE(host_.connection.ReleaseGpadl(offer_, IdOf(*written)).ok());
  Pump();
  EXPECT_EQ(driver_.deleted, (std::vector<GpadlHandle>{*read, *written}));
  EXPECT_EQ(channel().DeleteGpadl(*read).code(), absl::StatusCode::kNotFound);
}

TEST_F(RingChannelTest, ABufferThatTheHostRefusesIsDead) {
  OpenOne();
  const auto gpadl = Create({kNotRam});
  ASSERT_TRUE(gpadl.ok());
  Pump();
  EXPECT_EQ(driver_.created,
            (std::vector<std::pair<GpadlHandle, bool>>{{*gpadl, false}}));
  EXPECT_EQ(channel().DeleteGpadl(*gpadl).code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(bus_->Close(&driver_).ok());
  Pump();
  EXPECT_TRUE(AllPagesAreFree());
}

TEST_F(RingChannelTest, BuffersThatCannotBeAnnouncedAreRefused) {
  OpenOne();
  const uint64_t pages[] = {40};
  EXPECT_EQ(channel()
                .CreateGpadl(pages, 8192, 0, GuestAccess::kReadWrite)
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  // The ring's own GPADL is not the driver's.
  const absl::Status status = channel().DeleteGpadl(
      MakeGpadlHandle(GpadlId{0xe1e10}, GuestAccess::kReadWrite));
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  RingChannel& its = channel();
  ASSERT_TRUE(bus_->Close(&driver_).ok());
  EXPECT_EQ(
      its.CreateGpadl(pages, 4096, 0, GuestAccess::kReadWrite).status().code(),
      absl::StatusCode::kFailedPrecondition);
}

// At every message of two announcements, one of which the host refuses.
TEST_F(RingChannelTest, BuffersEndWithTheirChannelWithoutAWord) {
  for (int step = 0; step < 8; ++step) {
    SCOPED_TRACE(step);
    TestDriver driver;
    bus_ = std::make_unique<Bus>(options_, memory_.get(), &pages_, &doorbell_);
    bus_->AddDriver(Type(7), &driver);
    const OfferId offer = Offer();
    Connect();
    ASSERT_EQ(driver.opens, 1);
    RingChannel& its = *bus_->channel(&driver);
    const uint64_t good[] = {40};
    const uint64_t bad[] = {kNotRam};
    for (const uint64_t* page : {good, bad, good}) {
      ASSERT_TRUE(
          its.CreateGpadl({page, 1}, 4096, 0, GuestAccess::kReadWrite).ok());
    }
    for (int i = 0; i < step; ++i) {
      if (!GuestSays()) (void)HostSays();
    }
    const size_t created = driver.created.size();
    ASSERT_TRUE(bus_->Close(&driver).ok());
    EXPECT_EQ(driver.closes, 1);
    Pump();
    EXPECT_EQ(driver.created.size(), created) << "told after OnClosed";
    EXPECT_TRUE(driver.deleted.empty());
    EXPECT_EQ(bus_->channel(&driver), nullptr);
    EXPECT_TRUE(AllPagesAreFree());
    EXPECT_TRUE(bus_->status().ok()) << bus_->status().ToString();
    EXPECT_TRUE(host_.connection.Snapshot().gpadls.empty());
    ASSERT_TRUE(bus_->Unload().ok());
    Pump();
    (void)host_.connection.RescindOffer(offer);
  }
}

// A hostile host's are not in the order of the questions.
TEST_F(RingChannelTest, TheLastAnswerOfAClosingMayBeAnyOfThem) {
  for (const bool refusal_first : {true, false}) {
    TestDriver driver;
    bus_ = std::make_unique<Bus>(options_, memory_.get(), &pages_, &doorbell_);
    bus_->AddDriver(Type(7), &driver);
    const OfferId offer = Offer();
    Connect();
    ASSERT_EQ(driver.opens, 1);
    const uint64_t bad[] = {kNotRam};
    ASSERT_TRUE(bus_->channel(&driver)
                    ->CreateGpadl(bad, 4096, 0, GuestAccess::kReadWrite)
                    .ok());
    ASSERT_TRUE(bus_->Close(&driver).ok());
    while (GuestSays()) {
    }
    std::vector<std::vector<std::byte>> answers;
    for (; host_.connection.has_outgoing(); host_.connection.PopOutgoing()) {
      const auto front = host_.connection.outgoing_front();
      answers.emplace_back(front.begin(), front.end());
    }
    ASSERT_EQ(answers.size(), 2u);
    if (!refusal_first) std::swap(answers[0], answers[1]);
    ASSERT_TRUE(bus_->HandleMessage(answers[0]).ok());
    EXPECT_NE(bus_->channel(&driver), nullptr);
    ASSERT_TRUE(bus_->HandleMessage(answers[1]).ok());
    EXPECT_EQ(bus_->channel(&driver), nullptr);
    EXPECT_TRUE(AllPagesAreFree());
    EXPECT_TRUE(driver.created.empty());
    ASSERT_TRUE(bus_->Unload().ok());
    Pump();
    (void)host_.connection.RescindOffer(offer);
  }
}

}  // namespace
}  // namespace ferrybus::vsc
