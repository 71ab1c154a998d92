// SPDX-License-Identifier: MIT
//
// Runs simulations (simulation.h), each in a process of its own, and shrinks
// those that fail.
//
//   simulate --seed=7 [--steps=N --without=... --channels=... --skip=...]
//       one run, in this process: for a debugger.  --shrink: then shrinks it.
//   simulate --from-seed=1 --runs=1000 [--minutes=M] [--keep-going]
//       runs until a seed fails, the runs are done or the time is over, and
//       tells where to go on from.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "ferrybus/tests/simulation/run_apart.h"
#include "ferrybus/tests/simulation/shrink.h"
#include "ferrybus/tests/simulation/simulation.h"

namespace ferrybus::simulation {
namespace {

// Each process of a batch runs so many seeds.
constexpr uint64_t kBatch = 50;

struct Flags {
  RunOptions run;
  uint64_t runs = 0;  // 0: one, in this process
  uint64_t minutes = 0;
  bool shrinks = false;
  bool keeps_going = false;
};

bool Take(absl::string_view flag, Flags* flags) {
  if (flag == "--shrink") return flags->shrinks = true;
  if (flag == "--keep-going") return flags->keeps_going = true;
  absl::string_view rest = flag;
  if (absl::ConsumePrefix(&rest, "--runs=")) {
    return absl::SimpleAtoi(rest, &flags->runs);
  }
  if (absl::ConsumePrefix(&rest, "--minutes=")) {
    return absl::SimpleAtoi(rest, &flags->minutes);
  }
  if (absl::ConsumePrefix(&rest, "--from-seed=")) {
    return absl::SimpleAtoi(rest, &flags->run.seed);
  }
  return flags->run.TakeFlag(flag);
}

void TellShrunk(const RunOptions& options) {
  std::printf("repeat: %s\n", RepeatCommand(options).c_str());
  std::fflush(stdout);
  const RunOptions shrunk = Shrink(options, RunApart);
  std::printf("shrunk: %s\n", RepeatCommand(shrunk).c_str());
  std::fflush(stdout);
}

int RunOne(const Flags& flags) {
  // First, since it may not come back.
  std::printf("repeat: %s\n", RepeatCommand(flags.run).c_str());
  std::fflush(stdout);
  if (flags.shrinks) {
    if (RunApart(flags.run).kind.empty()) return 0;
    TellShrunk(flags.run);
    return 1;
  }
  const RunResult result = Simulate(flags.run);
  std::printf("%strace %016llx\n%s", DescribeTotals(result.totals).c_str(),
              static_cast<unsigned long long>(result.trace),
              result.Report().c_str());
  return result.failure.has_value() ? 1 : 0;
}

int RunMany(const Flags& flags) {
  const absl::Time end = flags.minutes == 0
                             ? absl::InfiniteFuture()
                             : absl::Now() + absl::Minutes(flags.minutes);
  RunOptions options = flags.run;
  const uint64_t end_seed = options.seed + flags.runs;
  Totals totals;
  uint64_t done = 0;
  uint64_t failed = 0;
  while (options.seed < end_seed && absl::Now() < end &&
         (failed == 0 || flags.keeps_going)) {
    const uint64_t count = std::min(kBatch, end_seed - options.seed);
    const BatchOutcome batch = RunBatchApart(options, count, &totals);
    done += batch.done;
    if (batch.failed_seed.has_value()) {
      ++failed;
      options.seed = *batch.failed_seed;
      std::printf("seed %llu failed: %s\n",
                  static_cast<unsigned long long>(options.seed),
                  batch.text.c_str());
      TellShrunk(options);
      ++options.seed;
    } else {
      options.seed += count;
    }
  }
  std::printf("%llu seeds, %llu failed; go on with --from-seed=%llu\n%s",
              static_cast<unsigned long long>(done),
              static_cast<unsigned long long>(failed),
              static_cast<unsigned long long>(options.seed),
              DescribeTotals(totals).c_str());
  return failed == 0 ? 0 : 1;
}

int Main(int argc, char** argv) {
  Flags flags;
  for (int i = 1; i < argc; ++i) {
    if (!Take(argv[i], &flags)) {
      std::fprintf(stderr, "unknown flag, or one without sense: %s\n", argv[i]);
      return 2;
    }
  }
  if (flags.minutes != 0 && flags.runs == 0) flags.runs = uint64_t{1} << 40;
  return flags.runs == 0 ? RunOne(flags) : RunMany(flags);
}

}  // namespace
}  // namespace ferrybus::simulation

int main(int argc, char** argv) {
  return ferrybus::simulation::Main(argc, argv);
}
