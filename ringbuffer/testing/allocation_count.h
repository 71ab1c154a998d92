// SPDX-License-Identifier: MIT
//
// What a whole program allocates: whoever links this has operator new counted,
// on every thread.
//
// Thread safety: any thread.
//
//   const uint64_t before = AllocationCount();
//   SendAll();
//   EXPECT_EQ(AllocationCount(), before);

#ifndef FERRYBUS_RINGBUFFER_TESTING_ALLOCATION_COUNT_H_
#define FERRYBUS_RINGBUFFER_TESTING_ALLOCATION_COUNT_H_

#include <cstdint>

namespace ferrybus::ringbuffer::testing {

// Counting costs: off, the program runs as without it.  What was allocated on
// one side of the switch and freed on the other is wrong in both.
void SetCounting(bool on);
// Calls of operator new since the program began, while counting.
uint64_t AllocationCount();
// Heap that operator new has given out and that is not free yet.
int64_t AllocatedBytes();
// The most that was since the last ResetPeak().
int64_t AllocatedBytesPeak();
void ResetPeak();

}  // namespace ferrybus::ringbuffer::testing

#endif  // FERRYBUS_RINGBUFFER_TESTING_ALLOCATION_COUNT_H_
