// SPDX-License-Identifier: MIT
//
// The seed of a random test: fixed unless the environment asks for another.
//
//   FERRYBUS_SEED=N   run with seed N, or `random` for a new one each time.

#ifndef FERRYBUS_RINGBUFFER_TESTING_TEST_SEED_H_
#define FERRYBUS_RINGBUFFER_TESTING_TEST_SEED_H_

#include <cstdint>

namespace ferrybus::ringbuffer::testing {

// Prints the seed and the command that repeats `target` with it.
uint64_t TestSeed(const char* target, const char* gtest_filter);

}  // namespace ferrybus::ringbuffer::testing

#endif  // FERRYBUS_RINGBUFFER_TESTING_TEST_SEED_H_
