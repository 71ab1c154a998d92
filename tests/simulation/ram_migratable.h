// SPDX-License-Identifier: MIT
//
// A guest's memory and processors on one simulated host, as something that
// moves.
//
// Ownership: borrows the machine.  Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_RAM_MIGRATABLE_H_
#define FERRYBUS_TESTS_SIMULATION_RAM_MIGRATABLE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ferrybus/savestate/migration/migratable.h"
#include "ferrybus/savestate/migration/shadow_memory.h"
#include "ferrybus/tests/simulation/machine.h"

namespace ferrybus::simulation {

class RamMigratable final : public migration::Migratable {
 public:
  RamMigratable(Machine* machine, int host)
      : machine_(machine), host_(host), shadow_(1, machine->ram.live()) {}

  std::string name() const override { return "ram"; }
  migration::Capabilities capabilities() const override {
    return {.live_migration = true};
  }
  std::vector<migration::Segment> segments() const override {
    return {{.id = 1, .ranges = {{0, machine_->ram.live().size()}}}};
  }
  migration::DirtyTracking* dirty_tracking() override { return &shadow_; }
  absl::Status Prepare(migration::Role) override { return absl::OkStatus(); }
  void End() override {}
  savestate::SizeAnswer SaveImmutable(absl::Span<std::byte>) override {
    return savestate::SizeAnswer::Ok(0);
  }
  absl::Status ReadMemory(uint32_t, uint64_t offset,
                          absl::Span<std::byte> out) override {
    return shadow_.Read(offset, out);
  }
  absl::StatusOr<bool> Pause() override {
    machine_->runs_at = -1;
    return true;
  }
  savestate::SizeAnswer SaveMutable(absl::Span<std::byte>) override {
    return savestate::SizeAnswer::Ok(0);
  }
  void Retire() override {}
  absl::Status RestoreImmutable(absl::Span<const std::byte>) override {
    return absl::OkStatus();
  }
  absl::Status WriteMemory(uint32_t, uint64_t offset,
                           absl::Span<const std::byte> data) override {
    if (data.size() > machine_->ram.live().size() ||
        offset > machine_->ram.live().size() - data.size()) {
      return absl::OutOfRangeError("beyond the guest's memory");
    }
    machine_->ram.Write(host_, offset, data);
    return absl::OkStatus();
  }
  absl::Status RestoreMutable(absl::Span<const std::byte>) override {
    return absl::OkStatus();
  }
  void Resume() override {
    if (machine_->runs_at >= 0 && machine_->runs_at != host_) {
      machine_->context->Fail("two-owners", "the guest runs on both hosts");
    }
    machine_->runs_at = host_;
  }

 private:
  Machine* const machine_;
  const int host_;
  migration::ShadowMemory shadow_;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_RAM_MIGRATABLE_H_
