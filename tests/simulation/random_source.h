// SPDX-License-Identifier: MIT
//
// The only source of chance in a simulation: a number is a function of the
// seed, the step and how many were drawn in that step.  So a step that is left
// out does not change what the others draw, which is what makes a failing run
// shrink.
//
// Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_RANDOM_SOURCE_H_
#define FERRYBUS_TESTS_SIMULATION_RANDOM_SOURCE_H_

#include <cstdint>

namespace ferrybus::simulation {

// Mixes two numbers into one (SplitMix64's finisher).
constexpr uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t z = a + 0x9e3779b97f4a7c15 * (b + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

class Random {
 public:
  explicit Random(uint64_t seed = 0) : state_(seed) {}
  Random(uint64_t seed, uint64_t step) : state_(Mix(seed, step)) {}

  uint64_t Next() { return Mix(state_++, 0x5851f42d); }
  // 0: 0.
  uint64_t Below(uint64_t end) { return end == 0 ? 0 : Next() % end; }
  uint64_t Between(uint64_t first, uint64_t last) {
    return first + Below(last - first + 1);
  }
  bool OneIn(uint64_t times) { return Below(times) == 0; }

 private:
  uint64_t state_;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_RANDOM_SOURCE_H_
