// SPDX-License-Identifier: MIT

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "ferrybus/bench/ring_lanes.h"

namespace ferrybus::bench {

MemfdRing::MemfdRing(uint32_t data_bytes) {
  const int fd = memfd_create("ring", MFD_CLOEXEC);
  std::vector<uint64_t> pages(1 + data_bytes / ringbuffer::kPageBytes);
  for (size_t i = 0; i < pages.size(); ++i) {
    pages[i] = i * ringbuffer::kPageBytes;
  }
  if (fd < 0 ||
      ftruncate(
          fd, static_cast<off_t>(pages.size() * ringbuffer::kPageBytes)) != 0 ||
      ringbuffer::RingMapping::Map(fd, pages, &mapping_) != 0) {
    std::perror("a ring in a memfd");
    std::abort();
  }
  close(fd);
  std::memset(mapping_.view().data, 0, size_t{2} * data_bytes);
}

}  // namespace ferrybus::bench
