// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/handover.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ferrybus/channel/transport/unique_fd.h"

namespace ferrybus::hypervisor {
namespace {

using demo::Child;
using demo::Control;
using demo::Json;

constexpr absl::Duration kForever = absl::Hours(24 * 365);
constexpr absl::Duration kReadyPatience = absl::Seconds(60);
// What adds up, and what is a list.
constexpr const char* kSums[] = {
    "replacements", "moves",        "snapshots",    "in_flight_moved",
    "io_errors",    "disk_packets", "disk_refused", "hypercalls",
};
constexpr const char* kLists[] = {"complaints", "faults", "pauses_ms"};
// What only the last process knows.
constexpr const char* kLast[] = {
    "bytes_verified", "bytes_written", "lost", "end", "error", "services"};

std::string NextStateFolder(const SessionOptions& options) {
  return options.state_folder + "+";
}

// Of this program, to go on with what is left to do.
std::vector<std::string> Arguments(const SessionOptions& options,
                                   const char* how, uint32_t moves,
                                   uint32_t snapshots) {
  std::vector<std::string> arguments = {
      how,
      "--continued",
      absl::StrCat("--disk=", options.disk_path),
      absl::StrCat("--state=", NextStateFolder(options)),
      absl::StrCat("--disk-channels=", options.disk_channels),
      absl::StrCat("--replacements=",
                   options.replacements - ReplacementsHere(options)),
      absl::StrCat("--interval=", options.interval_ms),
      absl::StrCat("--kill=", options.kill ? "true" : "false"),
      absl::StrCat("--timeout=", options.timeout_seconds),
      absl::StrCat("--moves=", moves),
      absl::StrCat("--snapshots=", snapshots)};
  if (!options.save_to.empty()) {
    arguments.push_back(absl::StrCat("--save-to=", options.save_to));
  }
  return arguments;
}

absl::StatusOr<Handover> Migrate(Guest& guest, const SessionOptions& options) {
  absl::StatusOr<Child> successor = Child::Start(
      Arguments(options, "--incoming", options.moves - 1, options.snapshots));
  if (!successor.ok()) return successor.status();
  const absl::Status ready =
      successor->control().Receive(kReadyPatience).status();
  if (!ready.ok()) return ready;
  const migration::MigrationProgress moved = guest.SendTo(
      Guest::AddressOf(NextStateFolder(options)), [&] { successor->Kill(); });
  if (moved.phase != migration::SourcePhase::kDone) return moved.status;
  return Handover{std::move(successor),
                  absl::ToInt64Milliseconds(moved.pause.total())};
}

absl::StatusOr<Handover> PassOnByFolder(Guest& guest,
                                        const SessionOptions& options) {
  const std::string folder = options.state_folder + ".snapshot";
  const absl::Status saved = guest.SaveTo(folder);
  if (!saved.ok()) return saved;
  const std::string restore = absl::StrCat("--restore-from=", folder);
  return Handover{Child::Start(Arguments(options, restore.c_str(), 0,
                                         options.snapshots - 1)),
                  std::nullopt};
}

}  // namespace

absl::StatusOr<Handover> HandOver(Guest& guest, const SessionOptions& options) {
  return options.moves > 0 ? Migrate(guest, options)
                           : PassOnByFolder(guest, options);
}

absl::StatusOr<Json> TakeReport(Handover& handover) {
  absl::StatusOr<Child>& successor = handover.successor;
  if (!successor.ok()) return successor.status();
  absl::StatusOr<Json> report = successor->control().Receive(kForever);
  const int code = successor->Wait();
  if (report.ok()) return report;
  return absl::InternalError(
      absl::StrCat("the process that the guest went to ended with ", code));
}

void SayReady() { GiveReport({{"event", "ready"}}); }

void GiveReport(const Json& report) {
  static Control& predecessor = *new Control(UniqueFd(demo::kControlFd));
  predecessor.Send(report);
}

void AddReport(const Json& successor, Json* report) {
  for (const char* key : kSums) {
    (*report)[key] =
        (*report)[key].get<int64_t>() + successor[key].get<int64_t>();
  }
  for (const char* key : kLists) {
    for (const Json& entry : successor[key]) (*report)[key].push_back(entry);
  }
  for (const char* key : kLast) (*report)[key] = successor[key];
}

}  // namespace ferrybus::hypervisor
