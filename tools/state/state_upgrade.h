// SPDX-License-Identifier: MIT
//
// A saved state written anew, with the newest section versions that this build
// knows.
//
// Content is kept to the last byte: sections that this build knows are parsed
// and serialised, optional ones that it does not know are copied.  What a
// state says before and after is compared, so nothing is lost silently.
//
// Thread safety: functions without state.
// Trust: the bytes may be anything; what CheckState has an error for is
// refused.

#ifndef FERRYBUS_TOOLS_STATE_STATE_UPGRADE_H_
#define FERRYBUS_TOOLS_STATE_STATE_UPGRADE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/tools/state/state_check.h"

namespace ferrybus::state_tool {

struct UpgradedState {
  std::string file;
  // What was done to each section, for people.
  std::vector<std::string> notes;
};

// FailedPrecondition: the state has errors, or is sealed.
absl::StatusOr<UpgradedState> UpgradeState(absl::Span<const std::byte> bytes,
                                           const CheckOptions& options);

}  // namespace ferrybus::state_tool

#endif  // FERRYBUS_TOOLS_STATE_STATE_UPGRADE_H_
