// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/simulated_host.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"

namespace ferrybus::simulation {
namespace {

using migration::Decision;
using migration::Ownership;
using migration::OwnershipRecord;

}  // namespace

SimulatedHost::SimulatedHost(Machine* machine, SimulatedGuest* guest, int index)
    : machine_(machine),
      context_(machine->context),
      guest_(guest),
      index_(index),
      files_(machine->context) {}

SimulatedHost::~SimulatedHost() { Stop(/*power=*/false); }

vsp::BusOptions SimulatedHost::Options() {
  vsp::BusOptions options;
  options.poll_budget = 6;
  options.endpoint.max_in_flight = 12;
  options.endpoint.max_awaiting = 20;
  options.endpoint.max_queued = 24;
  return options;
}

// ---- Power

void SimulatedHost::Start() {
  if (is_up()) return;
  auto ledger =
      migration::FileLedger::Open("/ledger", files_.ledger.file_system());
  if (!ledger.ok()) return;
  absl::StatusOr<OwnershipRecord> record = (*ledger)->Load();
  if (!record.ok()) return;
  ledger_ = *std::move(ledger);
  context_->trace.Add(static_cast<uint64_t>(record->state) << 8 | index_);
  if (record->state == Ownership::kOwner) return BootMachine();
  if (record->state != Ownership::kPrepared) {
    return machine_->ram.Drop(index_);
  }
  if (machine_->ram.has(index_)) {
    target = std::make_unique<migration::MigrationTarget>(
        migration::TargetOptions{
            .machine = "machine", .session = std::string(16, 'r'), .peer = ""},
        this, ledger_.get());
    if (target->Recover(*record, context_->now()).ok()) return;
    target = nullptr;  // as if its memory were lost
  }
  machine_->ram.Drop(index_);
  undecided_ = *std::move(record);
}

void SimulatedHost::Stop(bool power) {
  if (!is_up()) return;
  source = nullptr;
  target = nullptr;
  undecided_.reset();
  EndChannels(/*kill=*/true);
  if (power) {
    machine_->disk.TearOrphans();
  } else {
    machine_->disk.AdvanceOrphans(/*all=*/true);
  }
  pages_pointers_.clear();
  pages_.clear();
  channels_ = nullptr;
  ram_ = nullptr;
  function_ = nullptr;
  ledger_ = nullptr;
  if (machine_->runs_at == index_) machine_->runs_at = -1;
  if (!power) return;
  files_.ledger.PowerLoss();
  files_.checkpoints.PowerLoss();
  machine_->ram.Drop(index_);
}

// ---- The machine

bool SimulatedHost::Serves() const {
  if (bus_ == nullptr || is_frozen_) return false;
  if (channels_ != nullptr && channels_->is_frozen()) return false;
  return target == nullptr ||
         target->phase() == migration::TargetPhase::kRunning;
}

void SimulatedHost::MakeSlot(size_t index) {
  Slot slot;
  if (index == 0) {
    auto backend = std::make_unique<ImageBackend>(context_, &machine_->disk);
    slot.backend = backend.get();
    auto device = vsp::StorageDevice::Create(
        std::move(backend),
        {.serial = "simulated", .max_transfer_bytes = 16384});
    FERRYBUS_CHECK(device.ok(), "no storage device");
    slot.storage = device->get();
    slot.device = *std::move(device);
  } else if (index == kAcceleratorChannel) {
    slot.device = std::make_unique<FunctionDevice>(
        context_, &machine_->function_oracle,
        &machine_->channels[index]->refuses_restore, &function_->accelerator());
  } else {
    auto device = std::make_unique<NumberedDevice>(
        context_, machine_->channels[index].get());
    slot.numbered = device.get();
    slot.device = std::move(device);
  }
  slots_[index] = std::move(slot);
}

void SimulatedHost::MakeFunction() {
  if (!machine_->options.HasChannel(kAcceleratorChannel)) return;
  function_ = std::make_unique<SimulatedFunction>(
      context_, &machine_->function_oracle, &function_memory_, index_);
}

void SimulatedHost::BootMachine() {
  if (machine_->runs_at >= 0) {
    context_->Fail("two-owners", "a second host boots the machine");
  }
  // Nobody knows how what was under way ended; perhaps its power was lost.
  if (context_->random.OneIn(2)) {
    machine_->disk.PowerLoss();
    machine_->disk_oracle.model.OnPowerLoss();
  } else {
    machine_->disk_oracle.model.OnReset(/*is_cleared=*/false);
  }
  guest_->Halt();
  for (const auto& channel : machine_->channels) channel->host.Closed();
  machine_->disk_may_fault = false;
  machine_->ram.Create(index_, std::byte{0});
  Enter();
  machine_->ports[index_].to_host.clear();
  machine_->ports[index_].to_guest.clear();
  bus_ =
      std::make_unique<vsp::Bus>(Options(), machine_->ram.memory(),
                                 &machine_->ports[index_].guest_doorbell, this);
  is_frozen_ = false;
  machine_->function_oracle.DeviceIsNew();
  function_memory_.Fill(std::byte{0});
  MakeFunction();
  if (function_ != nullptr) function_->Begin();
  for (size_t i = 0; i < kChannelCount; ++i) {
    if (!machine_->options.HasChannel(i)) continue;
    MakeSlot(i);
    auto offer = bus_->Offer(ChannelParams(i), slots_[i].device.get());
    FERRYBUS_CHECK(offer.ok(), "an offer was refused");
    slots_[i].offer = *offer;
  }
  machine_->runs_at = index_;
  guest_->Boot();
}

void SimulatedHost::TakeSignals() {
  std::set<uint32_t>& rung = machine_->ports[index_].to_host;
  for (auto id = rung.begin(); id != rung.end();) {
    if (*id == deaf_channel) {
      ++id;
      continue;
    }
    bus_->Signal(*id);
    id = rung.erase(id);
  }
}

void SimulatedHost::Poll(uint64_t messages) {
  if (bus_ == nullptr || (target != nullptr && !Serves())) return;
  Enter();
  const bool guest_runs = machine_->runs_at == index_ && guest_->is_on();
  for (uint64_t i = 0; guest_runs && i < messages; ++i) {
    if (!guest_->bus().has_outgoing() || !bus_->can_accept_message()) break;
    const absl::Status status = bus_->HandleMessage(
        guest_->bus().outgoing_front(), guest_->bus().message_connection());
    context_->trace.Add(static_cast<uint64_t>(status.code()));
    guest_->bus().PopOutgoing();
  }
  TakeSignals();
  (void)bus_->Poll();
  for (uint64_t i = 0; guest_runs && i < messages && bus_->has_outgoing();
       ++i) {
    guest_->TakeMessage(bus_->outgoing_front());
    bus_->PopOutgoing();
  }
}

void SimulatedHost::Serve() {
  Enter();
  TakeSignals();
  (void)bus_->Poll();
}

void SimulatedHost::Answer(uint64_t count) {
  Enter();
  for (Slot& slot : slots_) {
    if (slot.numbered != nullptr) slot.numbered->Answer(count);
  }
}

void SimulatedHost::Ask(uint64_t count) {
  if (!Serves()) return;
  Enter();
  Slot& slot = slots_[context_->random.Below(kChannelCount)];
  if (slot.numbered != nullptr) slot.numbered->Ask(count);
}

void SimulatedHost::AdvanceDisk(bool all) {
  if (slots_[0].storage == nullptr) return;
  Enter();
  // Of an owner before this one, on the same host and memory.
  machine_->disk.AdvanceOrphans(all);
  slots_[0].backend->Advance(all);
  if (all || context_->random.OneIn(2)) (void)slots_[0].storage->Poll();
}

void SimulatedHost::RunFunction(uint32_t steps) {
  if (function_ == nullptr || !function_->accelerator().has_work()) return;
  Enter();
  context_->trace.Add(function_->accelerator().Run(steps));
}

std::optional<size_t> SimulatedHost::IndexOf(OfferId offer) const {
  for (size_t i = 0; i < kChannelCount; ++i) {
    if (slots_[i].offer == offer) return i;
  }
  return std::nullopt;
}

uint32_t SimulatedHost::ChannelId(size_t index) const {
  if (bus_ == nullptr || !slots_[index].offer.has_value()) return 0;
  const auto info = bus_->connection().FindOffer(*slots_[index].offer);
  return info.has_value() ? static_cast<uint32_t>(info->channel_id) : 0;
}

void SimulatedHost::Rescind(size_t index) {
  Slot& slot = slots_[index];
  if (!Serves() || !slot.offer.has_value() || slot.is_rescinded) return;
  Enter();
  const absl::Status status = bus_->Rescind(*slot.offer);
  if (!status.ok()) {
    return context_->Fail("rescind", std::string(status.message()));
  }
  slot.is_rescinded = true;
  context_->Happened(Fault::kRescind);
}

bool SimulatedHost::SavesTheSame() const {
  return !machine_->channels[kSpareChannel]->host.is_muted() &&
         std::none_of(slots_.begin(), slots_.end(),
                      [](const Slot& slot) { return slot.is_rescinded; });
}

void SimulatedHost::OfferAgain() {
  if (!Serves()) return;
  for (size_t i = 0; i < kChannelCount; ++i) {
    Slot& slot = slots_[i];
    if (slot.device == nullptr ||
        (slot.offer.has_value() &&
         (!slot.is_rescinded || bus_->channel(*slot.offer) != nullptr))) {
      continue;
    }
    Enter();
    MakeSlot(i);
    auto offer = bus_->Offer(ChannelParams(i), slots_[i].device.get());
    // The guest has not let go of the one before.
    if (offer.ok()) slots_[i].offer = *offer;
  }
}

void SimulatedHost::ScribbleOnRings(size_t index) {
  // Of an opening that both sides have heard of: it is what is muted.
  if (!Serves() || !slots_[index].offer.has_value() ||
      !machine_->channels[index]->guest.is_open()) {
    return;
  }
  const auto ring = bus_->connection().RingGpadl(*slots_[index].offer);
  const OpenRequest* const open =
      bus_->connection().open_request(*slots_[index].offer);
  if (!ring.ok() || open == nullptr) return;
  Enter();
  context_->Happened(Fault::kHostileRing);
  machine_->channels[index]->guest.Mute();
  machine_->channels[index]->host.Mute();
  Random& random = context_->random;
  for (uint64_t i = random.Between(1, 4); i > 0; --i) {
    const size_t ring_page = random.OneIn(2) ? 0 : open->downstream_page_offset;
    const size_t page = ring->pages[ring_page + (random.OneIn(3) ? 1 : 0)];
    // The first words of a control page are indices, mask and pending size.
    const size_t word = random.Below(random.OneIn(4) ? 1024 : 8);
    const auto value = static_cast<uint32_t>(
        random.OneIn(2) ? random.Next() : random.Below(8192));
    std::memcpy(&machine_->ram.live()[page * 4096 + word * 4], &value,
                sizeof(value));
  }
}

void SimulatedHost::OnChannelFault(const vsp::ServerChannel& channel,
                                   const std::string& reason) {
  ++context_->totals.channel_faults;
  const std::optional<size_t> index = IndexOf(channel.offer());
  context_->trace.Add(reason);
  if (index.has_value() &&
      (*index == 0 ? machine_->disk_may_fault
       : *index == kAcceleratorChannel
           ? machine_->function_oracle.may_fault
           : machine_->channels[*index]->host.is_muted())) {
    return;
  }
  context_->Fail("channel-fault",
                 absl::StrCat("channel ", index.value_or(99), ": ", reason));
}

// ---- A move to the other host

void SimulatedHost::MakeMigratables() {
  ram_ = std::make_unique<RamMigratable>(machine_, index_);
  vsp::BusMigratableOptions options = {.guest_pages = kGuestPages,
                                       .offers = {}};
  for (size_t i = 0; i < kChannelCount; ++i) {
    if (machine_->options.HasChannel(i)) {
      options.offers.push_back(ChannelParams(i));
    }
  }
  channels_ =
      std::make_unique<vsp::BusMigratable>("vmbus", options, this, &mutex_);
}

// The accelerator stops before its bus is saved.
std::vector<migration::Migratable*> SimulatedHost::Migratables() {
  std::vector<migration::Migratable*> all = {ram_.get()};
  if (function_ != nullptr) all.push_back(&function_->migratable());
  all.push_back(channels_.get());
  return all;
}

absl::Span<migration::PendingPages* const> SimulatedHost::PrepareToLeave() {
  Enter();
  machine_->disk.AdvanceOrphans(/*all=*/true);
  MakeMigratables();
  for (migration::Migratable* device : Migratables()) {
    auto pages = migration::PendingPages::Create(
        device, migration::MemoryOrigin::kUnknown);
    FERRYBUS_CHECK(pages.ok(), "the machine cannot move");
    pages_.push_back(*std::move(pages));
    pages_pointers_.push_back(pages_.back().get());
  }
  return pages_pointers_;
}

void SimulatedHost::ForgetMigration() {
  source = nullptr;
  target = nullptr;
  pages_pointers_.clear();
  pages_.clear();
  channels_ = nullptr;
  ram_ = nullptr;
  if (bus_ != nullptr) return;
  function_ = nullptr;
  machine_->ram.Drop(index_);
}

absl::StatusOr<std::vector<migration::Migratable*>>
SimulatedHost::CreateDevices(const migration::Hello&, std::vector<int>,
                             bool is_recovery) {
  // What a target finds is not what the guest had.
  if (!is_recovery) {
    machine_->ram.Create(index_, std::byte{0xee});
    function_memory_.Fill(std::byte{0xee});
  }
  MakeFunction();
  MakeMigratables();
  machine_->ports[index_].to_host.clear();
  machine_->ports[index_].to_guest.clear();
  return Migratables();
}

void SimulatedHost::DestroyDevices() {
  EndBus(/*kill=*/false);
  channels_ = nullptr;
  ram_ = nullptr;
  machine_->ram.Drop(index_);
}

void SimulatedHost::OnDecision(Decision decision) {
  if (!undecided_.has_value() || decision == Decision::kUndecided) return;
  const bool is_ours = decision == Decision::kCommitted;
  const OwnershipRecord record = {
      .state = is_ours ? Ownership::kOwner : Ownership::kNone,
      .epoch = is_ours ? undecided_->epoch : undecided_->epoch - 1};
  if (!ledger_->Store(record).ok()) return;
  undecided_.reset();
  if (is_ours) BootMachine();
}

}  // namespace ferrybus::simulation
