// SPDX-License-Identifier: MIT
//
// Endpoints with completions and sends from other threads than the polling
// one.  Every thread sleeps unless it was woken, as in production: a wake-up
// that is lost shows as a stall.

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "ferrybus/channel/endpoint_test_util.h"
#include "ferrybus/channel/packet_endpoint.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

using testing::AnnouncedSeed;
using testing::EndpointPair;
using testing::EndpointPairOptions;
using testing::Numbered;
using testing::NumberIn;
using testing::ToBytes;

constexpr std::chrono::seconds kStall(20);

// What an eventfd is to a poll loop.
class Sleeper {
 public:
  void Wake() {
    const std::lock_guard<std::mutex> lock(mutex_);
    woken_ = true;
    condition_.notify_one();
  }
  // False: nobody woke us for so long that nobody will.
  bool Sleep() {
    std::unique_lock<std::mutex> lock(mutex_);
    const bool woken =
        condition_.wait_for(lock, kStall, [this] { return woken_; });
    woken_ = false;
    return woken;
  }

 private:
  std::mutex mutex_;
  std::condition_variable condition_;
  bool woken_ = false;
};

// Packets on their way from the polling thread to the workers.
class PacketPile {
 public:
  void Put(IncomingPacket packet) {
    const std::lock_guard<std::mutex> lock(mutex_);
    packets_.push_back(std::move(packet));
    condition_.notify_one();
  }
  // A random one; none: the pile was closed and is empty.
  IncomingPacket Take(std::mt19937_64& random) {
    std::unique_lock<std::mutex> lock(mutex_);
    condition_.wait(lock, [this] { return closed_ || !packets_.empty(); });
    if (packets_.empty()) return IncomingPacket();
    std::swap(packets_[random() % packets_.size()], packets_.back());
    IncomingPacket packet = std::move(packets_.back());
    packets_.pop_back();
    return packet;
  }
  void Close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    condition_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable condition_;
  std::vector<IncomingPacket> packets_;
  bool closed_ = false;
};

struct Traffic {
  uint64_t requests = 0;       // of the guest
  uint64_t host_requests = 0;  // of the host, from a thread of its own
  uint32_t quota = 8;
  uint64_t reply_bytes = 8;
  bool pauses = false;  // the polling thread freezes and suspends
};

// Runs `traffic` over rings of one page with two completing workers; each
// request of either side must be answered once.
class Stress {
 public:
  Stress(const Traffic& traffic, uint64_t seed)
      : traffic_(traffic), seed_(seed), pair_(Options(traffic)) {
    pair_.host.doorbell.on_ring = [this] { guest_sleeper_.Wake(); };
    pair_.guest.doorbell.on_ring = [this] { host_sleeper_.Wake(); };
    pair_.host.events.on_work = [this] { host_sleeper_.Wake(); };
    pair_.guest.events.on_work = [this] { guest_sleeper_.Wake(); };
    pair_.host.events.on_packet = [this](IncomingPacket packet) {
      pile_.Put(std::move(packet));
    };
    pair_.host.events.on_completion = [this] { ++host_answers_; };
    pair_.guest.events.on_packet = [](IncomingPacket packet) {
      packet.Complete(packet.payload());
    };
  }

  void Run() {
    std::vector<std::thread> threads;
    threads.emplace_back([this] { HostPolls(); });
    threads.emplace_back([this] { Works(1); });
    threads.emplace_back([this] { Works(2); });
    threads.emplace_back([this] { HostSends(); });
    GuestRuns();
    done_ = true;
    pile_.Close();
    host_sleeper_.Wake();
    for (std::thread& thread : threads) thread.join();
    ExpectEachAnsweredOnce(pair_.guest.events.completions, traffic_.requests);
    ExpectEachAnsweredOnce(pair_.host.events.completions,
                           traffic_.host_requests);
    EXPECT_EQ(pair_.host.endpoint->outstanding(), 0u);
  }

 private:
  static EndpointPairOptions Options(const Traffic& traffic) {
    EndpointPairOptions options;
    options.host.max_in_flight = traffic.quota;
    options.host.max_awaiting = 16;
    options.host.max_queued = 32;
    options.guest.max_awaiting = 64;
    return options;
  }

  bool Finished() const {
    return pair_.guest.events.completions.size() >= traffic_.requests &&
           host_answers_ >= traffic_.host_requests;
  }

  void GuestRuns() {
    uint64_t sent = 0;
    while (!Finished()) {
      OutgoingPacket packet;
      packet.wants_completion = true;
      while (sent < traffic_.requests) {
        const std::string payload = Numbered(sent);
        packet.payload = ToBytes(payload);
        packet.tag = sent;
        if (pair_.guest.endpoint->Send(packet) != SendStatus::kOk) break;
        ++sent;
      }
      pair_.guest.endpoint->Flush();
      if (pair_.guest.endpoint->Poll(16)) continue;
      if (Finished()) return;
      if (guest_sleeper_.Sleep()) continue;
      ADD_FAILURE() << "guest stalled: " << sent << " sent, "
                    << pair_.guest.events.completions.size() << " answered, "
                    << host_answers_ << " of the host's; host queue "
                    << pair_.host.endpoint->queued() << ", outstanding "
                    << pair_.host.endpoint->outstanding() << ", "
                    << pair_.host.endpoint->fault_reason();
      return;
    }
  }

  void HostPolls() {
    std::mt19937_64 random(seed_);
    while (!done_) {
      if (traffic_.pauses && random() % 8 == 0) Pause(random);
      const bool more = pair_.host.endpoint->Poll(16);
      // The last answers to the host end the guest's loop.
      if (host_answers_ >= traffic_.host_requests) guest_sleeper_.Wake();
      if (more || host_sleeper_.Sleep() || done_) continue;
      ADD_FAILURE() << "host stalled";
      return;
    }
  }

  void Pause(std::mt19937_64& random) {
    if (random() % 2 == 0) pair_.host.endpoint->Suspend();
    pair_.host.endpoint->Freeze();
    const absl::StatusOr<EndpointState> state = pair_.host.endpoint->Save(
        [](const PacketInfo*, uint64_t) -> absl::StatusOr<std::string> {
          std::this_thread::yield();
          return std::string();
        });
    EXPECT_TRUE(state.ok());
    pair_.host.endpoint->Thaw();
  }

  void Works(uint64_t number) {
    std::mt19937_64 random(seed_ + number);
    while (IncomingPacket packet = pile_.Take(random)) {
      std::string reply(traffic_.reply_bytes, '\0');
      const std::string text = Numbered(NumberIn(packet.payload()));
      reply.replace(0, text.size(), text);
      if (random() % 16 == 0) {
        PacketEndpoint::BatchScope scope(*pair_.host.endpoint);
        EXPECT_EQ(packet.Complete(ToBytes(reply)), CompleteResult::kOk);
      } else {
        EXPECT_EQ(packet.Complete(ToBytes(reply)), CompleteResult::kOk);
      }
    }
  }

  void HostSends() {
    for (uint64_t i = 0; i < traffic_.host_requests && !done_;) {
      if (pair_.host.Request(Numbered(i), i) == SendStatus::kOk) {
        ++i;
      } else {
        std::this_thread::yield();
      }
      pair_.host.endpoint->Flush();
    }
  }

  static void ExpectEachAnsweredOnce(
      const std::vector<std::pair<uint64_t, std::string>>& completions,
      uint64_t count) {
    std::vector<int> answers(count);
    for (const auto& [tag, reply] : completions) {
      EXPECT_EQ(NumberIn(ToBytes(reply)), tag);
      ASSERT_LT(tag, count);
      ++answers[tag];
    }
    for (uint64_t i = 0; i < count; ++i) EXPECT_EQ(answers[i], 1) << i;
  }

  const Traffic traffic_;
  const uint64_t seed_;
  Sleeper guest_sleeper_;
  Sleeper host_sleeper_;
  PacketPile pile_;
  std::atomic<bool> done_{false};
  std::atomic<uint64_t> host_answers_{0};
  EndpointPair pair_;
};

constexpr char kTarget[] = "//channel:packet_endpoint_thread_test";

// promise:P1 promise:P3 promise:P13
TEST(PacketEndpointThreadTest, QuotaBlockedIsWokenByAnotherThread) {
  Stress({.requests = 10000, .quota = 1}, AnnouncedSeed(kTarget)).Run();
}

// promise:P1 promise:P3 promise:P13 bad:R26
TEST(PacketEndpointThreadTest, LargeAnswersBehindAFullRingAllArrive) {
  Stress({.requests = 10000, .quota = 32, .reply_bytes = 1000},
         AnnouncedSeed(kTarget))
      .Run();
}

// promise:P1 promise:P3 promise:P13
TEST(PacketEndpointThreadTest, BothDirectionsAtOnce) {
  Stress({.requests = 6000, .host_requests = 6000, .reply_bytes = 500},
         AnnouncedSeed(kTarget))
      .Run();
}

// promise:P1 promise:P3 promise:P7 promise:P13
TEST(PacketEndpointThreadTest, FreezesAndThawsLoseNothing) {
  Stress({.requests = 10000,
          .host_requests = 5000,
          .quota = 16,
          .reply_bytes = 500,
          .pauses = true},
         AnnouncedSeed(kTarget))
      .Run();
}

// A queue behind a full ring, and a reader that makes room at every moment:
// also between the request for room and the next look.
// promise:P3
TEST(PacketEndpointThreadTest, RoomMadeAtAnyMomentIsSeen) {
  EndpointPairOptions options;
  options.host.max_queued = 1000;
  EndpointPair pair(options);
  Sleeper host_sleeper;
  pair.guest.doorbell.on_ring = [&] { host_sleeper.Wake(); };
  std::atomic<uint64_t> received{0};
  std::atomic<bool> done{false};
  pair.guest.events.on_packet = [&received](IncomingPacket packet) {
    ++received;
    packet.Complete();
  };
  std::thread guest([&] {
    while (!done) (void)pair.guest.endpoint->Poll(1);
  });
  uint64_t sent = 0;
  const std::string payload(1000, 'x');
  while (sent < 50000) {
    while (pair.host.endpoint->queued() < 3) {
      ASSERT_EQ(pair.host.Send(payload), SendStatus::kOk);
      ++sent;
    }
    (void)pair.host.endpoint->Poll(16);
    if (pair.host.endpoint->queued() == 0) continue;
    if (host_sleeper.Sleep()) continue;
    ADD_FAILURE() << "stalled after " << sent << " packets, " << received
                  << " received";
    break;
  }
  done = true;
  guest.join();
}

// The last completion may still be ringing when the owner finds nothing
// outstanding and ends; its events and doorbell end right after.
// bad:C6 promise:P8
TEST(PacketEndpointThreadTest, NobodyIsInsideWhenAnEndpointHasEnded) {
  for (const bool retire : {false, true}) {
    EndpointPairOptions options;
    options.host.max_in_flight = 1;
    EndpointPair pair(options);
    ASSERT_EQ(pair.guest.Request(Numbered(1), 1), SendStatus::kOk);
    ASSERT_EQ(pair.guest.Request(Numbered(2), 2), SendStatus::kOk);
    pair.guest.endpoint->Flush();
    pair.host.PollDry();
    std::atomic<bool> ringing{false};
    std::atomic<bool> left{false};
    pair.host.doorbell.on_ring = [&] {
      ringing = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    };
    pair.host.events.on_work = [&] { left = true; };
    std::thread worker([&] { pair.host.events.held[0].Complete(); });
    while (!ringing) std::this_thread::yield();
    EXPECT_EQ(pair.host.endpoint->outstanding(), 0u);
    if (retire) {
      PacketEndpoint::Retire(std::move(pair.host.endpoint));
    } else {
      pair.host.endpoint->Detach();
    }
    EXPECT_TRUE(left);
    worker.join();
  }
}

// bad:C6 promise:P8
TEST(PacketEndpointThreadTest, OrphansEndWhileTheEndpointIsRetired) {
  std::mt19937_64 random(AnnouncedSeed(kTarget));
  for (int round = 0; round < 300; ++round) {
    EndpointPair pair;
    for (uint64_t i = 0; i < 4; ++i) {
      ASSERT_EQ(pair.guest.Request(Numbered(i), i), SendStatus::kOk);
    }
    pair.guest.endpoint->Flush();
    pair.host.PollDry();
    std::vector<std::thread> workers;
    std::atomic<int> ready{0};
    for (int w = 0; w < 2; ++w) {
      workers.emplace_back([&pair, &ready, w] {
        ++ready;
        while (ready < 3) {
        }
        pair.host.events.held[2 * w].Complete();
        IncomingPacket dropped = std::move(pair.host.events.held[2 * w + 1]);
      });
    }
    ++ready;
    for (uint64_t spin = random() % 3000; spin > 0; --spin) (void)random();
    PacketEndpoint::Retire(std::move(pair.host.endpoint));
    for (std::thread& worker : workers) worker.join();
  }
}

}  // namespace
}  // namespace ferrybus
