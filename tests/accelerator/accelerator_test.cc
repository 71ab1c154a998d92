// SPDX-License-Identifier: MIT

// The accelerator against a client's own computation.

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "ferrybus/tests/accelerator/stream.h"
#include "ferrybus/vsp/virtual_function/accelerator_world.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

using accelerator::Command;
using accelerator::Op;
using accelerator::Place;
using accelerator::Status;
using testing::AcceleratorStream;
using vsp::Accelerator;
using vsp::AcceleratorHost;
using vsp::AcceleratorMove;

constexpr char kTarget[] = "//tests/accelerator:accelerator_test";

struct Fixture {
  explicit Fixture(uint64_t seed = 1) : host(1), stream(seed) {
    host.StartInterrupts();
    host.accelerator.SetPort(&stream);
  }
  void RunAll() {
    while (host.accelerator.Run(1000) > 0) {
    }
  }
  // Submits it, runs it, and compares everything.
  std::string Check(const vsc::RandomCommand& asked) {
    if (!stream.Submit(host.accelerator, asked)) return "not taken";
    RunAll();
    return stream.CheckHost(host);
  }

  AcceleratorHost host;
  AcceleratorStream stream;
};

Command Words(Op op, uint64_t size) {
  Command command = {};
  command.op = op;
  command.sequence = 77;
  command.target = {1, 0, 8192};
  command.source = {2, 0, 8};
  command.size_bytes = size;
  command.value = 0x0123456789abcdef;
  return command;
}

// Long ones of every kind that takes several steps.
std::vector<vsc::RandomCommand> LongCommands() {
  constexpr uint64_t kSize = 5 * 4096 + 264;
  std::vector<vsc::RandomCommand> commands;
  for (Op op : {Op::kFill, Op::kRandomFill, Op::kCopy, Op::kHash}) {
    commands.push_back({Words(op, kSize), {}, Status::kOk});
  }
  for (Op op : {Op::kRead, Op::kWrite}) {
    vsc::RandomCommand transfer{Words(op, kSize), {}, Status::kOk};
    transfer.command.flags = accelerator::kGuestBuffers;
    if (op == Op::kWrite) transfer.data.resize(kSize, std::byte{0x5a});
    commands.push_back(transfer);
  }
  for (auto element :
       {accelerator::Element::kInt32, accelerator::Element::kFloat32}) {
    Command multiply = Words(Op::kMultiply, 0);
    multiply.element = element;
    multiply.source_b = {2, 0, 65536};
    multiply.rows = 30;
    multiply.inner = 20;
    multiply.columns = 25;
    commands.push_back({multiply, {}, Status::kOk});
  }
  return commands;
}

TEST(AcceleratorTest, EveryCommandGivesWhatTheModelSays) {
  Fixture f;
  for (const vsc::RandomCommand& asked : LongCommands()) {
    EXPECT_EQ(f.Check(asked), "") << static_cast<int>(asked.command.op);
  }
  for (Op op : {Op::kQuery, Op::kSetRegister}) {
    Command command = Words(op, 0);
    command.columns = accelerator::kFillMask;
    command.flags = accelerator::kInterrupt;
    command.vector = 3;
    EXPECT_EQ(f.Check({command, {}, Status::kOk}), "");
  }
  EXPECT_EQ(f.host.SentOf(3), 2u);
  // The mask is used from now on.
  EXPECT_EQ(f.Check({Words(Op::kFill, 64), {}, Status::kOk}), "");
  EXPECT_EQ(f.Check({Words(Op::kQuery, 0), {}, Status::kOk}), "");
}

TEST(AcceleratorTest, HashAndRandomAreWhatTheProtocolSays) {
  EXPECT_EQ(accelerator::HashStep(accelerator::kHashSeed, 0),
            0xaf63bd49fd1c5dbbu);
  EXPECT_EQ(accelerator::NextRandom(1), 0x40822041u);
}

struct WrongCommand {
  const char* name;
  void (*spoil)(Command*);
  Status status;
};

const WrongCommand kWrongCommands[] = {
    {"no op", [](Command* c) { c->op = Op(0); }, Status::kUnknownOp},
    {"unknown op", [](Command* c) { c->op = Op(10); }, Status::kUnknownOp},
    {"reserved", [](Command* c) { c->reserved = 1; }, Status::kMalformed},
    {"place", [](Command* c) { c->source_b.reserved = 1; }, Status::kMalformed},
    {"flag", [](Command* c) { c->flags = 4; }, Status::kMalformed},
    {"buffers of a fill", [](Command* c) { c->flags = 2; }, Status::kMalformed},
    {"vector",
     [](Command* c) {
       c->flags = 1;
       c->vector = vsp::kWorldVectors;
     },
     Status::kBadVector},
    {"empty", [](Command* c) { c->size_bytes = 0; }, Status::kBadSize},
    {"odd size", [](Command* c) { c->size_bytes = 12; }, Status::kMisaligned},
    {"odd place", [](Command* c) { c->target.offset_bytes = 4; },
     Status::kMisaligned},
    {"segment 0", [](Command* c) { c->target.segment = 0; }, Status::kOutside},
    {"segment 3", [](Command* c) { c->target.segment = 3; }, Status::kOutside},
    {"one beyond",
     [](Command* c) { c->target.offset_bytes = vsp::kWorldSizes[0] - 8; },
     Status::kOutside},
    {"wraps", [](Command* c) { c->target.offset_bytes = ~uint64_t{0} - 7; },
     Status::kOutside},
    {"too long", [](Command* c) { c->size_bytes = ~uint64_t{7}; },
     Status::kOutside},
    {"register",
     [](Command* c) {
       c->op = Op::kSetRegister;
       c->columns = accelerator::kWritten;
     },
     Status::kBadRegister},
    {"register 16",
     [](Command* c) {
       c->op = Op::kSetRegister;
       c->columns = 16;
     },
     Status::kBadRegister},
    {"overlap",
     [](Command* c) {
       c->op = Op::kCopy;
       c->source = {1, 0, 8192 + 8};
     },
     Status::kOverlap},
    {"inline read",
     [](Command* c) {
       c->op = Op::kRead;
       c->size_bytes = accelerator::kInlineBytesMax + 1;
     },
     Status::kBadSize},
    {"write without data", [](Command* c) { c->op = Op::kWrite; },
     Status::kNoData},
};

const WrongCommand kWrongMatrices[] = {
    {"matrix of 0", [](Command* c) { c->op = Op::kMultiply; },
     Status::kBadSize},
    {"matrix element",
     [](Command* c) {
       c->op = Op::kMultiply;
       c->size_bytes = 0;
       c->rows = c->inner = c->columns = 1;
       c->element = accelerator::Element(2);
     },
     Status::kMalformed},
    {"matrix outside",
     [](Command* c) {
       c->op = Op::kMultiply;
       c->size_bytes = 0;
       c->rows = c->inner = c->columns = 4096;
     },
     Status::kOutside},
    {"matrix onto itself",
     [](Command* c) {
       c->op = Op::kMultiply;
       c->size_bytes = 0;
       c->rows = c->inner = c->columns = 4;
       c->source = {1, 0, 0};
       c->source_b = {1, 0, 8192 + 60};
     },
     Status::kOverlap},
};

std::string CheckWrong(Fixture& f, const WrongCommand& its) {
  vsc::RandomCommand asked{Words(Op::kFill, 64), {}, its.status};
  its.spoil(&asked.command);
  return f.Check(asked);
}

TEST(AcceleratorTest, WrongCommandsAreAnsweredAndDoNothing) {
  Fixture f;
  for (const WrongCommand& its : kWrongCommands) {
    EXPECT_EQ(CheckWrong(f, its), "") << its.name;
  }
  for (const WrongCommand& its : kWrongMatrices) {
    EXPECT_EQ(CheckWrong(f, its), "") << its.name;
  }
  EXPECT_EQ(f.stream.model.registers()[accelerator::kFailed],
            std::size(kWrongCommands) + std::size(kWrongMatrices));
}

TEST(AcceleratorTest, AFullQueueTakesNoMore) {
  Fixture f;
  for (uint32_t i = 0; i < accelerator::kCommandsMax; ++i) {
    ASSERT_TRUE(f.stream.SubmitNext(f.host.accelerator)) << i;
  }
  EXPECT_FALSE(f.host.accelerator.Submit(
      {}, 0, [](uint64_t) { FAIL() << "was called"; }));
  f.RunAll();
  EXPECT_EQ(f.stream.CheckHost(f.host), "");
}

// The order of holding, power and work does not matter.
TEST(AcceleratorTest, RunsOnlyWhenNothingHoldsIt) {
  Fixture f;
  Accelerator& accelerator = f.host.accelerator;
  ASSERT_TRUE(f.stream.SubmitNext(accelerator));
  accelerator.SetHold(Accelerator::kOverlay, true);
  accelerator.SetHold(Accelerator::kMigration, true);
  accelerator.SetPower(false);
  EXPECT_EQ(accelerator.Run(10), 0u);
  accelerator.SetHold(Accelerator::kOverlay, false);
  EXPECT_EQ(accelerator.Run(10), 0u);
  accelerator.SetPower(true);
  EXPECT_EQ(accelerator.Run(10), 0u);
  accelerator.SetHold(Accelerator::kMigration, false);
  accelerator.RemovePort(&f.host.port);  // another's: nothing
  EXPECT_TRUE(accelerator.has_work());
  accelerator.RemovePort(&f.stream);
  EXPECT_EQ(accelerator.Run(10), 0u);
  accelerator.SetPort(&f.stream);
  EXPECT_TRUE(accelerator.has_work());
  EXPECT_GT(accelerator.Run(10), 0u);
}

TEST(AcceleratorTest, AResetAnswersAllAndForgetsTheRegisters) {
  Fixture f;
  f.host.accelerator.SetPort(&f.host.port);
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(
        f.host.accelerator.Submit(Words(Op::kFill, 8192), 0, [](uint64_t) {}));
  }
  EXPECT_EQ(f.host.accelerator.Run(1), 1u);
  f.host.accelerator.Reset();
  EXPECT_FALSE(f.host.accelerator.has_work());
  f.host.accelerator.SetHold(Accelerator::kMigration, true);
  vsp::AcceleratorState expected;
  expected.registers[accelerator::kCompleted] = 5;
  EXPECT_EQ(*f.host.accelerator.Save(), expected);
}

// What the guest took away, or never had.
TEST(AcceleratorTest, DataThatIsGoneEndsTheCommand) {
  Fixture f;
  Command write = Words(Op::kWrite, 8192);
  write.flags = accelerator::kGuestBuffers;
  f.host.accelerator.SetPort(&f.host.port);
  ASSERT_TRUE(f.host.accelerator.Submit(write, 8192, [](uint64_t) {}));
  f.RunAll();
  f.host.accelerator.SetHold(Accelerator::kMigration, true);
  EXPECT_EQ(f.host.accelerator.Save()->registers[accelerator::kFailed], 1u);
  EXPECT_EQ(f.host.accelerator.Save()->registers[accelerator::kWritten], 0u);
}

// doc:MG14 doc:MG24
TEST(AcceleratorTest, MovesAtEveryStepOfALongCommand) {
  for (const vsc::RandomCommand& asked : LongCommands()) {
    uint32_t step = 0;
    for (bool is_over = false; !is_over; ++step) {
      Fixture f;
      // Something to work on, and something behind it.
      for (int i = 0; i < 3; ++i) f.stream.SubmitNext(f.host.accelerator);
      f.RunAll();
      const uint64_t before = f.stream.done;
      ASSERT_TRUE(f.stream.Submit(f.host.accelerator, asked));
      f.stream.SubmitNext(f.host.accelerator);
      f.host.accelerator.Run(step);
      is_over = f.stream.done > before;
      AcceleratorHost target(2);
      AcceleratorMove move(&f.host, &target);
      ASSERT_TRUE(move.Begin().ok());
      const absl::Status status = move.Finish();
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_EQ(f.host.accelerator.Run(100), 0u);
      target.accelerator.SetPort(&f.stream);
      f.host.accelerator.RemovePort(&f.stream);
      while (target.accelerator.Run(100) > 0) {
      }
      ASSERT_EQ(f.stream.CheckHost(target), "")
          << "op " << static_cast<int>(asked.command.op) << " step " << step;
    }
    EXPECT_GT(step, 3u);
  }
}

TEST(AcceleratorTest, RandomCommandsGiveWhatTheModelSays) {
  Fixture f(ringbuffer::testing::TestSeed(
      kTarget, "AcceleratorTest.RandomCommandsGiveWhatTheModelSays"));
  for (int i = 0; i < 5000; ++i) {
    while (!f.stream.SubmitNext(f.host.accelerator)) {
      f.host.accelerator.Run(7);
    }
  }
  f.RunAll();
  EXPECT_EQ(f.stream.CheckHost(f.host), "");
  EXPECT_EQ(f.stream.done, 5000u);
  for (uint32_t i = 0; i < vsp::kWorldVectors; ++i) {
    EXPECT_EQ(f.host.SentOf(i), f.stream.raised[i]);
    EXPECT_GT(f.stream.raised[i], 0u);
  }
}

}  // namespace
}  // namespace ferrybus
