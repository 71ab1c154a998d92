// SPDX-License-Identifier: MIT
//
// Two daemons as processes, with TLS, and the command as people and scripts run
// it: there and back, killed at any moment, settled by hand.

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "ferrybus/savestate/migration/migration_messages.h"
#include "ferrybus/savestate/migration/ownership.h"
#include "ferrybus/tests/migration/test_certificates.h"
#include "ferrybus/tests/migration/unix_relay.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr char kDaemon[] = "tools/migrate/ferrybus-migrated";
constexpr char kCommand[] = "tools/migrate/ferrybus-migrate";
constexpr char kMachineArgument[] =
    "--machine=name=m,kind=memory,size=16MiB,dirty=8MiB/s";
constexpr absl::Duration kPatience = absl::Seconds(60);

std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Starts a program with its output in files.
pid_t Spawn(const std::vector<std::string>& arguments, const std::string& out,
            const std::string& err) {
  const pid_t child = fork();
  if (child < 0) std::abort();  // kill(-1) would be everybody
  if (child != 0) return child;
  const int out_fd = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const int err_fd = open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  dup2(out_fd, STDOUT_FILENO);
  dup2(err_fd, STDERR_FILENO);
  std::vector<char*> argv;
  for (const std::string& each : arguments) {
    argv.push_back(const_cast<char*>(each.c_str()));
  }
  argv.push_back(nullptr);
  execv(argv[0], argv.data());
  _exit(127);
}

int Wait(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

struct Result {
  int code = -1;
  std::string out;
  std::string err;
};

// A daemon that keeps its port and its state folder when it starts again.
class Host {
 public:
  Host(const std::string& folder, const std::string& name,
       const TlsFiles& files, const std::string& socket)
      : prefix_(folder + "/" + name), files_(files), socket_(socket) {}
  ~Host() {
    if (pid_ > 0) Kill();
  }

  void Start(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {kDaemon,
                                          "--listen",
                                          absl::StrCat("127.0.0.1:", port_),
                                          "--listen",
                                          "unix:" + socket_,
                                          "--ca",
                                          files_.authority,
                                          "--cert",
                                          files_.certificate,
                                          "--key",
                                          files_.key,
                                          "--state-dir",
                                          prefix_ + ".state",
                                          "--silence-max",
                                          "3"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::filesystem::remove(prefix_ + ".out");  // of the process before
    pid_ = Spawn(arguments, prefix_ + ".out", prefix_ + ".err");
    const absl::Time until = absl::Now() + kPatience;
    while (absl::Now() < until) {
      const std::string out = ReadText(prefix_ + ".out");
      const size_t at = out.find("127.0.0.1:");
      if (at != std::string::npos && out.back() == '\n') {
        port_ = std::stoi(out.substr(at + 10));
        return;
      }
      absl::SleepFor(absl::Milliseconds(5));
    }
    FAIL() << "the daemon does not start: " << ReadText(prefix_ + ".err");
  }
  // Nothing, if it does not run: a pid of -1 is everybody.
  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    (void)Wait(pid_);
    pid_ = -1;
  }
  int Terminate() {
    if (pid_ <= 0) return -1;
    kill(pid_, SIGTERM);
    const int code = Wait(pid_);
    pid_ = -1;
    return code;
  }

  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }
  const std::string& socket() const { return socket_; }
  std::string state() const { return prefix_ + ".state"; }

 private:
  const std::string prefix_;
  const TlsFiles files_;
  const std::string socket_;
  pid_t pid_ = -1;
  int port_ = 0;
};

class DaemonsTest : public ::testing::Test {
 protected:
  DaemonsTest() {
    std::string pattern = ::testing::TempDir() + "/daemonsXXXXXX";
    folder_ = mkdtemp(pattern.data());
    files_ = WriteTlsFiles(TestAuthority("daemons").Issue(), folder_);
    // The path of a socket is short.
    std::string sockets = "/tmp/daemonsXXXXXX";
    sockets_ = mkdtemp(sockets.data());
    for (const char* name : {"a", "b"}) {
      hosts_.push_back(std::make_unique<Host>(
          folder_, name, files_, absl::StrCat(sockets_, "/", name, ".sock")));
    }
  }
  ~DaemonsTest() override {
    hosts_.clear();
    std::filesystem::remove_all(folder_);
    std::filesystem::remove_all(sockets_);
  }

  std::vector<std::string> Command(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {kCommand, "migrate"});
    for (const std::string& each :
         {std::string("--ca"), files_.authority, std::string("--cert"),
          files_.certificate, std::string("--key"), files_.key}) {
      arguments.push_back(each);
    }
    return arguments;
  }
  pid_t Begin(const std::vector<std::string>& arguments) const {
    return Spawn(Command(arguments), folder_ + "/out", folder_ + "/err");
  }
  Result End(pid_t child) const {
    const int code = Wait(child);
    return {code, ReadText(folder_ + "/out"), ReadText(folder_ + "/err")};
  }
  Result Run(const std::vector<std::string>& arguments) const {
    return End(Begin(arguments));
  }
  std::vector<std::string> StartArguments(int from, std::string to = "") const {
    if (to.empty()) to = hosts_[1 - from]->address();
    return {"start", "--machine", "m",     "--from", hosts_[from]->address(),
            "--to",  to,          "--json"};
  }
  // The machine at a host, or null.
  Json MachineAt(int host) const {
    const Result result =
        Run({"list", "--at", hosts_[host]->address(), "--json"});
    EXPECT_EQ(result.code, 0) << result.err;
    const Json list = Json::parse(result.out, nullptr, false);
    if (!list.is_array() || list.empty()) return nullptr;
    return list[0];
  }
  std::string OwnershipAt(int host) const {
    const Json machine = MachineAt(host);
    return machine.is_null() ? "none" : machine["ownership"].get<std::string>();
  }
  // The one owner, once nothing is undecided; else -1.
  int Owner() const {
    const absl::Time until = absl::Now() + kPatience;
    while (absl::Now() < until) {
      const Json machines[] = {MachineAt(0), MachineAt(1)};
      int owners = 0;
      int owner = -1;
      bool is_settled = true;
      for (int i : {0, 1}) {
        if (machines[i].is_null()) continue;
        if (machines[i]["phase"] != "") is_settled = false;
        if (machines[i]["ownership"] == "prepared") is_settled = false;
        if (machines[i]["ownership"] != "owner") continue;
        ++owners;
        owner = i;
        EXPECT_THAT(machines[i]["status"].get<std::string>(),
                    HasSubstr("fault=no"));
      }
      EXPECT_LE(owners, 1) << machines[0] << machines[1];
      if (owners > 1) return -1;
      if (is_settled && owners == 1) return owner;
      absl::SleepFor(absl::Milliseconds(50));
    }
    return -1;
  }

  std::string folder_;
  std::string sockets_;
  TlsFiles files_;
  std::vector<std::unique_ptr<Host>> hosts_;
};

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
    std::vector<std::string> arguments = StartArguments(owner);
    arguments.insert(arguments.end(), {"--bandwidth-limit", "60MiB/s"});
    const pid_t command = Begin(arguments);
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
