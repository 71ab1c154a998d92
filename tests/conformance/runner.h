// SPDX-License-Identifier: MIT
//
// Runs rules, each in a process of its own: an endpoint that crashes or hangs
// costs its rule, not the run.
//
// Thread safety: REQUIRES that the calling process has one thread; it forks.

#ifndef FERRYBUS_TESTS_CONFORMANCE_RUNNER_H_
#define FERRYBUS_TESTS_CONFORMANCE_RUNNER_H_

#include <functional>
#include <string>
#include <vector>

#include "ferrybus/tests/conformance/endpoint.h"
#include "ferrybus/tests/conformance/rule.h"

namespace ferrybus::conformance {

struct RuleResult {
  const Rule* rule = nullptr;
  Outcome outcome = Outcome::kFailed;
  std::string message;  // why it failed or was skipped
  double seconds = 0;
};

struct RunOptions {
  EndpointFactory make_endpoint;
  // Rules whose name, group or rows contain this; empty: all.
  std::string filter;
  // In tenths of a second that the rule, and not the machine, took.
  int deadline_ticks = 300;
  // In this process, for a debugger: no deadline, a crash ends the run.
  bool fork = true;
  // Told after each rule; may be empty.
  std::function<void(const RuleResult&)> on_result;
};

bool Matches(const Rule& rule, const std::string& filter);
RuleResult RunRule(const Rule& rule, const RunOptions& options);
std::vector<RuleResult> RunRules(const RunOptions& options);

}  // namespace ferrybus::conformance

#endif  // FERRYBUS_TESTS_CONFORMANCE_RUNNER_H_
