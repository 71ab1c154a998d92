// SPDX-License-Identifier: MIT
//
// What the ring's fuzz targets share: reading a fuzzer's bytes, and rings that
// are made once.
//
// Ownership: an input borrows the fuzzer's bytes.
// Thread safety: one thread at a time.

#ifndef FERRYBUS_RINGBUFFER_TESTING_FUZZ_INPUT_H_
#define FERRYBUS_RINGBUFFER_TESTING_FUZZ_INPUT_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"

namespace ferrybus::ringbuffer::testing {

using FuzzInput = absl::Span<const uint8_t>;

// Each takes from the front; zeros follow the end.
inline uint8_t TakeByte(FuzzInput* input) {
  if (input->empty()) return 0;
  const uint8_t byte = (*input)[0];
  input->remove_prefix(1);
  return byte;
}

inline uint32_t TakeShort(FuzzInput* input) {
  const uint32_t low = TakeByte(input);
  return low + TakeByte(input) * 256u;
}

// An index in units of 4: half of them are misaligned.
inline uint32_t TakeIndex(FuzzInput* input) { return TakeShort(input) * 4; }

// A block with a length byte before it.
inline FuzzInput TakeBlock(FuzzInput* input) {
  const size_t length = TakeByte(input);
  const FuzzInput block = input->subspan(0, length);
  input->remove_prefix(block.size());
  return block;
}

// A ring of one to four data pages, with what the last user left in it: a map
// call for each input would be most of the work.
inline TestRing* ReusedRing(uint32_t pages) {
  static TestRing* const rings[] = {new TestRing(4096), new TestRing(8192),
                                    new TestRing(12288), new TestRing(16384)};
  return rings[pages - 1];
}

}  // namespace ferrybus::ringbuffer::testing

#endif  // FERRYBUS_RINGBUFFER_TESTING_FUZZ_INPUT_H_
