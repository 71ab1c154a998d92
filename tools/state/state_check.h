// SPDX-License-Identifier: MIT
//
// What is wrong with a saved state, as far as the file alone can tell, and
// what a build and a target must have to restore it.
//
// Form: the frame, the versions of its sections, their bodies.  Meaning: the
// checks that a restore makes of a connection and of each channel, against
// limits so wide that only a contradiction fails; that connection and channels
// belong together; device states in a format of this library's.
//
// Thread safety: functions without state.
// Trust: the bytes may be anything.  Nothing is restored.
// Cost: parses each section once, a channel with something wrong in it once
// more for each of its packets.

#ifndef FERRYBUS_TOOLS_STATE_STATE_CHECK_H_
#define FERRYBUS_TOOLS_STATE_STATE_CHECK_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/tools/state/describe.h"

namespace ferrybus::state_tool {

// More are counted and not kept.
inline constexpr size_t kFindingsMax = 1000;

struct Finding {
  // Errors keep a file from being restored; notes are good to know.
  bool is_error = true;
  std::string section;  // empty: the file as a whole
  uint64_t instance = 0;
  uint64_t offset = 0;  // of the section's body in the file
  std::string problem;  // what, found, allowed
  std::string action;
};

class Findings {
 public:
  void Add(Finding finding);

  const std::vector<Finding>& list() const { return list_; }
  size_t error_count() const { return error_count_; }
  size_t rest() const { return rest_; }
  bool ok() const { return error_count_ == 0; }

 private:
  std::vector<Finding> list_;
  size_t error_count_ = 0;
  size_t rest_ = 0;
};

struct CheckOptions {
  // Device states are in formats of the embedder's, whatever the offer says.
  bool has_opaque_devices = false;
};

Findings CheckState(absl::Span<const std::byte> bytes,
                    const CheckOptions& options);

// {"valid": ..., "errors": ..., "findings": {...}}; at most `list_max` listed.
Json ToJson(const Findings& findings, size_t list_max);

// What of a file must be known, and what a target must have.
Json DescribeNeeds(absl::Span<const std::byte> bytes);

}  // namespace ferrybus::state_tool

#endif  // FERRYBUS_TOOLS_STATE_STATE_CHECK_H_
