// SPDX-License-Identifier: MIT

#include "ferrybus/tests/proofs/symbolic.h"

#include <z3++.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace ferrybus::proofs {
namespace {

class Z3Proof;
Z3Proof* g_proof = nullptr;

class Z3Proof final : public Proof {
 public:
  Z3Proof() { g_proof = this; }
  ~Z3Proof() override { g_proof = nullptr; }

  // Prepares the next path; false: all were taken.
  bool NextPath() {
    while (!choices_.empty() && !choices_.back().other_open) {
      choices_.pop_back();
    }
    if (paths_ != 0) {
      if (choices_.empty()) return false;
      choices_.back() = {!choices_.back().taken, false};
    }
    ++paths_;
    next_choice_ = 0;
    path_.clear();
    terms_.clear();
    inputs_.clear();
    return true;
  }

  Symbolic<32> Any32(const char* name) override {
    return Symbolic<32>(Input(name, 32));
  }
  Symbolic<64> Any64(const char* name) override {
    return Symbolic<64>(Input(name, 64));
  }

  void Check(Condition condition, const char* what) override {
    Require(ConditionTerm(condition.value()), what);
  }

  Value Add(const z3::expr& term) {
    terms_.push_back(term);
    return {0, static_cast<int>(terms_.size()) - 1};
  }
  z3::expr Term(Value value) {
    return value.term < 0 ? context_.int_val(value.constant)
                          : terms_[static_cast<size_t>(value.term)];
  }
  // 2^bits.
  z3::expr Limit(int bits) {
    const z3::expr half = context_.int_val(uint64_t{1} << (bits - 1));
    return 2 * half;
  }
  z3::expr ConditionTerm(Value value) {
    return value.term < 0 ? context_.bool_val(value.constant != 0)
                          : terms_[static_cast<size_t>(value.term)];
  }

  // The greatest multiple of `unit` that is not above `term`.
  z3::expr Multiple(const z3::expr& term, uint64_t unit) {
    const std::string name = "quotient " + std::to_string(terms_.size());
    const z3::expr size = context_.int_val(unit);
    const z3::expr multiple = size * context_.int_const(name.c_str());
    path_.push_back(multiple <= term && term < multiple + size);
    return multiple;
  }

  void Require(const z3::expr& condition, const char* what) {
    ++checks_;
    if (!counterexample_.empty()) return;
    z3::solver solver = OnPath(!condition);
    switch (solver.check()) {
      case z3::unsat:
        return;
      case z3::sat:
        counterexample_ = what;
        for (const auto& [name, term] : inputs_) {
          const z3::expr value = solver.get_model().eval(term, true);
          counterexample_ += "; " + name + " = " + value.get_decimal_string(0);
        }
        return;
      case z3::unknown:
        counterexample_ = std::string("z3 gives up: ") + what;
        return;
    }
  }

  // A path that was begun by the recorded choices goes on along them; where
  // they end, the first feasible branch.
  bool Branch(const z3::expr& condition) {
    if (next_choice_ == choices_.size()) {
      const bool can_hold = IsFeasible(condition);
      const bool can_fail = IsFeasible(!condition);
      choices_.push_back({can_hold, can_hold && can_fail});
    }
    const bool taken = choices_[next_choice_++].taken;
    path_.push_back(taken ? condition : !condition);
    return taken;
  }

  Verdict TakeVerdict() {
    return {counterexample_.empty(), std::move(counterexample_), paths_,
            checks_};
  }

 private:
  struct Choice {
    bool taken = false;
    bool other_open = false;
  };

  Value Input(const char* name, int bits) {
    const z3::expr input = context_.int_const(name);
    inputs_.emplace_back(name, input);
    path_.push_back(input >= 0 && input < Limit(bits));
    return Add(input);
  }

  z3::solver OnPath(const z3::expr& condition) {
    z3::solver solver(context_, "QF_LIA");
    for (const z3::expr& taken : path_) solver.add(taken);
    solver.add(condition);
    return solver;
  }

  bool IsFeasible(const z3::expr& condition) {
    return OnPath(condition).check() != z3::unsat;
  }

  z3::context context_;
  std::vector<z3::expr> path_;  // conditions of the branches taken
  std::vector<z3::expr> terms_;
  std::vector<std::pair<std::string, z3::expr>> inputs_;
  std::vector<Choice> choices_;
  size_t next_choice_ = 0;
  int paths_ = 0;
  int checks_ = 0;
  std::string counterexample_;
};

}  // namespace

// Terms are whole numbers: each operation that could leave the range of its
// type must be proved not to, and from then on is what mathematics says.
Value Apply(Operator op, int bits, Value left, Value right) {
  Z3Proof& proof = *g_proof;
  const z3::expr a = proof.Term(left);
  const z3::expr b = proof.Term(right);
  switch (op) {
    case Operator::kAdd:
      proof.Require(a + b < proof.Limit(bits), "a sum wraps round");
      return proof.Add(a + b);
    case Operator::kSubtract:
      proof.Require(a >= b, "a difference wraps round");
      return proof.Add(a - b);
    case Operator::kMultiply:
      proof.Require(a * b < proof.Limit(bits), "a product wraps round");
      return proof.Add(a * b);
    case Operator::kRemainder:
      if (right.term >= 0 || right.constant == 0) std::abort();
      return proof.Add(a - proof.Multiple(a, right.constant));
    case Operator::kRoundDown8:
      if (right.term >= 0 || right.constant != 7) std::abort();
      return proof.Add(proof.Multiple(a, 8));
    case Operator::kEqual:
      return proof.Add(a == b);
    case Operator::kLess:
      return proof.Add(a < b);
    case Operator::kLessOrEqual:
      return proof.Add(a <= b);
  }
  std::abort();
}

Value Truncate(Value value, int bits) {
  const z3::expr term = g_proof->Term(value);
  g_proof->Require(term < g_proof->Limit(bits), "a cast cuts bits off");
  return value;
}

bool Branch(Value condition) {
  if (condition.term < 0) return condition.constant != 0;
  return g_proof->Branch(g_proof->ConditionTerm(condition));
}

Verdict Prove(const std::function<void(Proof&)>& body) {
  Z3Proof proof;
  while (proof.NextPath()) body(proof);
  return proof.TakeVerdict();
}

}  // namespace ferrybus::proofs
