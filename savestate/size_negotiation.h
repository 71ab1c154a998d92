// SPDX-License-Identifier: MIT
//
// Asks a callback for a blob whose size only the callback knows: called once
// without a buffer for the size, then with a zeroed buffer to fill.  One
// negotiator, three dialects of the same idea:
//
//   dialect    the first answer that gives a size     may the size grow?
//   kKmcl      a failure with bytes > 0               yes, 3 times
//              (success means: nothing to save)
//   kGpuP      success with bytes > 0                 yes, 3 times; not when
//              (kTooSmall is understood too)          `immutable`
//   kUserMode  as kGpuP; also "invalid argument"      no
//              with bytes > 0
//
// Whatever a dialect does not allow fails the save: data is never dropped
// silently.  docs/SAVE_STATE.md, "Size negotiation", lists every case.
//
// Trust: the callback's answers are checked, but it runs in this process: it
// is trusted to write only inside the buffer, and to return.
// Cost: two calls and one allocation; up to four of each when the size grows.
//
//   absl::StatusOr<std::string> blob = NegotiateSize(
//       {.dialect = SizingDialect::kKmcl}, "packet 17",
//       [&](absl::Span<std::byte> buffer) {
//         if (buffer.size() < state.size()) {
//           return SizeAnswer::TooSmall(state.size());
//         }
//         std::memcpy(buffer.data(), state.data(), state.size());
//         return SizeAnswer::Ok(state.size());
//       });

#ifndef FERRYBUS_SAVESTATE_SIZE_NEGOTIATION_H_
#define FERRYBUS_SAVESTATE_SIZE_NEGOTIATION_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ferrybus::savestate {

// How often a buffer is grown after the first size: a callback whose size
// still changes then will not settle.
inline constexpr int kResizesMax = 3;

// What the callback says about one call.
struct SizeAnswer {
  enum class Code {
    kOk,        // done; `bytes` were written (or, first call, see the dialect)
    kTooSmall,  // `bytes` are needed
    kFailed,    // `failure` says why; `bytes` > 0 may ask for a buffer (KMCL)
    kPending,   // neither success nor failure: always a violation
  };

  Code code = Code::kOk;
  // Empty: the callback left the size as it found it, which is 0 without a
  // buffer and the size of the buffer with one.
  std::optional<uint64_t> bytes;
  absl::Status failure;  // for kFailed

  static SizeAnswer Ok(uint64_t bytes) { return {Code::kOk, bytes, {}}; }
  static SizeAnswer OkUntouched() { return {Code::kOk, std::nullopt, {}}; }
  static SizeAnswer TooSmall(uint64_t needed_bytes) {
    return {Code::kTooSmall, needed_bytes, {}};
  }
  static SizeAnswer Failed(absl::Status failure, uint64_t needed_bytes = 0) {
    return {Code::kFailed, needed_bytes, std::move(failure)};
  }
};

enum class SizingDialect {
  kKmcl,      // EvtVmbChannelSavePacket
  kGpuP,      // DxgkDdiSaveImmutableMigrationData and ...SaveMutable...
  kUserMode,  // IGPUPMigration::SaveImmutableGpup
};

struct SizingOptions {
  SizingDialect dialect = SizingDialect::kKmcl;
  uint64_t bytes_max = uint64_t{16} << 20;
  // kGpuP: the data must not change while it is saved, so growth is a bug.
  bool immutable = false;
  // kKmcl: read "success with a size" as the document literally does, as
  // nothing to save.  Off, it is a violation: the state would be lost.
  bool literal_success = false;
};

// First called with an empty span whose data() is null, then with zeroed
// buffers.
using SizedCallback = absl::FunctionRef<SizeAnswer(absl::Span<std::byte>)>;

// The blob, cut to what the callback says it wrote.  `what` names it in error
// texts ("packet 17").
//
// The callback's own failure comes back with its code.  Beside it:
// kInvalidArgument when an answer contradicts itself or the dialect,
// kResourceExhausted beyond bytes_max (nothing was allocated),
// kAborted when the size does not settle or immutable data grew.
absl::StatusOr<std::string> NegotiateSize(const SizingOptions& options,
                                          std::string_view what,
                                          SizedCallback callback);

}  // namespace ferrybus::savestate

#endif  // FERRYBUS_SAVESTATE_SIZE_NEGOTIATION_H_
