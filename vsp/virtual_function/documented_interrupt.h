// SPDX-License-Identifier: MIT
//
// Between MsixDevice and DxgkDdiWriteVirtualizedInterrupt, both ways.
//
// Ownership: whatever is borrowed outlives what borrows it.
// Thread safety: as what is behind it.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_INTERRUPT_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_INTERRUPT_H_

#include <cstdint>

#include "absl/status/status.h"
#include "ferrybus/vsp/virtual_function/migration_interrupts.h"
#include "ferrybus/vsp/virtual_function/msix_table.h"

namespace ferrybus::vsp {

// A device that was written to the documents, behind our table.
class DocumentedMsixDevice final : public MsixDevice {
 public:
  DocumentedMsixDevice(DXGKDDI_WRITEVIRTUALIZEDINTERRUPT* callback,
                       void* adapter, uint32_t vf_index)
      : callback_(callback), adapter_(adapter), vf_index_(vf_index) {}

  absl::Status WriteVirtualizedInterrupt(uint32_t index,
                                         const MsixEntry& entry) override;

 private:
  DXGKDDI_WRITEVIRTUALIZEDINTERRUPT* callback_;
  void* adapter_;
  uint32_t vf_index_;
};

// Our device, behind a caller that was written to the documents: its callback
// ends here.  An index that `device` with `vectors` entries has not, and an
// address with one of its two low bits set, are STATUS_INVALID_PARAMETER, and
// the device is not called; its own failure is STATUS_UNSUCCESSFUL.
NTSTATUS WriteVirtualizedInterrupt(
    MsixDevice* device, uint32_t vectors,
    const DXGKARG_GPUP_WRITE_VIRTUALIZED_MSIX* args);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_INTERRUPT_H_
