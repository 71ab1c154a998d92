// SPDX-License-Identifier: MIT
//
// One guest's memory, on each host that has it.
//
// All code that is simulated sees it at the same place; what is there is that
// of the host whose turn it is.  While two hosts have a copy (a target that is
// prepared, a source that has not retired), neither sees what the other
// writes.
//
// Ownership: outlives all that maps it.  Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_GUEST_RAM_H_
#define FERRYBUS_TESTS_SIMULATION_GUEST_RAM_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/channel/guest_memory.h"

namespace ferrybus::simulation {

class GuestRam {
 public:
  explicit GuestRam(uint64_t pages);

  const GuestMemory* memory() const { return memory_.get(); }
  absl::Span<std::byte> live() const { return live_; }

  bool has(int host) const { return has_[host]; }
  // Fills `host`'s copy with one byte: zeros of a boot, or what a target finds.
  void Create(int host, std::byte fill);
  void Drop(int host) { has_[host] = false; }
  // Its turn.  REQUIRES: has(host).
  void Activate(int host);
  // Without a turn.  REQUIRES: has(host), it lies within the memory.
  void Write(int host, uint64_t offset, absl::Span<const std::byte> data);

 private:
  std::unique_ptr<MemfdGuestMemory> memory_;
  absl::Span<std::byte> live_;
  int active_ = -1;
  std::array<bool, 2> has_ = {};
  std::array<std::vector<std::byte>, 2> copies_;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_GUEST_RAM_H_
