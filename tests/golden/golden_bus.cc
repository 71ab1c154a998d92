// SPDX-License-Identifier: MIT

#include "ferrybus/tests/golden/golden_bus.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/channel/connection_test_util.h"

namespace ferrybus::golden {
namespace {

constexpr uint64_t kRamPages = 64;
constexpr int kRounds = 4;

void Work(vsp::Bus& bus, DeviceSet& devices) {
  for (int i = 0; i < kRounds; ++i) {
    devices.Work();
    (void)bus.Poll();
    while (bus.has_outgoing()) {
      (void)bus.outgoing_front();
      bus.PopOutgoing();
    }
  }
}

}  // namespace

savestate::SealKey GoldenKey() {
  static constexpr std::string_view kSecret =
      "32 bytes that everybody can read";
  return {"golden", ::ferrybus::testing::ToBytes(kSecret)};
}

// -- World -------------------------------------------------------------------

World::World(std::vector<DeviceKind> kinds) : guest(kRamPages), devices(kinds) {
  options.connection.max_vp = 3;
  // Small tables: they are made anew for each of many restores.
  options.endpoint.max_in_flight = 32;
  options.endpoint.max_awaiting = 32;
  options.endpoint.max_queued = 32;
  bus = std::make_unique<vsp::Bus>(options, guest.memory.get(), &guest.doorbell,
                                   this);
  for (const vsp::DeviceOffer& offer : devices.offers()) {
    const auto id = bus->Offer(offer.params, offer.device);
    FERRYBUS_CHECK(id.ok(), "offer");
    offers.push_back(*id);
  }
}

World::~World() {
  bus.reset();
  devices.LetGo();
}

void World::Post(absl::Span<const std::byte> message) {
  const absl::Status status =
      bus->HandleMessage(message, kMessageConnectionClassic);
  FERRYBUS_CHECK(status.ok(), status.ToString().c_str());
}

void World::DropOutgoing(vsp::Bus& from) {
  while (from.has_outgoing()) {
    (void)from.outgoing_front();
    from.PopOutgoing();
  }
}

void World::ConnectRaw(ProtocolVersion version, uint32_t features) {
  Post(ContactMessage(version, 0, features));
  Post(RequestOffers());
  DropOutgoing(*bus);
}

std::string World::Save() {
  bus->Suspend();
  bus->Freeze();
  const absl::StatusOr<std::string> saved = bus->Save();
  FERRYBUS_CHECK(saved.ok(), saved.status().ToString().c_str());
  return *saved;
}

std::string World::SaveInTheMiddleOfAClose() {
  bus->Suspend();
  bus->Freeze();
  devices.LetGo();
  return Save();
}

// -- Rig ---------------------------------------------------------------------

GoldenRig::GoldenRig(const GoldenBus& golden)
    : golden_(golden), world_(golden.kinds) {
  saved_ = golden_.make(world_);
  const absl::Span<std::byte> ram =
      world_.guest.memory->Translate(0, kRamPages * 4096);
  ram_.assign(ram.begin(), ram.end());
}

GoldenRig::~GoldenRig() = default;

absl::StatusOr<std::unique_ptr<vsp::Bus>> GoldenRig::Restore(
    const std::string& bytes, DeviceSet& devices) {
  return vsp::Bus::Restore(vsp::AsBytes(bytes), world_.options,
                           world_.guest.memory.get(), &world_.guest.doorbell,
                           devices.offers(), &world_);
}

Outcome GoldenRig::Try(const std::string& bytes) {
  Outcome outcome;
  if (devices_ == nullptr) {
    devices_ = std::make_unique<DeviceSet>(golden_.kinds, golden_.gone);
  }
  auto bus = Restore(bytes, *devices_);
  outcome.restored = bus.status();
  outcome.skipped = std::exchange(world_.skipped, {});
  if (!bus.ok()) {
    if (devices_->HoldsPackets()) outcome.broken = "packets were left behind";
    return outcome;
  }
  const auto saved = (*bus)->Save();
  bus->reset();
  devices_->LetGo();
  devices_.reset();
  if (saved.ok()) {
    outcome.saved = *saved;
    outcome.broken = TryAgain(outcome.saved);
  } else {
    outcome.broken = absl::StrCat("save: ", saved.status().ToString());
  }
  std::copy(ram_.begin(), ram_.end(),
            world_.guest.memory->Translate(0, ram_.size()).begin());
  return outcome;
}

// With what a restored bus saved.  Empty: all is well.
std::string GoldenRig::TryAgain(const std::string& bytes) {
  DeviceSet devices(golden_.kinds, golden_.gone);
  auto bus = Restore(bytes, devices);
  if (!bus.ok()) {
    return absl::StrCat("what it saved: ", bus.status().ToString());
  }
  const auto saved = (*bus)->Save();
  std::string broken = saved.ok() && *saved == bytes
                           ? Use(**bus, devices)
                           : "the second save differs from the first";
  bus->reset();
  devices.LetGo();
  return broken;
}

// Empty: all is well.
std::string GoldenRig::Use(vsp::Bus& bus, DeviceSet& devices) {
  bus.Start();
  Work(bus, devices);
  if (!bus.can_accept_message()) return "no message is accepted";
  // Refused when nobody is connected.
  (void)bus.HandleMessage(UnloadBytes(), kMessageConnectionClassic);
  Work(bus, devices);
  devices.LetGo();
  Work(bus, devices);
  if (bus.connection().phase() != ConnectionPhase::kDisconnected) {
    return "it cannot be torn down";
  }
  bus.Suspend();
  bus.Freeze();
  const auto saved = bus.Save();
  if (!saved.ok()) return absl::StrCat("later: ", saved.status().ToString());
  return "";
}

}  // namespace ferrybus::golden
