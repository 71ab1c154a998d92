// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/device_process.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ferrybus/channel/page_log.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/examples/demo/control.h"
#include "ferrybus/examples/hypervisor/devices.h"
#include "ferrybus/savestate/checkpoint.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/host_port.h"

namespace ferrybus::hypervisor {
namespace {

using demo::Control;
using demo::Json;
using demo::kControlFd;
using demo::NowNs;

// The services' clocks go on at least as often.
constexpr int kTickMs = 100;
constexpr absl::Duration kQuiescencePatience = absl::Seconds(5);

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// Linux sends a request rather by a channel of another processor than by its
// own, so that its answer costs an interrupt between processors: with two
// emulated processors, one channel was faster than two.
constexpr uint32_t kVpsPerDiskChannel = 4;

uint32_t DiskChannels(const DeviceProcessOptions& options, uint32_t vp_count) {
  return options.disk_channels == 0
             ? (vp_count + kVpsPerDiskChannel - 1) / kVpsPerDiskChannel
             : std::min(options.disk_channels, vp_count);
}

constexpr char kIsOpen[] = "is_open";
constexpr char kSent[] = "sent";
constexpr char kReceived[] = "received";
constexpr char kWrong[] = "wrong";

class Server final : public vsp::BusObserver {
 public:
  Server(const DeviceProcessOptions& options, Control* control)
      : options_(options), control_(control) {}

  absl::Status Open(const Json& go, Port port);
  // Serves until a command ends it.
  absl::Status Run();

 private:
  void OnChannelFault(const vsp::ServerChannel& channel,
                      const std::string& reason) override;
  absl::Status OpenBus(const Json& go);
  // False: the process is to end.
  absl::StatusOr<bool> HandleCommand();
  absl::Status Move();
  Json Status() const;
  void Pump();
  void Wait();

  const DeviceProcessOptions& options_;
  Control* const control_;
  // In the order of their lives: guest memory outlives the devices' I/O.
  std::unique_ptr<vsp::HostPort> port_;
  std::unique_ptr<PageLog> page_log_;
  std::unique_ptr<LoggedMemory> memory_;
  std::unique_ptr<Devices> devices_;
  std::unique_ptr<vsp::Bus> bus_;
  std::optional<savestate::CheckpointFolder> checkpoints_;
  bool more_ = false;
};

void Server::OnChannelFault(const vsp::ServerChannel& channel,
                            const std::string& reason) {
  (void)channel;
  control_->Send({{"event", "fault"}, {"reason", reason}});
}

absl::Status Server::Open(const Json& go, Port port) {
  absl::StatusOr<std::unique_ptr<vsp::HostPort>> opened = vsp::HostPort::Open(
      std::move(port), {.unnamed_signals = go["unnamed_signals"]});
  if (!opened.ok()) return opened.status();
  port_ = *std::move(opened);
  const uint64_t pages = port_->memory()->page_count();
  auto log = PageLog::Create(pages, PageLogPath(options_));
  if (!log.ok()) return log.status();
  page_log_ = *std::move(log);
  memory_ = std::make_unique<LoggedMemory>(port_->memory(), page_log_.get());
  // No fewer than the guest already has, whatever the options say.
  const uint32_t disk_channels =
      std::max<uint32_t>(DiskChannels(options_, go["cpus"]),
                         1 + go["sub_channels"].get<uint32_t>());
  absl::StatusOr<std::unique_ptr<Devices>> devices =
      Devices::Open(options_.image_path, go["start_ns"], disk_channels);
  if (!devices.ok()) return devices.status();
  devices_ = *std::move(devices);
  auto folder = savestate::CheckpointFolder::Open(options_.checkpoint_folder);
  if (!folder.ok()) return folder.status();
  checkpoints_.emplace(*std::move(folder));
  devices_->SetSubChannels(go["sub_channels"]);
  const ProbeState probe = ProbeFromJson(go["socket"]);
  if (probe.is_open != 0) devices_->AddSocket(probe);
  absl::Status status = OpenBus(go);
  if (!status.ok()) return status;
  control_->Send({{"event", "ready"}});
  // Until then whoever saved it may go on instead.
  status = control_->Receive(absl::Hours(24)).status();
  if (status.ok() && go["restore"] == true) bus_->Start();
  return status;
}

absl::Status Server::OpenBus(const Json& go) {
  vsp::BusOptions options;
  options.connection.max_vp = go["cpus"].get<uint32_t>() - 1;
  const std::vector<vsp::DeviceOffer> offers = devices_->Offers();
  if (go["restore"] == false) {
    bus_ = std::make_unique<vsp::Bus>(options, memory_.get(), port_->doorbell(),
                                      this);
    for (const vsp::DeviceOffer& offer : offers) {
      const absl::Status status =
          bus_->Offer(offer.params, offer.device).status();
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }
  const absl::StatusOr<savestate::LoadedCheckpoint> loaded =
      checkpoints_->LoadNewest();
  if (!loaded.ok()) return loaded.status();
  absl::StatusOr<std::unique_ptr<vsp::Bus>> bus =
      vsp::Bus::Restore(AsBytes(loaded->bytes), options, memory_.get(),
                        port_->doorbell(), offers, this);
  if (!bus.ok()) return bus.status();
  bus_ = *std::move(bus);
  return absl::OkStatus();
}

void Server::Pump() {
  devices_->Poll();
  more_ = port_->Pump(*bus_);
}

absl::Status Server::Run() {
  while (true) {
    Pump();
    const absl::Status offered = devices_->OfferMore(*bus_);
    if (!offered.ok()) return offered;
    Wait();
    pollfd command = {control_->fd(), POLLIN, 0};
    if (poll(&command, 1, 0) <= 0) continue;
    const absl::StatusOr<bool> go_on = HandleCommand();
    if (!go_on.ok()) return go_on.status();
    if (!*go_on) return absl::OkStatus();
  }
}

// Sleeps until the guest, the disk, another thread or the supervisor wants
// something, or a clock ticks.
void Server::Wait() {
  const std::array<int, 2> guest = port_->wait_fds();
  pollfd fds[] = {{guest[0], POLLIN, 0},
                  {guest[1], POLLIN, 0},
                  {bus_->wake_fd(), POLLIN, 0},
                  {devices_->wait_fd(), POLLIN, 0},
                  {control_->fd(), POLLIN, 0}};
  poll(fds, 5, more_ ? 0 : kTickMs);
}

absl::StatusOr<bool> Server::HandleCommand() {
  const absl::StatusOr<Json> message = control_->Receive(absl::Seconds(1));
  if (!message.ok()) return message.status();
  const std::string command = (*message)["command"];
  if (command == "status") {
    control_->Send(Status());
    return true;
  }
  if (command == "connect") {
    const vsp::DeviceOffer socket = devices_->AddSocket();
    const absl::Status status =
        bus_->Offer(socket.params, socket.device).status();
    if (!status.ok()) return status;
    return true;
  }
  if (command == "power_off") {
    const absl::Status status = devices_->RequestPowerOff();
    control_->Send({{"event", "requested"}, {"error", status.ToString()}});
    return true;
  }
  if (command == "move") {
    const absl::Status status = Move();
    if (!status.ok()) return status;
    // To be killed here is what the checkpoint is for.
    while ((*message)["wait_for_kill"] == true) pause();
  }
  return false;
}

Json Server::Status() const {
  Json status = devices_->Status();
  status["socket"] = ToJson(devices_->SocketState());
  return status;
}

absl::Status Server::Move() {
  // What the guest has published is taken first, so that it is in flight at
  // the cut and not just waiting in the ring.
  Pump();
  bus_->Suspend();
  const int64_t deadline =
      NowNs() + absl::ToInt64Nanoseconds(kQuiescencePatience);
  while (!bus_->IsQuiescent()) {
    if (NowNs() > deadline) {
      return absl::DeadlineExceededError("a device does not come to rest");
    }
    Wait();
    Pump();
  }
  bus_->Freeze();
  const vsp::InFlightCount in_flight = bus_->in_flight();
  const absl::StatusOr<std::string> saved = bus_->Save();
  if (!saved.ok()) return saved.status();
  const absl::StatusOr<uint64_t> generation =
      checkpoints_->Write(AsBytes(*saved));
  if (!generation.ok()) return generation.status();
  Json status = Status();
  status["event"] = "saved";
  status["bytes"] = saved->size();
  status["in_flight"] = in_flight.incoming;
  control_->Send(status);
  return absl::OkStatus();
}

}  // namespace

std::string PageLogPath(const DeviceProcessOptions& options) {
  return options.checkpoint_folder + ".pages";
}

Json ToJson(const ProbeState& probe) {
  return {{kIsOpen, probe.is_open},
          {kSent, probe.sent},
          {kReceived, probe.received},
          {kWrong, probe.wrong}};
}

ProbeState ProbeFromJson(const Json& json) {
  return {.is_open = json[kIsOpen],
          .sent = json[kSent],
          .received = json[kReceived],
          .wrong = json[kWrong]};
}

int RunDeviceProcess(const DeviceProcessOptions& options) {
  Control control((UniqueFd(kControlFd)));
  // A standby waits here, ready to run, until its predecessor has ended.
  const absl::StatusOr<Json> go = control.Receive(absl::Hours(24));
  if (!go.ok()) return 1;
  absl::StatusOr<Port> port = ReceivePort(control.fd());
  absl::Status status = port.status();
  Server server(options, &control);
  if (status.ok()) status = server.Open(*go, *std::move(port));
  if (status.ok()) status = server.Run();
  if (status.ok()) return 0;
  control.Send({{"event", "failed"}, {"error", status.ToString()}});
  return 1;
}

}  // namespace ferrybus::hypervisor
