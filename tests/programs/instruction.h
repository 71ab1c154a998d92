// SPDX-License-Identifier: MIT
//
// The language of ChannelProgram: bytes to instructions, and instructions to
// the C++ test that does the same.
//
// Encoding: a byte for the policy; then for each instruction its number, two
// bytes for its first operand and four for the second, little-endian, each
// reduced to what the instruction takes.  A rest is ignored: every input is a
// program.

#ifndef FERRYBUS_TESTS_PROGRAMS_INSTRUCTION_H_
#define FERRYBUS_TESTS_PROGRAMS_INSTRUCTION_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/tests/programs/channel_program.h"

namespace ferrybus::testing {

struct Instruction {
  uint8_t number = 0;
  uint32_t operands[2] = {0, 0};
};

struct Program {
  vsp::IncomingPolicy policy = vsp::IncomingPolicy::kResume;
  std::vector<Instruction> instructions;
};

// At most 64 instructions.
Program Decode(absl::Span<const uint8_t> bytes);

// What ChannelProgram::Finish() says.
std::string RunProgram(const Program& program);

// A whole test.
std::string ToCode(const Program& program);

}  // namespace ferrybus::testing

#endif  // FERRYBUS_TESTS_PROGRAMS_INSTRUCTION_H_
