// SPDX-License-Identifier: MIT

#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "ferrybus/vsp/virtual_function/msix_world.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using Kind = MsixOp::Kind;

constexpr uint64_t kGood = kInterruptRange + 0x1000;
constexpr uint64_t kBad = 0x1000;

MsixOp Address(uint32_t v, uint64_t value) {
  return {Kind::kWrite, v * uint64_t{16}, 8, value};
}
MsixOp Mask(uint32_t v, uint64_t value) {
  return {Kind::kWrite, v * uint64_t{16} + 12, 4, value};
}
MsixOp Control(bool is_enabled, bool is_masked) {
  return {Kind::kControl, 0, 0,
          (is_enabled ? 0x8000u : 0) | (is_masked ? 0x4000u : 0)};
}
MsixOp Simple(Kind kind, uint64_t vector = 0) { return {kind, vector, 0, 0}; }

// All that a guest, a device and a mover can do to a table of two entries.
std::vector<MsixOp> AllOps() {
  std::vector<MsixOp> ops;
  for (uint32_t v = 0; v < 2; ++v) {
    ops.push_back(Mask(v, 1));
    ops.push_back(Mask(v, 0));
    ops.push_back(Address(v, kGood));
    ops.push_back(Address(v, kGood + 0x40));
    ops.push_back(Address(v, kBad));
    ops.push_back({Kind::kWrite, v * uint64_t{16} + 8, 8, 0x100000007});
    ops.push_back(Simple(Kind::kRaise, v));
    ops.push_back(Simple(Kind::kWithdraw, v));
  }
  for (int bits = 0; bits < 4; ++bits) {
    ops.push_back(Control((bits & 1) != 0, (bits & 2) != 0));
  }
  for (Kind kind : {Kind::kPause, Kind::kResume, Kind::kMove, Kind::kRewrite,
                    Kind::kReset}) {
    ops.push_back(Simple(kind));
  }
  return ops;
}

// How to get to each combination of: masked, address, pending for each entry;
// enabled, function masked, paused.
std::vector<std::vector<MsixOp>> AllStates() {
  std::vector<std::vector<MsixOp>> states;
  const uint64_t addresses[] = {0, kGood, kBad};
  for (int bits = 0; bits < 12 * 12 * 8; ++bits) {
    int rest = bits;
    const auto take = [&rest](int count) {
      const int value = rest % count;
      rest /= count;
      return value;
    };
    std::vector<MsixOp> ops;
    std::vector<MsixOp> raises;
    for (uint32_t v = 0; v < 2; ++v) {
      ops.push_back(Address(v, addresses[take(3)]));
      ops.push_back(Mask(v, take(2)));
      if (take(2) != 0) raises.push_back(Simple(Kind::kRaise, v));
    }
    const bool is_enabled = take(2) != 0;
    const bool is_masked = take(2) != 0;
    ops.push_back(Control(is_enabled, is_masked));
    if (take(2) != 0) ops.push_back(Simple(Kind::kResume));
    ops.insert(ops.end(), raises.begin(), raises.end());
    states.push_back(std::move(ops));
  }
  return states;
}

std::string RunAll(const std::vector<MsixOp>& ops, MsixWorld& world) {
  for (size_t i = 0; i < ops.size(); ++i) {
    if (std::string wrong = world.Step(ops[i]); !wrong.empty()) {
      return absl::StrCat("step ", i, ", kind ", static_cast<int>(ops[i].kind),
                          ", offset ", ops[i].offset, ": ", wrong);
    }
  }
  return "";
}

// doc:MX3 doc:MX4 doc:MX5 doc:MX6 doc:MX10 doc:MX18 doc:MX20
TEST(MsixModelTest, AllShortSequencesFromEveryStateOfTwoEntries) {
  const std::vector<MsixOp> ops = AllOps();
  size_t sequences = 0;
  for (const std::vector<MsixOp>& state : AllStates()) {
    for (const MsixOp& first : ops) {
      for (const MsixOp& second : ops) {
        MsixWorld world(2);
        for (const MsixOp& op : state) world.Prepare(op);
        ASSERT_EQ(RunAll({first, second}, world), "")
            << "sequence " << sequences;
        ++sequences;
      }
    }
  }
  std::printf("%zu sequences of 2 steps from %d states\n", sequences,
              12 * 12 * 8);
  EXPECT_EQ(sequences, 12u * 12 * 8 * ops.size() * ops.size());
}

TEST(MsixModelTest, AllSequencesOfThreeStepsFromRunningTables) {
  const std::vector<MsixOp> ops = AllOps();
  size_t sequences = 0;
  for (uint64_t mask : {0, 1}) {
    const std::vector<MsixOp> start = {
        Address(0, kGood), Address(1, kGood),    Mask(0, mask),
        Mask(1, mask),     Control(true, false), Simple(Kind::kResume)};
    for (const MsixOp& first : ops) {
      for (const MsixOp& second : ops) {
        for (const MsixOp& third : ops) {
          MsixWorld world(2);
          std::vector<MsixOp> all = start;
          all.insert(all.end(), {first, second, third});
          ASSERT_EQ(RunAll(all, world), "") << "sequence " << sequences;
          ++sequences;
        }
      }
    }
  }
  std::printf("%zu sequences of 3 steps\n", sequences);
}

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  uint64_t Next() { return engine_(); }
  uint64_t Below(uint64_t bound) { return engine_() % bound; }

 private:
  std::mt19937_64 engine_;
};

uint64_t RandomValue(Random& random) {
  switch (random.Below(4)) {
    case 0:
      return kInterruptRange + random.Below(1 << 20);
    case 1:
      return random.Below(2);
    case 2:
      return random.Next();
    default:
      return (random.Below(4) << 32) | random.Below(256);
  }
}

MsixOp RandomOp(Random& random, uint32_t vectors) {
  const uint64_t dice = random.Below(100);
  const uint64_t vector = random.Below(vectors + 1);
  if (dice < 30) return Simple(Kind::kRaise, vector);
  if (dice < 33) return Simple(Kind::kWithdraw, vector);
  if (dice < 38) return Control(random.Below(4) != 0, random.Below(3) == 0);
  if (dice < 41) return Simple(Kind::kPause);
  if (dice < 46) return Simple(Kind::kResume);
  if (dice < 48) return Simple(Kind::kMove);
  if (dice < 49) return Simple(Kind::kRewrite);
  if (dice < 50 && random.Below(8) == 0) return Simple(Kind::kReset);
  const uint32_t size = random.Below(2) == 0 ? 4 : 8;
  uint64_t offset = vector * 16 + random.Below(4) * 4;
  if (size == 8) offset &= ~uint64_t{7};
  const bool is_odd = random.Below(16) == 0;
  return {random.Below(8) == 0 ? Kind::kRead : Kind::kWrite,
          is_odd ? random.Below(vectors * 16 + 32) : offset,
          is_odd ? static_cast<uint32_t>(random.Below(17)) : size,
          RandomValue(random)};
}

// bad:M3 doc:MX2
TEST(MsixModelTest, RandomStepsOnTablesOfManySizes) {
  Random random(ringbuffer::testing::TestSeed(
      "//vsp/virtual_function:msix_model_test",
      "MsixModelTest.RandomStepsOnTablesOfManySizes"));
  for (uint32_t vectors : {1, 2, 3, 63, 64, 65, 130, 2048}) {
    MsixWorld world(vectors);
    const int steps = vectors == 2048 ? 300 : 20000;
    for (int i = 0; i < steps; ++i) {
      ASSERT_EQ(world.Step(RandomOp(random, vectors)), "")
          << vectors << " vectors, step " << i;
    }
    ASSERT_EQ(world.CheckAll(), "") << vectors;
  }
}

}  // namespace
}  // namespace ferrybus::vsp
