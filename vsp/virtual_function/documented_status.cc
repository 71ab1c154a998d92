// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/documented_status.h"

#include "absl/strings/str_cat.h"

namespace ferrybus::vsp {
namespace {

absl::StatusCode ToCode(NTSTATUS status) {
  switch (status) {
    case STATUS_INVALID_PARAMETER:
      return absl::StatusCode::kInvalidArgument;
    case STATUS_OBJECT_TYPE_MISMATCH:
      return absl::StatusCode::kFailedPrecondition;
    case STATUS_INSUFFICIENT_RESOURCES:
      return absl::StatusCode::kResourceExhausted;
    case STATUS_NOT_IMPLEMENTED:
    case STATUS_NOT_SUPPORTED:
      return absl::StatusCode::kUnimplemented;
    case STATUS_CANCELLED:
      return absl::StatusCode::kCancelled;
    case STATUS_DEVICE_REMOVED:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

absl::Status ToStatus(NTSTATUS status, absl::string_view call) {
  if (NT_SUCCESS(status)) return absl::OkStatus();
  return absl::Status(ToCode(status),
                      absl::StrCat(call, " of the driver gave status 0x",
                                   absl::Hex(status, absl::kZeroPad8)));
}

absl::Status ToFinalStatus(NTSTATUS status, absl::string_view call) {
  if (status == STATUS_SUCCESS || !NT_SUCCESS(status)) {
    return ToStatus(status, call);
  }
  return absl::InternalError(absl::StrCat(call, " of the driver gave status 0x",
                                          absl::Hex(status, absl::kZeroPad8),
                                          ", which is no end"));
}

}  // namespace ferrybus::vsp
