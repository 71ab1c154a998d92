// SPDX-License-Identifier: MIT
//
// How the demo's processes talk about the demo itself (not about the disk):
// JSON objects over a SOCK_SEQPACKET pair, one per message; and how they are
// started.

#ifndef FERRYBUS_EXAMPLES_DEMO_CONTROL_H_
#define FERRYBUS_EXAMPLES_DEMO_CONTROL_H_

#include <sys/types.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ferrybus/channel/transport/unique_fd.h"

namespace ferrybus::demo {

using Json = nlohmann::json;

// CLOCK_MONOTONIC: comparable between the processes.
int64_t NowNs();

class Control {
 public:
  Control() = default;
  explicit Control(UniqueFd fd) : fd_(std::move(fd)) {}

  int fd() const { return fd_.get(); }
  // False: the peer is gone.
  bool Send(const Json& message);
  // Waits.  DeadlineExceeded; Aborted when the peer is gone.
  absl::StatusOr<Json> Receive(absl::Duration timeout);

 private:
  UniqueFd fd_;
};

// A child running this program with other arguments, or another program; it
// finds its end of the control socket as descriptor kControlFd.
inline constexpr int kControlFd = 3;

class Child {
 public:
  static absl::StatusOr<Child> Start(const std::vector<std::string>& arguments);
  // `command` is a path and the arguments.
  static absl::StatusOr<Child> StartProgram(
      const std::vector<std::string>& command);
  Child() = default;
  Child(Child&& other) noexcept;
  Child& operator=(Child&& other) noexcept;
  // Kills and reaps it if it still runs.
  ~Child();

  Control& control() { return control_; }
  void Kill();
  // SIGTERM.
  void Terminate();
  // Waits for its end; its exit code, or 128 + signal.
  int Wait();

 private:
  pid_t pid_ = -1;
  Control control_;
};

}  // namespace ferrybus::demo

#endif  // FERRYBUS_EXAMPLES_DEMO_CONTROL_H_
