// SPDX-License-Identifier: MIT
//
// Which pages a process may have written.

#include "ferrybus/channel/page_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace ferrybus {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

using Runs = std::vector<std::pair<uint64_t, uint64_t>>;

Runs RunsOf(const PageLog& log) {
  Runs runs;
  log.ForEach(
      [&](uint64_t first, uint64_t pages) { runs.emplace_back(first, pages); });
  return runs;
}

TEST(PageLogTest, RunsEndAtWords) {
  const auto log = *PageLog::Create(200);
  EXPECT_THAT(RunsOf(*log), IsEmpty());
  log->Mark(0, 1);
  log->Mark(3, 2);
  log->Mark(62, 68);
  log->Mark(199, 1);
  EXPECT_THAT(RunsOf(*log),
              ElementsAre(Pair(0, 1), Pair(3, 2), Pair(62, 2), Pair(64, 64),
                          Pair(128, 2), Pair(199, 1)));
  log->Clear();
  EXPECT_THAT(RunsOf(*log), IsEmpty());
}

TEST(PageLogTest, AnotherProcessLooksIntoTheFile) {
  const std::string path = testing::TempDir() + "/page_log";
  const auto log = *PageLog::Create(128, path);
  const auto reader = PageLog::Open(128, path);
  ASSERT_TRUE(reader.ok()) << reader.status();
  log->Mark(100, 1);
  EXPECT_THAT(RunsOf(**reader), ElementsAre(Pair(100, 1)));
  EXPECT_TRUE(absl::IsFailedPrecondition(PageLog::Open(64, path).status()));
  // The next process's is empty, and the one before stays as it is.
  const auto next = *PageLog::Create(128, path);
  EXPECT_THAT(RunsOf(*next), IsEmpty());
  EXPECT_THAT(RunsOf(**reader), ElementsAre(Pair(100, 1)));
}

// Whatever a device can write is marked before it can: by address, and as a
// page that is mapped.
TEST(LoggedMemoryTest, MarksWhatItHandsOut) {
  const auto ram = *MemfdGuestMemory::Create(16 * 4096);
  const auto log = *PageLog::Create(16);
  const LoggedMemory memory(ram.get(), log.get());
  EXPECT_EQ(memory.Translate(4095, 2).size(), 2);
  EXPECT_EQ(memory.Translate(5 * 4096, 4096).size(), 4096);
  EXPECT_EQ(memory.FileOffset(9), 9 * 4096);
  EXPECT_TRUE(memory.Translate(16 * 4096, 1).empty());
  EXPECT_TRUE(memory.Translate(~uint64_t{0}, 2).empty());
  EXPECT_THAT(RunsOf(*log), ElementsAre(Pair(0, 2), Pair(5, 1), Pair(9, 1)));
}

}  // namespace
}  // namespace ferrybus
