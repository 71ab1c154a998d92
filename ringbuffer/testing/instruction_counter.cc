// SPDX-License-Identifier: MIT

#include "ferrybus/ringbuffer/testing/instruction_counter.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ferrybus::ringbuffer::testing {
namespace {

constexpr int kTracingRefused = 77;

[[noreturn]] void RunChild(absl::FunctionRef<bool()> body) {
  if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) {
    _exit(kTracingRefused);
  }
  raise(SIGSTOP);  // the parent takes over
  _exit(body() ? 0 : 1);
}

// The next stop of `child`, or its end, as waitpid() tells it.
int WaitFor(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

// Whether the child stopped at a mark, not after a step.
bool IsAtMark(pid_t child) {
  siginfo_t info = {};
  return ptrace(PTRACE_GETSIGINFO, child, nullptr, &info) == 0 &&
         info.si_code == SI_KERNEL;
}

absl::Status Describe(int status) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == kTracingRefused) {
    return absl::UnimplementedError("a child may not be traced here");
  }
  if (WIFEXITED(status)) {
    return absl::InternalError(
        absl::StrCat("the counted code ended with ", WEXITSTATUS(status)));
  }
  return absl::InternalError(
      absl::StrCat("the counted code ended by signal ",
                   WIFSTOPPED(status) ? WSTOPSIG(status) : WTERMSIG(status)));
}

// Steps through the stretches until the child ends; returns its last status.
int Step(pid_t child, std::vector<uint32_t>& counts) {
  bool in_stretch = false;
  uint32_t count = 0;
  for (;;) {
    const auto request = in_stretch ? PTRACE_SINGLESTEP : PTRACE_CONT;
    if (ptrace(request, child, nullptr, nullptr) != 0) return SIGKILL;
    const int status = WaitFor(child);
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) {
      // An end within a stretch is none that `body` returned from.
      return in_stretch && WIFEXITED(status) ? SIGKILL : status;
    }
    if (!IsAtMark(child)) {
      ++count;
      continue;
    }
    if (in_stretch) counts.push_back(count);
    in_stretch = !in_stretch;
    count = 0;
  }
}

}  // namespace

absl::StatusOr<std::vector<uint32_t>> CountInstructions(
    absl::FunctionRef<bool()> body) {
#if !defined(__x86_64__)
  return absl::UnimplementedError("marks are x86-64 breakpoints");
#else
  std::fflush(nullptr);  // or the child writes it as well
  const pid_t child = fork();
  if (child < 0) return absl::InternalError("fork failed");
  if (child == 0) RunChild(body);
  int status = WaitFor(child);
  if (!WIFSTOPPED(status)) return Describe(status);
  ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_EXITKILL);
  std::vector<uint32_t> counts;
  status = Step(child, counts);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return counts;
  if (!WIFEXITED(status)) {
    kill(child, SIGKILL);
    WaitFor(child);
  }
  return Describe(status);
#endif
}

}  // namespace ferrybus::ringbuffer::testing
