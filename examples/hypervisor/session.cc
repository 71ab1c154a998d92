// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/session.h"

#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/examples/demo/control.h"
#include "ferrybus/examples/hypervisor/console_log.h"
#include "ferrybus/examples/hypervisor/guest.h"
#include "ferrybus/examples/hypervisor/handover.h"
#include "ferrybus/savestate/migration/migration_progress.h"

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

constexpr char kSaved[] = "saved";
constexpr char kMoved[] = "moved";

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
bool IsSocketSound(const Json& socket, bool goes_on) {
  return socket["is_open"] == 0 ||
         (socket["wrong"] == 0 && (goes_on || socket["received"] != 0));
}

class Session {
 public:
  explicit Session(const SessionOptions& options)
      : options_(options), console_(stdout) {}

  absl::Status Run();

 private:
  absl::Status Begin();
  absl::Status Loop();
  absl::Status DoWhatIsDue();
  absl::Status DoAfterReplacements();
  void MoveAway();
  // A guest that comes from elsewhere was so when it left.
  bool IsReady() const {
    return options_.is_continued || options_.receive ||
           !options_.restore_from.empty() || console_.is_ready();
  }
  // There is more to do than to run until the guest ends.
  bool HasPlan() const {
    return options_.replacements > 0 || options_.moves > 0 ||
           options_.snapshots > 0 || !options_.save_to.empty() ||
           !options_.move_to.empty();
  }
  // And the target has said so.  Until then it may ask what was decided, and
  // nobody else knows.
  bool HasLeft() const { return moved_.has_value() && not_moved_.ok(); }
  void ReadKeyboard();
  Json Report();
  absl::Status Judge(const Json& report) const;

  const SessionOptions& options_;
  ConsoleLog console_;
  std::unique_ptr<Guest> guest_;
  std::optional<Handover> handover_;
  absl::Status not_moved_;
  Json last_status_;
  uint32_t replaced_ = 0;
  int64_t next_ns_ = 0;
  bool keyboard_ = true;
  bool escaped_ = false;
  bool given_up_ = false;
  bool power_off_asked_ = false;
  bool connected_ = false;
  bool saved_ = false;
  // To another host, after this pause.
  std::optional<absl::Duration> moved_;
};

absl::Status Session::Begin() {
  MachineOptions machine = options_.machine;
  machine.console = [this](char c) { console_.Put(c); };
  absl::StatusOr<std::unique_ptr<Guest>> guest =
      Guest::Create(machine,
                    {.image_path = options_.disk_path,
                     .checkpoint_folder = options_.state_folder,
                     .disk_channels = options_.disk_channels},
                    options_.network);
  if (!guest.ok()) return guest.status();
  guest_ = *std::move(guest);
  if (options_.incoming) return guest_->Receive(SayReady);
  if (options_.receive) {
    return guest_->Receive([this] {
      std::fprintf(stderr, "a guest may come to %s\n",
                   options_.network.own_address().c_str());
    });
  }
  if (!options_.restore_from.empty()) {
    return guest_->RestoreFrom(options_.restore_from);
  }
  return guest_->Boot();
}

absl::Status Session::Run() {
  absl::Status status = Begin();
  if (!status.ok()) return status;
  status = Loop();
  if (!status.ok()) return status;
  Json report = Report();
  if (given_up_) {
    std::fprintf(stderr, "%s\n", report.dump(2).c_str());
    return absl::DeadlineExceededError("the guest took too long");
  }
  guest_.reset();
  if (handover_.has_value()) {
    const absl::StatusOr<Json> successor = TakeReport(*handover_);
    if (!successor.ok()) return successor.status();
    AddReport(*successor, &report);
  }
  if (options_.is_continued) {
    GiveReport(report);
    return absl::OkStatus();
  }
  std::fprintf(stderr, "%s\n", report.dump(2).c_str());
  if (!options_.json_path.empty()) {
    std::ofstream(options_.json_path) << report.dump(2) << "\n";
  }
  return Judge(report);
}

absl::Status Session::Judge(const Json& report) const {
  const std::string error = report["error"];
  if (report["end"] == Name(MachineEnd::kFailed)) {
    return absl::InternalError(error);
  }
  if (!HasPlan()) return absl::OkStatus();
  // Then it has not said yet what it lost.
  const bool goes_on = report["end"] == kSaved || report["end"] == kMoved;
  if ((report["end"] != Name(MachineEnd::kPowerOff) && !goes_on) ||
      (report["lost"] != 0 && !goes_on) || report["io_errors"] != 0 ||
      !report["complaints"].empty() || !error.empty() ||
      !IsSocketSound(report["services"]["socket"], goes_on)) {
    return absl::DataLossError("the guest noticed something; see the report");
  }
  return absl::OkStatus();
}

absl::Status Session::Loop() {
  const int64_t deadline =
      options_.timeout_seconds == 0
          ? INT64_MAX
          : NowNs() + options_.timeout_seconds * kNsPerSecond;
  while (!given_up_ && !saved_ && !HasLeft() && !handover_.has_value()) {
    pollfd fds[] = {{guest_->machine().end_fd(), POLLIN, 0},
                    {keyboard_ ? STDIN_FILENO : -1, POLLIN, 0}};
    poll(fds, 2, 20);
    if (fds[0].revents != 0) return absl::OkStatus();
    if (fds[1].revents != 0) ReadKeyboard();
    if (NowNs() > deadline) given_up_ = true;
    if (moved_.has_value()) continue;
    if (!HasPlan() || !IsReady() || NowNs() < next_ns_) continue;
    const absl::Status status = DoWhatIsDue();
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Session::DoWhatIsDue() {
  if (options_.connect && !connected_) {
    connected_ = true;
    guest_->devices().Connect();
  }
  if (replaced_ == ReplacementsHere(options_)) return DoAfterReplacements();
  const absl::Status status = guest_->devices().Replace(options_.kill);
  if (!status.ok()) {
    return absl::Status(
        status.code(),
        absl::StrCat("replacement ", replaced_ + 1, ": ", status.message()));
  }
  ++replaced_;
  next_ns_ = NowNs() + options_.interval_ms * kNsPerMs;
  return absl::OkStatus();
}

absl::Status Session::DoAfterReplacements() {
  next_ns_ = NowNs() + kAskAgainNs;
  if (power_off_asked_) return absl::OkStatus();
  last_status_ = guest_->devices().Status();
  if ((options_.moves > 0 || options_.snapshots > 0) && not_moved_.ok()) {
    absl::StatusOr<Handover> handover = HandOver(*guest_, options_);
    not_moved_ = handover.status();  // it goes on here
    if (handover.ok()) handover_ = *std::move(handover);
    return absl::OkStatus();
  }
  if (!options_.move_to.empty() && not_moved_.ok()) {
    MoveAway();
    return absl::OkStatus();
  }
  if (!options_.save_to.empty()) {
    const absl::Status status = guest_->SaveTo(options_.save_to);
    saved_ = status.ok();
    return status;
  }
  // The guest's driver may not be ready yet.
  power_off_asked_ = guest_->devices().PowerOff().ok();
  return absl::OkStatus();
}

void Session::MoveAway() {
  const migration::MigrationProgress moved =
      guest_->SendTo(options_.move_to, nullptr);
  if (moved.phase == migration::SourcePhase::kDone) {
    moved_ = moved.pause.total();
  }
  not_moved_ = moved.status;
  if (moved_.has_value() && !HasLeft()) {
    std::fprintf(stderr,
                 "the guest is at %s, which has not said that it runs; it may "
                 "ask here until this process ends\n",
                 options_.move_to.c_str());
  }
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
    if (escaped_ || c != kEscape) guest_->machine().Type({&c, 1});
    escaped_ = !escaped_ && c == kEscape;
  }
}

// Ends what still runs here.
Json Session::Report() {
  std::string error;
  const bool is_moved = saved_ || moved_.has_value() || handover_.has_value();
  const MachineEnd end = guest_->machine().Finish(&error);
  if (!is_moved) {
    const Json status = guest_->devices().Status();
    if (!status.is_null()) last_status_ = status;
    const absl::Status stopped = guest_->devices().Stop();
    if (!stopped.ok() && error.empty()) error = stopped.ToString();
  }
  if (error.empty() && !not_moved_.ok()) error = not_moved_.ToString();
  const DeviceSupervisor::Totals& totals = guest_->devices().totals();
  const Json guest = console_.result();
  const auto of_guest = [&guest](const char* key) {
    return guest.is_object() ? guest.value(key, int64_t{-1}) : int64_t{-1};
  };
  Json pauses = Json::array();
  if (handover_.has_value() && handover_->pause_ms.has_value()) {
    pauses.push_back(*handover_->pause_ms);
  }
  if (moved_.has_value()) {
    pauses.push_back(absl::ToInt64Milliseconds(*moved_));
  }
  return {
      {"boots", console_.is_ready() ? 1 : 0},
      {"replacements", totals.replacements},
      {"moves",
       moved_.has_value() || (handover_.has_value() && options_.moves > 0) ? 1
                                                                           : 0},
      {"snapshots",
       saved_ || (handover_.has_value() && options_.moves == 0) ? 1 : 0},
      {"pauses_ms", pauses},
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
      {"doorbells", guest_->machine().has_doorbells()},
      {"hypercalls", guest_->machine().hypercalls()},
      {"hyperv",
       guest_->machine().mode() == HypervMode::kKvm ? "kvm" : "userspace"},
      {"end", saved_               ? kSaved
              : moved_.has_value() ? kMoved
                                   : Name(end)},
      {"error", error},
      {"services", last_status_}};
}

}  // namespace

absl::Status RunSession(const SessionOptions& options) {
  Session session(options);
  return session.Run();
}

}  // namespace ferrybus::hypervisor
