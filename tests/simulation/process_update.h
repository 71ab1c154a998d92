// SPDX-License-Identifier: MIT
//
// A hot update of the devices' process, step by step, with everything else
// going on between the steps: it stops and saves, the accelerator's memory in
// place; its successor takes block after block, then starts; or does not, and
// the process runs on.
//
// Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_PROCESS_UPDATE_H_
#define FERRYBUS_TESTS_SIMULATION_PROCESS_UPDATE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "ferrybus/tests/simulation/simulated_host.h"
#include "ferrybus/vsp/virtual_function/hot_update.h"

namespace ferrybus::simulation {

// How one update goes wrong.
enum class UpdateEnd : uint8_t {
  kDone,
  kSaveFails,       // after it stopped
  kBlockRefused,    // by the successor
  kStartRefused,    // before it did anything
  kDeviceRefuses,   // a device of the successor, if it is asked
  kStartFailsLate,  // all is restored, nothing runs
  kCancelled,       // between two steps
};

// A host's process, as what is updated.
class ProcessDriver final : public vsp::HotUpdateDriver {
 public:
  ProcessDriver(Context* context, SimulatedHost* host, UpdateEnd end)
      : context_(context), host_(host), end_(end) {}
  ~ProcessDriver() override;

  // What Save() saves beside the memory; until CancelUpdate().
  const std::string& Stop();
  static vsp::HotUpdateRange SegmentPages(size_t segment);
  absl::Span<std::byte> SegmentMemory(size_t segment) const;

  absl::Status Save(vsp::HotUpdateBlocks& blocks) override;
  void CancelUpdate() override;
  absl::Status Restore(vsp::HotUpdateBlock block) override;
  absl::Status Start() override;
  void RestoreComplete() override { saved_.clear(); }

 private:
  absl::Status CheckMemory(const vsp::HotUpdateBlock& block, size_t segment);

  Context* const context_;
  SimulatedHost* const host_;
  const UpdateEnd end_;
  bool is_saved_ = false;
  size_t restored_ = 0;
  std::string saved_;
};

class ProcessUpdate {
 public:
  ProcessUpdate(Context* context, const FaultPlan* plan)
      : context_(context), plan_(plan) {}

  bool is_under_way() const { return host_ != nullptr; }
  // REQUIRES: the host serves, and neither leaves nor is left.
  void Begin(SimulatedHost* host);
  void Step();
  // The host ends.
  void Forget();

 private:
  std::unique_ptr<vsp::HotUpdateDriver> MakeDriver();
  void StepUpdate();
  void CheckEnd();

  Context* const context_;
  const FaultPlan* const plan_;
  SimulatedHost* host_ = nullptr;
  UpdateEnd end_ = UpdateEnd::kDone;
  std::unique_ptr<vsp::HotUpdateDriver> driver_;
  const vsp::HotUpdateDriver* old_ = nullptr;
  std::optional<vsp::HotUpdate> update_;
  size_t next_block_ = 0;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_PROCESS_UPDATE_H_
