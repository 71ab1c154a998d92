// SPDX-License-Identifier: MIT
//
// What the threads of DirtyBitmap do to each other's words, apart from the
// rest, so that tests/interleaving can run it in every order.
//
// What it is: `tracked` has a bit for each plane that is marked; a plane has a
// bit for each page.
//
// `Word`: std::atomic<uint64_t>, or a model of it.
//
// Thread safety: TrackPlane() one at a time for a plane, with no query of that
// plane; all else from any thread.

#ifndef FERRYBUS_SAVESTATE_MIGRATION_DIRTY_WORDS_H_
#define FERRYBUS_SAVESTATE_MIGRATION_DIRTY_WORDS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ferrybus::migration {

// The planes to mark, after a write to the memory.
template <class Word>
uint64_t PlanesToMark(Word& tracked) {
  // A read-modify-write, though it changes nothing: it is before that of
  // TrackPlane(), which then sees what was written before this (acq_rel in
  // both), or after it, and marks.  A load could be before it in both senses:
  // it would pass by a write that is still in the store buffer.  Acquire, too,
  // for the planes' memory.
  return tracked.fetch_add(0, std::memory_order_acq_rel);
}

template <class Word>
void MarkBits(Word& word, uint64_t mask) {
  // Release: whoever takes the bit sees the memory.  Also when the bit is set
  // already: it may be taken just now.
  word.fetch_or(mask, std::memory_order_release);
}

// The bits in `mask`.
template <class Word>
uint64_t TakeBits(Word& word, uint64_t mask, bool clear) {
  // Acquire, here and below: with the release in MarkBits().
  const uint64_t bits = word.load(std::memory_order_acquire) & mask;
  if (!clear || bits == 0) return bits;
  if (~mask == 0) return word.exchange(0, std::memory_order_acquire);
  return word.fetch_and(~mask, std::memory_order_acquire) & mask;
}

// From here on the plane is marked.
template <class Word>
void TrackPlane(Word& tracked, int plane, Word* words, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    words[i].store(0, std::memory_order_relaxed);
  }
  // Release: the zeros are before the first mark.  Acquire: see PlanesToMark().
  tracked.fetch_or(uint64_t{1} << plane, std::memory_order_acq_rel);
}

}  // namespace ferrybus::migration

#endif  // FERRYBUS_SAVESTATE_MIGRATION_DIRTY_WORDS_H_
