// SPDX-License-Identifier: MIT

#include "ferrybus/tests/interleaving/schedule_text.h"

#include <algorithm>
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
  }
  return "";
}

// The packet bytes are words with several meanings: in hexadecimal.
std::string ValueText(const Step& step, uint64_t value) {
  return step.location >= kDataLocation ? absl::StrFormat("%#x", value)
                                        : absl::StrCat(value);
}

std::string StepText(const Performed& performed) {
  const Step& step = performed.step;
  const std::string name = LocationName(step.location);
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
    case StepKind::kFence:
      return "full fence";
    case StepKind::kHeavyFence:
      return "full fence of both";
    case StepKind::kRing:
      return "ring";
    case StepKind::kSleep:
      return performed.by_memory ? "sleeps" : "sleeps, is woken";
    case StepKind::kDone:
      break;
  }
  return "";
}

}  // namespace

std::string LocationName(Location location) {
  constexpr const char* kControl[] = {"write_index", "read_index",
                                      "interrupt_mask", "pending_send_size"};
  if (location >= kDataLocation) {
    return absl::StrCat("data[", (location - kDataLocation) * 8, "]");
  }
  return location < std::size(kControl) ? kControl[location] : "feature_bits";
}

std::string ScheduleText(const std::vector<Performed>& trace,
                         const char* violation) {
  std::string text =
      absl::StrFormat("    %-*s| %s\n", kColumn, "producer", "consumer");
  for (const Performed& performed : trace) {
    const std::string step = StepText(performed);
    const bool left = performed.actor == kProducer;
    absl::StrAppendFormat(&text, "    %-*s|%s%s\n", kColumn, left ? step : "",
                          left ? "" : " ", left ? "" : step);
  }
  return absl::StrCat(text, "    ==> ", violation, "\n");
}

}  // namespace ferrybus::interleaving
