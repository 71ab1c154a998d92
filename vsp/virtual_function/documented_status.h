// SPDX-License-Identifier: MIT
//
// Status values of documented callbacks as those of this library.
//
// Ownership: none.
// Thread safety: free functions.
// Trust: any value; the text has it in it.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_STATUS_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_STATUS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "ferrybus/vsp/virtual_function/documented_types.h"

namespace ferrybus::vsp {

// OK for each value that is NT_SUCCESS.  STATUS_OBJECT_TYPE_MISMATCH is
// FailedPrecondition; what has no code of its own is Internal.
absl::Status ToStatus(NTSTATUS status, absl::string_view call);

// As above, for calls that are over when they return: Internal also for the
// successes beside STATUS_SUCCESS.
absl::Status ToFinalStatus(NTSTATUS status, absl::string_view call);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_DOCUMENTED_STATUS_H_
