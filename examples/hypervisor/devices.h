// SPDX-License-Identifier: MIT
//
// What the guest finds on its bus: a disk, the integration services, and on
// demand a socket to a port of the guest's.
//
// Thread safety: one thread.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_DEVICES_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_DEVICES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/examples/demo/control.h"
#include "ferrybus/examples/hypervisor/socket_probe.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/services/heartbeat_service.h"
#include "ferrybus/vsp/services/kvp_service.h"
#include "ferrybus/vsp/services/shutdown_service.h"
#include "ferrybus/vsp/services/time_sync_service.h"
#include "ferrybus/vsp/storage/storage_device.h"
#include "ferrybus/vsp/storage/sub_channel_offers.h"

namespace ferrybus::hypervisor {

// When the partition's clock was 0; see Machine::start_ns().
class PartitionTime final : public vsp::TimeSource {
 public:
  explicit PartitionTime(int64_t start_ns) : start_ns_(start_ns) {}
  vsp::HostTime Now() override;

 private:
  const int64_t start_ns_;
};

class Devices final : public vsp::KvpService::Events,
                      public vsp::ShutdownService::Events {
 public:
  // Waits until the last write of the image's previous owner has ended.
  static absl::StatusOr<std::unique_ptr<Devices>> Open(
      const std::string& image_path, int64_t start_ns, uint32_t disk_channels);

  // Each device, and what it is offered as.
  std::vector<vsp::DeviceOffer> Offers();
  // What is offered while the guest runs: to be called between polls.
  absl::Status OfferMore(vsp::Bus& bus) { return sub_channels_->Update(bus); }
  // Of the process before.
  void SetSubChannels(uint64_t count) { sub_channels_before_ = count; }
  uint16_t sub_channels() const { return sub_channels_->count(); }
  int wait_fd() const { return disk_->wait_fd(); }
  // Completes I/O; lets the services' time go on.
  void Poll();

  // A socket to the guest: offered from now on, by this process and those
  // after it.  `state` is that of the process before, if there was one.
  vsp::DeviceOffer AddSocket(const ProbeState& state = {.is_open = 1});
  ProbeState SocketState() const;

  absl::Status RequestPowerOff() { return shutdown_.Request({}); }
  demo::Json Status() const;

 private:
  explicit Devices(int64_t start_ns);
  void AskForFacts();

  void OnKvpDone(uint64_t cookie, const vsp::KvpResult& result) override;
  void OnShutdownAnswered(vsp::IntegrationOutcome outcome,
                          uint32_t status) override;

  PartitionTime partition_time_;
  vsp::HeartbeatService heartbeat_;
  vsp::ShutdownService shutdown_;
  vsp::TimeSyncService time_sync_;
  vsp::KvpService kvp_;
  std::unique_ptr<vsp::StorageDevice> disk_;
  std::optional<vsp::SubChannelOffers> sub_channels_;
  uint64_t sub_channels_before_ = 0;
  std::optional<SocketProbe> socket_;
  std::string engine_;
  int64_t next_tick_ns_ = 0;
  // What the guest says about itself.
  std::map<std::string, std::string> facts_;
  uint32_t next_fact_ = 0;
  bool is_asking_ = false;
  bool shutdown_accepted_ = false;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_DEVICES_H_
