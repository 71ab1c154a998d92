// SPDX-License-Identifier: MIT

#include "ferrybus/tests/interleaving/schedule_text.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace ferrybus::interleaving {
namespace {

constexpr int kColumn = 38;

const char* OrderName(Order order) {
  switch (order) {
    case Order::kPlain:
      return "";
    case Order::kRelaxed:
      return " (relaxed)";
    case Order::kAcquire:
      return " (acquire)";
    case Order::kRelease:
      return " (release)";
    case Order::kAcqRel:
      return " (acq_rel)";
  }
  return "";
}

// "write_index", "data[1360]".
std::string LocationName(Location location, const Labels& labels) {
  if (location >= kDataLocation) {
    return absl::StrCat("data[", (location - kDataLocation) * 8, "]");
  }
  return labels.words[std::min<size_t>(location, std::size(labels.words) - 1)];
}

// The packet bytes are words with several meanings: in hexadecimal.
std::string ValueText(const Step& step, uint64_t value) {
  return step.location >= kDataLocation ? absl::StrFormat("%#x", value)
                                        : absl::StrCat(value);
}

std::string StepText(const Performed& performed, const Labels& labels) {
  const Step& step = performed.step;
  const std::string name = LocationName(step.location, labels);
  switch (step.kind) {
    case StepKind::kLoad:
      return absl::StrCat(
          name, " -> ", ValueText(step, performed.outcome.value),
          performed.outcome.stale ? ", old" : "", OrderName(step.order));
    case StepKind::kStore:
      if (performed.by_memory) {
        return absl::StrCat("  (memory: ", name, " = ",
                            ValueText(step, step.value), ")");
      }
      return absl::StrCat(name, " = ", ValueText(step, step.value),
                          OrderName(step.order));
    case StepKind::kUpdate:
      return absl::StrCat(name, ": ", performed.outcome.value, " => ",
                          (performed.outcome.value & step.keep) ^ step.value,
                          OrderName(step.order));
    case StepKind::kFence:
      return "full fence";
    case StepKind::kHeavyFence:
      return "full fence of both";
    case StepKind::kRing:
      return "ring";
    case StepKind::kSleep:
      return performed.by_memory ? "sleeps" : "sleeps, is woken";
    case StepKind::kChoose:
      return absl::StrCat("goes on with ", performed.outcome.value);
    case StepKind::kDone:
      break;
  }
  return "";
}

}  // namespace

std::string ScheduleText(const std::vector<Performed>& trace,
                         const char* violation, const Labels& labels) {
  std::string text = absl::StrFormat("    %-*s| %s\n", kColumn,
                                     labels.actors[0], labels.actors[1]);
  for (const Performed& performed : trace) {
    const std::string step = StepText(performed, labels);
    const bool left = performed.actor == 0;
    absl::StrAppendFormat(&text, "    %-*s|%s%s\n", kColumn, left ? step : "",
                          left ? "" : " ", left ? "" : step);
  }
  return absl::StrCat(text, "    ==> ", violation, "\n");
}

}  // namespace ferrybus::interleaving
