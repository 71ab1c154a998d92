// SPDX-License-Identifier: MIT
//
// A channel moves while requests are in flight: every request is answered
// exactly once, whatever the device's policy and wherever the cut falls.

#include <cstring>
#include <deque>
#include <map>
#include <random>

#include "ferrybus/tests/testing/move_harness.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

using testing::MoveHarness;

// Answers each request with its own bytes; holds requests back until told.
class HoldingEcho final : public vsp::Device {
 public:
  explicit HoldingEcho(vsp::IncomingPolicy policy) : policy_(policy) {}

  void ProcessPacket(IncomingPacket packet) override {
    held.push_back(std::move(packet));
  }
  void OnClosed() override { held.clear(); }
  vsp::IncomingPolicy incoming_policy() const override { return policy_; }

  savestate::SizeAnswer SavePacket(const PacketInfo& packet,
                                   absl::Span<std::byte> out) override {
    if (policy_ != vsp::IncomingPolicy::kResume) {
      return savestate::SizeAnswer::Ok(0);
    }
    if (out.size() < 8) return savestate::SizeAnswer::TooSmall(8);
    std::memcpy(out.data(), &packet.transaction_id, 8);
    return savestate::SizeAnswer::Ok(8);
  }
  absl::Status RestorePacket(IncomingPacket packet,
                             absl::Span<const std::byte> blob) override {
    if (policy_ == vsp::IncomingPolicy::kResume) {
      uint64_t id = 0;
      if (blob.size() != 8) return absl::InvalidArgumentError("blob");
      std::memcpy(&id, blob.data(), 8);
      if (id != packet.transaction_id()) {
        return absl::InvalidArgumentError("another packet's blob");
      }
    }
    ++restored;
    if (restored == fail_at) return absl::InternalError("told to fail");
    held.push_back(std::move(packet));
    return absl::OkStatus();
  }

  void Answer(size_t index) {
    IncomingPacket packet = std::move(held[index]);
    held.erase(held.begin() + static_cast<ptrdiff_t>(index));
    const std::vector<std::byte> reply(packet.payload().begin(),
                                       packet.payload().end());
    packet.Complete(reply);
  }

  std::deque<IncomingPacket> held;
  int restored = 0;
  int fail_at = 0;

 private:
  const vsp::IncomingPolicy policy_;
};

// Sends numbered requests and counts the answers to each.
class CountingClient final : public vsc::Driver {
 public:
  void OnOpened(vsc::ClientChannel& channel) override { channel_ = &channel; }
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override {
    uint64_t number = 0;
    ASSERT_EQ(reply.size(), 16u);
    std::memcpy(&number, reply.data(), 8);
    EXPECT_EQ(number, tag) << "an answer to another request";
    ++answers[tag];
  }
  void OnClosed() override {
    channel_ = nullptr;
    ++closed;
  }
  bool SendOne() {
    const uint64_t payload[2] = {sent, ~sent};
    if (channel_ == nullptr ||
        channel_->Send(
            {.payload = {reinterpret_cast<const std::byte*>(payload), 16},
             .buffers = {},
             .tag = sent}) != vsc::SendResult::kOk) {
      return false;
    }
    ++sent;
    return true;
  }
  void SendMany(int count) {
    for (int i = 0; i < count && SendOne(); ++i) {
    }
    if (channel_ != nullptr) channel_->Flush();
  }
  void ExpectEachAnsweredOnce() const {
    EXPECT_EQ(answers.size(), sent);
    for (const auto& [tag, count] : answers) {
      EXPECT_EQ(count, 1) << "request " << tag;
    }
  }

  uint64_t sent = 0;
  std::map<uint64_t, int> answers;
  int closed = 0;

 private:
  vsc::ClientChannel* channel_ = nullptr;
};

class MoveTest : public ::testing::TestWithParam<vsp::IncomingPolicy> {
 protected:
  MoveTest() : harness_(MoveHarness::Options()) {
    harness_.guest().AddDriver(testing::kTestInterface, &client_);
  }
  void Connect(vsp::Device* device) {
    harness_.StartHost(device);
    ASSERT_TRUE(harness_.guest().Connect().ok());
    ASSERT_TRUE(harness_.Pump());
    ASSERT_TRUE(harness_.guest().status().ok())
        << harness_.guest().status().ToString();
  }

  MoveHarness harness_;
  CountingClient client_;
};

// promise:P1
TEST_P(MoveTest, RequestsInFlightAreAnsweredOnceByTheNextOwner) {
  HoldingEcho first(GetParam());
  Connect(&first);
  client_.SendMany(20);
  ASSERT_TRUE(harness_.Pump());
  ASSERT_EQ(first.held.size(), 20u);
  first.Answer(3);
  first.Answer(7);
  if (GetParam() == vsp::IncomingPolicy::kDrain) {
    while (!first.held.empty()) first.Answer(0);
  }
  const absl::StatusOr<std::string> saved = harness_.Save();
  ASSERT_TRUE(saved.ok()) << saved.status().ToString();
  // Whatever the old owner still does is not seen.
  while (!first.held.empty()) first.Answer(0);
  HoldingEcho second(GetParam());
  ASSERT_TRUE(harness_.RestoreHost(*saved, &second).ok());
  client_.SendMany(5);
  harness_.Pump();
  while (!second.held.empty()) second.Answer(0);
  ASSERT_TRUE(harness_.Pump());
  EXPECT_EQ(client_.sent, 25u);
  client_.ExpectEachAnsweredOnce();
  EXPECT_EQ(client_.closed, 0);
}

// promise:P7
TEST_P(MoveTest, SourceGoesOnAfterASaveThatIsNotUsed) {
  HoldingEcho device(GetParam());
  Connect(&device);
  client_.SendMany(4);
  ASSERT_TRUE(harness_.Pump());
  if (GetParam() == vsp::IncomingPolicy::kDrain) {
    while (!device.held.empty()) device.Answer(0);
  }
  const absl::StatusOr<std::string> saved = harness_.Save();
  ASSERT_TRUE(saved.ok());
  client_.SendMany(3);
  // Completed while frozen: held, then sent at the thaw.
  while (!device.held.empty()) device.Answer(0);
  harness_.PumpGuest();
  harness_.host().Thaw();
  ASSERT_TRUE(harness_.Pump());
  while (!device.held.empty()) device.Answer(0);
  ASSERT_TRUE(harness_.Pump());
  EXPECT_EQ(client_.sent, 7u);
  client_.ExpectEachAnsweredOnce();
}

// bad:S23 promise:P11
TEST_P(MoveTest, SavingAgainGivesTheSameBytes) {
  HoldingEcho first(GetParam());
  Connect(&first);
  client_.SendMany(9);
  ASSERT_TRUE(harness_.Pump());
  if (GetParam() == vsp::IncomingPolicy::kDrain) {
    while (!first.held.empty()) first.Answer(0);
  }
  const absl::StatusOr<std::string> saved = harness_.Save();
  ASSERT_TRUE(saved.ok());
  EXPECT_EQ(*saved, *harness_.host().Save());
  HoldingEcho second(GetParam());
  ASSERT_TRUE(harness_.RestoreHost(*saved, &second, /*start=*/false).ok());
  const absl::StatusOr<std::string> again = harness_.host().Save();
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*saved, *again);
}

// bad:S18 promise:P4
TEST_P(MoveTest, ARestoreThatADeviceRefusesLeavesTheSavedStateUsable) {
  // Only kResume asks the device at a restore.
  if (GetParam() != vsp::IncomingPolicy::kResume) return;
  HoldingEcho first(GetParam());
  Connect(&first);
  client_.SendMany(6);
  ASSERT_TRUE(harness_.Pump());
  const absl::StatusOr<std::string> saved = harness_.Save();
  ASSERT_TRUE(saved.ok());
  for (int k = 1; k <= 6; ++k) {
    HoldingEcho refusing(GetParam());
    refusing.fail_at = k;
    const absl::Status status = harness_.RestoreHost(*saved, &refusing);
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_TRUE(refusing.held.empty()) << "packets were not taken back";
  }
  HoldingEcho second(GetParam());
  ASSERT_TRUE(harness_.RestoreHost(*saved, &second).ok());
  while (!second.held.empty()) second.Answer(0);
  ASSERT_TRUE(harness_.Pump());
  client_.ExpectEachAnsweredOnce();
}

// promise:P1 promise:P2 promise:P3
TEST_P(MoveTest, RandomCutsLoseAndRepeatNothing) {
  const char* const given = std::getenv("FERRYBUS_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10)
                                         : std::random_device()();
  std::printf(
      "seed %llu; repeat: FERRYBUS_SEED=%llu bazel test "
      "--test_env=FERRYBUS_SEED //tests:move_test\n",
      static_cast<unsigned long long>(seed),
      static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  auto device = std::make_unique<HoldingEcho>(GetParam());
  Connect(device.get());
  uint64_t moves = 0;
  while (moves < 200) {
    switch (random() % 6) {
      case 0:
        client_.SendMany(static_cast<int>(random() % 40));
        break;
      case 1:
        harness_.PumpGuest();
        break;
      case 2:
        harness_.PumpHost();
        break;
      case 3:
      case 4:
        for (uint64_t n = random() % 30; n > 0 && !device->held.empty(); --n) {
          device->Answer(random() % device->held.size());
        }
        break;
      case 5: {
        if (GetParam() == vsp::IncomingPolicy::kDrain) {
          while (!device->held.empty()) device->Answer(0);
        }
        const absl::StatusOr<std::string> saved = harness_.Save();
        ASSERT_TRUE(saved.ok()) << saved.status().ToString();
        if (random() % 4 == 0) {
          harness_.host().Thaw();
          break;
        }
        auto next = std::make_unique<HoldingEcho>(GetParam());
        const absl::Status status = harness_.RestoreHost(*saved, next.get());
        ASSERT_TRUE(status.ok()) << status.ToString();
        device = std::move(next);
        ++moves;
        break;
      }
    }
  }
  for (int i = 0; i < 1000 && client_.answers.size() < client_.sent; ++i) {
    harness_.Pump(10);
    while (!device->held.empty()) device->Answer(0);
  }
  EXPECT_GT(client_.sent, 500u);
  client_.ExpectEachAnsweredOnce();
  EXPECT_EQ(client_.closed, 0);
  EXPECT_TRUE(harness_.faults().empty()) << harness_.faults()[0];
  device->held.clear();
}

INSTANTIATE_TEST_SUITE_P(
    Policies, MoveTest,
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
