// SPDX-License-Identifier: MIT
//
// Two saved states compared by what they say: sections by name and instance,
// offers, GPADLs and packets by their numbers, not by their positions or
// spelling.
//
// "Same" is exact: two states are the same only if every section says the same,
// to the last byte of a packet and of a device's state.  The order of sections
// has no meaning; the order of packets has.
//
// Thread safety: functions without state.
// Trust: the bytes may be anything; what Frame::Parse refuses is refused.
// Cost: one pair of sections at a time, in memory a few times their size.

#ifndef FERRYBUS_TOOLS_STATE_STATE_DIFF_H_
#define FERRYBUS_TOOLS_STATE_STATE_DIFF_H_

#include <cstddef>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/tools/state/describe.h"

namespace ferrybus::state_tool {

// More are counted and not kept.
inline constexpr size_t kDifferencesMax = 10000;

// {"same": ..., "differences": {"count", "listed": [{"change": "added" |
// "removed" | "changed", "where": "channel 1/incoming/transaction 7/payload",
// "before": ..., "after": ...}], "rest"}}; at most `list_max` listed.
//
// The error of Frame::Parse, with which of the two it is.
absl::StatusOr<Json> DiffStates(absl::Span<const std::byte> before,
                                absl::Span<const std::byte> after,
                                size_t list_max);

}  // namespace ferrybus::state_tool

#endif  // FERRYBUS_TOOLS_STATE_STATE_DIFF_H_
