// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/devices.h"

#include <time.h>

#include <algorithm>
#include <string_view>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/guid.h"
#include "ferrybus/channel/protocols/device_classes.h"
#include "ferrybus/vsp/storage/open_block_backend.h"

namespace ferrybus::hypervisor {
namespace {

// Any will do, as long as each device keeps its own.
constexpr Guid kDiskInstance =
    GuidLiteral("f8b3781a-1e82-4818-a1c3-63d806ec15bb");
constexpr Guid kHeartbeatInstance =
    GuidLiteral("fd149e91-82e0-4a7d-afa6-2a4166cbd7c0");
constexpr Guid kShutdownInstance =
    GuidLiteral("b6650ff7-33bc-4840-8048-e0676786f393");
constexpr Guid kTimeSyncInstance =
    GuidLiteral("2dd1ce17-079e-403c-b352-a1921ee207ee");
constexpr Guid kKeyValueInstance =
    GuidLiteral("242ff919-07db-4180-9c2e-b86cb68c8c55");

constexpr int64_t kTickNs = 100'000'000;
// Facts that Linux's daemon has, about.
constexpr uint32_t kFactsMax = 32;

OfferParams DiskParams() {
  OfferParams disk;
  disk.interface_type = kScsiInterface;
  disk.interface_instance = kDiskInstance;
  return disk;
}

// Plain characters only: the text is the guest's, and is printed.
std::string Printable(std::u16string_view text) {
  std::string out;
  for (const char16_t unit : text) {
    out += unit >= 0x20 && unit < 0x7f ? static_cast<char>(unit) : '?';
  }
  return out;
}

std::string ToText(const vsp::KvpValue& value) {
  if (const auto* text = std::get_if<std::u16string>(&value)) {
    return Printable(*text);
  }
  if (const auto* number = std::get_if<uint32_t>(&value)) {
    return absl::StrCat(*number);
  }
  return absl::StrCat(std::get<uint64_t>(value));
}

}  // namespace

vsp::HostTime PartitionTime::Now() {
  // 100 ns from 1601-01-01 to 1970-01-01.
  constexpr uint64_t kUnixEpoch = 116'444'736'000'000'000;
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  vsp::HostTime time;
  time.utc = kUnixEpoch + static_cast<uint64_t>(now.tv_sec) * 10'000'000 +
             static_cast<uint64_t>(now.tv_nsec) / 100;
  time.reference = static_cast<uint64_t>(demo::NowNs() - start_ns_) / 100;
  return time;
}

Devices::Devices(int64_t start_ns)
    : partition_time_(start_ns),
      shutdown_(this),
      time_sync_(&partition_time_),
      kvp_(this) {}

absl::StatusOr<std::unique_ptr<Devices>> Devices::Open(
    const std::string& image_path, int64_t start_ns, uint32_t disk_channels) {
  std::unique_ptr<Devices> devices(new Devices(start_ns));
  auto backend = vsp::OpenBlockBackend(image_path, {});
  if (!backend.ok()) return backend.status();
  devices->engine_ = (*backend)->info().description;
  vsp::StorageDeviceOptions options;
  options.serial = "ferrybus-root";
  options.sub_channels_max = static_cast<uint16_t>(
      std::min<uint32_t>(disk_channels - 1, vsp::kSubChannelsMax));
  auto disk = vsp::StorageDevice::Create(*std::move(backend), options);
  if (!disk.ok()) return disk.status();
  devices->disk_ = *std::move(disk);
  devices->sub_channels_.emplace(devices->disk_.get(), DiskParams());
  return devices;
}

std::vector<vsp::DeviceOffer> Devices::Offers() {
  std::vector<vsp::DeviceOffer> offers = {
      {DiskParams(), disk_.get()},
      {heartbeat_.Params(kHeartbeatInstance), &heartbeat_},
      {shutdown_.Params(kShutdownInstance), &shutdown_},
      {time_sync_.Params(kTimeSyncInstance), &time_sync_},
      {kvp_.Params(kKeyValueInstance), &kvp_}};
  if (socket_.has_value()) offers.push_back(socket_->Offer());
  for (const vsp::DeviceOffer& offer :
       sub_channels_->Offers(sub_channels_before_)) {
    offers.push_back(offer);
  }
  return offers;
}

vsp::DeviceOffer Devices::AddSocket(const ProbeState& state) {
  socket_.emplace();
  socket_->Continue(state);
  return socket_->Offer();
}

ProbeState Devices::SocketState() const {
  return socket_.has_value() ? socket_->State() : ProbeState();
}

void Devices::Poll() {
  disk_->Poll();
  const int64_t now_ns = demo::NowNs();
  if (now_ns < next_tick_ns_) return;
  next_tick_ns_ = now_ns + kTickNs;
  const auto now = static_cast<uint64_t>(now_ns);
  heartbeat_.Tick(now);
  shutdown_.Tick(now);
  time_sync_.Tick(now);
  kvp_.Tick(now);
  if (socket_.has_value()) socket_->Tick();
  AskForFacts();
}

// One after the other; a refusal ends the list.
void Devices::AskForFacts() {
  if (is_asking_ || next_fact_ >= kFactsMax) return;
  is_asking_ = kvp_.Enumerate(ic::KvpPool::kAuto, next_fact_, next_fact_).ok();
}

void Devices::OnKvpDone(uint64_t cookie, const vsp::KvpResult& result) {
  if (cookie != next_fact_ || !is_asking_) return;  // of an earlier owner
  is_asking_ = false;
  if (result.outcome == vsp::IntegrationOutcome::kOk) {
    facts_[Printable(result.key)] = ToText(result.value);
    ++next_fact_;
  } else {
    next_fact_ = kFactsMax;
  }
}

void Devices::OnShutdownAnswered(vsp::IntegrationOutcome outcome,
                                 uint32_t status) {
  (void)status;
  shutdown_accepted_ = outcome == vsp::IntegrationOutcome::kOk;
}

demo::Json Devices::Status() const {
  const auto ready = [](const vsp::IntegrationService& service) {
    return service.phase() == vsp::IntegrationPhase::kReady;
  };
  const vsp::StorageDevice::Counters& disk = disk_->counters();
  return {{"event", "status"},
          {"engine", engine_},
          {"heartbeat", heartbeat_.alive()},
          {"heartbeats", heartbeat_.counters().answers},
          {"shutdown_ready", ready(shutdown_)},
          {"shutdown_accepted", shutdown_accepted_},
          {"time_sync_ready", ready(time_sync_)},
          {"time_samples", time_sync_.counters().requests},
          {"kvp_ready", ready(kvp_)},
          {"facts", facts_},
          {"sub_channels", sub_channels()},
          {"disk_packets", disk.packets},
          {"disk_refused", disk.refused},
          {"disk_io_errors", disk.io_errors},
          {"disk_reissued", disk.reissued}};
}

}  // namespace ferrybus::hypervisor
