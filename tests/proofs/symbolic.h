// SPDX-License-Identifier: MIT
//
// Unsigned integers that stand for all their values at once, to run real code
// on and to prove what it computes.
//
// What it is: Symbolic<32> and Symbolic<64> have the operators of uint32_t and
// uint64_t, and build terms for z3.  Where code asks whether a condition holds,
// the run takes one branch, and Prove() runs the code again for the other one,
// until all feasible paths were taken: the code needs no change.
//
// Arithmetic that wraps round is a failed proof: no index computation relies on
// it.
//
// Thread safety: one proof at a time, one thread.
//
//   const Verdict verdict = Prove([](Proof& proof) {
//     const Symbolic<32> size = proof.Any32("size");
//     if (!IsValidDataSize(size)) return;
//     proof.Check(MaxSendRingBytes(size) < size, "leaves a gap");
//   });

#ifndef FERRYBUS_TESTS_PROOFS_SYMBOLIC_H_
#define FERRYBUS_TESTS_PROOFS_SYMBOLIC_H_

#include <concepts>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>

namespace ferrybus::proofs {

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kRemainder,
  kRoundDown8,
  kEqual,
  kLess,
  kLessOrEqual,
};

// A constant, or a term of the proof that is running.
struct Value {
  uint64_t constant = 0;
  int term = -1;  // below 0: none
};

// The operands have the same number of bits, and so has the result; that of a
// comparison is a condition.
Value Apply(Operator op, int bits, Value left, Value right);
Value Truncate(Value value, int bits);
// Which branch this run takes.
bool Branch(Value condition);

class Condition {
 public:
  constexpr explicit Condition(Value value) : value_(value) {}
  // Implicit, as a comparison's result is.
  constexpr operator bool() const {
    if (std::is_constant_evaluated()) return value_.constant != 0;
    return Branch(value_);
  }
  constexpr Value value() const { return value_; }

 private:
  Value value_;
};

// The operators are constexpr as those of integers are, so that constexpr code
// compiles; only runs with constants alone would be evaluated by the compiler.
template <int kBits>
class Symbolic {
 public:
  // The complement of a constant: of 7, since nothing else is used.
  struct Mask8 {
    Symbolic seven;
  };

  constexpr Symbolic() = default;
  // Implicit, as conversions of integers are.
  template <std::integral T>
  constexpr Symbolic(T constant)
      : value_{kBits == 64 ? static_cast<uint64_t>(constant)
                           : static_cast<uint32_t>(constant)} {}
  constexpr explicit Symbolic(Value value) : value_(value) {}
  template <int kOther>
  requires(kOther < kBits) constexpr Symbolic(Symbolic<kOther> other)
      : value_(other.value()) {}
  template <int kOther>
  requires(kOther > kBits) constexpr explicit Symbolic(Symbolic<kOther> other)
      : value_(Truncate(other.value(), kBits)) {}

  constexpr Value value() const { return value_; }

  friend constexpr Symbolic operator+(Symbolic left, Symbolic right) {
    return Make(Operator::kAdd, left, right);
  }
  friend constexpr Symbolic operator-(Symbolic left, Symbolic right) {
    return Make(Operator::kSubtract, left, right);
  }
  friend constexpr Symbolic operator*(Symbolic left, Symbolic right) {
    return Make(Operator::kMultiply, left, right);
  }
  friend constexpr Symbolic operator%(Symbolic left, Symbolic right) {
    return Make(Operator::kRemainder, left, right);
  }
  // Masks that end in three zeros, and are ones before, are all there are.
  friend constexpr Symbolic operator&(Symbolic value, Mask8 mask) {
    return Make(Operator::kRoundDown8, value, mask.seven);
  }
  constexpr Mask8 operator~() const { return {*this}; }

  friend constexpr Condition operator==(Symbolic left, Symbolic right) {
    return Compare(Operator::kEqual, left, right);
  }
  friend constexpr Condition operator<(Symbolic left, Symbolic right) {
    return Compare(Operator::kLess, left, right);
  }
  friend constexpr Condition operator<=(Symbolic left, Symbolic right) {
    return Compare(Operator::kLessOrEqual, left, right);
  }
  friend constexpr Condition operator>(Symbolic left, Symbolic right) {
    return right < left;
  }
  friend constexpr Condition operator>=(Symbolic left, Symbolic right) {
    return right <= left;
  }

 private:
  static constexpr Symbolic Make(Operator op, Symbolic left, Symbolic right) {
    return Symbolic(Apply(op, kBits, left.value_, right.value_));
  }
  static constexpr Condition Compare(Operator op, Symbolic left,
                                     Symbolic right) {
    return Condition(Apply(op, kBits, left.value_, right.value_));
  }

  Value value_;
};

// What code under proof can do besides computing.
class Proof {
 public:
  virtual ~Proof() = default;
  virtual Symbolic<32> Any32(const char* name) = 0;
  virtual Symbolic<64> Any64(const char* name) = 0;
  // Must hold for all values that lead here.
  virtual void Check(Condition condition, const char* what) = 0;
};

struct Verdict {
  bool proved = false;
  // What does not hold, and values for which it does not.
  std::string counterexample;
  int paths = 0;
  int checks = 0;  // those of arithmetic included
};

// `body` may be run many times; it must do the same each time.
Verdict Prove(const std::function<void(Proof&)>& body);

}  // namespace ferrybus::proofs

#endif  // FERRYBUS_TESTS_PROOFS_SYMBOLIC_H_
