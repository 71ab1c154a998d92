// SPDX-License-Identifier: MIT

#include "ferrybus/tests/golden/golden_devices.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "ferrybus/channel/check.h"
#include "ferrybus/channel/endpoint_test_util.h"
#include "ferrybus/channel/protocols/hv_sock.h"

namespace ferrybus::golden {

using ::ferrybus::testing::Numbered;

savestate::SizeAnswer KeepingDevice::SaveAwaiting(uint64_t tag,
                                                  absl::Span<std::byte> out) {
  const std::string blob = Numbered(tag);
  if (out.size() < blob.size()) {
    return savestate::SizeAnswer::TooSmall(blob.size());
  }
  std::memcpy(out.data(), blob.data(), blob.size());
  return savestate::SizeAnswer::Ok(blob.size());
}

absl::Status KeepingDevice::RestoreAwaiting(uint64_t tag,
                                            absl::Span<const std::byte> blob) {
  (void)tag;
  if (blob.size() == 8) return absl::OkStatus();
  return absl::InvalidArgumentError("a blob of another size");
}

DeviceSet::DeviceSet(const std::vector<DeviceKind>& kinds,
                     const std::vector<size_t>& gone)
    : blocks_(64 * 512) {
  for (size_t i = 0; i < kinds.size(); ++i) {
    if (std::count(gone.begin(), gone.end(), i) != 0) continue;
    Add(kinds[i], static_cast<uint8_t>(i + 1));
  }
}

void DeviceSet::AddKeeping(DeviceKind kind, uint8_t instance) {
  const bool reissues =
      kind == DeviceKind::kReissue || kind == DeviceKind::kReissueBare;
  auto device = std::make_unique<KeepingDevice>(
      reissues ? vsp::IncomingPolicy::kReissue : vsp::IncomingPolicy::kResume);
  if (kind == DeviceKind::kReissueBare) device->blob_bytes = 0;
  OfferParams params = vsp::TestParams(instance);
  if (kind == DeviceKind::kSubChannel) {
    params = vsp::TestParams(static_cast<uint8_t>(instance - 1));
    params.sub_channel_index = 1;
  }
  offers_.push_back({params, device.get()});
  keeping.push_back(std::move(device));
}

void DeviceSet::AddDisk(uint8_t instance) {
  auto memory = std::make_unique<vsp::MemoryBackend>(&blocks_);
  backend = memory.get();
  auto device = vsp::StorageDevice::Create(
      std::move(memory), {.serial = "golden", .requests_max = 256});
  FERRYBUS_CHECK(device.ok(), "disk");
  disk = *std::move(device);
  offers_.push_back({vsp::TestParams(instance), disk.get()});
}

template <typename Service>
void DeviceSet::AddService(std::unique_ptr<Service>& place,
                           std::unique_ptr<Service> service, uint8_t instance) {
  place = std::move(service);
  offers_.push_back({place->Params(Guid{{instance}}), place.get()});
}

void DeviceSet::Add(DeviceKind kind, uint8_t instance) {
  switch (kind) {
    case DeviceKind::kResume:
    case DeviceKind::kSubChannel:
    case DeviceKind::kReissue:
    case DeviceKind::kReissueBare:
      return AddKeeping(kind, instance);
    case DeviceKind::kDisk:
      return AddDisk(instance);
    case DeviceKind::kSocket:
      socket = std::make_unique<vsp::SocketDevice>(&owner_);
      offers_.push_back(
          {vsp::SocketDevice::Params(ServiceOfVsockPort(1024), Guid{{instance}},
                                     /*for_guest_accept=*/true),
           socket.get()});
      return;
    case DeviceKind::kHeartbeat:
      return AddService(heartbeat, std::make_unique<vsp::HeartbeatService>(),
                        instance);
    case DeviceKind::kKeyValue:
      return AddService(key_value, std::make_unique<vsp::KvpService>(&owner_),
                        instance);
    case DeviceKind::kShutdown:
      return AddService(
          shutdown, std::make_unique<vsp::ShutdownService>(&owner_), instance);
    case DeviceKind::kTimeSync:
      return AddService(
          time_sync, std::make_unique<vsp::TimeSyncService>(&owner_), instance);
  }
}

void DeviceSet::Work() {
  for (auto& device : keeping) device->AnswerAll();
  if (disk != nullptr) (void)disk->Poll();
  if (socket != nullptr) {
    std::array<std::byte, 64> room;
    while (socket->stream().Read(absl::MakeSpan(room)) != 0) {
    }
  }
  now_ns_ += 20'000'000'000;
  for (vsp::IntegrationService* service :
       std::initializer_list<vsp::IntegrationService*>{
           heartbeat.get(), key_value.get(), shutdown.get(), time_sync.get()}) {
    if (service != nullptr) service->Tick(now_ns_);
  }
}

bool DeviceSet::HoldsPackets() const {
  return (disk != nullptr && disk->in_flight() != 0) ||
         (socket != nullptr && socket->stream().unread_datagrams() != 0) ||
         std::any_of(keeping.begin(), keeping.end(),
                     [](const auto& device) { return !device->held.empty(); });
}

void DeviceSet::LetGo() {
  for (auto& device : keeping) {
    device->held.clear();
    device->log.clear();
  }
}

}  // namespace ferrybus::golden
