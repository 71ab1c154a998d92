// SPDX-License-Identifier: MIT
//
// The runner: tries every rule on an endpoint, says which hold.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "ferrybus/tests/conformance/adapters.h"
#include "ferrybus/tests/conformance/faulty_endpoint.h"
#include "ferrybus/tests/conformance/report.h"
#include "ferrybus/tests/conformance/runner.h"

namespace ferrybus::conformance {
namespace {

constexpr int kAllPassed = 0;
constexpr int kSomeFailed = 1;
constexpr int kMisused = 2;

struct Arguments {
  std::string adapter = "in_process";
  std::string server;
  std::string fault;
  std::string junit;
  bool list = false;
  bool list_faults = false;
  bool no_fork = false;
  std::string filter;
};

int List(const std::string& filter) {
  for (const Rule* const rule : AllRules()) {
    if (!Matches(*rule, filter)) continue;
    std::printf("%s.%s [%s]\n      %s\n", rule->group().c_str(), rule->name,
                rule->rows, rule->sentence);
  }
  return kAllPassed;
}

int ListFaults() {
  for (const SeededFault& fault : AllFaults()) {
    std::printf("%-32s %s\n", fault.name, fault.rule);
  }
  return kAllPassed;
}

// `bazel run` starts programs in a folder of its own.
std::string InCallersFolder(const std::string& path) {
  const char* const folder = std::getenv("BUILD_WORKING_DIRECTORY");
  if (folder == nullptr || path[0] == '/') return path;
  return absl::StrCat(folder, "/", path);
}

int Run(const Arguments& arguments) {
  RunOptions options;
  options.filter = arguments.filter;
  options.fork = !arguments.no_fork;
  options.make_endpoint = arguments.adapter == "process"
                              ? ProcessAdapter(arguments.server)
                              : InProcessAdapter();
  if (!arguments.fault.empty()) {
    const SeededFault* const fault = FindFault(arguments.fault);
    if (fault == nullptr) {
      std::fprintf(stderr, "no fault \"%s\"; --list-faults has them\n",
                   arguments.fault.c_str());
      return kMisused;
    }
    options.make_endpoint = Broken(*fault, options.make_endpoint);
  }
  options.on_result = [](const RuleResult& result) {
    std::fputs(ToText(result).c_str(), stdout);
    std::fflush(stdout);
  };
  const std::vector<RuleResult> results = RunRules(options);
  if (results.empty()) {
    std::fprintf(stderr, "no rule matches \"%s\"; --list has them\n",
                 arguments.filter.c_str());
    return kMisused;
  }
  std::fputs(Summary(results).c_str(), stdout);
  if (!arguments.junit.empty()) {
    std::ofstream out(InCallersFolder(arguments.junit));
    out << ToJUnit("conformance " + arguments.adapter, results);
    if (!out.flush()) {
      std::fprintf(stderr, "cannot write %s\n", arguments.junit.c_str());
      return kMisused;
    }
  }
  for (const RuleResult& result : results) {
    if (result.outcome == Outcome::kFailed) return kSomeFailed;
  }
  return kAllPassed;
}

}  // namespace
}  // namespace ferrybus::conformance

int main(int argc, char** argv) {
  ferrybus::conformance::Arguments arguments;
  CLI::App app(
      "Tries the rules of VMBus on an endpoint.  Exit code: 0 all held or "
      "were skipped, 1 some failed, 2 nothing was tried.");
  app.add_option("--adapter", arguments.adapter,
                 "in_process: our devices on vsp::Bus; process: a program")
      ->check(CLI::IsMember({"in_process", "process"}))
      ->capture_default_str();
  app.add_option("--server", arguments.server,
                 "for process: how to start it (default: conformance_vsp)");
  app.add_option("--filter", arguments.filter,
                 "only rules with this in their name, group or rows");
  app.add_option("--junit", arguments.junit, "write JUnit XML to this file");
  app.add_flag("--list", arguments.list, "print the rules, run none");
  app.add_option("--fault", arguments.fault,
                 "break the endpoint in this way, to see the kit notice");
  app.add_flag("--list-faults", arguments.list_faults,
               "print the faults, and the rule that finds each");
  app.add_flag("--no-fork", arguments.no_fork,
               "run rules in this process, for a debugger");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (arguments.list) return ferrybus::conformance::List(arguments.filter);
  if (arguments.list_faults) return ferrybus::conformance::ListFaults();
  return ferrybus::conformance::Run(arguments);
}
