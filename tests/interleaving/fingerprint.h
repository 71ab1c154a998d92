// SPDX-License-Identifier: MIT
//
// 128 bits that stand for a state: two states with the same fingerprint are
// taken for one.  Of n states, some pair is confused with probability below
// n * n / 2^129: of a thousand million, less than 10^-20.

#ifndef FERRYBUS_TESTS_INTERLEAVING_FINGERPRINT_H_
#define FERRYBUS_TESTS_INTERLEAVING_FINGERPRINT_H_

#include <bit>
#include <cstdint>
#include <utility>

namespace ferrybus::interleaving {

class Fingerprint {
 public:
  void Add(uint64_t value) {
    low_ = Mix(std::rotl(low_, 23) ^ (value * 0x9e3779b97f4a7c15));
    high_ = Mix(std::rotl(high_, 41) + (value ^ 0xc2b2ae3d27d4eb4f));
  }

  uint64_t low() const { return low_; }
  uint64_t high() const { return high_; }

  friend bool operator==(const Fingerprint&, const Fingerprint&) = default;
  template <typename H>
  friend H AbslHashValue(H state, const Fingerprint& fingerprint) {
    return H::combine(std::move(state), fingerprint.low_);
  }

 private:
  // The finalizer of splitmix64: each bit of the input moves each of the
  // output.
  static uint64_t Mix(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
  }

  uint64_t low_ = 1;
  uint64_t high_ = 2;
};

}  // namespace ferrybus::interleaving

#endif  // FERRYBUS_TESTS_INTERLEAVING_FINGERPRINT_H_
