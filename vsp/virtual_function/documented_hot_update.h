// SPDX-License-Identifier: MIT
//
// A driver that was written to the documents, as a HotUpdateDriver.
//
// What HotUpdate asks for becomes the documented calls; in the documents'
// order, but for failures: they go on without the state, HotUpdate goes back to
// the old driver.
//
//   Save           DxgkDdiSaveMemoryForHotUpdate; then the device is stopped
//   CancelUpdate   DxgkDdiSaveMemoryForHotUpdate with CancelHotUpdate; then the
//                  device is started, if it was stopped
//   Restore        DxgkDdiRestoreMemoryForHotUpdate
//   Start          the device is started
//   RestoreComplete, and the end of a driver that got blocks for nothing:
//                  DxgkDdiRestoreMemoryForHotUpdate with RestoreComplete
//
// Ownership: a driver that was stopped or never started must not be called
// after this object, whose adapter() it uses.
// Thread safety: one thread at a time.
// Trust: what the driver passes is checked; its pointers must be good.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_HOT_UPDATE_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_HOT_UPDATE_H_

#include <cstdint>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ferrybus/vsp/virtual_function/driver_hot_update.h"
#include "ferrybus/vsp/virtual_function/hot_update.h"
#include "ferrybus/vsp/virtual_function/hot_update_blocks.h"

namespace ferrybus::vsp {

struct DocumentedHotUpdateFunctions {
  PVOID context = nullptr;
  // The capability HotDriverUpdate.
  bool hot_driver_update = true;
  DXGKDDI_SAVEMEMORYFORHOTUPDATE* save = nullptr;
  DXGKDDI_RESTOREMEMORYFORHOTUPDATE* restore = nullptr;
  // The device, before or after the update.  Stopping cannot fail, nor can
  // starting again what was stopped.
  std::function<NTSTATUS()> start;
  std::function<void()> stop;
};

class DocumentedHotUpdateDriver final : public HotUpdateDriver {
 public:
  explicit DocumentedHotUpdateDriver(DocumentedHotUpdateFunctions functions)
      : functions_(std::move(functions)) {}
  ~DocumentedHotUpdateDriver() override;

  // For DxgkCbSaveMemoryForHotUpdate.
  PVOID adapter() { return this; }

  bool CanHotUpdate() const override { return functions_.hot_driver_update; }
  absl::Status Save(HotUpdateBlocks& blocks) override;
  void CancelUpdate() override;
  absl::Status Restore(HotUpdateBlock block) override;
  absl::Status Start() override;
  void RestoreComplete() override;

  // What DxgkCbSaveMemoryForHotUpdate does.  STATUS_INVALID_DEVICE_STATE: not
  // within a call to save; STATUS_INSUFFICIENT_RESOURCES: above a limit.
  NTSTATUS SaveBlock(const DXGKARGCB_SAVEMEMORYFORHOTUPDATE* args);

 private:
  DocumentedHotUpdateFunctions functions_;
  HotUpdateBlocks* blocks_ = nullptr;  // within Save()
  bool is_stopped_ = false;
  bool is_restoring_ = false;  // until it was told that this is complete
};

inline constexpr uint64_t kKsrPageMax = (uint64_t{1} << 40) - 1;
inline constexpr uint64_t kKsrPagesMax = (1 << 24) - 1;

// OutOfRange: a page beyond 40 bits, or pages beyond 24.
absl::StatusOr<DXGK_KSR_MEMORY_RANGE> ToKsrRange(const HotUpdateRange& range);
HotUpdateRange FromKsrRange(DXGK_KSR_MEMORY_RANGE range);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_HOT_UPDATE_H_
