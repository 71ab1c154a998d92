// SPDX-License-Identifier: MIT

#include "ferrybus/ringbuffer/paged_ring.h"

#include <errno.h>
#include <sys/mman.h>

#include "ferrybus/ringbuffer/ring_index.h"

namespace ferrybus::ringbuffer {

int PagedRing::Create(absl::Span<std::byte* const> pages, PagedRing* ring) {
  if (pages.size() < 2) return EINVAL;
  const uint64_t data_bytes = uint64_t{pages.size() - 1} * kPageBytes;
  if (!IsValidDataSize(data_bytes)) return EINVAL;
  for (const std::byte* page : pages) {
    if (page == nullptr) return EINVAL;
    if (reinterpret_cast<uintptr_t>(page) % kPageBytes != 0) return EINVAL;
  }
  PagedRing made;
  made.data_pages_.assign(pages.begin() + 1, pages.end());
  void* const reserved =
      mmap(nullptr, 2 * data_bytes, PROT_NONE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return errno;
  made.view_ = {pages[0], static_cast<std::byte*>(reserved),
                static_cast<uint32_t>(data_bytes)};
  *ring = std::move(made);
  return 0;
}

PagedRing& PagedRing::operator=(PagedRing&& other) noexcept {
  std::swap(data_pages_, other.data_pages_);
  std::swap(view_, other.view_);
  return *this;
}

PagedRing::~PagedRing() {
  if (view_.data != nullptr) munmap(view_.data, 2 * size_t{view_.data_bytes});
}

}  // namespace ferrybus::ringbuffer
