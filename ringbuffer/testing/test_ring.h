// SPDX-License-Identifier: MIT
//
// A real ring to test with: a memfd whose pages are in shuffled order, mapped
// by RingMapping for the code under test and once more, flat, for the test.
//
// What it is: view() is what a producer or consumer gets.  All other functions
// are the peer's or the inspector's: they find each byte through the page list
// and wrap with a plain modulo, so they share no code with the library.
//
// Ownership: owns the file and both mappings; views die with it.
//
// Thread safety: word() and set_word() are atomic; the rest is for one thread
// at a time.
//
//   TestRing ring(4096);
//   RingProducer producer(ring.view());

#ifndef FERRYBUS_RINGBUFFER_TESTING_TEST_RING_H_
#define FERRYBUS_RINGBUFFER_TESTING_TEST_RING_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/ringbuffer/ring_mapping.h"
#include "ferrybus/ringbuffer/ring_view.h"
#include "ferrybus/ringbuffer/wire.h"

namespace ferrybus::ringbuffer::testing {

using Bytes = std::vector<std::byte>;

class TestRing {
 public:
  // `data_bytes`: a positive number of whole pages.  Another `seed` is another
  // order of pages in the file.  Control page and data start as zeros.  Ends
  // the program with a message if the machine has no memory for it.
  explicit TestRing(uint32_t data_bytes, uint64_t page_order_seed = 1);
  TestRing(const TestRing&) = delete;
  TestRing& operator=(const TestRing&) = delete;
  ~TestRing();

  const RingView& view() const { return mapping_.view(); }
  uint32_t data_bytes() const { return mapping_.view().data_bytes; }
  // The same pages at other addresses.
  RingMapping MapAgain() const;
  int fd() const { return fd_; }
  // In the ring's order, the control page first.
  const std::vector<uint64_t>& page_offsets() const { return page_offsets_; }
  // The same pages, scattered over this address space.
  std::vector<std::byte*> pages() const;

  // A control word, by its offset in wire.h.
  uint32_t word(uint32_t offset) const;
  void set_word(uint32_t offset, uint32_t value);
  void SetIndices(uint32_t write_index, uint32_t read_index);

  // Bytes of the data area; `index` wraps.
  std::byte At(uint64_t index) const { return *Locate(index); }
  Bytes Read(uint64_t index, size_t bytes) const;
  void Write(uint64_t index, absl::Span<const std::byte> bytes);
  void FillData(std::byte value);
  void ZeroControlPage();
  Bytes ControlPage() const;

 private:
  std::byte* Locate(uint64_t index) const;
  std::byte* Control() const { return flat_ + page_offsets_[0]; }

  int fd_ = -1;
  std::byte* flat_ = nullptr;
  size_t file_bytes_ = 0;
  std::vector<uint64_t> page_offsets_;
  RingMapping mapping_;
};

// "0600 0200" -> 4 bytes.  Spaces and newlines are skipped.
Bytes FromHex(std::string_view hex);
// Lower case, no spaces.
std::string ToHex(absl::Span<const std::byte> bytes);
// `bytes` bytes that depend on `seed` and their position.
Bytes Pattern(size_t bytes, uint64_t seed);

}  // namespace ferrybus::ringbuffer::testing

#endif  // FERRYBUS_RINGBUFFER_TESTING_TEST_RING_H_
