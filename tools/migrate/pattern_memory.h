// SPDX-License-Identifier: MIT
//
// Memory whose contents can be checked: write number k goes to a page that k
// tells, and fills it with bytes that k tells.  The first page counts the
// writes, so that the memory is all there is to know.
//
// Ownership: borrows the memory.
// Thread safety: one thread; writes are of atomic words, so that others may
// look at them. Trust: Check() takes the memory for anything. Cost: Check() of
// n writes: n hashes, and a look at each page.

#ifndef FERRYBUS_TOOLS_MIGRATE_PATTERN_MEMORY_H_
#define FERRYBUS_TOOLS_MIGRATE_PATTERN_MEMORY_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace ferrybus::migrate_tool {

inline constexpr uint64_t kPatternPageBytes = 4096;

class PatternMemory {
 public:
  // REQUIRES: at least two whole pages.
  explicit PatternMemory(absl::Span<std::byte> memory) : memory_(memory) {}

  // All writes that there were.
  uint64_t writes() const;
  uint64_t pages() const { return memory_.size() / kPatternPageBytes; }

  // The next write: its page, and the first one.  A process that ends in the
  // middle does it again.
  struct Written {
    uint64_t offset_bytes;  // of the page
  };
  Written WriteNext();

  // Each page is as the last write to it left it.  DataLoss: which is not.
  // `may_be_torn`: but for the write after the last.
  absl::Status Check(bool may_be_torn = false) const;

 private:
  void StoreWord(uint64_t offset_bytes, uint64_t word);
  // The first `pages() - 1` writes go through the memory once.
  uint64_t PageOf(uint64_t write) const;

  absl::Span<std::byte> memory_;
};

}  // namespace ferrybus::migrate_tool

#endif  // FERRYBUS_TOOLS_MIGRATE_PATTERN_MEMORY_H_
