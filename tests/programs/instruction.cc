// SPDX-License-Identifier: MIT

#include "ferrybus/tests/programs/instruction.h"

#include "absl/strings/str_cat.h"

namespace ferrybus::testing {
namespace {

constexpr size_t kInstructionsMax = 64;
constexpr size_t kEncodedBytes = 7;

struct Kind {
  const char* name;
  int operands;
  // Each operand is below its limit; 0: any.
  uint32_t limits[2];
  void (*run)(ChannelProgram&, uint32_t, uint32_t);
};

using P = ChannelProgram;
constexpr Kind kKinds[] = {
    {"GuestSends",
     2,
     {24, 1500},
     [](P& p, uint32_t a, uint32_t b) { p.GuestSends(a, b); }},
    {"HostSends",
     2,
     {24, 1500},
     [](P& p, uint32_t a, uint32_t b) { p.HostSends(a, b); }},
    {"GuestFlushes",
     0,
     {1, 1},
     [](P& p, uint32_t, uint32_t) { p.GuestFlushes(); }},
    {"HostFlushes",
     0,
     {1, 1},
     [](P& p, uint32_t, uint32_t) { p.HostFlushes(); }},
    {"GuestRuns",
     1,
     {6, 1},
     [](P& p, uint32_t a, uint32_t) { p.GuestRuns(a); }},
    {"HostRuns", 1, {6, 1}, [](P& p, uint32_t a, uint32_t) { p.HostRuns(a); }},
    {"HostAnswers",
     2,
     {24, 1000},
     [](P& p, uint32_t a, uint32_t b) { p.HostAnswers(a, b); }},
    {"Moves", 0, {1, 1}, [](P& p, uint32_t, uint32_t) { p.Moves(); }},
    {"SavesAndThaws",
     0,
     {1, 1},
     [](P& p, uint32_t, uint32_t) { p.SavesAndThaws(); }},
    {"MovesAtSecondTry",
     1,
     {64, 1},
     [](P& p, uint32_t a, uint32_t) { p.MovesAtSecondTry(a); }},
    // The last, so that a change of it leaves the others' numbers.
    {"GuestWrites",
     2,
     {0, 0},
     [](P& p, uint32_t a, uint32_t b) { p.GuestWrites(a, b); }},
};

constexpr const char* kPolicies[] = {"kDrain", "kResume", "kReissue"};
constexpr vsp::IncomingPolicy kPolicyValues[] = {vsp::IncomingPolicy::kDrain,
                                                 vsp::IncomingPolicy::kResume,
                                                 vsp::IncomingPolicy::kReissue};

}  // namespace

Program Decode(absl::Span<const uint8_t> bytes) {
  Program program;
  if (bytes.empty()) return program;
  program.policy = kPolicyValues[bytes[0] % std::size(kPolicyValues)];
  bytes.remove_prefix(1);
  while (bytes.size() >= kEncodedBytes &&
         program.instructions.size() < kInstructionsMax) {
    Instruction next;
    next.number = static_cast<uint8_t>(bytes[0] % std::size(kKinds));
    next.operands[0] = bytes[1] | bytes[2] << 8;
    next.operands[1] =
        bytes[3] | bytes[4] << 8 | bytes[5] << 16 | uint32_t{bytes[6]} << 24;
    for (int i = 0; i < 2; ++i) {
      const uint32_t limit = kKinds[next.number].limits[i];
      if (limit != 0) next.operands[i] %= limit;
    }
    program.instructions.push_back(next);
    bytes.remove_prefix(kEncodedBytes);
  }
  return program;
}

std::string RunProgram(const Program& program) {
  ChannelProgram channel(program.policy);
  for (const Instruction& each : program.instructions) {
    kKinds[each.number].run(channel, each.operands[0], each.operands[1]);
  }
  return channel.Finish();
}

std::string ToCode(const Program& program) {
  const char* policy = kPolicies[0];
  for (size_t i = 0; i < std::size(kPolicies); ++i) {
    if (kPolicyValues[i] == program.policy) policy = kPolicies[i];
  }
  std::string code = absl::StrCat(
      "TEST(ChannelProgramTest, FoundByTheFuzzer) {\n"
      "  ChannelProgram program(vsp::IncomingPolicy::",
      policy, ");\n");
  for (const Instruction& each : program.instructions) {
    const Kind& kind = kKinds[each.number];
    absl::StrAppend(&code, "  program.", kind.name, "(");
    for (int i = 0; i < kind.operands; ++i) {
      absl::StrAppend(&code, i > 0 ? ", " : "", each.operands[i]);
    }
    absl::StrAppend(&code, ");\n");
  }
  absl::StrAppend(&code, "  EXPECT_EQ(program.Finish(), \"\");\n}\n");
  return code;
}

}  // namespace ferrybus::testing
