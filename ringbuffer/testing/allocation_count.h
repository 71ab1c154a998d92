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

// Calls of operator new since the program began.
uint64_t AllocationCount();
// Heap that operator new has given out and that is not free yet.
uint64_t AllocatedBytes();

}  // namespace ferrybus::ringbuffer::testing

#endif  // FERRYBUS_RINGBUFFER_TESTING_ALLOCATION_COUNT_H_
