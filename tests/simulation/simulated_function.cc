// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/simulated_function.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/vsp/virtual_function/accelerator_state_persist.h"
#include "ferrybus/vsp/virtual_function/accelerator_world.h"

namespace ferrybus::simulation {
namespace {

constexpr uint64_t kInterruptAddress = 0xfee00000;

std::vector<vsp::AcceleratorSegment> Segments(FunctionMemory* memory) {
  std::vector<vsp::AcceleratorSegment> segments;
  for (uint32_t i = 0; i < kFunctionSegments; ++i) {
    segments.push_back({.id = i + 1,
                        .page_size_bytes = kFunctionPageBytes[i],
                        .memory = memory->segment(i)});
  }
  return segments;
}

std::vector<migration::DirtySegment> DirtySegments() {
  std::vector<migration::DirtySegment> segments;
  for (uint32_t i = 0; i < kFunctionSegments; ++i) {
    segments.push_back({i + 1, kFunctionBytes[i], kFunctionPageBytes[i]});
  }
  return segments;
}

template <typename T>
absl::Span<const std::byte> BytesOf(const T& value) {
  return {reinterpret_cast<const std::byte*>(&value), sizeof(value)};
}

}  // namespace

void FunctionMemory::Fill(std::byte value) {
  const absl::Span<std::byte> all = bytes();
  std::fill(all.begin(), all.end(), value);
}

// ---- Interrupts

vsp::MsixMessage FunctionInterrupts::GuestMessage(uint32_t vector) {
  return {kInterruptAddress + uint64_t{vector} * 16, 0x40 + vector};
}

absl::StatusOr<vsp::MsixMessage> FunctionInterrupts::MapMessage(
    const vsp::MsixMessage& guest) {
  return vsp::MsixMessage{guest.address + (uint64_t(host_ + 1) << 32),
                          guest.data};
}

void FunctionInterrupts::SendMessage(uint32_t vector,
                                     const vsp::MsixMessage& message) {
  ++oracle_->interrupts;
  context_->trace.Add(vector);
  if (message != *MapMessage(GuestMessage(vector))) {
    context_->Fail("accelerator-interrupts",
                   absl::StrCat("vector ", vector, " sent another message"));
  }
}

// ---- The function

SimulatedFunction::SimulatedFunction(Context* context, FunctionOracle* oracle,
                                     FunctionMemory* memory, int host)
    : context_(context),
      interrupts_(context, oracle, host),
      table_({.vectors = kFunctionVectors}, &interrupts_, &interrupts_),
      dirty_(DirtySegments()),
      accelerator_({.segments = Segments(memory)}, &table_, &dirty_),
      migratable_({}, {.accelerator = &accelerator_,
                       .interrupts = &table_,
                       .dirty = &dirty_}) {}

void SimulatedFunction::Begin() {
  (void)table_.Resume();
  for (uint32_t vector = 0; vector < kFunctionVectors; ++vector) {
    const vsp::MsixMessage message = FunctionInterrupts::GuestMessage(vector);
    const uint64_t data = message.data;  // and unmasked
    const uint64_t offset = uint64_t{vector} * 16;
    (void)table_.WriteTable(offset, BytesOf(message.address));
    (void)table_.WriteTable(offset + 8, BytesOf(data));
  }
  (void)table_.WriteControl(vsp::MsixTable::kEnable);
}

void SimulatedFunction::Expect(const absl::Status& status,
                               absl::string_view what) {
  if (status.ok()) return;
  context_->Fail("accelerator",
                 absl::StrCat(what, ": ", std::string(status.message())));
}

void SimulatedFunction::Pause() {
  Expect(migratable_.Prepare(migration::Role::kSource), "prepare");
  Expect(migratable_.Pause().status(), "pause");
}

SimulatedFunction::Saved SimulatedFunction::Save() {
  const auto immutable_data = vsp::SaveImmutableOf(migratable_);
  const auto mutable_data = vsp::SaveMutableOf(migratable_);
  Expect(immutable_data.status(), "immutable data");
  Expect(mutable_data.status(), "mutable data");
  if (!immutable_data.ok() || !mutable_data.ok()) return {};
  if (*mutable_data != SaveAgain()) {
    context_->Fail("save", "the accelerator's data is not its state");
  }
  context_->trace.Add(*mutable_data);
  return {*immutable_data, *mutable_data};
}

std::string SimulatedFunction::SaveAgain() {
  const auto state = accelerator_.Save();
  const auto interrupts = table_.Save();
  Expect(state.status(), "state");
  Expect(interrupts.status(), "interrupts");
  if (!state.ok() || !interrupts.ok()) return {};
  vsp::VirtualFunctionState all;
  all.accelerator = *state;
  all.interrupts = *interrupts;
  return vsp::SerializeVirtualFunctionState(all);
}

void SimulatedFunction::Confirm() { Expect(migratable_.Confirm(), "confirm"); }

void SimulatedFunction::Retire() {
  migratable_.Retire();
  migratable_.End();
}

void SimulatedFunction::Resume() {
  migratable_.Resume();
  migratable_.End();
}

absl::Status SimulatedFunction::Restore(const Saved& saved) {
  absl::Status status = migratable_.Prepare(migration::Role::kTarget);
  if (status.ok()) {
    status = migratable_.RestoreImmutable(vsp::BlobBytes(saved.immutable_data));
  }
  if (status.ok()) {
    status = migratable_.RestoreMutable(vsp::BlobBytes(saved.mutable_data));
  }
  if (status.ok()) status = migratable_.RewriteInterrupts();
  return status;
}

void SimulatedFunction::StartRestored() {
  migratable_.End();
  migratable_.Resume();
}

// ---- Its channel

void FunctionDevice::ProcessPacket(IncomingPacket packet) {
  device_.ProcessPacket(std::move(packet));
  if (accelerator_->IsQueued(oracle_->submitted)) ++oracle_->submitted;
}

absl::Status FunctionDevice::OnRestored(vsp::ServerChannel& channel,
                                        absl::Span<const std::byte> state) {
  if (std::exchange(*refuses_restore_, false)) {
    context_->Happened(Fault::kRestoreRefused);
    return absl::UnavailableError("the accelerator was made to refuse");
  }
  return device_.OnRestored(channel, state);
}

}  // namespace ferrybus::simulation
