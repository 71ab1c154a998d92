// SPDX-License-Identifier: MIT

#include "ferrybus/tools/migrate/pattern_memory.h"

#include <cstring>
#include <vector>

#include "gtest/gtest.h"

namespace ferrybus::migrate_tool {
namespace {

constexpr uint64_t kPages = 9;

struct Memory {
  std::vector<uint64_t> words =
      std::vector<uint64_t>(kPages * kPatternPageBytes / 8);
  absl::Span<std::byte> bytes() {
    return {reinterpret_cast<std::byte*>(words.data()), words.size() * 8};
  }
};

TEST(PatternMemoryTest, NoticesEveryPageThatIsOld) {
  Memory memory;
  PatternMemory pattern(memory.bytes());
  for (int i = 0; i < 50; ++i) {
    const Memory before = memory;
    const uint64_t offset = pattern.WriteNext().offset_bytes;
    ASSERT_TRUE(pattern.Check().ok()) << i;
    // The page as it was, or one byte of it.
    Memory lost = memory;
    std::memcpy(&lost.bytes()[offset], &before.words[offset / 8],
                kPatternPageBytes);
    EXPECT_FALSE(PatternMemory(lost.bytes()).Check().ok()) << i;
    lost = memory;
    lost.bytes()[offset + 777] ^= std::byte{1};
    EXPECT_FALSE(PatternMemory(lost.bytes()).Check().ok()) << i;
    // The count, as it was.
    lost = memory;
    lost.words[0] = before.words[0];
    EXPECT_FALSE(PatternMemory(lost.bytes()).Check().ok()) << i;
    EXPECT_TRUE(PatternMemory(lost.bytes()).Check(/*may_be_torn=*/true).ok());
  }
}

}  // namespace
}  // namespace ferrybus::migrate_tool
