// SPDX-License-Identifier: MIT
//
// The accelerator as one process of a simulated host has it: device, interrupt
// table, and what moves both; and its end of the guest's channel.
//
// Its memory belongs to the host and outlives the process.
//
// Ownership: borrows context, oracle and memory.  Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_SIMULATED_FUNCTION_H_
#define FERRYBUS_TESTS_SIMULATION_SIMULATED_FUNCTION_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "ferrybus/savestate/migration/dirty_bitmap.h"
#include "ferrybus/tests/simulation/context.h"
#include "ferrybus/tests/simulation/function_oracle.h"
#include "ferrybus/vsp/device.h"
#include "ferrybus/vsp/virtual_function/accelerator.h"
#include "ferrybus/vsp/virtual_function/accelerator_device.h"
#include "ferrybus/vsp/virtual_function/accelerator_migratable.h"
#include "ferrybus/vsp/virtual_function/hot_update_blocks.h"
#include "ferrybus/vsp/virtual_function/msix_table.h"

namespace ferrybus::simulation {

class FunctionMemory {
 public:
  absl::Span<std::byte> bytes() { return {pages_[0].bytes, sizeof(pages_)}; }
  absl::Span<std::byte> segment(size_t index) {
    return bytes().subspan(index == 0 ? 0 : kFunctionBytes[0],
                           kFunctionBytes[index]);
  }
  void Fill(std::byte value);

 private:
  std::array<vsp::HotUpdatePage,
             (kFunctionBytes[0] + kFunctionBytes[1]) / vsp::kHotUpdatePageBytes>
      pages_;
};

// A host's interrupts: its messages are not another's.
class FunctionInterrupts final : public vsp::MsixHost, public vsp::MsixDevice {
 public:
  FunctionInterrupts(Context* context, FunctionOracle* oracle, int host)
      : context_(context), oracle_(oracle), host_(host) {}

  absl::StatusOr<vsp::MsixMessage> MapMessage(
      const vsp::MsixMessage& guest) override;
  void SendMessage(uint32_t vector, const vsp::MsixMessage& message) override;
  absl::Status WriteVirtualizedInterrupt(uint32_t,
                                         const vsp::MsixEntry&) override {
    return absl::OkStatus();
  }
  static vsp::MsixMessage GuestMessage(uint32_t vector);

 private:
  Context* const context_;
  FunctionOracle* const oracle_;
  const int host_;
};

class SimulatedFunction {
 public:
  SimulatedFunction(Context* context, FunctionOracle* oracle,
                    FunctionMemory* memory, int host);

  vsp::Accelerator& accelerator() { return accelerator_; }
  vsp::AcceleratorMigratable& migratable() { return migratable_; }

  // The first owner: interrupts as a guest's driver sets them up.
  void Begin();

  // -- A move within the host.

  void Pause();
  // Immutable and mutable data, as a driver is asked for them.
  struct Saved {
    std::string immutable_data;
    std::string mutable_data;
  };
  Saved Save();
  // The same mutable data, of one that is paused or was just restored.
  std::string SaveAgain();
  // As it was saved; then another owner may start.
  void Confirm();
  void Retire();
  // Goes on after a pause.
  void Resume();
  absl::Status Restore(const Saved& saved);
  void StartRestored();

 private:
  void Expect(const absl::Status& status, absl::string_view what);

  Context* const context_;
  FunctionInterrupts interrupts_;
  vsp::MsixTable table_;
  migration::DirtyBitmap dirty_;
  vsp::Accelerator accelerator_;
  vsp::AcceleratorMigratable migratable_;
};

// Counts the commands that the accelerator takes, and refuses a restore.
class FunctionDevice final : public vsp::Device {
 public:
  FunctionDevice(Context* context, FunctionOracle* oracle,
                 bool* refuses_restore, vsp::Accelerator* accelerator)
      : context_(context),
        oracle_(oracle),
        refuses_restore_(refuses_restore),
        accelerator_(accelerator),
        device_(accelerator) {}

  void OnStarted() override { device_.OnStarted(); }
  void OnClosed() override { device_.OnClosed(); }
  void ProcessPacket(IncomingPacket packet) override;
  vsp::IncomingPolicy incoming_policy() const override {
    return device_.incoming_policy();
  }
  savestate::SizeAnswer SavePacket(const PacketInfo& packet,
                                   absl::Span<std::byte> out) override {
    return device_.SavePacket(packet, out);
  }
  absl::Status OnRestored(vsp::ServerChannel& channel,
                          absl::Span<const std::byte> state) override;
  absl::Status RestorePacket(IncomingPacket packet,
                             absl::Span<const std::byte> blob) override {
    return device_.RestorePacket(std::move(packet), blob);
  }

 private:
  Context* const context_;
  FunctionOracle* const oracle_;
  bool* const refuses_restore_;
  vsp::Accelerator* const accelerator_;
  vsp::AcceleratorDevice device_;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_SIMULATED_FUNCTION_H_
