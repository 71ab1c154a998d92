// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/scattered_memory.h"

#include <sys/mman.h>

#include <cerrno>

#include "absl/status/status.h"

namespace ferrybus::vsp {

absl::StatusOr<ScatteredMemory> ScatteredMemory::Map(
    int file, absl::Span<const Piece> pieces) {
  uint64_t size = 0;
  for (const Piece& piece : pieces) size += piece.size_bytes;
  void* const whole = mmap(nullptr, size, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (whole == MAP_FAILED)
    return absl::ErrnoToStatus(errno, "scattered memory");
  ScatteredMemory memory({static_cast<std::byte*>(whole), size});
  std::byte* at = memory.memory_.data();
  for (const Piece& piece : pieces) {
    if (mmap(at, piece.size_bytes, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_FIXED, file,
             static_cast<off_t>(piece.offset_bytes)) == MAP_FAILED) {
      return absl::ErrnoToStatus(errno, "scattered memory: a piece");
    }
    at += piece.size_bytes;
  }
  return memory;
}

ScatteredMemory::~ScatteredMemory() {
  if (!memory_.empty()) munmap(memory_.data(), memory_.size());
}

}  // namespace ferrybus::vsp
