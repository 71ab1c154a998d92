// SPDX-License-Identifier: MIT
//
// Our reference devices as a program for the kit's process adapter: the
// example of one.  README.md, "A program of your own", says what it speaks.

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/tests/conformance/reference_device.h"
#include "ferrybus/vsp/host_port.h"

namespace ferrybus::conformance {
namespace {

constexpr int kSyncRoundsMax = 10000;

class Server {
 public:
  explicit Server(std::unique_ptr<vsp::HostPort> port)
      : port_(std::move(port)), host_(port_->memory(), port_->doorbell()) {}

  int Run();

 private:
  std::string Carry(const std::string& line);
  std::string Sync();
  bool Pump() { return host_.bus() != nullptr && port_->Pump(*host_.bus()); }
  // True: there is something to do.
  bool Wait(int timeout_ms, bool for_commands);
  // False: the kit has ended.
  bool ReadCommands();

  std::unique_ptr<vsp::HostPort> port_;
  ReferenceHost host_;
  std::string unread_;
  bool quits_ = false;
};

std::string Say(const absl::Status& status) {
  if (status.ok()) return "ok";
  std::string text = absl::StrCat("error ", status.ToString());
  for (char& c : text) c = c == '\n' ? ' ' : c;
  return text;
}

std::string Server::Sync() {
  for (int i = 0; i < kSyncRoundsMax; ++i) {
    if (!Pump() && !Wait(0, false)) return "ok";
  }
  return "error the bus polls for ever";
}

std::string Server::Carry(const std::string& line) {
  const size_t space = line.find(' ');
  const std::string word = line.substr(0, space);
  const std::string rest =
      space == std::string::npos ? "" : line.substr(space + 1);
  if (word == "start") return Say(host_.Start());
  if (word == "restore")
    return Say(host_.Restore(absl::HexStringToBytes(rest)));
  if (word == "quit") quits_ = true;
  if (host_.bus() == nullptr || quits_) return "ok";
  if (word == "sync") return Sync();
  if (word == "resume") return Say(host_.Resume());
  if (word == "save") {
    const absl::StatusOr<std::string> saved = host_.Save();
    return saved.ok() ? absl::StrCat("ok ", absl::BytesToHexString(*saved))
                      : Say(saved.status());
  }
  uint32_t device = 0;
  if (!absl::SimpleAtoi(rest, &device)) return "unsupported";
  if (word == "rescind") return Say(host_.Rescind(device));
  if (word == "offer") return Say(host_.Offer(device));
  if (word == "pause") return Say(host_.Pause(device));
  if (word == "unpause") return Say(host_.Unpause(device));
  return "unsupported";
}

bool Server::Wait(int timeout_ms, bool for_commands) {
  pollfd fds[4] = {{STDIN_FILENO, POLLIN, 0}};
  nfds_t count = 1;
  if (host_.bus() != nullptr) {
    for (const int fd : port_->wait_fds()) fds[count++] = {fd, POLLIN, 0};
    fds[count++] = {host_.bus()->wake_fd(), POLLIN, 0};
  }
  const nfds_t first = for_commands ? 0 : 1;
  return poll(fds + first, count - first, timeout_ms) > 0;
}

bool Server::ReadCommands() {
  pollfd ready = {STDIN_FILENO, POLLIN, 0};
  if (poll(&ready, 1, 0) <= 0) return true;
  char buffer[65536];
  const ssize_t got = read(STDIN_FILENO, buffer, sizeof(buffer));
  if (got <= 0) return false;
  unread_.append(buffer, static_cast<size_t>(got));
  for (size_t end; (end = unread_.find('\n')) != std::string::npos;) {
    const std::string answer = Carry(unread_.substr(0, end));
    unread_.erase(0, end + 1);
    std::printf("%s\n", answer.c_str());
    std::fflush(stdout);
  }
  return !quits_;
}

int Server::Run() {
  do {
    if (!Pump()) Wait(-1, true);
  } while (ReadCommands());
  return 0;
}

}  // namespace
}  // namespace ferrybus::conformance

int main() {
  using ferrybus::UniqueFd;
  ferrybus::Port port;
  UniqueFd* const ends[] = {&port.guest_ram, &port.signals, &port.host_event,
                            &port.guest_event, &port.messages};
  for (int i = 0; i < 5; ++i) {
    fcntl(3 + i, F_SETFD, FD_CLOEXEC);
    *ends[i] = UniqueFd(3 + i);
  }
  auto opened = ferrybus::vsp::HostPort::Open(std::move(port));
  if (!opened.ok()) {
    std::fprintf(stderr, "%s\n", opened.status().ToString().c_str());
    return 1;
  }
  return ferrybus::conformance::Server(*std::move(opened)).Run();
}
