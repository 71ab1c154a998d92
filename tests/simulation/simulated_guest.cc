// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/simulated_guest.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"

namespace ferrybus::simulation {
namespace {

vsc::BusOptions Options() {
  vsc::BusOptions options;
  options.ring_data_pages = 1;
  options.poll_budget = 8;
  options.endpoint.max_awaiting = 40;
  options.endpoint.max_in_flight = 16;
  options.endpoint.max_queued = 20;
  return options;
}

}  // namespace

SimulatedGuest::SimulatedGuest(Machine* machine)
    : machine_(machine), context_(machine->context) {}

void SimulatedGuest::Boot() {
  Halt();
  ++context_->totals.boots;
  is_unloading_ = false;
  rung_.clear();
  is_added_ = {};
  pages_ = std::make_unique<vsc::GuestPages>(machine_->ram.memory());
  bus_ = std::make_unique<vsc::Bus>(Options(), machine_->ram.memory(),
                                    pages_.get(), &doorbell_);
  for (size_t i = 0; i < kChannelCount; ++i) {
    if (!machine_->options.HasChannel(i)) continue;
    if (i == 0) {
      disk_ = std::make_unique<DiskUser>(context_, &machine_->disk_oracle,
                                         machine_->ram.memory(), pages_.get());
    } else if (i == kAcceleratorChannel) {
      accelerator_ = std::make_unique<AcceleratorUser>(
          context_, &machine_->function_oracle, pages_.get());
    } else {
      numbered_[i] = std::make_unique<NumberedDriver>(
          context_, machine_->channels[i].get());
    }
    AddDriver(i);
  }
  FERRYBUS_CHECK(bus_->Connect().ok(), "a new guest could not connect");
}

void SimulatedGuest::Halt() {
  if (bus_ == nullptr) return;
  bus_ = nullptr;
  disk_ = nullptr;
  accelerator_ = nullptr;
  for (auto& driver : numbered_) driver = nullptr;
  pages_ = nullptr;
  for (const auto& channel : machine_->channels) channel->guest.Closed();
}

vsc::Driver* SimulatedGuest::driver(size_t index) const {
  if (index == 0) return disk_ == nullptr ? nullptr : &disk_->client();
  if (index == kAcceleratorChannel) return accelerator_.get();
  return numbered_[index].get();
}

void SimulatedGuest::AddDriver(size_t index) {
  is_added_[index] = true;
  vsc::DriverSettings settings;
  bus_->AddDriver(ChannelParams(index).interface_type, driver(index), settings);
}

void SimulatedGuest::Poll() {
  std::set<uint32_t>& rung = machine_->ports[machine_->runs_at].to_guest;
  for (auto id = rung.begin(); id != rung.end();) {
    if (*id == deaf_channel) {
      ++id;
      continue;
    }
    bus_->Signal(*id);
    id = rung.erase(id);
  }
  (void)bus_->Poll();
  machine_->ports[machine_->runs_at].to_host.merge(rung_);
  rung_.clear();
  if (disk_ != nullptr && disk_->is_ready()) machine_->disk_may_fault = false;
  if (is_unloading_ &&
      bus_->connection().phase() == ClientPhase::kDisconnected) {
    machine_->disk_oracle.model.OnReset(/*is_cleared=*/false);
    Boot();
  }
}

void SimulatedGuest::TakeMessage(absl::Span<const std::byte> message) {
  const absl::Status status = bus_->HandleMessage(message);
  context_->trace.Add(static_cast<uint64_t>(status.code()));
}

void SimulatedGuest::Ask(uint64_t count) {
  const size_t index = context_->random.Below(kChannelCount);
  if (index == 0 && disk_ != nullptr) disk_->Ask(count);
  if (accelerator_ != nullptr && context_->random.OneIn(2)) {
    accelerator_->Ask(count);
  }
  if (numbered_[index] != nullptr) numbered_[index]->Ask(count);
  machine_->ports[machine_->runs_at].to_host.merge(rung_);
  rung_.clear();
}

void SimulatedGuest::Answer(uint64_t count) {
  for (const auto& driver : numbered_) {
    if (driver == nullptr) continue;
    driver->Answer(count);
    driver->Flush();
  }
  if (disk_ != nullptr) disk_->client().Publish();
  if (accelerator_ != nullptr) accelerator_->Flush();
  machine_->ports[machine_->runs_at].to_host.merge(rung_);
  rung_.clear();
}

void SimulatedGuest::CloseChannel(size_t index) {
  if (driver(index) == nullptr || !is_added_[index]) return;
  is_added_[index] = false;
  bus_->RemoveDriver(driver(index));
}

bool SimulatedGuest::IsOpen(size_t index) const {
  if (index == 0) return disk_->is_ready();
  if (index == kAcceleratorChannel) return accelerator_->is_open();
  return numbered_[index]->is_open();
}

void SimulatedGuest::ReopenChannels() {
  if (is_unloading_) return;
  for (size_t i = 0; i < kChannelCount; ++i) {
    if (driver(i) == nullptr || bus_->channel(driver(i)) != nullptr) continue;
    if (is_added_[i]) bus_->RemoveDriver(driver(i));
    AddDriver(i);
  }
}

void SimulatedGuest::Unload() {
  if (is_unloading_ || !bus_->Unload().ok()) return;
  is_unloading_ = true;
  context_->Happened(Fault::kGuestUnload);
}

bool SimulatedGuest::ContinueVerify() {
  const bool is_disk_done = disk_ == nullptr || !disk_->is_ready() ||
                            disk_->ReadNext(&verified_sector_);
  const bool is_accelerator_done = accelerator_ == nullptr ||
                                   !accelerator_->is_open() ||
                                   accelerator_->Verify(&verified_step_);
  return is_disk_done && is_accelerator_done;
}

std::string SimulatedGuest::Wants() const {
  if (is_unloading_) return "the guest is unloading";
  for (size_t i = 0; i < kChannelCount; ++i) {
    if (driver(i) == nullptr) continue;
    if (!IsOpen(i)) return absl::StrCat("channel ", i, " is not open");
    std::string owed = machine_->channels[i]->guest.Owed();
    if (owed.empty()) owed = machine_->channels[i]->host.Owed();
    if (!owed.empty()) return owed;
  }
  if (disk_ != nullptr && disk_->busy() != 0) {
    return absl::StrCat(disk_->busy(), " requests of the disk are not done");
  }
  if (accelerator_ != nullptr && accelerator_->busy() != 0) {
    return absl::StrCat(accelerator_->busy(), " commands are not done");
  }
  return {};
}

}  // namespace ferrybus::simulation
