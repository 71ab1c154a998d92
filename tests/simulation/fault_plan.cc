// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/fault_plan.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "ferrybus/tests/simulation/context.h"
#include "ferrybus/tests/simulation/random_source.h"

namespace ferrybus::simulation {
namespace {

struct Kind {
  absl::string_view name;
  uint64_t one_in;  // steps, of a run with the middle weight
};

constexpr Kind kKinds[kFaultCount] = {
    {"delay", 60},          {"corrupt", 600},       {"cut", 600},
    {"clock-jump", 800},    {"power-loss", 3000},   {"process-kill", 2000},
    {"checkpoint-kill", 3}, {"file-error", 200},    {"image-error", 150},
    {"slow-disk", 200},     {"guest-reset", 3000},  {"guest-unload", 2500},
    {"channel-close", 400}, {"rescind", 500},       {"deaf-guest", 100},
    {"deaf-host", 100},     {"hostile-ring", 250},  {"cancel", 600},
    {"forced-pause", 3},    {"restore-refused", 4}, {"hot-update", 100},
    {"update-fails", 1}};

// "a-b", b > a.
bool ParseRange(absl::string_view text, std::pair<uint64_t, uint64_t>* range) {
  const std::pair<absl::string_view, absl::string_view> ends =
      absl::StrSplit(text, absl::MaxSplits('-', 1));
  return absl::SimpleAtoi(ends.first, &range->first) &&
         absl::SimpleAtoi(ends.second, &range->second) &&
         range->first < range->second;
}

}  // namespace

absl::string_view FaultName(Fault fault) {
  return kKinds[static_cast<size_t>(fault)].name;
}

std::optional<Fault> FaultByName(absl::string_view name) {
  for (size_t i = 0; i < kFaultCount; ++i) {
    if (kKinds[i].name == name) return static_cast<Fault>(i);
  }
  return std::nullopt;
}

bool RunOptions::Skips(uint64_t step) const {
  for (const auto& [first, end] : skipped) {
    if (step >= first && step < end) return true;
  }
  return false;
}

std::string RunOptions::Flags() const {
  std::string flags = absl::StrCat("--seed=", seed, " --steps=", steps);
  std::vector<absl::string_view> off;
  for (size_t i = 0; i < kFaultCount; ++i) {
    if (!HasFault(static_cast<Fault>(i))) off.push_back(kKinds[i].name);
  }
  if (!off.empty()) {
    absl::StrAppend(&flags, " --without=", absl::StrJoin(off, ","));
  }
  if (channels != RunOptions().channels) {
    absl::StrAppend(&flags, " --channels=", channels);
  }
  if (!skipped.empty()) {
    absl::StrAppend(
        &flags, " --skip=",
        absl::StrJoin(skipped, ",", [](std::string* out, const auto& range) {
          absl::StrAppend(out, range.first, "-", range.second);
        }));
  }
  return flags;
}

bool RunOptions::TakeFlag(absl::string_view flag) {
  if (absl::ConsumePrefix(&flag, "--seed=")) {
    return absl::SimpleAtoi(flag, &seed);
  }
  if (absl::ConsumePrefix(&flag, "--steps=")) {
    return absl::SimpleAtoi(flag, &steps);
  }
  if (absl::ConsumePrefix(&flag, "--channels=")) {
    return absl::SimpleAtoi(flag, &channels);
  }
  if (absl::ConsumePrefix(&flag, "--without=")) {
    for (absl::string_view name : absl::StrSplit(flag, ',')) {
      const std::optional<Fault> fault = FaultByName(name);
      if (!fault.has_value()) return false;
      faults_off |= 1u << static_cast<int>(*fault);
    }
    return true;
  }
  if (absl::ConsumePrefix(&flag, "--skip=")) {
    for (absl::string_view text : absl::StrSplit(flag, ',')) {
      skipped.emplace_back();
      if (!ParseRange(text, &skipped.back())) return false;
    }
    return true;
  }
  return false;
}

FaultPlan::FaultPlan(const RunOptions& options) {
  // Drawn apart from all steps, and for each kind whether it is on or not.
  Random random(options.seed, ~uint64_t{0});
  for (size_t i = 0; i < kFaultCount; ++i) {
    const bool is_on = random.OneIn(2);
    const uint64_t weight = random.Below(3);
    if (!is_on || !options.HasFault(static_cast<Fault>(i))) continue;
    one_in_[i] = kKinds[i].one_in * (1 + 2 * weight) / 2 + 1;
  }
  for (uint64_t& each : eagerness_) each = uint64_t{1} << random.Below(5);
}

void Totals::Add(const Totals& other) {
  steps += other.steps;
  requests += other.requests;
  disk_requests += other.disk_requests;
  commands += other.commands;
  restores += other.restores;
  checkpoints += other.checkpoints;
  thaws += other.thaws;
  moves += other.moves;
  moves_failed += other.moves_failed;
  updates += other.updates;
  updates_failed += other.updates_failed;
  boots += other.boots;
  openings += other.openings;
  channel_faults += other.channel_faults;
  for (size_t i = 0; i < kFaultCount; ++i) faults[i] += other.faults[i];
}

}  // namespace ferrybus::simulation
