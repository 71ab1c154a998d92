// SPDX-License-Identifier: MIT
//
// Pieces of a device's memory, one after the other: what a virtual function
// sees as a whole, wherever its pieces lie.  The processor's own page tables do
// it, so that nobody who uses it knows.
//
// Ownership: of the mapping; the file is borrowed while it is made.
// Thread safety: none of its own, as memory.
// Trust: pieces and file are the embedder's.
// Cost: a system call for each piece.
//
// Source: DxgkDdiSetVirtualGpuResources2, ScatterMapReserve.

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_SCATTERED_MEMORY_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_SCATTERED_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ferrybus::vsp {

class ScatteredMemory {
 public:
  struct Piece {
    uint64_t offset_bytes = 0;  // in the file
    uint64_t size_bytes = 0;
  };
  // REQUIRES: whole pages of the system's, all inside of the file, together not
  // more than an address space has.
  static absl::StatusOr<ScatteredMemory> Map(int file,
                                             absl::Span<const Piece> pieces);

  ScatteredMemory(ScatteredMemory&& other) noexcept
      : memory_(std::exchange(other.memory_, {})) {}
  ScatteredMemory& operator=(ScatteredMemory&&) = delete;
  ~ScatteredMemory();

  absl::Span<std::byte> memory() const { return memory_; }

 private:
  explicit ScatteredMemory(absl::Span<std::byte> memory) : memory_(memory) {}

  absl::Span<std::byte> memory_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_SCATTERED_MEMORY_H_
