// SPDX-License-Identifier: MIT

#include "ferrybus/ringbuffer/ring_mapping.h"

#include <errno.h>
#include <sys/mman.h>

#include "ferrybus/ringbuffer/ring_index.h"

namespace ferrybus::ringbuffer {
namespace {

// Maps `page_offsets` one after the other at `at`; contiguous runs in one
// call.  Returns 0 or errno.
int MapPages(int fd, absl::Span<const uint64_t> page_offsets, std::byte* at) {
  size_t i = 0;
  while (i < page_offsets.size()) {
    size_t run = 1;
    while (i + run < page_offsets.size() &&
           page_offsets[i + run] == page_offsets[i] + run * kPageBytes) {
      ++run;
    }
    void* const mapped =
        mmap(at + i * kPageBytes, run * kPageBytes, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_FIXED, fd, static_cast<off_t>(page_offsets[i]));
    if (mapped == MAP_FAILED) return errno;
    i += run;
  }
  return 0;
}

}  // namespace

int RingMapping::Map(int fd, absl::Span<const uint64_t> page_offsets,
                     RingMapping* mapping) {
  if (page_offsets.size() < 2) return EINVAL;
  const absl::Span<const uint64_t> data_pages = page_offsets.subspan(1);
  const uint64_t data_bytes = uint64_t{data_pages.size()} * kPageBytes;
  if (!IsValidDataSize(data_bytes)) return EINVAL;

  RingMapping made;
  made.bytes_ = kPageBytes + 2 * data_bytes;
  void* const base = mmap(nullptr, made.bytes_, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return errno;
  made.base_ = base;
  std::byte* const at = static_cast<std::byte*>(base);
  int error = MapPages(fd, page_offsets, at);
  if (error == 0) {
    error = MapPages(fd, data_pages, at + kPageBytes + data_bytes);
  }
  if (error != 0) return error;
  made.view_ = {at, at + kPageBytes, static_cast<uint32_t>(data_bytes)};
  *mapping = std::move(made);
  return 0;
}

RingMapping& RingMapping::operator=(RingMapping&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(bytes_, other.bytes_);
  std::swap(view_, other.view_);
  return *this;
}

RingMapping::~RingMapping() {
  if (base_ != nullptr) munmap(base_, bytes_);
}

}  // namespace ferrybus::ringbuffer
