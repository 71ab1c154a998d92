// SPDX-License-Identifier: MIT
//
// Two daemons as processes, with TLS, and the command as people and scripts run
// it: there and back, killed at any moment, settled by hand.

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "ferrybus/savestate/migration/migration_messages.h"
#include "ferrybus/savestate/migration/ownership.h"
#include "ferrybus/tests/migration/two_daemons.h"
#include "ferrybus/tests/migration/unix_relay.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

TEST_F(DaemonsTest, ThereAndBackThreeTimes) {
  hosts_[0]->Start({kMachineArgument});
  hosts_[1]->Start();
  for (int move = 0; move < 6; ++move) {
    const int from = move % 2;
    const Result result = Run(StartArguments(from));
    ASSERT_EQ(result.code, 0) << result.out << result.err;
    const Json report = Json::parse(result.out);
    EXPECT_EQ(report["phase"], "done");
    EXPECT_GT(report["plain_bytes_sent"], 1 << 20);
    EXPECT_EQ(result.err, "") << "quiet in a pipe";
    EXPECT_EQ(OwnershipAt(from), "handed over");
    EXPECT_EQ(Owner(), 1 - from);
    const Result query =
        Run({"query", "--machine", "m", "--at", hosts_[from]->address()});
    EXPECT_EQ(query.code, 0);
    EXPECT_THAT(query.out, HasSubstr("moved to"));
  }
  EXPECT_EQ(MachineAt(0)["epoch"], 7);
  EXPECT_EQ(hosts_[0]->Terminate(), 0);
  EXPECT_EQ(hosts_[1]->Terminate(), 0);
}

// bad:T12 promise:P7
TEST_F(DaemonsTest, KilledAtAnyMoment) {
  std::mt19937_64 random(ringbuffer::testing::TestSeed(
      "//tests/migration:daemons_test", "DaemonsTest.KilledAtAnyMoment"));
  hosts_[0]->Start({kMachineArgument});
  hosts_[1]->Start();
  int owner = 0;
  int moved = 0;
  constexpr int kCases = 16;
  for (int i = 0; i < kCases; ++i) {
    const pid_t command = BeginSlowMove(owner);
    absl::SleepFor(absl::Milliseconds(random() % 1500));
    const int victims = 1 + static_cast<int>(random() % 3);
    for (int host : {0, 1}) {
      if ((victims >> host & 1) != 0) hosts_[host]->Kill();
    }
    for (int host : {0, 1}) {
      if ((victims >> host & 1) != 0) hosts_[host]->Start();
    }
    kill(command, SIGKILL);
    (void)Wait(command);
    const int now = Owner();
    ASSERT_NE(now, -1) << "case " << i << ": no owner, or two";
    moved += now != owner ? 1 : 0;
    owner = now;
  }
  std::printf("killed: %d cases, %d of them moved, each with one owner\n",
              kCases, moved);
}

// Two processes of one host, and the memory stays where it is.
TEST_F(DaemonsTest, HandedOverThereAndBack) {
  hosts_[0]->Start({kMachineArgument});
  hosts_[1]->Start();
  for (int move = 0; move < 6; ++move) {
    const int from = move % 2;
    const Result result =
        Run(StartArguments(from, "unix:" + hosts_[1 - from]->socket()));
    ASSERT_EQ(result.code, 0) << result.out << result.err;
    EXPECT_EQ(Json::parse(result.out)["plain_bytes_sent"], 0);
    EXPECT_EQ(Owner(), 1 - from);
    struct stat here = {};
    struct stat there = {};
    ASSERT_EQ(stat((hosts_[0]->state() + "/m/data/memory").c_str(), &here), 0);
    ASSERT_EQ(stat((hosts_[1]->state() + "/m/data/memory").c_str(), &there), 0);
    EXPECT_EQ(here.st_ino, there.st_ino);
  }
  // Now it goes over the network, and takes no memory of the other's with it.
  EXPECT_EQ(Run(StartArguments(0)).code, 0);
  EXPECT_EQ(Owner(), 1);
  EXPECT_EQ(hosts_[0]->Terminate(), 0);
  EXPECT_EQ(hosts_[1]->Terminate(), 0);
}

// One of the processes ends as a frame goes, for each frame.
// bad:T12 promise:P7
TEST_F(DaemonsTest, HandOverKilledAtEachFrame) {
  hosts_[0]->Start({"--machine=name=m,kind=memory,size=1MiB,dirty=1MiB/s"});
  hosts_[1]->Start();
  int owner = 0;
  int cases = 0;
  int moved = 0;
  for (bool is_source : {true, false}) {
    for (bool to_target : {true, false}) {
      for (int frame = 0;; ++frame) {
        const int victim = is_source ? owner : 1 - owner;
        std::atomic<bool> was_killed{false};
        auto relay = std::make_unique<UnixRelay>(
            sockets_ + "/relay.sock", hosts_[1 - owner]->socket(),
            FramePlan{.fault = FrameFault::kCall,
                      .to_target = to_target,
                      .frame = frame,
                      .act = [&] {
                        hosts_[victim]->Kill();
                        was_killed = true;
                      }});
        const pid_t command = Begin(StartArguments(owner, relay->address()));
        const absl::Time until = absl::Now() + absl::Seconds(10);
        bool is_over = false;
        while (!was_killed && !is_over && absl::Now() < until) {
          is_over = waitpid(command, nullptr, WNOHANG) == command;
          absl::SleepFor(absl::Milliseconds(2));
        }
        if (!is_over) {
          kill(command, SIGKILL);
          waitpid(command, nullptr, 0);
        }
        relay = nullptr;  // and with it whoever may still call Kill()
        if (was_killed) hosts_[victim]->Start();
        const int now = Owner();
        ASSERT_NE(now, -1) << "frame " << frame << (to_target ? " to" : " from")
                           << " the target: no owner, or two";
        if (was_killed) moved += now != owner ? 1 : 0;
        owner = now;
        if (!was_killed) break;
        ++cases;
      }
    }
  }
  EXPECT_GT(moved, 0);
  EXPECT_LT(moved, cases);
  std::printf(
      "killed at a frame: %d cases, %d of them moved, each with one "
      "owner\n",
      cases, moved);
}

TEST_F(DaemonsTest, UndecidedMachineIsSettledByHandOnly) {
  // As a target leaves it whose source is lost after it was prepared.
  const std::string folder = hosts_[1]->state() + "/m";
  std::filesystem::create_directories(folder + "/data");
  std::ofstream(folder + "/kind") << "memory\n";
  std::ofstream(folder + "/data/setup") << "size=65536,dirty=0,fill=no";
  std::ofstream(folder + "/data/memory") << std::string(65536, '\0');
  const std::string id(kIdSizeBytes, 'i');
  SegmentDescription segment;
  segment.id = 1;
  segment.page_size_bytes = 4096;
  segment.size_bytes = 65536;
  Hello hello;
  hello.migration_id = id;
  hello.machine = "m";
  hello.epoch = 4;
  hello.devices = {{"memory", "size=65536,dirty=0,fill=no", {segment}}};
  ASSERT_TRUE((*FileLedger::Open(folder + "/ledger"))
                  ->Store({.state = Ownership::kPrepared,
                           .epoch = 5,
                           .migration_id = id,
                           .peer = "127.0.0.1:1",
                           .messages = {SerializeMessage(hello),
                                        SerializeMessage(ImmutableData{
                                            0, "ferrybus memory 1"}),
                                        SerializeMessage(MutableData{0, ""})}})
                  .ok());
  hosts_[1]->Start();
  EXPECT_EQ(MachineAt(1)["phase"], "undecided");
  const std::string at = hosts_[1]->address();
  // It stays so over a restart, and nobody else may send it.
  EXPECT_EQ(hosts_[1]->Terminate(), 0);
  hosts_[1]->Start();
  EXPECT_EQ(MachineAt(1)["phase"], "undecided");
  EXPECT_EQ(OwnershipAt(1), "prepared");

  Result result = Run({"resolve", "--machine", "m", "--at", at, "take-over"});
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err, HasSubstr("--source-is-gone-for-good"));
  EXPECT_EQ(OwnershipAt(1), "prepared");
  result = Run({"resolve", "--machine", "m", "--at", at, "take-over",
                "--source-is-gone-for-good"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("WARNING"));
  const absl::Time until = absl::Now() + kPatience;
  while (OwnershipAt(1) != "owner" && absl::Now() < until) {
    absl::SleepFor(absl::Milliseconds(50));
  }
  EXPECT_EQ(OwnershipAt(1), "owner");
  result = Run({"resolve", "--machine", "m", "--at", at, "discard",
                "--source-is-gone-for-good"});
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err, HasSubstr("not undecided"));
}

TEST_F(DaemonsTest, RefusalsSayWhy) {
  hosts_[0]->Start({kMachineArgument});
  hosts_[1]->Start();
  Result result = Run({"start", "--machine", "other", "--from",
                       hosts_[0]->address(), "--to", hosts_[1]->address()});
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err, HasSubstr("does not run here"));
  result = Run({"start", "--machine", "m", "--from", hosts_[0]->address(),
                "--to", "127.0.0.1:1"});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.out, HasSubstr("goes on where it was"));
  result = Run({"start", "--machine", "m", "--from", hosts_[0]->address(),
                "--to", hosts_[0]->address()});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.out, HasSubstr("already"));
  result = Run({"list", "--at", "127.0.0.1:1"});
  EXPECT_EQ(result.code, 2);
  result = Run({"query", "--machine", "none", "--at", hosts_[0]->address()});
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err, HasSubstr("no migration"));
  EXPECT_EQ(Owner(), 0);

  result = Run({"start", "--machine", "m", "--from", hosts_[0]->address(),
                "--to", "unix:" + hosts_[0]->socket()});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.out, HasSubstr("already"));
  EXPECT_EQ(Owner(), 0);

  // Wrong certificates are named before anything is tried.
  const pid_t daemon =
      Spawn({kDaemon, "--state-dir", folder_ + "/none", "--ca",
             files_.authority, "--cert", files_.key, "--key", files_.key},
            folder_ + "/out", folder_ + "/err");
  EXPECT_EQ(Wait(daemon), 2);
  EXPECT_THAT(ReadText(folder_ + "/err"),
              HasSubstr("certificate: no certificate"));
}

TEST_F(DaemonsTest, HelpIsThere) {
  const Result result = Run({"--help"});
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.out, HasSubstr("ferrybus migrate start"));
  EXPECT_EQ(Run({"nonsense"}).code == 0, false);
}

}  // namespace
}  // namespace ferrybus::migration
