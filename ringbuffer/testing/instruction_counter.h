// SPDX-License-Identifier: MIT
//
// Counts the instructions that marked stretches of code execute: exactly, and
// the same in each run, unlike a time.
//
// What it is: a child process runs the code and is single-stepped by this one
// from one mark to the next.  What the kernel does for it is not counted.
//
// Thread safety: for a process that has one thread; it forks.
//
// Cost: some microseconds for each counted instruction.
//
//   const auto counts = CountInstructions([] {
//     MarkStretch();  // from here
//     Work();
//     MarkStretch();  // to here
//     return true;
//   });

#ifndef FERRYBUS_RINGBUFFER_TESTING_INSTRUCTION_COUNTER_H_
#define FERRYBUS_RINGBUFFER_TESTING_INSTRUCTION_COUNTER_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace ferrybus::ringbuffer::testing {

// Begins a stretch, or ends the one that has begun.  Only within the body that
// CountInstructions() runs: elsewhere it ends the program.
inline void MarkStretch() {
#if defined(__x86_64__)
  asm volatile("int3" ::: "memory");
#endif
}

// Runs `body` in a child process and returns the instructions of each stretch,
// in the order in which they ended.  Nothing else of the child is seen here.
//
// Unimplemented: not on this machine, or tracing is not allowed.  Internal:
// `body` returned false, did not return, or left a stretch open.
absl::StatusOr<std::vector<uint32_t>> CountInstructions(
    absl::FunctionRef<bool()> body);

}  // namespace ferrybus::ringbuffer::testing

#endif  // FERRYBUS_RINGBUFFER_TESTING_INSTRUCTION_COUNTER_H_
