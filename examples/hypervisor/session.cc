// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/session.h"

#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/examples/demo/control.h"
#include "ferrybus/examples/hypervisor/console_log.h"
#include "ferrybus/examples/hypervisor/device_supervisor.h"

namespace ferrybus::hypervisor {
namespace {

using demo::Json;
using demo::NowNs;

constexpr int64_t kNsPerMs = 1'000'000;
constexpr int64_t kNsPerSecond = 1'000'000'000;
// Between two requests to power off, while the guest's driver is not ready.
constexpr int64_t kAskAgainNs = kNsPerSecond;
// Ctrl-A x ends the session, as in QEMU.
constexpr char kEscape = 1;

const char* Name(MachineEnd end) {
  switch (end) {
    case MachineEnd::kPowerOff:
      return "power off";
    case MachineEnd::kReset:
      return "reset";
    case MachineEnd::kTripleFault:
      return "triple fault";
    case MachineEnd::kCrash:
      return "crash";
    case MachineEnd::kFailed:
      return "failed";
    case MachineEnd::kNone:
    case MachineEnd::kStopped:
      break;
  }
  return "stopped";
}

// Something was sent, and all that came back is what was sent.
bool IsSocketSound(const Json& socket) {
  return socket.is_null() || (socket["wrong"] == 0 && socket["received"] != 0);
}

class Session {
 public:
  explicit Session(const SessionOptions& options)
      : options_(options), console_(stdout) {}

  absl::Status Run();

 private:
  absl::Status Loop();
  absl::Status DoWhatIsDue();
  void ReadKeyboard();
  Json Report(MachineEnd end, const std::string& error) const;

  const SessionOptions& options_;
  ConsoleLog console_;
  std::unique_ptr<Machine> machine_;
  std::unique_ptr<DeviceSupervisor> devices_;
  Json last_status_;
  uint32_t replaced_ = 0;
  int64_t next_ns_ = 0;
  bool keyboard_ = true;
  bool escaped_ = false;
  bool given_up_ = false;
  bool power_off_asked_ = false;
  bool connected_ = false;
};

absl::Status Session::Run() {
  MachineOptions machine_options = options_.machine;
  machine_options.console = [this](char c) { console_.Put(c); };
  absl::StatusOr<std::unique_ptr<Machine>> machine =
      Machine::Create(machine_options);
  if (!machine.ok()) return machine.status();
  machine_ = *std::move(machine);
  const DeviceProcessOptions device_options = {
      .image_path = options_.disk_path,
      .checkpoint_folder = options_.state_folder,
      .start_ns = machine_->start_ns(),
      .vp_count = machine_options.vp_count};
  devices_ = std::make_unique<DeviceSupervisor>(device_options,
                                                &machine_->host_port());
  absl::Status status = devices_->Start();
  if (!status.ok()) return status;
  machine_->Start();
  status = Loop();
  std::string error;
  const MachineEnd end = machine_->Finish(&error);
  const Json final_status = devices_->Status();
  if (!final_status.is_null()) last_status_ = final_status;
  if (status.ok()) status = devices_->Stop();
  const Json report = Report(end, error);
  std::fprintf(stderr, "%s\n", report.dump(2).c_str());
  if (!options_.json_path.empty()) {
    std::ofstream(options_.json_path) << report.dump(2) << "\n";
  }
  if (!status.ok()) return status;
  if (given_up_) return absl::DeadlineExceededError("the guest took too long");
  if (end == MachineEnd::kFailed) return absl::InternalError(error);
  if (options_.replacements == 0) return absl::OkStatus();
  if (end != MachineEnd::kPowerOff || report["lost"] != 0 ||
      report["io_errors"] != 0 || !report["complaints"].empty() ||
      !IsSocketSound(report["services"]["socket"])) {
    return absl::DataLossError("the guest noticed something; see the report");
  }
  return absl::OkStatus();
}

absl::Status Session::Loop() {
  const int64_t deadline =
      options_.timeout_seconds == 0
          ? INT64_MAX
          : NowNs() + options_.timeout_seconds * kNsPerSecond;
  while (!given_up_) {
    pollfd fds[] = {{machine_->end_fd(), POLLIN, 0},
                    {keyboard_ ? STDIN_FILENO : -1, POLLIN, 0}};
    poll(fds, 2, 20);
    if (fds[0].revents != 0) return absl::OkStatus();
    if (fds[1].revents != 0) ReadKeyboard();
    if (NowNs() > deadline) given_up_ = true;
    if (options_.replacements == 0 || !console_.is_ready() ||
        NowNs() < next_ns_) {
      continue;
    }
    const absl::Status status = DoWhatIsDue();
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Session::DoWhatIsDue() {
  if (options_.connect && !connected_) {
    connected_ = true;
    devices_->Connect();
  }
  if (replaced_ < options_.replacements) {
    const absl::Status status = devices_->Replace(options_.kill);
    if (!status.ok()) {
      return absl::Status(
          status.code(),
          absl::StrCat("replacement ", replaced_ + 1, ": ", status.message()));
    }
    ++replaced_;
    next_ns_ = NowNs() + options_.interval_ms * kNsPerMs;
    return absl::OkStatus();
  }
  next_ns_ = NowNs() + kAskAgainNs;
  if (power_off_asked_) return absl::OkStatus();
  last_status_ = devices_->Status();
  // The guest's driver may not be ready yet.
  power_off_asked_ = devices_->PowerOff().ok();
  return absl::OkStatus();
}

void Session::ReadKeyboard() {
  char buffer[256];
  const ssize_t got = read(STDIN_FILENO, buffer, sizeof(buffer));
  if (got <= 0) {
    keyboard_ = false;
    return;
  }
  for (ssize_t i = 0; i < got; ++i) {
    const char c = buffer[i];
    if (escaped_ && c == 'x') given_up_ = true;
    if (escaped_ || c != kEscape) machine_->Type({&c, 1});
    escaped_ = !escaped_ && c == kEscape;
  }
}

Json Session::Report(MachineEnd end, const std::string& error) const {
  const DeviceSupervisor::Totals& totals = devices_->totals();
  const Json guest = console_.result();
  const auto of_guest = [&guest](const char* key) {
    return guest.is_object() ? guest.value(key, int64_t{-1}) : int64_t{-1};
  };
  return {
      {"boots", console_.is_ready() ? 1 : 0},
      {"replacements", totals.replacements},
      {"killed", options_.kill},
      {"in_flight_moved", totals.in_flight_moved},
      {"io_errors",
       totals.disk_io_errors +
           static_cast<uint64_t>(std::max<int64_t>(0, of_guest("io_errors")))},
      {"bytes_verified", of_guest("bytes_verified")},
      {"bytes_written", of_guest("bytes_written")},
      {"lost", of_guest("lost")},
      {"complaints", console_.complaints()},
      {"faults", totals.faults},
      {"disk_packets", totals.disk_packets},
      {"disk_refused", totals.disk_refused},
      {"hyperv", machine_->mode() == HypervMode::kKvm ? "kvm" : "userspace"},
      {"end", Name(end)},
      {"error", error},
      {"services", last_status_}};
}

}  // namespace

absl::Status RunSession(const SessionOptions& options) {
  Session session(options);
  return session.Run();
}

}  // namespace ferrybus::hypervisor
