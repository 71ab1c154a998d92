// SPDX-License-Identifier: MIT

#include "ferrybus/examples/demo/serve.h"

#include <poll.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ferrybus/channel/protocols/device_classes.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/examples/demo/control.h"
#include "ferrybus/savestate/checkpoint.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/host_port.h"
#include "ferrybus/vsp/storage/open_block_backend.h"
#include "ferrybus/vsp/storage/storage_device.h"

namespace ferrybus::demo {
namespace {

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

class Server {
 public:
  Server(const ServeOptions& options, Control* control)
      : options_(options), control_(control) {}

  absl::Status Open(bool restore, Port port);
  // Serves until a command ends it.
  absl::Status Run();

 private:
  absl::Status OpenBus(bool restore);
  // False: the process is to end.
  absl::StatusOr<bool> HandleCommand();
  absl::Status Move();
  void Wait();

  const ServeOptions& options_;
  Control* const control_;
  // In the order of their lives: guest memory outlives the device's I/O.
  std::unique_ptr<vsp::HostPort> port_;
  std::unique_ptr<vsp::StorageDevice> device_;
  std::unique_ptr<vsp::Bus> bus_;
  std::optional<savestate::CheckpointFolder> checkpoints_;
};

absl::Status Server::Open(bool restore, Port port) {
  const int64_t begin = NowNs();
  absl::StatusOr<std::unique_ptr<vsp::HostPort>> opened =
      vsp::HostPort::Open(std::move(port));
  if (!opened.ok()) return opened.status();
  port_ = *std::move(opened);

  // Waits until the last write of the previous owner has ended.
  auto backend = vsp::OpenBlockBackend(options_.image_path, {});
  if (!backend.ok()) return backend.status();
  const std::string engine = (*backend)->info().description;
  const int64_t fenced = NowNs();
  auto device = vsp::StorageDevice::Create(*std::move(backend),
                                           {.serial = "ferrybus-demo"});
  if (!device.ok()) return device.status();
  device_ = *std::move(device);

  auto folder = savestate::CheckpointFolder::Open(options_.checkpoint_folder);
  if (!folder.ok()) return folder.status();
  checkpoints_.emplace(*std::move(folder));
  const absl::Status status = OpenBus(restore);
  if (!status.ok()) return status;
  control_->Send({{"event", "serving"},
                  {"engine", engine},
                  {"fence_ns", fenced - begin},
                  {"begin_ns", begin},
                  {"serving_ns", NowNs()}});
  return absl::OkStatus();
}

absl::Status Server::OpenBus(bool restore) {
  OfferParams params;
  params.interface_type = kScsiInterface;
  params.interface_instance =
      *ParseGuid("f8b3781a-1e82-4818-a1c3-63d806ec15bb");
  if (!restore) {
    bus_ = std::make_unique<vsp::Bus>(vsp::BusOptions(), port_->memory(),
                                      port_->doorbell());
    return bus_->Offer(params, device_.get()).status();
  }
  const absl::StatusOr<savestate::LoadedCheckpoint> loaded =
      checkpoints_->LoadNewest();
  if (!loaded.ok()) return loaded.status();
  const vsp::DeviceOffer devices[] = {{params, device_.get()}};
  absl::StatusOr<std::unique_ptr<vsp::Bus>> bus =
      vsp::Bus::Restore(AsBytes(loaded->bytes), vsp::BusOptions(),
                        port_->memory(), port_->doorbell(), devices);
  if (!bus.ok()) return bus.status();
  bus_ = *std::move(bus);
  bus_->Start();
  return absl::OkStatus();
}

absl::Status Server::Run() {
  while (true) {
    device_->Poll();
    if (!port_->Pump(*bus_)) Wait();
    pollfd command = {control_->fd(), POLLIN, 0};
    if (poll(&command, 1, 0) <= 0) continue;
    const absl::StatusOr<bool> go_on = HandleCommand();
    if (!go_on.ok()) return go_on.status();
    if (!*go_on) return absl::OkStatus();
  }
}

// Sleeps until the guest, the disk, another thread or the supervisor wants
// something.
void Server::Wait() {
  const std::array<int, 2> guest = port_->wait_fds();
  pollfd fds[] = {{guest[0], POLLIN, 0},
                  {guest[1], POLLIN, 0},
                  {bus_->wake_fd(), POLLIN, 0},
                  {device_->wait_fd(), POLLIN, 0},
                  {control_->fd(), POLLIN, 0}};
  poll(fds, 5, -1);
}

absl::StatusOr<bool> Server::HandleCommand() {
  const absl::StatusOr<Json> message = control_->Receive(absl::Seconds(1));
  if (!message.ok()) return message.status();
  if ((*message)["command"] == "move") {
    const absl::Status status = Move();
    if (!status.ok()) return status;
    // To be killed here is what the checkpoint is for.
    while ((*message)["wait_for_kill"] == true) pause();
  }
  return false;
}

absl::Status Server::Move() {
  // What the guest has published is taken first, so that it is in flight at the
  // cut and not just waiting in the ring.
  port_->Pump(*bus_);
  const int64_t begin = NowNs();
  bus_->Suspend();
  bus_->Freeze();
  const vsp::InFlightCount in_flight = bus_->in_flight();
  const absl::StatusOr<std::string> saved = bus_->Save();
  if (!saved.ok()) return saved.status();
  const int64_t saved_at = NowNs();
  const absl::StatusOr<uint64_t> generation =
      checkpoints_->Write(AsBytes(*saved));
  if (!generation.ok()) return generation.status();
  control_->Send({{"event", "saved"},
                  {"generation", *generation},
                  {"bytes", saved->size()},
                  {"in_flight", in_flight.incoming},
                  {"begin_ns", begin},
                  {"saved_ns", saved_at},
                  {"written_ns", NowNs()}});
  return absl::OkStatus();
}

}  // namespace

int Serve(const ServeOptions& options) {
  Control control((UniqueFd(kControlFd)));
  // A standby waits here, ready to run, until its predecessor has ended.
  const absl::StatusOr<Json> go = control.Receive(absl::Hours(1));
  if (!go.ok()) return 1;
  absl::StatusOr<Port> port = ReceivePort(control.fd());
  absl::Status status = port.status();
  Server server(options, &control);
  if (status.ok()) status = server.Open((*go)["restore"], *std::move(port));
  if (status.ok()) status = server.Run();
  if (status.ok()) return 0;
  control.Send({{"event", "failed"}, {"error", status.ToString()}});
  return 1;
}

}  // namespace ferrybus::demo
