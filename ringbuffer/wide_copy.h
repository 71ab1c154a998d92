// SPDX-License-Identifier: MIT
//
// A memory copy for packets: inlined, 16 bytes at a time, made for lengths of
// some tens to some thousand bytes whose lines may be dirty in another core.
//
// Thread safety: as memcpy.
// Trust: touches no byte outside the two ranges, but may read and write bytes
// inside them twice: for copies into shared memory, never out of it.
// Cost: no call, no branch on alignment.

#ifndef FERRYBUS_RINGBUFFER_WIDE_COPY_H_
#define FERRYBUS_RINGBUFFER_WIDE_COPY_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ferrybus::ringbuffer {

namespace internal {

using Vector16 = uint64_t __attribute__((vector_size(16)));

template <typename T>
inline __attribute__((always_inline)) void Move(std::byte* to,
                                                const std::byte* from) {
  T value;
  __builtin_memcpy(&value, from, sizeof(value));
  __builtin_memcpy(to, &value, sizeof(value));
}

}  // namespace internal

// Copies `bytes` from `from` to `to`, which do not overlap.
inline __attribute__((always_inline)) void WideCopy(std::byte* to,
                                                    const std::byte* from,
                                                    size_t bytes) {
  using internal::Move;
  using internal::Vector16;
  if (bytes >= 16) {
    // The last sixteen bytes may overlap what the loop wrote.
    const size_t last = bytes - 16;
    size_t at = 0;
    if (bytes >= 2048) {
      // Whole lines from here on: a store across two of them costs double.
      for (; at < 64; at += 16) Move<Vector16>(to + at, from + at);
      at -= reinterpret_cast<uintptr_t>(to) % 64;
    }
    for (; at + 64 <= bytes; at += 64) {
      Move<Vector16>(to + at, from + at);
      Move<Vector16>(to + at + 16, from + at + 16);
      Move<Vector16>(to + at + 32, from + at + 32);
      Move<Vector16>(to + at + 48, from + at + 48);
    }
    for (; at < last; at += 16) Move<Vector16>(to + at, from + at);
    if (at < bytes) Move<Vector16>(to + last, from + last);
    return;
  }
  if (bytes >= 8) {
    Move<uint64_t>(to, from);
    Move<uint64_t>(to + bytes - 8, from + bytes - 8);
    return;
  }
  for (size_t at = 0; at < bytes; ++at) to[at] = from[at];
}

}  // namespace ferrybus::ringbuffer

#endif  // FERRYBUS_RINGBUFFER_WIDE_COPY_H_
