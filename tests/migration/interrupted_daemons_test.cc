// SPDX-License-Identifier: MIT
//
// Two daemons as processes, in the middle of a move: stopped for longer than
// their peer waits, and told to end.

#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <random>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "ferrybus/tests/migration/two_daemons.h"
#include "ferrybus/tests/migration/unix_relay.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {
namespace {

class InterruptedDaemonsTest : public DaemonsTest {
 protected:
  // Also on a machine so busy that a peer is taken for lost now and then.
  void ExpectToMove(int from) {
    Result result;
    for (int i = 0; i < 3 && result.code != 0; ++i) {
      result = Run(StartArguments(from));
      if (result.code != 0) std::printf("not moved: %s\n", result.out.c_str());
    }
    EXPECT_EQ(result.code, 0) << result.out << result.err;
    EXPECT_EQ(Owner(), 1 - from);
  }
};

// One of them, or both: bits of the hosts' numbers.
constexpr int kBoth = 3;

bool IsAmong(int hosts, int host) { return (hosts >> host & 1) != 0; }

// A process that is stopped sees no time pass: when it goes on, its peer may
// long have given it up, and what it reads next was said before that.  At each
// frame of a handover, either of the two.
// bad:K3 promise:P7
TEST_F(InterruptedDaemonsTest, StoppedForLongerThanThePeerWaits) {
  constexpr absl::Duration kSilenceMax = absl::Seconds(1);
  for (auto& host : hosts_) host->set_silence_max(kSilenceMax);
  hosts_[0]->Start({"--machine=name=m,kind=memory,size=1MiB,dirty=1MiB/s"});
  hosts_[1]->Start();
  int owner = 0;
  int cases = 0;
  int moved = 0;
  for (int turn = 0; turn < 4; ++turn) {
    const bool is_source = turn / 2 == 0;
    const bool to_target = turn % 2 == 0;
    bool was_stopped = true;
    for (int frame = 0; was_stopped; ++frame) {
      const DaemonHost& victim = *hosts_[is_source ? owner : 1 - owner];
      UnixRelay relay(sockets_ + "/relay.sock", hosts_[1 - owner]->socket(),
                      {.fault = FrameFault::kCall,
                       .to_target = to_target,
                       .frame = frame,
                       .act = [&] { victim.Signal(SIGSTOP); }});
      const pid_t command = Begin(StartArguments(owner, relay.address()));
      const absl::Time until = absl::Now() + absl::Seconds(10);
      bool is_over = false;
      while (!relay.is_fault_done() && !is_over && absl::Now() < until) {
        is_over = waitpid(command, nullptr, WNOHANG) == command;
        absl::SleepFor(absl::Milliseconds(2));
      }
      was_stopped = relay.is_fault_done();
      if (was_stopped) absl::SleepFor(kSilenceMax + absl::Milliseconds(300));
      victim.Signal(SIGCONT);
      if (!is_over) (void)End(command);
      const int now = Owner();
      ASSERT_NE(now, -1) << "frame " << frame << (to_target ? " to" : " from")
                         << " the target: no owner, or two";
      if (was_stopped) moved += now != owner ? 1 : 0;
      owner = now;
      cases += was_stopped ? 1 : 0;
    }
  }
  EXPECT_GT(moved, 0);
  EXPECT_LT(moved, cases);
  // And a move works again.
  ExpectToMove(owner);
  std::printf("stopped: %d cases, %d of them moved, each with one owner\n",
              cases, moved);
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
  ExpectToMove(owner);
  std::printf("told to end: %d cases, %d of them moved, the longest took %s\n",
              kCases, moved, absl::FormatDuration(longest).c_str());
}

}  // namespace
}  // namespace ferrybus::migration
