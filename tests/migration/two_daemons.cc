// SPDX-License-Identifier: MIT

#include "ferrybus/tests/migration/two_daemons.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"

namespace ferrybus::migration {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

}  // namespace

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

// ---- DaemonHost

void DaemonHost::Start(const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {
      kDaemon,
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
      absl::StrCat(absl::ToDoubleSeconds(silence_max_))};
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

// A pid of -1 is everybody.
void DaemonHost::Kill() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  (void)Wait(pid_);
  pid_ = -1;
}

int DaemonHost::Terminate() {
  if (pid_ <= 0) return -1;
  kill(pid_, SIGTERM);
  const int code = Wait(pid_);
  pid_ = -1;
  return code;
}

void DaemonHost::Signal(int number) const {
  if (pid_ > 0) kill(pid_, number);
}

std::string DaemonHost::address() const {
  return absl::StrCat("127.0.0.1:", port_);
}

// ---- DaemonsTest

DaemonsTest::DaemonsTest() {
  std::string pattern = ::testing::TempDir() + "/daemonsXXXXXX";
  folder_ = mkdtemp(pattern.data());
  files_ = WriteTlsFiles(TestAuthority("daemons").Issue(), folder_);
  // The path of a socket is short.
  std::string sockets = "/tmp/daemonsXXXXXX";
  sockets_ = mkdtemp(sockets.data());
  for (const char* name : {"a", "b"}) {
    hosts_.push_back(std::make_unique<DaemonHost>(
        folder_, name, files_, absl::StrCat(sockets_, "/", name, ".sock")));
  }
}

DaemonsTest::~DaemonsTest() {
  hosts_.clear();
  std::filesystem::remove_all(folder_);
  std::filesystem::remove_all(sockets_);
}

pid_t DaemonsTest::Begin(const std::vector<std::string>& arguments) const {
  std::vector<std::string> command = {kCommand, "migrate"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  for (const std::string& each :
       {std::string("--ca"), files_.authority, std::string("--cert"),
        files_.certificate, std::string("--key"), files_.key}) {
    command.push_back(each);
  }
  return Spawn(command, folder_ + "/out", folder_ + "/err");
}

pid_t DaemonsTest::BeginSlowMove(int from) const {
  std::vector<std::string> arguments = StartArguments(from);
  arguments.insert(arguments.end(), {"--bandwidth-limit", "60MiB/s"});
  return Begin(arguments);
}

Result DaemonsTest::End(pid_t child) const {
  const int code = Wait(child);
  return {code, ReadText(folder_ + "/out"), ReadText(folder_ + "/err")};
}

std::vector<std::string> DaemonsTest::StartArguments(int from,
                                                     std::string to) const {
  if (to.empty()) to = hosts_[1 - from]->address();
  return {"start", "--machine", "m",     "--from", hosts_[from]->address(),
          "--to",  to,          "--json"};
}

Json DaemonsTest::MachineAt(int host) const {
  const Result result =
      Run({"list", "--at", hosts_[host]->address(), "--json"});
  EXPECT_EQ(result.code, 0) << result.err;
  const Json list = Json::parse(result.out, nullptr, false);
  if (!list.is_array() || list.empty()) return nullptr;
  return list[0];
}

std::string DaemonsTest::OwnershipAt(int host) const {
  const Json machine = MachineAt(host);
  return machine.is_null() ? "none" : machine["ownership"].get<std::string>();
}

int DaemonsTest::Owner() const {
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

}  // namespace ferrybus::migration
