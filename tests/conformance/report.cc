// SPDX-License-Identifier: MIT

#include "ferrybus/tests/conformance/report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace ferrybus::conformance {
namespace {

size_t Count(const std::vector<RuleResult>& results, Outcome outcome) {
  return static_cast<size_t>(std::count_if(results.begin(), results.end(),
                                           [outcome](const RuleResult& result) {
                                             return result.outcome == outcome;
                                           }));
}

const char* Word(Outcome outcome) {
  switch (outcome) {
    case Outcome::kPassed:
      return "pass";
    case Outcome::kSkipped:
      return "skip";
    default:
      return "FAIL";
  }
}

}  // namespace

std::string ToText(const RuleResult& result) {
  const Rule& rule = *result.rule;
  std::string text =
      absl::StrFormat("%s  %s.%s [%s]\n      %s\n", Word(result.outcome),
                      rule.group(), rule.name, rule.rows, rule.sentence);
  if (result.message.empty()) return text;
  const bool failed = result.outcome == Outcome::kFailed;
  absl::StrAppend(&text, failed ? "      expected: " : "      because: ",
                  result.message, "\n");
  return text;
}

std::string Summary(const std::vector<RuleResult>& results) {
  return absl::StrFormat("%d rules: %d passed, %d failed, %d skipped\n",
                         results.size(), Count(results, Outcome::kPassed),
                         Count(results, Outcome::kFailed),
                         Count(results, Outcome::kSkipped));
}

std::string EscapeXml(absl::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&apos;";
        break;
      case '\n':
        escaped += "&#10;";
        break;
      default:
        escaped += c >= 0x20 && c < 0x7f ? c : '?';
    }
  }
  return escaped;
}

std::string ToJUnit(const std::string& suite,
                    const std::vector<RuleResult>& results) {
  double seconds = 0;
  for (const RuleResult& result : results) seconds += result.seconds;
  std::string xml = absl::StrFormat(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<testsuite name=\"%s\" tests=\"%d\" failures=\"%d\" errors=\"0\" "
      "skipped=\"%d\" time=\"%.3f\">\n",
      EscapeXml(suite), results.size(), Count(results, Outcome::kFailed),
      Count(results, Outcome::kSkipped), seconds);
  for (const RuleResult& result : results) {
    const Rule& rule = *result.rule;
    absl::StrAppendFormat(
        &xml,
        "  <testcase classname=\"conformance.%s\" name=\"%s\" time=\"%.3f\">\n"
        "    <properties>\n"
        "      <property name=\"rows\" value=\"%s\"/>\n"
        "      <property name=\"sentence\" value=\"%s\"/>\n"
        "    </properties>\n",
        EscapeXml(rule.group()), EscapeXml(rule.name), result.seconds,
        EscapeXml(rule.rows), EscapeXml(rule.sentence));
    if (result.outcome != Outcome::kPassed) {
      absl::StrAppendFormat(
          &xml, "    <%s message=\"%s\"/>\n",
          result.outcome == Outcome::kFailed ? "failure" : "skipped",
          EscapeXml(result.message));
    }
    absl::StrAppend(&xml, "  </testcase>\n");
  }
  return xml + "</testsuite>\n";
}

}  // namespace ferrybus::conformance
