// SPDX-License-Identifier: MIT
//
// Results of a run for people and for machines.  Thread safety: plain
// functions.

#ifndef FERRYBUS_TESTS_CONFORMANCE_REPORT_H_
#define FERRYBUS_TESTS_CONFORMANCE_REPORT_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "ferrybus/tests/conformance/runner.h"

namespace ferrybus::conformance {

// One line per rule; a failed or skipped one says why.
std::string ToText(const RuleResult& result);
std::string Summary(const std::vector<RuleResult>& results);
// A whole JUnit document.  Messages may hold any bytes.
std::string ToJUnit(const std::string& suite,
                    const std::vector<RuleResult>& results);

// For an attribute or a text: escapes what XML reserves, and writes '?' for
// what it cannot hold at all (control characters, bytes that are not ASCII).
std::string EscapeXml(absl::string_view text);

}  // namespace ferrybus::conformance

#endif  // FERRYBUS_TESTS_CONFORMANCE_REPORT_H_
