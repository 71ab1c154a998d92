// SPDX-License-Identifier: MIT

#include "ferrybus/vsc/guest_pages.h"

#include <cstring>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ferrybus::vsc {

std::vector<uint64_t> PageRun::page_numbers() const {
  std::vector<uint64_t> numbers(page_count);
  for (uint64_t i = 0; i < page_count; ++i) numbers[i] = first_page + i;
  return numbers;
}

GuestPages::GuestPages(const GuestMemory* memory) : memory_(memory) {
  if (memory->page_count() > 1) free_[1] = memory->page_count() - 1;
}

absl::StatusOr<PageRun> GuestPages::Allocate(uint64_t page_count) {
  for (auto it = free_.begin(); it != free_.end() && page_count != 0; ++it) {
    if (it->second < page_count) continue;
    const PageRun run = {it->first, page_count};
    const uint64_t left = it->second - page_count;
    free_.erase(it);
    if (left != 0) free_[run.first_page + page_count] = left;
    const absl::Span<std::byte> memory = bytes(run);
    std::memset(memory.data(), 0, memory.size());
    return run;
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("guest RAM has no ", page_count,
                   " free pages in a row; give the client more RAM"));
}

void GuestPages::Free(const PageRun& run) {
  if (run.page_count == 0) return;
  auto [it, added] = free_.emplace(run.first_page, run.page_count);
  const auto next = std::next(it);
  if (next != free_.end() && it->first + it->second == next->first) {
    it->second += next->second;
    free_.erase(next);
  }
  if (it == free_.begin()) return;
  const auto before = std::prev(it);
  if (before->first + before->second == it->first) {
    before->second += it->second;
    free_.erase(it);
  }
}

}  // namespace ferrybus::vsc
