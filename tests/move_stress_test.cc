// SPDX-License-Identifier: MIT
//
// A channel moves again and again while requests of both sides are in flight,
// two threads answer them, and the rings hold one page.  Each request is
// answered exactly once, whatever the policy.
//
// FERRYBUS_MOVES=N moves N times with each policy, instead of 150 times.

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

#include "ferrybus/tests/testing/move_harness.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

using testing::MoveHarness;

uint64_t NumberIn(absl::Span<const std::byte> bytes) {
  uint64_t number = ~uint64_t{0};
  if (bytes.size() >= 8) std::memcpy(&number, bytes.data(), 8);
  return number;
}

std::string Numbered(uint64_t number, size_t more) {
  std::string text(8 + more, 'x');
  std::memcpy(text.data(), &number, 8);
  return text;
}

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// One side's requests by number, and how often each was answered.
class Ledger {
 public:
  uint64_t asked() const { return answers_.size(); }
  uint64_t answered() const { return answered_; }
  uint64_t doubled() const { return doubled_; }
  bool IsEven() const { return answered_ == asked(); }

  void Ask() { answers_.push_back(0); }
  void Answer(uint64_t number) {
    ASSERT_LT(number, asked()) << "an answer to nothing";
    if (answers_[number]++ == 0) {
      ++answered_;
    } else {
      ++doubled_;
    }
  }

 private:
  std::vector<uint8_t> answers_;
  uint64_t answered_ = 0;
  uint64_t doubled_ = 0;
};

// Over all owners of the channel.
struct Ledgers {
  bool AreEven() const { return guest.IsEven() && host.IsEven(); }
  Ledger guest;
  Ledger host;
};

// Keeps its packets for the workers.
class PiledDevice final : public vsp::Device {
 public:
  PiledDevice(vsp::IncomingPolicy policy, Ledgers* ledgers)
      : policy_(policy), ledger_(&ledgers->host) {}

  absl::Status OnOpened(vsp::ServerChannel& channel,
                        absl::Span<const std::byte>) override {
    channel_ = &channel;
    return absl::OkStatus();
  }
  absl::Status OnRestored(vsp::ServerChannel& channel,
                          absl::Span<const std::byte>) override {
    channel_ = &channel;
    return absl::OkStatus();
  }
  void OnClosed() override { channel_ = nullptr; }
  void ProcessPacket(IncomingPacket packet) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_.push_back(std::move(packet));
  }
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override {
    EXPECT_EQ(NumberIn(reply), tag);
    ledger_->Answer(tag);
  }
  vsp::IncomingPolicy incoming_policy() const override { return policy_; }
  savestate::SizeAnswer SavePacket(const PacketInfo& packet,
                                   absl::Span<std::byte> out) override {
    if (policy_ != vsp::IncomingPolicy::kResume) {
      return savestate::SizeAnswer::Ok(0);
    }
    if (out.size() < 8) return savestate::SizeAnswer::TooSmall(8);
    std::memcpy(out.data(), packet.payload.data(), 8);
    return savestate::SizeAnswer::Ok(8);
  }
  absl::Status RestorePacket(IncomingPacket packet,
                             absl::Span<const std::byte> blob) override {
    if (policy_ == vsp::IncomingPolicy::kResume) {
      EXPECT_EQ(NumberIn(blob), NumberIn(packet.payload()));
    }
    ProcessPacket(std::move(packet));
    return absl::OkStatus();
  }

  bool SendRequest(size_t more) {
    const std::string payload = Numbered(ledger_->asked(), more);
    OutgoingPacket packet;
    packet.payload = AsBytes(payload);
    packet.wants_completion = true;
    packet.tag = ledger_->asked();
    if (channel_ == nullptr || channel_->Send(packet) != SendStatus::kOk) {
      return false;
    }
    ledger_->Ask();
    return true;
  }
  void Flush() {
    if (channel_ != nullptr) channel_->Flush();
  }

  // Any thread.  False: nothing is held.
  bool AnswerOne(std::mt19937_64& random) {
    IncomingPacket packet;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (held_.empty()) return false;
      std::swap(held_[random() % held_.size()], held_.back());
      packet = std::move(held_.back());
      held_.pop_back();
    }
    const std::string reply =
        Numbered(NumberIn(packet.payload()), random() % 700);
    packet.Complete(AsBytes(reply));
    return true;
  }

 private:
  const vsp::IncomingPolicy policy_;
  Ledger* const ledger_;
  vsp::ServerChannel* channel_ = nullptr;
  std::mutex mutex_;
  std::vector<IncomingPacket> held_;
};

class EchoDriver final : public vsc::Driver {
 public:
  explicit EchoDriver(Ledgers* ledgers) : ledger_(&ledgers->guest) {}
  void OnOpened(vsc::ClientChannel& channel) override { channel_ = &channel; }
  void OnClosed() override { channel_ = nullptr; }
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override {
    EXPECT_EQ(NumberIn(reply), tag);
    ledger_->Answer(tag);
  }
  void OnPacket(IncomingPacket packet) override {
    packet.Complete(packet.payload());
  }
  bool SendRequest(size_t more) {
    const std::string payload = Numbered(ledger_->asked(), more);
    vsc::Request request;
    request.payload = AsBytes(payload);
    request.tag = ledger_->asked();
    if (channel_ == nullptr ||
        channel_->Send(request) != vsc::SendResult::kOk) {
      return false;
    }
    ledger_->Ask();
    return true;
  }
  void Flush() {
    if (channel_ != nullptr) channel_->Flush();
  }

 private:
  Ledger* const ledger_;
  vsc::ClientChannel* channel_ = nullptr;
};

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
  MoveStressTest() : harness_(TinyOptions()), driver_(&ledgers_) {
    harness_.guest().AddDriver(testing::kTestInterface, &driver_);
    device_ = std::make_shared<PiledDevice>(GetParam(), &ledgers_);
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
    auto next = std::make_shared<PiledDevice>(GetParam(), &ledgers_);
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

  Ledgers ledgers_;
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
  for (int i = 0; i < 20000 && !ledgers_.AreEven(); ++i) {
    harness_.Pump(10);
    std::this_thread::yield();
  }
  const Ledger& guest = ledgers_.guest;
  const Ledger& host = ledgers_.host;
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
