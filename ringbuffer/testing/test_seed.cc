// SPDX-License-Identifier: MIT

#include "ferrybus/ringbuffer/testing/test_seed.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

namespace ferrybus::ringbuffer::testing {

uint64_t TestSeed(const char* target, const char* gtest_filter) {
  uint64_t seed = 20260101;
  const char* const text = std::getenv("FERRYBUS_SEED");
  if (text != nullptr && std::strcmp(text, "random") == 0) {
    seed = std::random_device()();
  } else if (text != nullptr && *text != '\0') {
    seed = std::strtoull(text, nullptr, 0);
  }
  std::printf(
      "seed %llu; repeat: bazel test %s --test_env=FERRYBUS_SEED=%llu "
      "--test_filter='%s'\n",
      static_cast<unsigned long long>(seed), target,
      static_cast<unsigned long long>(seed), gtest_filter);
  std::fflush(stdout);
  return seed;
}

}  // namespace ferrybus::ringbuffer::testing
