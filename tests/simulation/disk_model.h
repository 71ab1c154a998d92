// SPDX-License-Identifier: MIT
//
// What a guest's disk may hold: for each sector the versions that a read may
// find, and those that it may find after the power was lost.
//
// A write that is answered leaves one version; one that failed, or whose end
// is not known, leaves both.  A flush makes durable what was answered before
// it began.  Whatever else a read finds is a lost, doubled or misplaced write.
//
// REQUIRES: no two requests at once on one sector.
// Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_DISK_MODEL_H_
#define FERRYBUS_TESTS_SIMULATION_DISK_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace ferrybus::simulation {

class DiskModel {
 public:
  explicit DiskModel(uint64_t sectors) : sectors_(sectors) {}

  uint64_t sectors() const { return sectors_.size(); }
  // Whether a request may begin there.
  bool IsFree(uint64_t first, uint64_t count) const;

  // `version` 0 is zeros.  `out`: what to write.
  void BeginWrite(uint64_t first, uint64_t count, uint32_t version,
                  absl::Span<std::byte> out);
  enum class End { kOk, kDurable, kUnknown };
  void EndWrite(uint64_t first, uint64_t count, End end);
  uint64_t BeginFlush() { return ++clock_; }
  void EndFlush(uint64_t begun);
  void BeginRead(uint64_t first, uint64_t count);
  // Empty: what was found may be there.
  std::string EndRead(uint64_t first, absl::Span<const std::byte> found);
  // The read failed.
  void AbandonRead(uint64_t first, uint64_t count);

  // The guest starts anew: nobody hears how what was under way ended.
  // `is_cleared`: zeros may have been written in place of what it had there.
  void OnReset(bool is_cleared);
  void OnPowerLoss();

 private:
  struct Sector {
    std::vector<uint32_t> possible = {0};
    std::vector<uint32_t> durable = {0};
    uint32_t writing = 0;
    bool is_busy = false;
    bool is_writing = false;
    // Its end is not known: the host may be at it still.
    bool is_unsettled = false;
    uint64_t changed = 0;
  };

  static void FillSector(uint64_t sector, uint32_t version, std::byte* out);

  std::vector<Sector> sectors_;
  uint64_t clock_ = 0;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_DISK_MODEL_H_
