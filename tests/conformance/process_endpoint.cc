// SPDX-License-Identifier: MIT

#include "ferrybus/tests/conformance/process_endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"

namespace ferrybus::conformance {
namespace {

// Per answer.  Ticks, not time: a machine that stands still costs nothing.
constexpr int kAnswerTicks = 100;
constexpr int kTickMs = 100;
constexpr size_t kLineBytesMax = 64 << 20;
constexpr int kRoundsMax = 1000;
constexpr int kFirstPortFd = 3;
// Above all that the program gets.
constexpr int kOutOfTheWay = 64;

// Only system calls from here to exec.
[[noreturn]] void Become(const char* command, const std::array<int, 7>& fds,
                         pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  signal(SIGPIPE, SIG_DFL);
  std::array<int, 7> moved;
  for (size_t i = 0; i < fds.size(); ++i) {
    moved[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, kOutOfTheWay);
    if (moved[i] < 0) _exit(127);
  }
  dup2(moved[0], STDIN_FILENO);
  dup2(moved[1], STDOUT_FILENO);
  for (size_t i = 2; i < moved.size(); ++i) {
    dup2(moved[i], kFirstPortFd + static_cast<int>(i) - 2);
  }
  execl("/bin/sh", "sh", "-c", command, static_cast<char*>(nullptr));
  _exit(127);
}

}  // namespace

std::unique_ptr<Endpoint> ProcessEndpoint::Make(
    const std::string& command, const MemfdGuestMemory& guest_ram) {
  signal(SIGPIPE, SIG_IGN);
  absl::StatusOr<PortPair> ports = CreatePort(guest_ram.file());
  FERRYBUS_CHECK(ports.ok(), "no port to be had");
  absl::StatusOr<SignalPage> signals =
      SignalPage::Map(ports->guest.signals.get());
  FERRYBUS_CHECK(signals.ok(), "the signal page cannot be mapped");
  return std::unique_ptr<Endpoint>(new ProcessEndpoint(
      "exec " + command, *std::move(ports), *std::move(signals)));
}

ProcessEndpoint::ProcessEndpoint(std::string command, PortPair ports,
                                 SignalPage signals)
    : command_(std::move(command)),
      ports_(std::move(ports)),
      signals_(std::move(signals)),
      sender_(signals_, SignalDirection::kGuestToHost,
              ports_.guest.host_event.get()),
      receiver_(signals_, SignalDirection::kHostToGuest,
                ports_.guest.guest_event.get()),
      messages_(ports_.guest.messages.get(), MessageSocket::Role::kGuest) {}

ProcessEndpoint::~ProcessEndpoint() { Kill(); }

// -- The program -------------------------------------------------------------

absl::Status ProcessEndpoint::Spawn() {
  int in[2];
  int out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) {
    return absl::InternalError(absl::StrCat("pipe: ", std::strerror(errno)));
  }
  const UniqueFd program_in(in[0]);
  const UniqueFd program_out(out[1]);
  to_program_ = UniqueFd(in[1]);
  from_program_ = UniqueFd(out[0]);
  unread_.clear();
  const Port& host = ports_.host;
  const std::array<int, 7> fds = {program_in.get(),      program_out.get(),
                                  host.guest_ram.get(),  host.signals.get(),
                                  host.host_event.get(), host.guest_event.get(),
                                  host.messages.get()};
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) Become(command_.c_str(), fds, parent);
  if (pid_ > 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("fork: ", std::strerror(errno)));
}

absl::Status ProcessEndpoint::Start() {
  const absl::Status status = Spawn();
  return status.ok() ? Tell("start") : status;
}

void ProcessEndpoint::Kill() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
}

absl::Status ProcessEndpoint::Ended(const std::string& when) {
  int status = 0;
  // It has closed its output, so it is ending, or told to.
  kill(pid_, SIGTERM);
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return absl::AbortedError(absl::StrCat(
      "the program ended during \"", when, "\" ",
      WIFSIGNALED(status) ? absl::StrCat("by signal ", WTERMSIG(status), " (",
                                         strsignal(WTERMSIG(status)), ")")
                          : absl::StrCat("with status ", WEXITSTATUS(status))));
}

// OutOfRange: it has closed its output.
absl::StatusOr<std::string> ProcessEndpoint::ReadLine() {
  for (int ticks = kAnswerTicks; ticks > 0;) {
    const size_t end = unread_.find('\n');
    if (end != std::string::npos) {
      const std::string line = unread_.substr(0, end);
      unread_.erase(0, end + 1);
      return line;
    }
    if (unread_.size() > kLineBytesMax) {
      return absl::InternalError("the program's line does not end");
    }
    pollfd ready = {from_program_.get(), POLLIN, 0};
    const int result = poll(&ready, 1, kTickMs);
    if (result == 0) --ticks;
    if (result <= 0) continue;
    char buffer[65536];
    const ssize_t got = read(from_program_.get(), buffer, sizeof(buffer));
    if (got == 0 || (got < 0 && errno != EINTR)) {
      return absl::OutOfRangeError("closed");
    }
    if (got > 0) unread_.append(buffer, static_cast<size_t>(got));
  }
  return absl::DeadlineExceededError(absl::StrCat(
      "the program has not answered for ", kAnswerTicks / 10, " seconds"));
}

absl::StatusOr<std::string> ProcessEndpoint::Ask(const std::string& line) {
  const std::string word = line.substr(0, line.find(' '));
  if (pid_ <= 0) return absl::AbortedError("no program runs for " + word);
  std::string rest = line + "\n";
  while (!rest.empty()) {
    const ssize_t written = write(to_program_.get(), rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Ended(word);
    rest.erase(0, static_cast<size_t>(written));
  }
  absl::StatusOr<std::string> answer = ReadLine();
  if (absl::IsOutOfRange(answer.status())) return Ended(word);
  if (!answer.ok()) return answer;
  if (*answer == "ok") return std::string();
  if (absl::StartsWith(*answer, "ok ")) return answer->substr(3);
  if (*answer == "unsupported") {
    return absl::UnimplementedError("the program does not support " + word);
  }
  if (absl::StartsWith(*answer, "error ")) {
    return absl::FailedPreconditionError(answer->substr(6));
  }
  return absl::InternalError(absl::StrCat("the program answered \"",
                                          answer->substr(0, 100), "\" to \"",
                                          word, "\""));
}

// -- The guest's side --------------------------------------------------------

void ProcessEndpoint::Post(uint32_t connection_id,
                           absl::Span<const std::byte> payload) {
  posted_.emplace_back(connection_id, Bytes(payload.begin(), payload.end()));
}

absl::Status ProcessEndpoint::Run() {
  for (int i = 0; i < kRoundsMax; ++i) {
    while (!posted_.empty() &&
           messages_.Send(posted_.front().first, posted_.front().second)) {
      posted_.pop_front();
    }
    const absl::Status status = Tell("sync");
    if (!status.ok() || posted_.empty()) return status;
  }
  return absl::DeadlineExceededError("the program takes no messages");
}

std::vector<Bytes> ProcessEndpoint::TakeMessages() {
  std::vector<Bytes> messages;
  while (true) {
    const absl::StatusOr<SocketMessage> message = messages_.Receive();
    if (absl::IsUnavailable(message.status()) ||
        absl::IsAborted(message.status())) {
      return messages;
    }
    // What is no message at all shows as an empty one.
    messages.emplace_back();
    if (!message.ok()) continue;
    messages.back().assign(message->payload().begin(),
                           message->payload().end());
  }
}

std::vector<uint32_t> ProcessEndpoint::TakeSignals() {
  std::vector<uint32_t> channels;
  receiver_.Take(
      [&channels](uint32_t channel) { channels.push_back(channel); });
  return channels;
}

// -- Moving ------------------------------------------------------------------

absl::StatusOr<std::string> ProcessEndpoint::Save() {
  const absl::StatusOr<std::string> text = Ask("save");
  if (!text.ok()) return text;
  for (const char c : *text) {
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) {
      return absl::InternalError("the program's state is not hexadecimal");
    }
  }
  if (text->size() % 2 != 0) {
    return absl::InternalError("the program's state has an odd length");
  }
  return absl::HexStringToBytes(*text);
}

absl::Status ProcessEndpoint::Restore(const std::string& saved) {
  const absl::Status status = Spawn();
  if (!status.ok()) return status;
  const absl::Status restored =
      Tell(absl::StrCat("restore ", absl::BytesToHexString(saved)));
  if (!restored.ok()) Kill();
  return restored;
}

absl::Status ProcessEndpoint::Rescind(uint32_t device) {
  return Tell(absl::StrCat("rescind ", device));
}
absl::Status ProcessEndpoint::Offer(uint32_t device) {
  return Tell(absl::StrCat("offer ", device));
}
absl::Status ProcessEndpoint::Pause(uint32_t device) {
  return Tell(absl::StrCat("pause ", device));
}
absl::Status ProcessEndpoint::Unpause(uint32_t device) {
  return Tell(absl::StrCat("unpause ", device));
}

}  // namespace ferrybus::conformance
