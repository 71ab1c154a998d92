// SPDX-License-Identifier: MIT
//
// Two daemons as processes, in the middle of a move: stopped for longer than
// their peer waits, and told to end.

#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <random>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "ferrybus/tests/migration/two_daemons.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {
namespace {

using InterruptedDaemonsTest = DaemonsTest;

// One of them, or both: bits of the hosts' numbers.
constexpr int kBoth = 3;

bool IsAmong(int hosts, int host) { return (hosts >> host & 1) != 0; }

// A process that is stopped sees no time pass: when it goes on, its peer may
// long have given it up, or taken the machine over.
// bad:K3 promise:P7
TEST_F(InterruptedDaemonsTest, StoppedForLongerThanThePeerWaits) {
  std::mt19937_64 random(ringbuffer::testing::TestSeed(
      "//tests/migration:interrupted_daemons_test", "*Stopped*"));
  hosts_[0]->Start({kMachineArgument});
  hosts_[1]->Start();
  int owner = 0;
  int moved = 0;
  constexpr int kCases = 6;
  for (int i = 0; i < kCases; ++i) {
    const int stopped = 1 + i % kBoth;
    const pid_t command = BeginSlowMove(owner);
    absl::SleepFor(absl::Milliseconds(random() % 500));
    for (int host : {0, 1}) {
      if (IsAmong(stopped, host)) hosts_[host]->Signal(SIGSTOP);
    }
    absl::SleepFor(kSilenceMax + absl::Seconds(1));
    for (int host : {0, 1}) {
      if (IsAmong(stopped, host)) hosts_[host]->Signal(SIGCONT);
    }
    const Result result = End(command);
    const int now = Owner();
    ASSERT_NE(now, -1) << "case " << i << ": no owner, or two; " << result.out
                       << result.err;
    moved += now != owner ? 1 : 0;
    owner = now;
  }
  // And a move works again.
  EXPECT_EQ(Run(StartArguments(owner)).code, 0);
  EXPECT_EQ(Owner(), 1 - owner);
  std::printf("stopped: %d cases, %d of them moved, each with one owner\n",
              kCases, moved);
}

// The move ends one way or the other, and the process before its time is up.
// bad:K11 promise:P7
TEST_F(InterruptedDaemonsTest, ToldToEndInTheMiddleOfAMove) {
  constexpr absl::Duration kTimeToEnd = absl::Seconds(30);
  std::mt19937_64 random(ringbuffer::testing::TestSeed(
      "//tests/migration:interrupted_daemons_test", "*ToldToEnd*"));
  hosts_[0]->Start({kMachineArgument});
  hosts_[1]->Start();
  int owner = 0;
  int moved = 0;
  absl::Duration longest;
  constexpr int kCases = 12;
  for (int i = 0; i < kCases; ++i) {
    const int ended = 1 + i % kBoth;
    const pid_t command = BeginSlowMove(owner);
    absl::SleepFor(absl::Milliseconds(random() % 500));
    const absl::Time start = absl::Now();
    for (int host : {0, 1}) {
      if (IsAmong(ended, host)) hosts_[host]->Signal(SIGTERM);
    }
    for (int host : {0, 1}) {
      if (!IsAmong(ended, host)) continue;
      // A second signal changes nothing.
      EXPECT_EQ(hosts_[host]->Terminate(), 0) << "case " << i;
      longest = std::max(longest, absl::Now() - start);
      hosts_[host]->Start();
    }
    (void)End(command);
    const int now = Owner();
    ASSERT_NE(now, -1) << "case " << i << ": no owner, or two";
    moved += now != owner ? 1 : 0;
    owner = now;
  }
  EXPECT_LT(longest, kTimeToEnd);
  EXPECT_EQ(Run(StartArguments(owner)).code, 0);
  EXPECT_EQ(Owner(), 1 - owner);
  std::printf("told to end: %d cases, %d of them moved, the longest took %s\n",
              kCases, moved, absl::FormatDuration(longest).c_str());
}

}  // namespace
}  // namespace ferrybus::migration
