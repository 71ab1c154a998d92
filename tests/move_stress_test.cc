// SPDX-License-Identifier: MIT
//
// A channel moves again and again while requests of both sides are in flight,
// two threads answer them, and the rings hold one page.  Each request is
// answered exactly once, whatever the policy.
//
// FERRYBUS_MOVES=N moves N times with each policy, instead of 150 times.

#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

#include "ferrybus/tests/testing/counted_traffic.h"
#include "ferrybus/tests/testing/move_harness.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

using testing::MoveHarness;

using testing::CountedTraffic;
using testing::EchoDriver;
using testing::PiledDevice;

MoveHarness::Options TinyOptions() {
  MoveHarness::Options options;
  options.guest.ring_data_pages = 1;
  options.guest.endpoint.max_awaiting = 40;
  options.host.endpoint.max_in_flight = 12;
  options.host.endpoint.max_awaiting = 20;
  options.host.endpoint.max_queued = 24;
  options.host.poll_budget = 5;
  return options;
}

class MoveStressTest : public ::testing::TestWithParam<vsp::IncomingPolicy> {
 protected:
  MoveStressTest() : harness_(TinyOptions()), driver_(&traffic_) {
    harness_.guest().AddDriver(testing::kTestInterface, &driver_);
    device_ = std::make_shared<PiledDevice>(GetParam(), &traffic_);
    harness_.StartHost(device_.get());
    EXPECT_TRUE(harness_.guest().Connect().ok());
    EXPECT_TRUE(harness_.Pump());
  }
  ~MoveStressTest() override {
    done_ = true;
    for (std::thread& worker : workers_) worker.join();
  }

  void StartWorker(uint64_t seed) {
    workers_.emplace_back([this, seed] {
      std::mt19937_64 random(seed);
      while (!done_) {
        std::shared_ptr<PiledDevice> device;
        {
          const std::lock_guard<std::mutex> lock(device_mutex_);
          device = device_;
        }
        if (!device->AnswerOne(random)) std::this_thread::yield();
      }
    });
  }

  void Move(bool thaw) {
    absl::StatusOr<std::string> saved = harness_.Save();
    // The workers finish what a draining device has.
    for (int i = 0; i < 100000 && absl::IsFailedPrecondition(saved.status());
         ++i) {
      std::this_thread::yield();
      saved = harness_.host().Save();
    }
    ASSERT_TRUE(saved.ok()) << saved.status().ToString();
    if (thaw) {
      harness_.host().Thaw();
      return;
    }
    auto next = std::make_shared<PiledDevice>(GetParam(), &traffic_);
    const absl::Status status = harness_.RestoreHost(*saved, next.get());
    ASSERT_TRUE(status.ok()) << status.ToString();
    const std::lock_guard<std::mutex> lock(device_mutex_);
    device_ = std::move(next);
    ++moves_;
  }

  void Step(std::mt19937_64& random) {
    switch (random() % 8) {
      case 0:
        for (uint64_t n = random() % 20; n > 0; --n) {
          if (!driver_.SendRequest(random() % 700)) break;
        }
        driver_.Flush();
        break;
      case 1:
        for (uint64_t n = random() % 10; n > 0; --n) {
          if (!device_->SendRequest(random() % 700)) break;
        }
        device_->Flush();
        break;
      case 2:
      case 3:
        harness_.PumpGuest();
        break;
      case 4:
      case 5:
        harness_.PumpHost();
        break;
      case 6:
        std::this_thread::yield();
        break;
      case 7:
        if (random() % 4 == 0) Move(random() % 4 == 0);
        break;
    }
  }

  CountedTraffic traffic_;
  MoveHarness harness_;
  EchoDriver driver_;
  std::mutex device_mutex_;
  std::shared_ptr<PiledDevice> device_;
  std::atomic<bool> done_{false};
  std::vector<std::thread> workers_;
  int moves_ = 0;
};

// promise:P1 promise:P2 promise:P3 promise:P7 bad:S20 bad:R26
TEST_P(MoveStressTest, BothDirectionsAreAnsweredOnceOverManyMoves) {
  const char* const given = std::getenv("FERRYBUS_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10)
                                         : std::random_device()();
  std::printf(
      "seed %llu; repeat: FERRYBUS_SEED=%llu bazel test "
      "--test_env=FERRYBUS_SEED //tests:move_stress_test\n",
      static_cast<unsigned long long>(seed),
      static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  StartWorker(seed + 1);
  StartWorker(seed + 2);
  const char* const given_moves = std::getenv("FERRYBUS_MOVES");
  const int moves = given_moves != nullptr ? std::atoi(given_moves) : 150;
  while (moves_ < moves && !HasFailure()) Step(random);
  for (int i = 0; i < 20000 && !traffic_.IsEven(); ++i) {
    harness_.Pump(10);
    std::this_thread::yield();
  }
  const testing::AnswerLedger& guest = traffic_.guest;
  const testing::AnswerLedger& host = traffic_.host;
  std::printf("%d moves; requests: %llu of the guest, %llu of the host\n",
              moves_, static_cast<unsigned long long>(guest.asked()),
              static_cast<unsigned long long>(host.asked()));
  EXPECT_GT(guest.asked(), 2u * moves);
  EXPECT_GT(host.asked(), 2u * moves / 3);
  EXPECT_EQ(guest.answered(), guest.asked());
  EXPECT_EQ(host.answered(), host.asked());
  EXPECT_EQ(guest.doubled(), 0u);
  EXPECT_EQ(host.doubled(), 0u);
  EXPECT_TRUE(harness_.faults().empty()) << harness_.faults()[0];
}

INSTANTIATE_TEST_SUITE_P(
    Policies, MoveStressTest,
    ::testing::Values(vsp::IncomingPolicy::kDrain, vsp::IncomingPolicy::kResume,
                      vsp::IncomingPolicy::kReissue),
    [](const ::testing::TestParamInfo<vsp::IncomingPolicy>& info) {
      switch (info.param) {
        case vsp::IncomingPolicy::kDrain:
          return "Drain";
        case vsp::IncomingPolicy::kResume:
          return "Resume";
        case vsp::IncomingPolicy::kReissue:
          return "Reissue";
      }
      return "";
    });

}  // namespace
}  // namespace ferrybus
