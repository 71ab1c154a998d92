// SPDX-License-Identifier: MIT

#include "ferrybus/tests/interleaving/ring_report.h"

#include <iterator>
#include <ostream>
#include <utility>

#include "absl/strings/str_format.h"

namespace ferrybus::interleaving {
namespace {

struct Total {
  uint64_t states = 0;
  double schedules = 0;
  bool ok = true;
};

void ReportScene(const RingScene& scene, const Variant& variant, bool reduce,
                 std::ostream& out, Total* total) {
  for (const Model model : kModels) {
    const Exploration found =
        ExploreRing(scene, model, variant, {.reduce = reduce});
    const bool ok = found.violation == nullptr && found.complete;
    out << absl::StrFormat("%-36s %-13s %9u %10.2e  %s\n", scene.name,
                           ModelName(model), found.states, found.schedules,
                           ok                ? "ok"
                           : !found.complete ? "GIVEN UP"
                                             : found.violation)
        << (ok ? "" : found.schedule) << std::flush;
    total->states += found.states;
    total->schedules += found.schedules;
    total->ok = total->ok && ok;
  }
}

void ReportShipped(const ReportOptions& options, Fences fences, bool reduce,
                   std::ostream& out, Total* total) {
  out << "\nAs shipped, "
      << (fences == Fences::kFull ? "full fences" : "asymmetric fences")
      << (reduce ? "" : ", without reduction")
      << "; a bell that orders nothing\n"
      << absl::StrFormat("%-36s %-13s %9s %10s\n", "program", "memory",
                         "states", "schedules");
  for (const RingScene& scene : AllScenes()) {
    if (scene.deep && !options.deep) continue;
    ReportScene(scene, {.fences = fences, .bell_orders = false}, reduce, out,
                total);
  }
}

// One line: in which memories the ordering is missed, and in what.
bool ReportWeakened(const ReportOptions& options, const Variant& variant,
                    std::ostream& out) {
  out << absl::StrFormat("%-48s", variant.weakened->name);
  Miss first;
  for (const Model model : kModels) {
    Miss miss = FindMiss(variant, model, options.deep);
    out << absl::StrFormat(" %-12s", miss.scene != nullptr ? "found" : "-")
        << std::flush;
    if (first.scene == nullptr) first = std::move(miss);
  }
  const bool spare = *variant.weakened->spare_because != '\0';
  if (first.scene == nullptr) {
    out << (spare ? "spare: " : "NOT FOUND") << variant.weakened->spare_because
        << "\n";
    return spare;
  }
  out << first.exploration.violation << " (" << first.scene->name << ")\n";
  if (options.schedules) out << first.exploration.schedule << "\n";
  return !spare;
}

bool ReportOrderings(const ReportOptions& options, std::ostream& out) {
  bool ok = true;
  out << "\nEach ordering weakened, a bell that orders\n"
      << absl::StrFormat("%-48s %-12s %-12s %-12s\n", "ordering",
                         ModelName(kModels[0]), ModelName(kModels[1]),
                         ModelName(kModels[2]));
  for (const Ordering& ordering : AllOrderings()) {
    ok = ReportWeakened(options, {.weakened = &ordering}, out) && ok;
  }
  for (const bool own_fence : {false, true}) {
    out << "Asymmetric fences, the sleep fence "
        << (own_fence ? "orders its own side only\n" : "is gone\n");
    for (const Ordering& ordering : AllOrderings()) {
      if (ordering.call != Call::kSleepFence) continue;
      ok = ReportWeakened(options, {Fences::kAsymmetric, &ordering, own_fence},
                          out) &&
           ok;
    }
  }
  return ok;
}

}  // namespace

Miss FindMiss(const Variant& variant, Model model, bool deep,
              const ExploreOptions& options) {
  for (const RingScene& scene : AllScenes()) {
    if (scene.deep && !deep) continue;
    Exploration found = ExploreRing(scene, model, variant, options);
    if (found.violation != nullptr) return {&scene, std::move(found)};
  }
  return {};
}

bool ReportRing(const ReportOptions& options, std::ostream& out) {
  Total total;
  for (const Fences fences : {Fences::kFull, Fences::kAsymmetric}) {
    ReportShipped(options, fences, true, out, &total);
  }
  if (options.deep) ReportShipped({}, Fences::kFull, false, out, &total);
  const bool orderings = ReportOrderings(options, out);
  out << absl::StrFormat(
      "\n%s: %u states stand for %.2e complete schedules; orderings %s\n",
      total.ok ? "ok" : "FAILED", total.states, total.schedules,
      orderings ? "as listed" : "NOT as listed");
  return total.ok && orderings;
}

}  // namespace ferrybus::interleaving
