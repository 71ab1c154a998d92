// SPDX-License-Identifier: MIT

// Accelerators that move while their guest goes on: nothing may differ.

#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "ferrybus/tests/accelerator/stream.h"
#include "ferrybus/vsp/virtual_function/accelerator_world.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

using testing::AcceleratorStream;
using vsp::AcceleratorHost;
using vsp::AcceleratorMove;

constexpr char kTarget[] = "//tests/accelerator:accelerator_move_test";
// Masked and unmasked at random; the others never.
constexpr uint32_t kMaskedVector = 1;

// A guest and the hosts that it has been on.
class World {
 public:
  explicit World(uint64_t seed) : random_(seed), stream_(seed) {
    hosts_.push_back(std::make_unique<AcceleratorHost>(1));
    host().StartInterrupts();
    host().accelerator.SetPort(&stream_);
  }

  void Step() {
    switch (random_() % 12) {
      case 0:
      case 1:
      case 2:
      case 3:
        stream_.SubmitNext(host().accelerator);
        return;
      case 4:
        SetMask(random_() % 2 == 0);
        return;
      case 5:
        return Copy();
      case 6:
        if (random_() % 8 == 0) Move();
        return;
      default:
        host().accelerator.Run(static_cast<uint32_t>(random_() % 6));
    }
  }

  std::string Finish() {
    if (move_.has_value()) Move();
    while (host().accelerator.Run(100) > 0) {
    }
    SetMask(false);
    for (uint32_t i = 0; i < vsp::kWorldVectors; ++i) {
      uint64_t sent = 0;
      for (const auto& host : hosts_) sent += host->SentOf(i);
      if (i != kMaskedVector && sent != stream_.raised[i]) {
        return absl::StrCat("vector ", i, ": ", sent, " messages, ",
                            stream_.raised[i], " raised");
      }
    }
    if (!mask_difference_.empty()) return mask_difference_;
    return stream_.CheckHost(host());
  }
  uint64_t moves() const { return moves_; }
  uint64_t cancels() const { return cancels_; }
  uint64_t done() const { return stream_.done; }

 private:
  AcceleratorHost& host() { return *hosts_.back(); }

  // Unmasking sends what came meanwhile, once.
  void SetMask(bool is_masked) {
    const uint64_t raised = stream_.raised[kMaskedVector];
    const uint64_t before = host().SentOf(kMaskedVector);
    host().Mask(kMaskedVector, is_masked);
    const uint64_t sent = host().SentOf(kMaskedVector) - before;
    const uint64_t due = is_masked_ && !is_masked && raised > masked_raised_;
    if (sent != due) {
      mask_difference_ =
          absl::StrCat(sent, " messages after the unmask, ", due, " due");
    }
    if (!is_masked_ && is_masked) masked_raised_ = raised;
    is_masked_ = is_masked;
  }

  void Expect(const absl::Status& status) {
    EXPECT_TRUE(status.ok()) << status;
  }

  void Copy() {
    if (!move_.has_value()) {
      target_ = std::make_unique<AcceleratorHost>(hosts_.size() + 1);
      move_.emplace(hosts_.back().get(), target_.get());
      Expect(move_->Begin());
    }
    Expect(move_->CopyDirty(random_() % 40));
  }

  void Move() {
    if (!move_.has_value()) return;
    if (random_() % 4 == 0) {
      Expect(move_->Cancel());
      ++cancels_;
      move_.reset();
      return;
    }
    Expect(move_->Finish());
    move_.reset();
    // The old one does nothing any more, whoever calls it.
    EXPECT_EQ(host().accelerator.Run(10), 0u);
    EXPECT_FALSE(host().accelerator.Submit({}, 0, [](uint64_t) {}));
    host().accelerator.RemovePort(&stream_);
    hosts_.push_back(std::move(target_));
    host().accelerator.SetPort(&stream_);
    ++moves_;
  }

  std::mt19937_64 random_;
  AcceleratorStream stream_;
  std::vector<std::unique_ptr<AcceleratorHost>> hosts_;
  std::unique_ptr<AcceleratorHost> target_;
  std::optional<AcceleratorMove> move_;
  bool is_masked_ = false;
  uint64_t masked_raised_ = 0;
  std::string mask_difference_;
  uint64_t moves_ = 0;
  uint64_t cancels_ = 0;
};

// doc:MG14 doc:MG17 bad:M6
TEST(AcceleratorMoveTest, NothingDiffersAfterMovesAtRandomPoints) {
  const uint64_t seed = ringbuffer::testing::TestSeed(
      kTarget, "AcceleratorMoveTest.NothingDiffersAfterMovesAtRandomPoints");
  uint64_t moves = 0;
  uint64_t cancels = 0;
  for (uint64_t i = 0; i < 20; ++i) {
    World world(seed + i);
    for (int step = 0; step < 2500; ++step) world.Step();
    ASSERT_EQ(world.Finish(), "") << "world " << i;
    EXPECT_GT(world.done(), 300u);
    moves += world.moves();
    cancels += world.cancels();
  }
  EXPECT_GT(moves, 100u);
  EXPECT_GT(cancels, 20u);
}

}  // namespace
}  // namespace ferrybus
