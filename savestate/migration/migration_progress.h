// SPDX-License-Identifier: MIT
//
// How far a migration has come, as its source sees it: what
// MigrationSource::progress() gives, for people and for JSON.
//
// Thread safety: plain values.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_PROGRESS_H_
#define FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_PROGRESS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace ferrybus::migration {

enum class SourcePhase : uint8_t {
  kNew,
  kConnecting,  // hello
  kValidating,  // immutable data
  kCopying,     // memory, while the machine runs
  kPausing,
  kBlackout,   // the last memory
  kPreparing,  // mutable data, until the target is ready
  kUnsettled,  // the record of the decision could not be stored: neither runs
  kCommitted,  // decided: the target's; it has not said yet that it runs
  kDone,
  kFailed,  // the source goes on
};

absl::string_view SourcePhaseName(SourcePhase phase);

// What the machine's clients wait for, part by part.
struct PauseTimes {
  absl::Duration stop;    // until the devices stood still
  absl::Duration memory;  // the last pages
  absl::Duration state;   // mutable data: save, send, restore, store
  absl::Duration decide;  // confirm and store the decision
  absl::Duration start;   // until the target said that it runs
  absl::Duration total() const {
    return stop + memory + state + decide + start;
  }
};

struct MigrationProgress {
  SourcePhase phase = SourcePhase::kNew;
  uint32_t pass = 0;           // from 1
  uint64_t memory_bytes = 0;   // of all devices
  uint64_t pending_bytes = 0;  // still to be sent in this pass
  uint64_t pages_sent = 0;
  uint64_t plain_bytes_sent = 0;
  uint64_t wire_bytes_sent = 0;           // of the blocks: compressed
  double bandwidth_bytes_per_second = 0;  // of plain bytes, in the last pass
  double dirty_bytes_per_second = 0;
  absl::Duration expected_pause;  // if it paused now
  bool is_converging = true;
  absl::Duration elapsed;
  PauseTimes pause;
  // kFailed: why.  kDone: OK if the target said that it runs.
  absl::Status status;
};

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_MIGRATION_PROGRESS_H_
