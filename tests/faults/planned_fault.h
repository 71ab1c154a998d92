// SPDX-License-Identifier: MIT
//
// A fault at one of the library's fault points, and the count of how often each
// point was passed by this program and all that it forked.

#ifndef FERRYBUS_TESTS_FAULTS_PLANNED_FAULT_H_
#define FERRYBUS_TESTS_FAULTS_PLANNED_FAULT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "ferrybus/savestate/fault_points.h"

namespace ferrybus::testing {

using savestate::FaultPoint;

enum class FaultKind : uint8_t { kKill, kError, kDelay, kNoMemory };
inline constexpr FaultKind kFaultKinds[] = {FaultKind::kKill, FaultKind::kError,
                                            FaultKind::kDelay,
                                            FaultKind::kNoMemory};

struct Fault {
  FaultPoint point;
  FaultKind kind;
  int occurrence = 1;  // the first time it is passed, the second, ...

  std::string ToString() const;
};

// What an error of a fault point says.
inline constexpr char kPlannedError[] = "planned for this test";

// What becomes of whoever passes the point.
struct FaultActions {
  // kKill; by default SIGKILL.
  std::function<void()> kill = {};
  // kDelay: what others do meanwhile.
  std::function<void()> during_delay = {};
  // kNoMemory; by default each allocation of the process fails from now on.
  std::function<void()> starve = {};
};

// Installed for its life.
class PlannedFault final : public savestate::FaultHook {
 public:
  explicit PlannedFault(const Fault& fault, FaultActions actions = {})
      : fault_(fault), actions_(std::move(actions)), installed_(this) {}

  bool has_happened() const { return passed_ >= fault_.occurrence; }

 private:
  absl::Status OnFaultPoint(FaultPoint point) override;

  const Fault fault_;
  const FaultActions actions_;
  int passed_ = 0;
  const savestate::ScopedFaultHook installed_;
};

// How often a point was passed under any PlannedFault, and with how many faults
// of a kind.
uint64_t TimesPassed(FaultPoint point);
uint64_t TimesHappened(FaultPoint point, FaultKind kind);

// Runs it in a process of its own, a copy of this one.  True: a fault ended it;
// else it came to its end.
bool EndsInChild(absl::FunctionRef<void()> run);

// Each fault of the points from `first` to `last`, at the first, second, ...
// time that a run passes the point, at most `occurrences_max`.  `run` returns
// whether the fault happened.  Prints the number of cases.
void ForEachFault(FaultPoint first, FaultPoint last, int occurrences_max,
                  absl::FunctionRef<bool(const Fault&)> run);

}  // namespace ferrybus::testing

#endif  // FERRYBUS_TESTS_FAULTS_PLANNED_FAULT_H_
