// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/documented_interrupt.h"

#include "absl/strings/str_cat.h"
#include "ferrybus/vsp/virtual_function/msix_state.h"

namespace ferrybus::vsp {

absl::Status DocumentedMsixDevice::WriteVirtualizedInterrupt(
    uint32_t index, const MsixEntry& entry) {
  DXGKARG_GPUP_WRITE_VIRTUALIZED_MSIX args = {};
  args.vfIndex = vf_index_;
  args.InterruptTableIndex = static_cast<INT16>(index);
  args.WriteValue = {entry.address, entry.data, entry.vector_control};
  const NTSTATUS status = callback_(adapter_, &args);
  if (NT_SUCCESS(status)) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("WriteVirtualizedInterrupt of function ", vf_index_,
                   " gave status 0x", absl::Hex(status, absl::kZeroPad8)));
}

NTSTATUS WriteVirtualizedInterrupt(
    MsixDevice* device, uint32_t vectors,
    const DXGKARG_GPUP_WRITE_VIRTUALIZED_MSIX* args) {
  // A negative one becomes a large one.
  const auto index = static_cast<uint32_t>(args->InterruptTableIndex);
  if (index >= vectors || args->WriteValue.MessageAddress % 4 != 0) {
    return STATUS_INVALID_PARAMETER;
  }
  const absl::Status status = device->WriteVirtualizedInterrupt(
      index, {args->WriteValue.MessageAddress, args->WriteValue.MessageData,
              args->WriteValue.VectorControl});
  return status.ok() ? STATUS_SUCCESS : STATUS_UNSUCCESSFUL;
}

}  // namespace ferrybus::vsp
