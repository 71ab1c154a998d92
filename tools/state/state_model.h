// SPDX-License-Identifier: MIT
//
// A saved state as one JSON value, whatever condition the file is in: the
// frame, the connection, each channel, the rows of all sections.
//
// What cannot be decoded (damaged, cut off, newer than this build) is a row
// that says so.  Nothing is restored, and no device is asked.
//
// Thread safety: functions without state.
// Trust: the bytes may be anything.  See describe.h.
// Cost: reads each byte a few times; memory of the largest section, parsed,
// and of the model.

#ifndef FERRYBUS_TOOLS_STATE_STATE_MODEL_H_
#define FERRYBUS_TOOLS_STATE_STATE_MODEL_H_

#include <cstddef>

#include "absl/types/span.h"
#include "ferrybus/tools/state/describe.h"

namespace ferrybus::state_tool {

// {"frame": ..., "seal": ..., "connection": ..., "channels": ...,
//  "sections": ...}
Json DescribeState(absl::Span<const std::byte> bytes,
                   const ModelOptions& options);

// The model as `--json` prints it.
std::string ToJsonText(const Json& model);

}  // namespace ferrybus::state_tool

#endif  // FERRYBUS_TOOLS_STATE_STATE_MODEL_H_
