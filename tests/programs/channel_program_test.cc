// SPDX-License-Identifier: MIT
//
// The language itself, and programs that were found by fuzzing.

#include "ferrybus/tests/programs/channel_program.h"

#include <fstream>
#include <iterator>

#include "ferrybus/tests/programs/instruction.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::testing {
namespace {

// What is printed compiles and runs: here it is.
TEST(ChannelProgramTest, FoundByTheFuzzer) {
  ChannelProgram program(vsp::IncomingPolicy::kReissue);
  program.GuestSends(5, 100);
  program.HostSends(3, 1400);
  program.GuestFlushes();
  program.HostFlushes();
  program.HostRuns(2);
  program.HostAnswers(2, 7);
  program.Moves();
  program.GuestRuns(1);
  program.SavesAndThaws();
  program.MovesAtSecondTry(4);
  EXPECT_EQ(program.Finish(), "");
}

Program Example() {
  return {.policy = vsp::IncomingPolicy::kReissue,
          .instructions = {{0, {5, 100}},
                           {1, {3, 1400}},
                           {2, {}},
                           {3, {}},
                           {5, {2, 0}},
                           {6, {2, 7}},
                           {7, {}},
                           {4, {1, 0}},
                           {8, {}},
                           {9, {4, 0}}}};
}

TEST(ProgramTest, IsPrintedAsATest) {
  std::ifstream file("tests/programs/channel_program_test.cc");
  const std::string this_file((std::istreambuf_iterator<char>(file)), {});
  EXPECT_THAT(this_file, ::testing::HasSubstr(ToCode(Example())));
}

TEST(ProgramTest, EveryInputIsAProgram) {
  EXPECT_TRUE(Decode({}).instructions.empty());
  const uint8_t bytes[] = {2, 0, 5, 0, 100, 0, 0, 0, 11, 1, 0, 0};
  const Program program = Decode(bytes);
  EXPECT_EQ(program.policy, vsp::IncomingPolicy::kReissue);
  ASSERT_EQ(program.instructions.size(), 1u);
  EXPECT_EQ(program.instructions[0].operands[0], 5u);
  EXPECT_EQ(program.instructions[0].operands[1], 100u);
  EXPECT_EQ(RunProgram(program), "");
}

// A guest that writes over everything does not stop the host.
// bad:R20
TEST(ProgramTest, AHostileGuestIsSurvived) {
  Program program = Example();
  for (uint32_t word = 0; word < 100; ++word) {
    program.instructions.push_back({10, {word * 509, 0xfffffff8}});
    program.instructions.push_back({5, {1, 0}});
  }
  program.instructions.push_back({7, {}});
  EXPECT_EQ(RunProgram(program), "");
}

}  // namespace
}  // namespace ferrybus::testing
