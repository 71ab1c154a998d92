// SPDX-License-Identifier: MIT
//
// Devices of every kind, in the numbers and order that a golden bus has them.
//
// Ownership: a set owns its devices, which outlive the bus they are offered
// on.  Thread safety: none.

#ifndef FERRYBUS_TESTS_GOLDEN_GOLDEN_DEVICES_H_
#define FERRYBUS_TESTS_GOLDEN_GOLDEN_DEVICES_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "ferrybus/channel/protocols/socket_stream.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "ferrybus/vsp/services/heartbeat_service.h"
#include "ferrybus/vsp/services/kvp_service.h"
#include "ferrybus/vsp/services/shutdown_service.h"
#include "ferrybus/vsp/services/time_sync_service.h"
#include "ferrybus/vsp/socket/socket_device.h"
#include "ferrybus/vsp/storage/memory_backend.h"
#include "ferrybus/vsp/storage/storage_device.h"

namespace ferrybus::golden {

enum class DeviceKind {
  kResume,       // keeps its packets, saves them with blobs
  kSubChannel,   // the same, of the device before it
  kReissue,      // may run again, saves blobs
  kReissueBare,  // may run again, saves none
  kDisk,
  kSocket,
  kHeartbeat,
  kKeyValue,
  kShutdown,
  kTimeSync,
};

// A LoggingDevice whose own requests have blobs, too.
class KeepingDevice final : public vsp::LoggingDevice {
 public:
  using LoggingDevice::LoggingDevice;
  savestate::SizeAnswer SaveAwaiting(uint64_t tag,
                                     absl::Span<std::byte> out) override;
  absl::Status RestoreAwaiting(uint64_t tag,
                               absl::Span<const std::byte> blob) override;
};

// Whoever the devices tell what happens.
class Owner final : public SocketStream::Events,
                    public vsp::KvpService::Events,
                    public vsp::ShutdownService::Events,
                    public vsp::TimeSource {
 public:
  void OnKvpDone(uint64_t, const vsp::KvpResult&) override {}
  void OnShutdownAnswered(vsp::IntegrationOutcome, uint32_t) override {}
  vsp::HostTime Now() override { return {.utc = 1, .reference = 2}; }
};

class DeviceSet final {
  // Before the devices, which use them to the end.
  Owner owner_;
  vsp::MemoryDisk blocks_;

 public:
  // Those at the indices in `gone` are left out.
  explicit DeviceSet(const std::vector<DeviceKind>& kinds,
                     const std::vector<size_t>& gone = {});

  absl::Span<const vsp::DeviceOffer> offers() const { return offers_; }
  // Does what there is to do: answers, I/O, reading, the passing of time.
  void Work();
  // Of the kinds that say so.
  bool HoldsPackets() const;
  // Ends all packets that are still held.
  void LetGo();

  std::vector<std::unique_ptr<KeepingDevice>> keeping;
  std::unique_ptr<vsp::StorageDevice> disk;
  vsp::MemoryBackend* backend = nullptr;
  std::unique_ptr<vsp::SocketDevice> socket;
  std::unique_ptr<vsp::HeartbeatService> heartbeat;
  std::unique_ptr<vsp::KvpService> key_value;
  std::unique_ptr<vsp::ShutdownService> shutdown;
  std::unique_ptr<vsp::TimeSyncService> time_sync;

 private:
  void Add(DeviceKind kind, uint8_t instance);
  void AddKeeping(DeviceKind kind, uint8_t instance);
  void AddDisk(uint8_t instance);
  template <typename Service>
  void AddService(std::unique_ptr<Service>& place,
                  std::unique_ptr<Service> service, uint8_t instance);

  uint64_t now_ns_ = 0;
  std::vector<vsp::DeviceOffer> offers_;
};

}  // namespace ferrybus::golden

#endif  // FERRYBUS_TESTS_GOLDEN_GOLDEN_DEVICES_H_
