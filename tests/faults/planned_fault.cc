// SPDX-License-Identifier: MIT

#include "ferrybus/tests/faults/planned_fault.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "absl/strings/str_cat.h"
#include "ferrybus/tests/faults/starved_allocation.h"

namespace ferrybus::testing {
namespace {

constexpr size_t kPointsMax = 256;

struct Counts {
  std::atomic<uint64_t> passed[kPointsMax];
  std::atomic<uint64_t> happened[kPointsMax][std::size(kFaultKinds)];
};

// Of all processes.
Counts& counts() {
  static Counts* const shared =
      new (mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Counts;
  return *shared;
}

const char* KindName(FaultKind kind) {
  constexpr const char* kNames[] = {"kill", "error", "delay", "no memory"};
  return kNames[static_cast<size_t>(kind)];
}

}  // namespace

std::string Fault::ToString() const {
  return absl::StrCat(savestate::FaultPointName(point), ": ", KindName(kind),
                      ", the ", occurrence, ". time");
}

absl::Status PlannedFault::OnFaultPoint(FaultPoint point) {
  const auto index = static_cast<size_t>(point);
  ++counts().passed[index];
  if (point != fault_.point || ++passed_ != fault_.occurrence) {
    return absl::OkStatus();
  }
  ++counts().happened[index][static_cast<size_t>(fault_.kind)];
  switch (fault_.kind) {
    case FaultKind::kKill:
      if (actions_.kill) actions_.kill();
      raise(SIGKILL);
      break;
    case FaultKind::kNoMemory:
      if (actions_.starve) {
        actions_.starve();
      } else {
        StarveAllocation();
      }
      break;
    case FaultKind::kDelay:
      if (actions_.during_delay) actions_.during_delay();
      break;
    case FaultKind::kError:
      return absl::AbortedError(kPlannedError);
  }
  return absl::OkStatus();
}

uint64_t TimesPassed(FaultPoint point) {
  return counts().passed[static_cast<size_t>(point)];
}

uint64_t TimesHappened(FaultPoint point, FaultKind kind) {
  return counts()
      .happened[static_cast<size_t>(point)][static_cast<size_t>(kind)];
}

bool EndsInChild(absl::FunctionRef<void()> run) {
  counts();  // before the fork
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    const rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    run();
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  if (WIFSIGNALED(status)) {
    EXPECT_TRUE(WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGABRT)
        << "signal " << WTERMSIG(status);
    return true;
  }
  EXPECT_EQ(WEXITSTATUS(status), 0) << "in the child";
  return false;
}

void ForEachFault(FaultPoint first, FaultPoint last, int occurrences_max,
                  absl::FunctionRef<bool(const Fault&)> run) {
  int cases = 0;
  for (const savestate::FaultPointInfo& info : savestate::FaultPoints()) {
    if (info.point < first || info.point > last) continue;
    for (FaultKind kind : kFaultKinds) {
      if (kind == FaultKind::kError && !info.can_fail) continue;
      for (int occurrence = 1; occurrence <= occurrences_max; ++occurrence) {
        const Fault fault = {info.point, kind, occurrence};
        SCOPED_TRACE(fault.ToString());
        if (!run(fault)) break;
        ++cases;
        if (::testing::Test::HasFailure()) return;
      }
    }
  }
  std::printf("%d faults\n", cases);
}

}  // namespace ferrybus::testing
