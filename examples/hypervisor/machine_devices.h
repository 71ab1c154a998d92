// SPDX-License-Identifier: MIT
//
// The machine as two devices that move (savestate/migration/migratable.h), in
// this order:
//
//   machine   RAM, with KVM's dirty log; processors, interrupts, console
//   channels  the process behind the bus: it is told to save itself and ends,
//             as in a replacement; the next one begins at the target, or here
//             if the move fails
//
// Ownership: borrow the machine and the supervisor.
// Thread safety: as Migratable; the machine runs meanwhile.
// Trust: blobs that come in are a peer's or a file's: ParseMachineState(),
// ParseChannelsState(), then KVM and vsp::Bus::Restore() check them.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_MACHINE_DEVICES_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_MACHINE_DEVICES_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ferrybus/examples/hypervisor/device_supervisor.h"
#include "ferrybus/examples/hypervisor/machine.h"
#include "ferrybus/savestate/migration/migratable.h"

namespace ferrybus::hypervisor {

// Machine::Description() of a machine that comes, as options to make it with.
// InvalidArgument: it is none.
absl::StatusOr<MachineOptions> ParseDescription(absl::string_view text);

class MachineDevice final : public migration::Migratable {
 public:
  explicit MachineDevice(Machine* machine) : machine_(machine) {}

  std::string name() const override { return "machine"; }
  migration::Capabilities capabilities() const override {
    return {.live_migration = true};
  }
  std::vector<migration::Segment> segments() const override;
  migration::DirtyTracking* dirty_tracking() override {
    return &machine_->dirty_log();
  }
  std::string CreationParameters() const override {
    return machine_->Description();
  }
  absl::Status Prepare(migration::Role) override { return absl::OkStatus(); }
  void End() override {}
  savestate::SizeAnswer SaveImmutable(absl::Span<std::byte> out) override;
  absl::Status ReadMemory(uint32_t segment, uint64_t offset_bytes,
                          absl::Span<std::byte> out) override;
  absl::StatusOr<bool> Pause() override;
  savestate::SizeAnswer SaveMutable(absl::Span<std::byte> out) override;
  void Retire() override {}
  absl::Status RestoreImmutable(absl::Span<const std::byte> data) override;
  absl::Status WriteMemory(uint32_t segment, uint64_t offset_bytes,
                           absl::Span<const std::byte> data) override;
  absl::Status RestoreMutable(absl::Span<const std::byte> data) override;
  void Resume() override { machine_->Start(); }

 private:
  absl::StatusOr<absl::Span<std::byte>> Memory(uint32_t segment,
                                               uint64_t offset_bytes,
                                               uint64_t size_bytes) const;

  Machine* const machine_;
  std::string saved_;  // between the two calls of SaveMutable()
};

class ChannelsDevice final : public migration::Migratable {
 public:
  ChannelsDevice(Machine* machine, DeviceSupervisor* devices)
      : machine_(machine), devices_(devices) {}

  // Called before the devices go on here after a Pause(): whoever was to have
  // them must let go of the disk.  Without it, as from the start, whoever that
  // is has to be told first: Resume() does nothing, and ResumeHere() is due.
  void SetTakeBack(std::function<void()> take_back) {
    take_back_ = std::move(take_back);
  }
  // Waits so long for the disk.  Nothing is due: ok.
  absl::Status ResumeHere(absl::Duration patience);

  std::string name() const override { return "channels"; }
  migration::Capabilities capabilities() const override {
    return {.live_migration = true};
  }
  absl::Status Prepare(migration::Role role) override;
  void End() override {}
  savestate::SizeAnswer SaveImmutable(absl::Span<std::byte> out) override;
  absl::StatusOr<bool> Pause() override;
  savestate::SizeAnswer SaveMutable(absl::Span<std::byte> out) override;
  void Retire() override {}
  absl::Status RestoreImmutable(absl::Span<const std::byte> data) override;
  absl::Status RestoreMutable(absl::Span<const std::byte> data) override;
  void Resume() override;

 private:
  absl::Status SaveDevices();
  // Makes the next process, which waits.
  absl::Status LoadDevices(const ChannelsState& state);

  Machine* const machine_;
  DeviceSupervisor* const devices_;
  bool is_target_ = false;
  bool is_paused_ = false;
  bool is_due_ = false;  // ResumeHere()
  ChannelsState state_;
  std::string saved_;
  std::function<void()> take_back_;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_MACHINE_DEVICES_H_
