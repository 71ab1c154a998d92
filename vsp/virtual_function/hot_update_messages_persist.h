// SPDX-License-Identifier: MIT
//
// The messages of a hot update across processes (hot_update_handover.h), to and
// from bytes.
//
// Trust: bytes may be anything: bounded, and refused with a reason.
// Thread safety: pure functions.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_HOT_UPDATE_MESSAGES_PERSIST_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_HOT_UPDATE_MESSAGES_PERSIST_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace ferrybus::vsp {

// A copied block, and what comes with it.
inline constexpr uint64_t kHotUpdateMessageBytesMax = uint64_t{272} << 20;

enum class HotUpdateStep : uint8_t {
  kBegin = 1,
  kRestore = 2,
  kStart = 3,
  kComplete = 4,
};

struct HotUpdateRequest {
  HotUpdateStep step = HotUpdateStep::kBegin;
  uint64_t memory_bytes = 0;  // kBegin
  // kRestore: offset and size in the memory; or none, and a copy.
  std::vector<std::pair<uint64_t, uint64_t>> segments = {};
  std::string copy = {};
  std::vector<std::byte> metadata = {};
};

std::string SerializeRequest(const HotUpdateRequest& request);
// InvalidArgument, ResourceExhausted; `request` is not touched.
absl::Status ParseRequest(absl::Span<const std::byte> bytes,
                          HotUpdateRequest* request);

// An answer is a status.
std::string SerializeAnswer(const absl::Status& answer);
absl::Status ParseAnswer(absl::Span<const std::byte> bytes,
                         absl::Status* answer);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_HOT_UPDATE_MESSAGES_PERSIST_H_
