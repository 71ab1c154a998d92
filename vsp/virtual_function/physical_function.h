// SPDX-License-Identifier: MIT
//
// A physical device that is shared: its memory and its engine's time are given
// to virtual functions, each with an accelerator of its own.
//
// Time goes by in periods of `steps_per_period` steps.  Each function has a
// fixed share of a period; what it does not use nobody gets, so that no
// function's speed depends on another.  What is not assigned is free.
//
// Moving a function's memory costs steps, too, one for 4 KiB: from the free
// time, then from this function's own share, at most half of it while it runs,
// all of it while it is paused.  What cannot be paid yet is a debt; it is
// forgotten when the migration ends.  So other functions never pay.
//
// Ownership: borrows memory and what the functions are created with.  A
// function lives on for whoever still holds it, but does nothing any more.
// Thread safety: all methods, from any thread; RunPeriod() from one at a time.
// Functions do not wait for each other.
// Trust: the caller is the embedder; configuration offsets are the guest's.
//
//   PhysicalFunction device({.segments = {...}});
//   device.Create(0, {.share_steps = 300, .vectors = 4, ...});
//   device.SetResources(0, {{.segment = 1, .offset_bytes = 0, ...}});
//   device.SetPower(0, true);
//   for (;;) device.RunPeriod();
//
// Source: DxgkDdiCreateVirtualGpu, -DestroyVirtualGpu, -SetVirtualGpuResources,
// -SetVirtualGpuResources2, -SetVirtualFunctionPowerState,
// -SetVirtualFunctionPauseState, -ResetVirtualFunction,
// -ReadVirtualFunctionConfig.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_PHYSICAL_FUNCTION_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_PHYSICAL_FUNCTION_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "ferrybus/savestate/migration/dirty_bitmap.h"
#include "ferrybus/vsp/virtual_function/accelerator.h"
#include "ferrybus/vsp/virtual_function/accelerator_memory.h"
#include "ferrybus/vsp/virtual_function/accelerator_migratable.h"
#include "ferrybus/vsp/virtual_function/config_space.h"
#include "ferrybus/vsp/virtual_function/msix_table.h"
#include "ferrybus/vsp/virtual_function/paging_budget.h"
#include "ferrybus/vsp/virtual_function/scattered_memory.h"

namespace ferrybus::vsp {

struct PhysicalFunctionOptions {
  std::vector<AcceleratorSegment> segments = {};
  uint32_t steps_per_period = 1000;
  uint32_t functions_max = 64;
  // A function may get several parts of a segment, in pages of this size, and
  // sees them as one, in their order; the segment's memory has a file then.  A
  // multiple of the system's page and of the segments'.  0: one part.
  uint64_t scatter_page_bytes = 0;
};

struct VirtualFunctionParams {
  uint32_t share_steps = 0;  // of a period
  uint32_t vectors = 1;
  MsixHost* host = nullptr;
  MsixDevice* device = nullptr;
  // There may be work; as AcceleratorOptions::on_work.
  std::function<void()> on_work = {};
};

// A part of a segment, in whole pages.
struct FunctionResource {
  uint32_t segment = 0;
  uint64_t offset_bytes = 0;
  uint64_t size_bytes = 0;

  friend bool operator==(const FunctionResource&,
                         const FunctionResource&) = default;
};

struct FunctionInfo {
  uint32_t share_steps = 0;
  std::vector<FunctionResource> resources;
  bool is_powered = false;
  bool is_paused = false;  // by SetPause()
  bool is_migrating = false;
  uint64_t steps = 0;  // of commands
  uint64_t paging_steps = 0;
  uint64_t paging_debt_steps = 0;
};

// What a function is made of, once it has resources.
class VirtualFunction {
 public:
  // `scattered`: what some of the segments' memory is.
  VirtualFunction(const VirtualFunctionParams& params,
                  absl::Span<const AcceleratorSegment> segments,
                  std::vector<ScatteredMemory> scattered = {});

  Accelerator& accelerator() { return accelerator_; }
  MsixTable& interrupts() { return interrupts_; }
  migration::DirtyBitmap& dirty() { return dirty_; }
  ConfigSpace& config() { return config_; }

 private:
  const std::vector<ScatteredMemory> scattered_;
  MsixTable interrupts_;
  migration::DirtyBitmap dirty_;
  ConfigSpace config_;
  Accelerator accelerator_;
};

class PhysicalFunction {
 public:
  // REQUIRES: as Accelerator about segments; steps_per_period at least 1.
  explicit PhysicalFunction(const PhysicalFunctionOptions& options);

  // InvalidArgument: index, vectors, host or device.  AlreadyExists.
  // ResourceExhausted: the period has not so much time left.
  absl::Status Create(uint32_t index, const VirtualFunctionParams& params);
  // FailedPrecondition: it is being moved.
  absl::Status Destroy(uint32_t index);

  // All of these: NotFound, if there is no such function.
  absl::StatusOr<FunctionInfo> GetInfo(uint32_t index) const;
  // At most one part of each segment, unless they may be scattered.
  // InvalidArgument: none, not whole pages, outside, twice the same segment or
  // the same pages, or another function's.  FailedPrecondition: it was powered
  // already, is being moved, or the segment cannot be scattered.
  absl::Status SetResources(uint32_t index,
                            absl::Span<const FunctionResource> resources);
  // FailedPrecondition: it has no resources.
  absl::Status SetPower(uint32_t index, bool is_on);
  // Leaves it out of the schedule, whatever else holds it; taken back, what it
  // was by itself applies again.  FailedPrecondition: it has no resources.
  absl::Status SetPause(uint32_t index, bool is_paused);
  // Memory stays.  FailedPrecondition: no resources, or being moved.
  absl::Status Reset(uint32_t index);
  // As ConfigSpace; FailedPrecondition: it has no resources.
  absl::Status ReadConfig(uint32_t index, size_t offset_bytes,
                          absl::Span<std::byte> out) const;
  absl::Status WriteConfig(uint32_t index, size_t offset_bytes,
                           absl::Span<const std::byte> bytes);
  // FailedPrecondition: it has no resources.
  absl::StatusOr<std::shared_ptr<VirtualFunction>> Find(uint32_t index) const;
  // For a migration; they live as long as this and the function.
  absl::StatusOr<VirtualFunctionParts> PartsOf(uint32_t index);

  // One period; returns how many steps of commands were done in it.
  uint64_t RunPeriod();

 private:
  struct Function;

  // What a function may do in a period.
  struct Turn {
    std::shared_ptr<Function> function;
    std::shared_ptr<VirtualFunction> virtual_function;
    uint32_t steps = 0;
  };

  absl::StatusOr<Function*> FindFunction(uint32_t index) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  absl::StatusOr<Function*> FindReady(uint32_t index) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  uint32_t AssignedSteps() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  uint64_t PageBytes(const AcceleratorSegment& segment) const {
    return std::max(segment.page_size_bytes, options_.scatter_page_bytes);
  }
  absl::Status CheckResource(uint32_t index,
                             const FunctionResource& resource) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  absl::Status CheckParts(uint32_t index,
                          absl::Span<const FunctionResource> resources) const;
  std::vector<Turn> PlanPeriod() ABSL_LOCKS_EXCLUDED(mu_);

  const PhysicalFunctionOptions options_;
  mutable absl::Mutex mu_;
  std::map<uint32_t, std::shared_ptr<Function>> functions_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_PHYSICAL_FUNCTION_H_
