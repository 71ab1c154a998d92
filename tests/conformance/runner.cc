// SPDX-License-Identifier: MIT

#include "ferrybus/tests/conformance/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/transport/unique_fd.h"

namespace ferrybus::conformance {
namespace {

constexpr int kTickMs = 100;
constexpr size_t kMessageBytesMax = 4000;  // one write of a pipe

void RunHere(const Rule& rule, const RunOptions& options, RuleResult* result) {
  Trial trial(options.make_endpoint);
  if (!trial.over()) rule.body(trial);
  result->outcome = trial.outcome();
  result->message = trial.message();
}

// The rule's own process: the outcome as a byte, then the message.
[[noreturn]] void RunAndTell(const Rule& rule, const RunOptions& options,
                             int to_parent, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  RuleResult result;
  RunHere(rule, options, &result);
  std::string text(1, static_cast<char>(result.outcome));
  text += result.message.substr(0, kMessageBytesMax);
  const bool told = write(to_parent, text.data(), text.size()) ==
                    static_cast<ssize_t>(text.size());
  std::fflush(nullptr);
  _exit(told ? 0 : 126);
}

std::string HowItEnded(int status) {
  if (WIFSIGNALED(status)) {
    return absl::StrCat("the rule's process ended by signal ", WTERMSIG(status),
                        " (", strsignal(WTERMSIG(status)), ")");
  }
  return absl::StrCat("the rule's process ended with status ",
                      WEXITSTATUS(status), " and no result");
}

// Waits until the child has closed the pipe.  Counts ticks, not time: a
// machine that stands still costs a rule nothing.
bool ReadUntilEnd(int fd, int ticks, std::string* text) {
  while (ticks > 0) {
    pollfd ready = {fd, POLLIN, 0};
    const int result = poll(&ready, 1, kTickMs);
    if (result == 0) --ticks;
    if (result <= 0) continue;
    char buffer[4096];
    const ssize_t got = read(fd, buffer, sizeof(buffer));
    if (got == 0 || (got < 0 && errno != EINTR)) return true;
    if (got > 0) text->append(buffer, static_cast<size_t>(got));
  }
  return false;
}

void RunApart(const Rule& rule, const RunOptions& options, RuleResult* result) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    result->message = absl::StrCat("pipe: ", std::strerror(errno));
    return;
  }
  UniqueFd from_child(ends[0]);
  UniqueFd to_parent(ends[1]);
  std::fflush(nullptr);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) RunAndTell(rule, options, to_parent.get(), parent);
  to_parent = UniqueFd();
  if (child < 0) {
    result->message = absl::StrCat("fork: ", std::strerror(errno));
    return;
  }
  std::string text;
  const bool in_time =
      ReadUntilEnd(from_child.get(), options.deadline_ticks, &text);
  if (!in_time) kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!in_time) {
    result->message = absl::StrCat("not done after ",
                                   options.deadline_ticks / 10, " seconds");
  } else if (text.empty()) {
    result->message = HowItEnded(status);
  } else {
    result->outcome = static_cast<Outcome>(text[0]);
    result->message = text.substr(1);
  }
}

}  // namespace

bool Matches(const Rule& rule, const std::string& filter) {
  return filter.empty() || absl::StrContains(rule.name, filter) ||
         absl::StrContains(rule.rows, filter) ||
         absl::StrContains(rule.group(), filter);
}

RuleResult RunRule(const Rule& rule, const RunOptions& options) {
  RuleResult result;
  result.rule = &rule;
  const auto begin = std::chrono::steady_clock::now();
  if (options.fork) {
    RunApart(rule, options, &result);
  } else {
    RunHere(rule, options, &result);
  }
  result.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
          .count();
  return result;
}

std::vector<RuleResult> RunRules(const RunOptions& options) {
  std::vector<RuleResult> results;
  for (const Rule* const rule : AllRules()) {
    if (!Matches(*rule, options.filter)) continue;
    results.push_back(RunRule(*rule, options));
    if (options.on_result) options.on_result(results.back());
  }
  return results;
}

}  // namespace ferrybus::conformance
