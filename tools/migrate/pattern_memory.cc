// SPDX-License-Identifier: MIT

#include "ferrybus/tools/migrate/pattern_memory.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"

namespace ferrybus::migrate_tool {
namespace {

constexpr size_t kWords = kPatternPageBytes / sizeof(uint64_t);
using Page = std::array<uint64_t, kWords>;

// A mixer with good bits everywhere.
uint64_t Mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

// Half of each page is random, so that compression is neither useless nor all.
void Fill(uint64_t write, Page* page) {
  (*page)[0] = write + 1;
  uint64_t value = Mix(write);
  for (size_t i = 1; i < kWords; ++i) {
    value = value * 6364136223846793005u + 1442695040888963407u;
    (*page)[i] = i % 2 == 0 ? value : write;
  }
}

}  // namespace

uint64_t PatternMemory::writes() const {
  return std::atomic_ref(*reinterpret_cast<uint64_t*>(memory_.data()))
      .load(std::memory_order_relaxed);
}

uint64_t PatternMemory::PageOf(uint64_t write) const {
  const uint64_t others = std::max<uint64_t>(pages(), 2) - 1;
  return 1 + (write < others ? write : Mix(write) % others);
}

void PatternMemory::StoreWord(uint64_t offset_bytes, uint64_t word) {
  std::atomic_ref(*reinterpret_cast<uint64_t*>(&memory_[offset_bytes]))
      .store(word, std::memory_order_relaxed);
}

PatternMemory::Written PatternMemory::WriteNext() {
  const uint64_t write = writes();
  const uint64_t offset = PageOf(write) * kPatternPageBytes;
  Page page;
  Fill(write, &page);
  for (size_t i = 0; i < kWords; ++i) {
    StoreWord(offset + i * sizeof(uint64_t), page[i]);
  }
  StoreWord(0, write + 1);
  return {offset};
}

absl::Status PatternMemory::Check(bool may_be_torn) const {
  const uint64_t count = writes();
  std::vector<uint64_t> last(pages());  // write + 1
  for (uint64_t write = 0; write < count; ++write) {
    last[PageOf(write)] = write + 1;
  }
  const uint64_t torn = may_be_torn ? PageOf(count) : 0;
  Page expected;
  for (uint64_t page = 1; page < pages(); ++page) {
    if (page == torn) continue;
    expected = {};
    if (last[page] != 0) Fill(last[page] - 1, &expected);
    const std::byte* found = &memory_[page * kPatternPageBytes];
    if (std::memcmp(found, expected.data(), kPatternPageBytes) == 0) continue;
    uint64_t has = 0;
    std::memcpy(&has, found, sizeof(has));
    return absl::DataLossError(
        absl::StrCat("page ", page, " of ", pages(), ": expected write ",
                     last[page], ", it has ", has, "; ", count, " writes"));
  }
  return absl::OkStatus();
}

}  // namespace ferrybus::migrate_tool
