// SPDX-License-Identifier: MIT
//
// A simulated host's processes that end and follow each other.

#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/tests/simulation/simulated_host.h"

namespace ferrybus::simulation {
namespace {

absl::Span<const std::byte> AsBytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// Of one process.
struct Parts {
  std::string bus;
  SimulatedFunction::Saved function;
};

constexpr char kBus[] = "bus";
constexpr char kImmutable[] = "function-immutable";
constexpr char kMutable[] = "function-mutable";

// In one frame, as a checkpoint wants it.
std::string Join(const Parts& parts) {
  savestate::FrameWriter writer("simulated host");
  const auto add = [&](const char* name, const std::string& body) {
    writer.AddSection(name, 0, 1, savestate::SectionKind::kRequired, body);
  };
  add(kBus, parts.bus);
  add(kImmutable, parts.function.immutable_data);
  add(kMutable, parts.function.mutable_data);
  absl::StatusOr<std::string> joined = writer.Finish();
  FERRYBUS_CHECK(joined.ok(), "no frame");
  return *std::move(joined);
}

// REQUIRES: Join() made it.
Parts Split(const std::string& joined) {
  const auto frame = savestate::Frame::Parse(AsBytes(joined));
  FERRYBUS_CHECK(frame.ok(), "not the frame that was saved");
  const auto body = [&](const char* name) {
    const auto bytes = frame->Find(name)->body;
    return std::string(reinterpret_cast<const char*>(bytes.data()),
                       bytes.size());
  };
  return {.bus = body(kBus),
          .function = {.immutable_data = body(kImmutable),
                       .mutable_data = body(kMutable)}};
}

}  // namespace

std::string SimulatedHost::Freeze() {
  Enter();
  // First: a bus whose commands run cannot be saved.
  if (function_ != nullptr) function_->Pause();
  bus_->Freeze();
  is_frozen_ = true;
  const absl::StatusOr<std::string> saved = bus_->Save();
  const absl::StatusOr<std::string> again = bus_->Save();
  if (!saved.ok()) {
    context_->Fail("save", std::string(saved.status().message()));
    return {};
  }
  if (!again.ok() || *again != *saved) {
    context_->Fail("save", "saved twice, it is not the same");
  }
  context_->trace.Add(*saved);
  Parts parts = {.bus = *saved, .function = {}};
  if (function_ != nullptr) parts.function = function_->Save();
  return Join(parts);
}

void SimulatedHost::Thaw() {
  Enter();
  is_frozen_ = false;
  bus_->Thaw();
  if (function_ != nullptr) function_->Resume();
}

void SimulatedHost::EndBus(bool kill) {
  EndChannels(kill);
  function_ = nullptr;
}

void SimulatedHost::EndChannels(bool kill) {
  Enter();
  if (kill && slots_[0].backend != nullptr) slots_[0].backend->Kill();
  bus_ = nullptr;
  is_frozen_ = false;
  for (Slot& slot : slots_) slot = Slot();
}

// Of a device but the disk; null: none.
bool* SimulatedHost::DrawRefusing() {
  if (!std::exchange(refuses_restore, false)) return nullptr;
  const size_t index = context_->random.Between(1, kChannelCount - 1);
  return &machine_->channels[index]->refuses_restore;
}

absl::Status SimulatedHost::RestoreBus(absl::Span<const std::byte> saved) {
  Enter();
  std::vector<vsp::DeviceOffer> devices;
  for (size_t i = 0; i < kChannelCount; ++i) {
    if (!machine_->options.HasChannel(i)) continue;
    MakeSlot(i);
    devices.push_back({ChannelParams(i), slots_[i].device.get()});
  }
  bool* const refusing = DrawRefusing();
  if (refusing != nullptr) *refusing = true;
  auto bus =
      vsp::Bus::Restore(saved, Options(), machine_->ram.memory(),
                        &machine_->ports[index_].guest_doorbell, devices, this);
  if (refusing != nullptr) *refusing = false;
  if (!bus.ok()) {
    for (Slot& slot : slots_) slot = Slot();
    return bus.status();
  }
  bus_ = *std::move(bus);
  for (const SavedOffer& offer : bus_->connection().Snapshot().offers) {
    for (size_t i = 0; i < kChannelCount; ++i) {
      if (slots_[i].device != nullptr && !offer.is_rescinding &&
          offer.params.HasIdentityOf(ChannelParams(i))) {
        slots_[i].offer = offer.id;
      }
    }
  }
  return absl::OkStatus();
}

absl::Status SimulatedHost::Restore(const std::string& saved) {
  const Parts parts = Split(saved);
  MakeFunction();
  absl::Status status;
  if (function_ != nullptr) status = function_->Restore(parts.function);
  if (!status.ok()) {
    context_->Fail("restore", std::string(status.message()));
  } else {
    status = RestoreBus(AsBytes(parts.bus));
  }
  is_frozen_ = status.ok();
  if (!status.ok()) function_ = nullptr;
  return status;
}

std::string SimulatedHost::SaveAgain(const std::string& saved) {
  Enter();
  Parts parts = Split(saved);
  absl::StatusOr<std::string> bus = bus_->Save();
  parts.bus = bus.ok() ? *std::move(bus) : std::string(bus.status().message());
  if (function_ != nullptr) {
    parts.function.mutable_data = function_->SaveAgain();
  }
  return Join(parts);
}

void SimulatedHost::StartRestored() {
  Enter();
  is_frozen_ = false;
  // Those of before may be lost, in either direction.
  SignalPort& port = machine_->ports[index_];
  if (context_->random.OneIn(2)) port.to_host.clear();
  if (context_->random.OneIn(2)) port.to_guest.clear();
  if (function_ != nullptr) function_->StartRestored();
  bus_->Start();
}

// ---- Successors

absl::Status SimulatedHost::StartSuccessor(const std::string& saved,
                                           bool is_late) {
  Enter();
  if (function_ != nullptr) function_->Confirm();
  predecessor_ = Process{.function = std::move(function_),
                         .slots = std::exchange(slots_, {}),
                         .bus = std::move(bus_)};
  absl::Status status = Restore(saved);
  if (status.ok() && is_late) {
    EndBus(/*kill=*/false);
    status = absl::UnavailableError("it was made to fail");
  }
  if (status.ok()) {
    StartRestored();
    return status;
  }
  function_ = std::move(predecessor_->function);
  slots_ = std::move(predecessor_->slots);
  bus_ = std::move(predecessor_->bus);
  predecessor_.reset();
  is_frozen_ = true;
  return status;
}

void SimulatedHost::EndPredecessor() {
  if (!predecessor_.has_value()) return;
  Enter();
  if (predecessor_->function != nullptr) predecessor_->function->Retire();
  predecessor_.reset();
}

}  // namespace ferrybus::simulation
