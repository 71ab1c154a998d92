// SPDX-License-Identifier: MIT

#include "ferrybus/examples/demo/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ferrybus::demo {
namespace {

constexpr size_t kMessageBytesMax = 128 * 1024;

}  // namespace

int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

bool Control::Send(const Json& message) {
  const std::string text = message.dump();
  return send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(text.size());
}

absl::StatusOr<Json> Control::Receive(absl::Duration timeout) {
  pollfd ready = {fd_.get(), POLLIN, 0};
  const int64_t deadline = NowNs() + absl::ToInt64Nanoseconds(timeout);
  int result;
  do {
    const int64_t left_ms = (deadline - NowNs()) / 1'000'000;
    result = poll(&ready, 1, left_ms > 0 ? static_cast<int>(left_ms) : 0);
  } while (result < 0 && errno == EINTR);
  if (result == 0) return absl::DeadlineExceededError("no answer in time");
  std::string text(kMessageBytesMax, '\0');
  const ssize_t got = recv(fd_.get(), text.data(), text.size(), 0);
  if (got <= 0) return absl::AbortedError("the process ended");
  text.resize(static_cast<size_t>(got));
  Json message = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (message.is_discarded()) return absl::InternalError("not JSON: " + text);
  return message;
}

absl::StatusOr<Child> Child::Start(const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {"/proc/self/exe"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return StartProgram(command);
}

absl::StatusOr<Child> Child::StartProgram(
    const std::vector<std::string>& command) {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0) {
    return absl::InternalError(
        absl::StrCat("socketpair: ", std::strerror(errno)));
  }
  std::vector<char*> argv;
  std::vector<std::string> copies = command;
  for (std::string& argument : copies) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    // Dies with its parent, so that nothing is left over after a Ctrl-C.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    if (sockets[1] == kControlFd) {
      fcntl(kControlFd, F_SETFD, 0);
    } else {
      dup2(sockets[1], kControlFd);
    }
    execv(argv[0], argv.data());
    _exit(127);
  }
  Child child;
  child.control_ = Control(UniqueFd(sockets[0]));
  close(sockets[1]);
  if (pid < 0) {
    return absl::InternalError(absl::StrCat("fork: ", std::strerror(errno)));
  }
  child.pid_ = pid;
  return child;
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      control_(std::move(other.control_)) {}

Child& Child::operator=(Child&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(control_, other.control_);
  return *this;
}

Child::~Child() {
  Kill();
  Wait();
}

void Child::Kill() {
  if (pid_ > 0) kill(pid_, SIGKILL);
}

void Child::Terminate() {
  if (pid_ > 0) kill(pid_, SIGTERM);
}

int Child::Wait() {
  if (pid_ <= 0) return 0;
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace ferrybus::demo
