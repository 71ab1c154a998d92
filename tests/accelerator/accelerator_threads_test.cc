// SPDX-License-Identifier: MIT

// The accelerator on a thread of its own, the channel on another, while both
// move.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "ferrybus/tests/testing/move_harness.h"
#include "ferrybus/vsc/accelerator/accelerator_client.h"
#include "ferrybus/vsp/virtual_function/accelerator_device.h"
#include "ferrybus/vsp/virtual_function/accelerator_world.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

using testing::MoveHarness;
using vsp::AcceleratorDevice;
using vsp::AcceleratorHost;
using vsp::AcceleratorMove;

constexpr uint32_t kDepth = 16;
constexpr uint32_t kGuestBytes = 8192;
constexpr uint64_t kBufferPages = kDepth * kGuestBytes / 4096;
constexpr int kMoves = 12;
constexpr uint64_t kAnswersPerMove = 60;

// Runs only behind a channel.
std::unique_ptr<AcceleratorHost> NewHost(uint64_t number) {
  vsp::AcceleratorHostOptions options;
  options.has_port = false;
  return std::make_unique<AcceleratorHost>(number, options);
}

// What the embedder starts: runs whatever there is.
class Worker {
 public:
  explicit Worker(vsp::Accelerator* accelerator)
      : thread_([this, accelerator] {
          while (!is_ending_) {
            if (accelerator->Run(16) == 0) std::this_thread::yield();
          }
        }) {}
  ~Worker() {
    is_ending_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> is_ending_{false};
  std::thread thread_;
};

vsc::AcceleratorClientOptions ClientOptions(MoveHarness& harness,
                                            uint64_t seed) {
  vsc::AcceleratorClientOptions options;
  options.seed = seed;
  options.depth = kDepth;
  options.random.segments = {{1, vsp::kWorldSizes[0]},
                             {2, vsp::kWorldSizes[1]}};
  options.random.vectors = vsp::kWorldVectors;
  options.random.guest_bytes_max = kGuestBytes;
  const uint64_t gpa =
      harness.pages().Allocate(kBufferPages)->page_numbers()[0] * 4096;
  options.buffers = {gpa, kBufferPages * 4096};
  options.buffer_memory =
      harness.memory().Translate(gpa, kBufferPages * 4096).data();
  return options;
}

// promise:P1 doc:MG34
TEST(AcceleratorThreadsTest, NothingIsLostWhenAllOfItMovesUnderLoad) {
  MoveHarness harness{MoveHarness::Options()};
  vsc::AcceleratorClient client(
      ClientOptions(harness, ringbuffer::testing::TestSeed(
                                 "//tests/accelerator:accelerator_threads_test",
                                 "AcceleratorThreadsTest."
                                 "NothingIsLostWhenAllOfItMovesUnderLoad")));
  const auto pump_until = [&](uint64_t answers) {
    while (client.counters().answered < answers && client.is_clean()) {
      harness.Pump(1);
    }
  };
  auto host = NewHost(1);
  host->StartInterrupts();
  auto device = std::make_unique<AcceleratorDevice>(&host->accelerator);
  auto worker = std::make_unique<Worker>(&host->accelerator);
  harness.guest().AddDriver(testing::kTestInterface, &client);
  harness.StartHost(device.get());
  ASSERT_TRUE(harness.guest().Connect().ok());
  for (uint64_t i = 1; i <= kMoves; ++i) {
    pump_until(client.counters().answered + kAnswersPerMove);
    auto target = NewHost(i + 1);
    AcceleratorMove move(host.get(), target.get());
    ASSERT_TRUE(move.Begin().ok());
    for (int pass = 0; pass < 4; ++pass) {
      ASSERT_TRUE(move.CopyDirty(20).ok());
      harness.Pump(2);
    }
    ASSERT_TRUE(host->migratable.Pause().ok());
    const absl::StatusOr<std::string> saved = harness.Save();
    ASSERT_TRUE(saved.ok()) << saved.status();
    const absl::Status moved = move.Finish();
    ASSERT_TRUE(moved.ok()) << moved;
    auto next = std::make_unique<AcceleratorDevice>(&target->accelerator);
    worker = std::make_unique<Worker>(&target->accelerator);
    const absl::Status status = harness.RestoreHost(*saved, next.get());
    ASSERT_TRUE(status.ok()) << status;
    device = std::move(next);
    host = std::move(target);
  }
  pump_until(client.counters().answered + kAnswersPerMove);
  client.Stop();
  while (client.in_flight() > 0 && client.is_clean()) harness.Pump(1);
  EXPECT_TRUE(client.is_clean()) << client.first_difference();
  worker.reset();
  harness.DropHost();
}

}  // namespace
}  // namespace ferrybus
