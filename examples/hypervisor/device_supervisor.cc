// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/device_supervisor.h"

#include <signal.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/savestate/checkpoint.h"

namespace ferrybus::hypervisor {
namespace {

using demo::Child;
using demo::Json;

constexpr absl::Duration kPatience = absl::Seconds(60);

}  // namespace

absl::Status DeviceSupervisor::StartStandby() {
  if (has_standby_) return absl::OkStatus();
  absl::StatusOr<Child> standby = Child::Start(
      {"--role=devices", absl::StrCat("--disk=", options_.image_path),
       absl::StrCat("--state=", options_.checkpoint_folder),
       absl::StrCat("--disk-channels=", options_.disk_channels)});
  if (!standby.ok()) return standby.status();
  standby_ = *std::move(standby);
  has_standby_ = true;
  return absl::OkStatus();
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

absl::Status DeviceSupervisor::Go(bool restore) {
  absl::Status status = StartStandby();
  if (!status.ok()) return status;
  server_ = std::move(standby_);
  has_standby_ = false;
  server_.control().Send({{"command", "go"},
                          {"cpus", machine_->vp_count()},
                          {"start_ns", machine_->start_ns()},
                          {"unnamed_signals", machine_->has_doorbells()},
                          {"restore", restore},
                          {"socket", ToJson(probe_)},
                          {"sub_channels", sub_channels_}});
  status = SendPort(server_.control().fd(), machine_->host_port());
  return status.ok() ? Expect("ready").status() : status;
}

absl::Status DeviceSupervisor::Start() {
  const absl::Status status = Go(/*restore=*/false);
  if (status.ok()) Run();
  return status;
}

absl::Status DeviceSupervisor::Replace(bool kill) {
  absl::Status status = Save(kill);
  if (status.ok()) status = Load();
  if (status.ok()) Run();
  return status;
}

absl::Status DeviceSupervisor::Save(bool kill) {
  // Ready before it is needed, so that starting it is no part of the pause.
  const absl::Status status = StartStandby();
  if (!status.ok()) return status;
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
  probe_ = ProbeFromJson((*saved)["socket"]);
  sub_channels_ = (*saved)["sub_channels"];
  return absl::OkStatus();
}

absl::Status DeviceSupervisor::Load() {
  const absl::Status status = Go(/*restore=*/true);
  if (status.ok()) ++totals_.replacements;
  return status;
}

absl::StatusOr<std::string> DeviceSupervisor::saved_bus() const {
  auto folder = savestate::CheckpointFolder::Open(options_.checkpoint_folder);
  if (!folder.ok()) return folder.status();
  absl::StatusOr<savestate::LoadedCheckpoint> loaded = folder->LoadNewest();
  if (!loaded.ok()) return loaded.status();
  return std::move(loaded->bytes);
}

absl::Status DeviceSupervisor::StoreSaved(const ChannelsState& state) {
  auto folder = savestate::CheckpointFolder::Open(options_.checkpoint_folder);
  if (!folder.ok()) return folder.status();
  probe_ = state.probe;
  sub_channels_ = state.sub_channels;
  return folder
      ->Write({reinterpret_cast<const std::byte*>(state.bus.data()),
               state.bus.size()})
      .status();
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
