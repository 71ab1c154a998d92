// SPDX-License-Identifier: MIT
//
// Maps a ring's pages, wherever they lie in a file, so that its data area is
// contiguous and follows itself: byte data_bytes is byte 0 again.
//
// What it is: a reserved stretch of addresses into which the pages of a shared
// file (a memfd that holds guest RAM) are mapped, the data area twice.
//
// Ownership: the mapping owns the addresses, not the file; unmapped when it
// ends.  Views taken from it die with it.
//
// Trust: `page_offsets` must have been checked against the file by the caller;
// the file must not be able to shrink (F_SEAL_SHRINK), or a peer could make an
// access fault.
//
// Cost: one mmap per run of pages that are contiguous in the file, twice for
// the data; nothing afterwards.  4 KiB of addresses per page, no memory.

#ifndef FERRYBUS_RINGBUFFER_RING_MAPPING_H_
#define FERRYBUS_RINGBUFFER_RING_MAPPING_H_

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/types/span.h"
#include "ferrybus/ringbuffer/ring_view.h"

namespace ferrybus::ringbuffer {

class RingMapping {
 public:
  RingMapping() = default;
  RingMapping(RingMapping&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)),
        view_(std::exchange(other.view_, RingView())) {}
  RingMapping& operator=(RingMapping&& other) noexcept;
  ~RingMapping();

  // `page_offsets`: where in the file each page of the ring lies, the control
  // page first; multiples of 4096.  Returns 0, or the errno of the failed
  // call (EINVAL: fewer than two pages, or too many).
  [[nodiscard]] static int Map(int fd, absl::Span<const uint64_t> page_offsets,
                               RingMapping* mapping);

  const RingView& view() const { return view_; }

 private:
  void* base_ = nullptr;
  size_t bytes_ = 0;
  RingView view_;
};

}  // namespace ferrybus::ringbuffer

#endif  // FERRYBUS_RINGBUFFER_RING_MAPPING_H_
