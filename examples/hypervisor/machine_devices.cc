// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/machine_devices.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "ferrybus/savestate/steady_clock.h"

namespace ferrybus::hypervisor {
namespace {

using savestate::SizeAnswer;

constexpr absl::string_view kChannelsFormat = "ferrybus hypervisor channels 1";

SizeAnswer Give(absl::string_view bytes, absl::Span<std::byte> out) {
  if (out.size() < bytes.size()) return SizeAnswer::TooSmall(bytes.size());
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return SizeAnswer::Ok(bytes.size());
}

absl::string_view Text(absl::Span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

using Lines = std::map<std::string, std::string>;

Lines ParseLines(absl::string_view text) {
  Lines lines;
  for (const absl::string_view line :
       absl::StrSplit(text.substr(0, 1024), '\n', absl::SkipEmpty())) {
    lines.insert(absl::StrSplit(line, absl::MaxSplits('=', 1)));
  }
  return lines;
}

}  // namespace

absl::StatusOr<MachineOptions> ParseDescription(absl::string_view text) {
  Lines lines = ParseLines(text);
  MachineOptions options;
  const std::string& hyperv = lines["hyperv"];
  if (!absl::SimpleAtoi(lines["ram"], &options.ram_bytes) ||
      !absl::SimpleAtoi(lines["cpus"], &options.vp_count) ||
      (hyperv != "kvm" && hyperv != "userspace")) {
    return absl::InvalidArgumentError("the description of no such machine");
  }
  options.hyperv =
      hyperv == "kvm" ? HypervChoice::kKvm : HypervChoice::kUserspace;
  return options;
}

// ---- MachineDevice

std::vector<migration::Segment> MachineDevice::segments() const {
  return {
      {.id = KvmDirtyLog::kSegment, .ranges = {{0, machine_->ram().size()}}}};
}

SizeAnswer MachineDevice::SaveImmutable(absl::Span<std::byte> out) {
  return Give(machine_->Description(), out);
}

absl::Status MachineDevice::RestoreImmutable(absl::Span<const std::byte> data) {
  const Lines there = ParseLines(Text(data));
  for (const auto& [key, here] : ParseLines(machine_->Description())) {
    const auto found = there.find(key);
    if (found == there.end() || found->second != here) {
      return absl::FailedPreconditionError(absl::StrCat(
          key, ": the source has ",
          found == there.end() ? "none" : found->second.substr(0, 64),
          ", this host has ", here));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<std::byte>> MachineDevice::Memory(
    uint32_t segment, uint64_t offset_bytes, uint64_t size_bytes) const {
  const absl::Span<std::byte> ram = machine_->ram();
  if (segment != KvmDirtyLog::kSegment || size_bytes > ram.size() ||
      offset_bytes > ram.size() - size_bytes) {
    return absl::OutOfRangeError(
        absl::StrCat(size_bytes, " bytes from ", offset_bytes, " of segment ",
                     segment, ": RAM has ", ram.size()));
  }
  return ram.subspan(offset_bytes, size_bytes);
}

// The guest writes meanwhile: a page that is torn by that is dirty again.
absl::Status MachineDevice::ReadMemory(uint32_t segment, uint64_t offset_bytes,
                                       absl::Span<std::byte> out) {
  const auto memory = Memory(segment, offset_bytes, out.size());
  if (memory.ok()) std::memcpy(out.data(), memory->data(), out.size());
  return memory.status();
}

absl::Status MachineDevice::WriteMemory(uint32_t segment, uint64_t offset_bytes,
                                        absl::Span<const std::byte> data) {
  const auto memory = Memory(segment, offset_bytes, data.size());
  if (memory.ok()) std::memcpy(memory->data(), data.data(), data.size());
  return memory.status();
}

absl::StatusOr<bool> MachineDevice::Pause() {
  const absl::Status status = machine_->Pause();
  if (!status.ok()) return status;
  return true;
}

SizeAnswer MachineDevice::SaveMutable(absl::Span<std::byte> out) {
  if (out.empty()) {
    const absl::StatusOr<MachineState> state = machine_->Save();
    if (!state.ok()) return SizeAnswer::Failed(state.status());
    absl::StatusOr<std::string> bytes = SerializeMachineState(*state);
    if (!bytes.ok()) return SizeAnswer::Failed(bytes.status());
    saved_ = *std::move(bytes);
  }
  return Give(saved_, out);
}

absl::Status MachineDevice::RestoreMutable(absl::Span<const std::byte> data) {
  const absl::StatusOr<MachineState> state =
      ParseMachineState(data, machine_->vp_count());
  return state.ok() ? machine_->Load(*state) : state.status();
}

// ---- ChannelsDevice

absl::Status ChannelsDevice::Prepare(migration::Role role) {
  is_target_ = role == migration::Role::kTarget;
  if (is_target_) return absl::OkStatus();
  // A new process, so that its log knows all that it ever wrote.
  absl::Status status = devices_->Replace(/*kill=*/false);
  if (!status.ok()) return status;
  auto log =
      PageLog::Open(machine_->ram().size() / 4096, devices_->page_log_path());
  if (!log.ok()) return log.status();
  machine_->dirty_log().SetDeviceLog(*std::move(log));
  return absl::OkStatus();
}

SizeAnswer ChannelsDevice::SaveImmutable(absl::Span<std::byte> out) {
  return Give(kChannelsFormat, out);
}

// What is offered, Bus::Restore() compares.
absl::Status ChannelsDevice::RestoreImmutable(
    absl::Span<const std::byte> data) {
  if (Text(data) == kChannelsFormat) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("format: this host has '", kChannelsFormat, "'"));
}

absl::StatusOr<bool> ChannelsDevice::Pause() {
  if (is_paused_) return true;
  const absl::Status status = SaveDevices();
  if (!status.ok()) return status;
  is_paused_ = true;
  return true;
}

absl::Status ChannelsDevice::SaveDevices() {
  const absl::Status status = devices_->Save(/*kill=*/false);
  if (!status.ok()) return status;
  absl::StatusOr<std::string> bus = devices_->saved_bus();
  if (!bus.ok()) return bus.status();
  state_.bus = *std::move(bus);
  state_.probe = devices_->saved_probe();
  state_.sub_channels = devices_->saved_sub_channels();
  state_.port = machine_->DrainPort();
  machine_->dirty_log().Freeze();
  return absl::OkStatus();
}

SizeAnswer ChannelsDevice::SaveMutable(absl::Span<std::byte> out) {
  if (out.empty()) {
    absl::StatusOr<std::string> bytes = SerializeChannelsState(state_);
    if (!bytes.ok()) return SizeAnswer::Failed(bytes.status());
    saved_ = *std::move(bytes);
  }
  return Give(saved_, out);
}

absl::Status ChannelsDevice::LoadDevices(const ChannelsState& state) {
  machine_->FillPort(state.port);
  return devices_->Load();
}

absl::Status ChannelsDevice::RestoreMutable(absl::Span<const std::byte> data) {
  const absl::StatusOr<ChannelsState> state = ParseChannelsState(data);
  if (!state.ok()) return state.status();
  const absl::Status status = devices_->StoreSaved(*state);
  return status.ok() ? LoadDevices(*state) : status;
}

void ChannelsDevice::Resume() {
  if (!is_target_) {
    if (!is_paused_) return;
    is_paused_ = false;
    is_due_ = true;
    if (take_back_ == nullptr) return;
    take_back_();
    // The supervisor knows of a failure, and the guest of its disk's.
    (void)ResumeHere(absl::ZeroDuration());
    return;
  }
  devices_->Run();
}

absl::Status ChannelsDevice::ResumeHere(absl::Duration patience) {
  if (!std::exchange(is_due_, false)) return absl::OkStatus();
  const absl::Time end = savestate::SteadyNow() + patience;
  absl::Status status = LoadDevices(state_);
  while (!status.ok() && savestate::SteadyNow() < end) {
    devices_->Abandon();
    status = devices_->Load();
  }
  if (status.ok()) devices_->Run();
  return status;
}

}  // namespace ferrybus::hypervisor
