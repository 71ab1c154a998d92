// SPDX-License-Identifier: MIT
//
// Programs of what can happen to a channel, made of bytes.  One that goes wrong
// is printed as a test for channel_program_test.cc.  FERRYBUS_PRINT_PROGRAM=1
// prints every program before it runs: for one that crashes.

#include <cstdio>
#include <cstdlib>

#include "ferrybus/tests/programs/instruction.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ferrybus::testing;
  static const bool prints = std::getenv("FERRYBUS_PRINT_PROGRAM") != nullptr;
  const Program program = Decode({data, size});
  if (prints) std::fputs(ToCode(program).c_str(), stderr);
  const std::string wrong = RunProgram(program);
  if (wrong.empty()) return 0;
  std::fprintf(stderr, "%s\n%s", wrong.c_str(), ToCode(program).c_str());
  std::abort();
}
