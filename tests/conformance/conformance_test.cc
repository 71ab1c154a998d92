// SPDX-License-Identifier: MIT
//
// The kit on our own endpoints: ours pass it in both forms, broken ones fail
// it at the rule that is there for them, dead and silent ones fail and do not
// stop the run.

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "ferrybus/tests/conformance/adapters.h"
#include "ferrybus/tests/conformance/faulty_endpoint.h"
#include "ferrybus/tests/conformance/report.h"
#include "ferrybus/tests/conformance/runner.h"
#include "gtest/gtest.h"

namespace ferrybus::conformance {
namespace {

// What ends only by its deadline gets this one.
constexpr int kShortTicks = 5;

const Rule& RuleNamed(const std::string& name) {
  for (const Rule* const rule : AllRules()) {
    if (rule->name == name) return *rule;
  }
  ADD_FAILURE() << "no rule " << name;
  return *AllRules()[0];
}

EndpointFactory Adapter(const std::string& form) {
  return form == "process" ? ProcessAdapter("") : InProcessAdapter();
}

class FormTest : public ::testing::TestWithParam<const char*> {};

TEST_P(FormTest, OurEndpointHoldsAllRules) {
  RunOptions options;
  options.make_endpoint = Adapter(GetParam());
  const std::vector<RuleResult> results = RunRules(options);
  EXPECT_GE(results.size(), 40u);
  for (const RuleResult& result : results) {
    EXPECT_EQ(result.outcome, Outcome::kPassed) << ToText(result);
  }
  std::fputs(Summary(results).c_str(), stdout);
}

TEST_P(FormTest, EachFaultIsFoundByItsRule) {
  EXPECT_GE(AllFaults().size(), 20u);
  for (const SeededFault& fault : AllFaults()) {
    RunOptions options;
    options.make_endpoint = Broken(fault, Adapter(GetParam()));
    if (std::string(fault.name) == "hangs") {
      options.deadline_ticks = kShortTicks;
    }
    const RuleResult result = RunRule(RuleNamed(fault.rule), options);
    EXPECT_EQ(result.outcome, Outcome::kFailed) << fault.name;
    std::printf("%s: %s: %s\n", fault.name, fault.rule, result.message.c_str());
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, FormTest,
                         ::testing::Values("in_process", "process"),
                         [](const auto& info) {
                           return std::string(info.param);
                         });

TEST(RunnerTest, FaultsNameDifferentRules) {
  std::vector<std::string> rules;
  for (const SeededFault& fault : AllFaults()) rules.push_back(fault.rule);
  std::sort(rules.begin(), rules.end());
  EXPECT_EQ(std::unique(rules.begin(), rules.end()), rules.end());
}

TEST(RunnerTest, RuleNamesAreUnique) {
  std::vector<std::string> names;
  for (const Rule* const rule : AllRules()) names.push_back(rule->name);
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::unique(names.begin(), names.end()), names.end());
}

TEST(RunnerTest, DeadProgramFailsItsRuleWithItsStatus) {
  RunOptions options;
  options.make_endpoint = ProcessAdapter("sh -c 'exit 7'");
  const RuleResult result = RunRule(RuleNamed("ContactIsAnswered"), options);
  EXPECT_EQ(result.outcome, Outcome::kFailed);
  EXPECT_TRUE(absl::StrContains(result.message, "with status 7"))
      << result.message;
}

TEST(RunnerTest, KilledProgramFailsItsRuleWithItsSignal) {
  RunOptions options;
  options.make_endpoint = ProcessAdapter("sh -c 'read a; echo ok; kill -9 $$'");
  const RuleResult result = RunRule(RuleNamed("ContactIsAnswered"), options);
  EXPECT_EQ(result.outcome, Outcome::kFailed);
  EXPECT_TRUE(absl::StrContains(result.message, "by signal 9"))
      << result.message;
}

TEST(RunnerTest, SilentProgramFailsItsRuleInTime) {
  RunOptions options;
  options.make_endpoint = ProcessAdapter("sleep 1000");
  options.deadline_ticks = kShortTicks;
  const RuleResult result = RunRule(RuleNamed("ContactIsAnswered"), options);
  EXPECT_EQ(result.outcome, Outcome::kFailed);
  EXPECT_TRUE(absl::StrContains(result.message, "not done after"))
      << result.message;
}

TEST(RunnerTest, BabblingProgramFailsItsRule) {
  RunOptions options;
  options.make_endpoint = ProcessAdapter("yes");
  const RuleResult result = RunRule(RuleNamed("ContactIsAnswered"), options);
  EXPECT_EQ(result.outcome, Outcome::kFailed);
  EXPECT_TRUE(absl::StrContains(result.message, "answered \"y\""))
      << result.message;
}

// An endpoint that cannot move.
class Immovable final : public FaultyEndpoint {
 public:
  using FaultyEndpoint::FaultyEndpoint;
  absl::StatusOr<std::string> Save() override { return Endpoint::Save(); }
};

TEST(RunnerTest, WhatAnEndpointDoesNotHaveIsSkipped) {
  RunOptions options;
  options.make_endpoint = [](const MemfdGuestMemory& ram) {
    return std::make_unique<Immovable>(std::make_unique<BusEndpoint>(ram), ram);
  };
  options.filter = "move";
  const std::vector<RuleResult> results = RunRules(options);
  EXPECT_FALSE(results.empty());
  for (const RuleResult& result : results) {
    EXPECT_EQ(result.outcome, Outcome::kSkipped) << ToText(result);
    EXPECT_EQ(result.message, "save");
  }
  options.filter = "CompletionHasItsTransaction";
  EXPECT_EQ(RunRules(options).at(0).outcome, Outcome::kPassed);
}

TEST(ReportTest, EscapesWhatXmlCannotHold) {
  EXPECT_EQ(EscapeXml("a<b>&\"c'\n"), "a&lt;b&gt;&amp;&quot;c&apos;&#10;");
  EXPECT_EQ(EscapeXml(absl::string_view("\0\x01\x7f\xc3", 4)), "????");
}

TEST(ReportTest, SaysEachOutcome) {
  const Rule& rule = RuleNamed("ContactIsAnswered");
  std::vector<RuleResult> results(3);
  for (RuleResult& result : results) result.rule = &rule;
  results[0].outcome = Outcome::kPassed;
  results[1].outcome = Outcome::kFailed;
  results[1].message = "<nothing> came";
  results[2].outcome = Outcome::kSkipped;
  results[2].message = "save";
  EXPECT_EQ(Summary(results), "3 rules: 1 passed, 1 failed, 1 skipped\n");
  EXPECT_TRUE(absl::StrContains(ToText(results[1]), rule.sentence));
  EXPECT_TRUE(absl::StrContains(ToText(results[1]), "<nothing> came"));
  const std::string xml = ToJUnit("a & b", results);
  EXPECT_TRUE(absl::StrContains(xml, "name=\"a &amp; b\" tests=\"3\""));
  EXPECT_TRUE(
      absl::StrContains(xml, "<failure message=\"&lt;nothing&gt; came\"/>"));
  EXPECT_TRUE(absl::StrContains(xml, "<skipped message=\"save\"/>"));
}

}  // namespace
}  // namespace ferrybus::conformance
