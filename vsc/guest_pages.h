// SPDX-License-Identifier: MIT
//
// Hands out pages of guest RAM: for rings and for the buffers of requests.
//
// Ownership: borrows the memory.  Thread safety: none.
// Cost: first fit over a sorted list of free runs.

#ifndef FERRYBUS_VSC_GUEST_PAGES_H_
#define FERRYBUS_VSC_GUEST_PAGES_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/guest_memory.h"

namespace ferrybus::vsc {

// A run of pages, contiguous in guest-physical addresses.
struct PageRun {
  uint64_t first_page = 0;
  uint64_t page_count = 0;

  uint64_t gpa() const { return first_page * 4096; }
  uint64_t bytes() const { return page_count * 4096; }
  std::vector<uint64_t> page_numbers() const;
};

class GuestPages {
 public:
  // Page 0 is never handed out: a zero address stays an error.
  explicit GuestPages(const GuestMemory* memory);

  // ResourceExhausted: no run that long is free.  The pages are zeroed.
  absl::StatusOr<PageRun> Allocate(uint64_t page_count);
  void Free(const PageRun& run);

  absl::Span<std::byte> bytes(const PageRun& run) const {
    return memory_->Translate(run.gpa(), run.bytes());
  }

 private:
  const GuestMemory* const memory_;
  std::map<uint64_t, uint64_t> free_;  // first page -> count
};

}  // namespace ferrybus::vsc

#endif  // FERRYBUS_VSC_GUEST_PAGES_H_
