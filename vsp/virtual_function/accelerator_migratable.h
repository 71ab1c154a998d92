// SPDX-License-Identifier: MIT
//
// A virtual function with an accelerator, as a migration sees it.
//
//   immutable data   what the other host must be like (AcceleratorIdentity)
//   memory           the segments, page by page
//   mutable data     registers and queue, interrupt table, configuration space
//
// Ownership: borrows all its parts.  The channel's packets move with their bus
// (accelerator_device.h).
// Thread safety: as migration::Migratable asks.
// Trust: what comes in is the other host's: checked, all of it before anything
// is changed; then this host's target is to be destroyed if it was refused.
// Blocking: Pause() waits for one step, and for interrupt table accesses that
// reach the device.
//
//   AcceleratorMigratable function({.name = "vf0"}, {.accelerator = &device,
//                                  .interrupts = &table, .dirty = &dirty});

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_MIGRATABLE_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_MIGRATABLE_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/dirty_tracking.h"
#include "ferrybus/savestate/migration/migratable.h"
#include "ferrybus/vsp/virtual_function/accelerator.h"
#include "ferrybus/vsp/virtual_function/accelerator_state.h"
#include "ferrybus/vsp/virtual_function/config_space.h"
#include "ferrybus/vsp/virtual_function/msix_table.h"
#include "ferrybus/vsp/virtual_function/paging_budget.h"

namespace ferrybus::vsp {

struct AcceleratorMigratableOptions {
  std::string name = "accelerator";
  // Without: it moves only while it is paused.
  bool live_migration = true;
  bool performant_tracking = false;
  AcceleratorIdentity identity = {};  // vectors and segments are the parts'
  std::string creation_parameters = {};
};

// Only the accelerator is needed; the others may be null.  Live migration needs
// `dirty`.
struct VirtualFunctionParts {
  Accelerator* accelerator = nullptr;
  MsixTable* interrupts = nullptr;
  migration::DirtyTracking* dirty = nullptr;
  ConfigSpace* config = nullptr;
  PagingBudget* budget = nullptr;
};

class AcceleratorMigratable final : public migration::Migratable {
 public:
  AcceleratorMigratable(const AcceleratorMigratableOptions& options,
                        const VirtualFunctionParts& parts);

  // Entries that a guest left without a message that this host knows.
  uint64_t unmapped_tables() const { return unmapped_tables_; }

  // -- migration::Migratable.  FailedPrecondition for a call at the wrong time.
  std::string name() const override { return options_.name; }
  migration::Capabilities capabilities() const override;
  std::vector<migration::Segment> segments() const override;
  migration::DirtyTracking* dirty_tracking() override { return parts_.dirty; }
  std::string CreationParameters() const override {
    return options_.creation_parameters;
  }
  absl::Status Prepare(migration::Role role) override;
  void End() override;
  savestate::SizeAnswer SaveImmutable(absl::Span<std::byte> out) override;
  absl::Status ReadMemory(uint32_t segment, uint64_t offset_bytes,
                          absl::Span<std::byte> out) override;
  int SharedMemory(uint32_t segment) override;
  absl::StatusOr<bool> Pause() override;
  savestate::SizeAnswer SaveMutable(absl::Span<std::byte> out) override;
  absl::Status Confirm() override;
  void Retire() override;
  absl::Status RestoreImmutable(absl::Span<const std::byte> data) override;
  absl::Status WriteMemory(uint32_t segment, uint64_t offset_bytes,
                           absl::Span<const std::byte> data) override;
  absl::Status RestoreMutable(absl::Span<const std::byte> data) override;
  absl::Status RewriteInterrupts() override;
  void Resume() override;

 private:
  enum class Phase : uint8_t {
    kIdle,           // runs, or was never prepared
    kSource,         // runs
    kPaused,         // a source
    kTarget,         // paused, knows nothing of the other host
    kTargetChecked,  // may take it over
    kTargetTaken,    // has its state
    kRetired,
  };

  absl::Status CheckPhase(std::initializer_list<Phase> allowed,
                          absl::string_view call) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  AcceleratorIdentity Identity() const;
  absl::StatusOr<VirtualFunctionState> SaveState();
  absl::Status CheckState(const VirtualFunctionState& state) const;

  const AcceleratorMigratableOptions options_;
  const VirtualFunctionParts parts_;
  // Of one thread at a time.
  uint64_t unmapped_tables_ = 0;
  std::optional<uint64_t> saved_changes_;
  std::string saved_config_;

  mutable absl::Mutex mu_;
  Phase phase_ ABSL_GUARDED_BY(mu_) = Phase::kIdle;
  bool is_prepared_ ABSL_GUARDED_BY(mu_) = false;
};

// FailedPrecondition, naming the field and both values, unless a device that
// is `here` can go on from one that was `saved`.
absl::Status CheckIdentity(const AcceleratorIdentity& saved,
                           const AcceleratorIdentity& here);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_MIGRATABLE_H_
