// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/device_supervisor.h"

#include <signal.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace ferrybus::hypervisor {
namespace {

using demo::Child;
using demo::Json;

constexpr absl::Duration kPatience = absl::Seconds(60);

}  // namespace

absl::StatusOr<Child> DeviceSupervisor::StartStandby() const {
  return Child::Start({"--role=devices",
                       absl::StrCat("--disk=", options_.image_path),
                       absl::StrCat("--state=", options_.checkpoint_folder),
                       absl::StrCat("--start-ns=", options_.start_ns),
                       absl::StrCat("--cpus=", options_.vp_count)});
}

absl::StatusOr<Json> DeviceSupervisor::Expect(const char* event) {
  while (true) {
    absl::StatusOr<Json> message = server_.control().Receive(kPatience);
    if (!message.ok()) {
      return absl::Status(message.status().code(),
                          absl::StrCat("device process, waiting for \"", event,
                                       "\": ", message.status().message()));
    }
    if ((*message)["event"] == event) return message;
    if ((*message)["event"] != "fault") {
      return absl::InternalError(
          absl::StrCat("device process: ", message->value("error", "?")));
    }
    totals_.faults.push_back((*message)["reason"]);
  }
}

absl::Status DeviceSupervisor::Go(bool restore, const Json& socket) {
  server_.control().Send(
      {{"command", "go"}, {"restore", restore}, {"socket", socket}});
  const absl::Status sent = SendPort(server_.control().fd(), *port_);
  if (!sent.ok()) return sent;
  return Expect("serving").status();
}

absl::Status DeviceSupervisor::Start() {
  absl::StatusOr<Child> server = StartStandby();
  if (!server.ok()) return server.status();
  server_ = *std::move(server);
  return Go(/*restore=*/false, Json());
}

absl::Status DeviceSupervisor::Replace(bool kill) {
  // Ready before it is needed, so that starting it is no part of the pause.
  absl::StatusOr<Child> standby = StartStandby();
  if (!standby.ok()) return standby.status();
  server_.control().Send({{"command", "move"}, {"wait_for_kill", kill}});
  const absl::StatusOr<Json> saved = Expect("saved");
  if (!saved.ok()) return saved.status();
  if (kill) server_.Kill();
  const int code = server_.Wait();
  if (code != (kill ? 128 + SIGKILL : 0)) {
    return absl::InternalError(
        absl::StrCat("the device process ended with ", code));
  }
  AddUp(*saved);
  totals_.in_flight_moved += (*saved)["in_flight"].get<uint64_t>();
  server_ = *std::move(standby);
  const absl::Status status = Go(/*restore=*/true, (*saved)["socket"]);
  if (status.ok()) ++totals_.replacements;
  return status;
}

void DeviceSupervisor::AddUp(const Json& status) {
  totals_.disk_packets += status["disk_packets"].get<uint64_t>();
  totals_.disk_io_errors += status["disk_io_errors"].get<uint64_t>();
  totals_.disk_refused += status["disk_refused"].get<uint64_t>();
}

Json DeviceSupervisor::Status() {
  server_.control().Send({{"command", "status"}});
  const absl::StatusOr<Json> status = Expect("status");
  return status.ok() ? *status : Json();
}

absl::Status DeviceSupervisor::PowerOff() {
  server_.control().Send({{"command", "power_off"}});
  const absl::StatusOr<Json> answer = Expect("requested");
  if (!answer.ok()) return answer.status();
  const std::string error = (*answer)["error"];
  return error == "OK" ? absl::OkStatus()
                       : absl::FailedPreconditionError(error);
}

absl::Status DeviceSupervisor::Stop() {
  const Json status = Status();
  if (status.is_null()) return absl::AbortedError("the device process is gone");
  AddUp(status);
  server_.control().Send({{"command", "stop"}});
  const int code = server_.Wait();
  return code == 0 ? absl::OkStatus()
                   : absl::InternalError(absl::StrCat(
                         "the last device process ended with ", code));
}

}  // namespace ferrybus::hypervisor
