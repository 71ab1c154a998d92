// SPDX-License-Identifier: MIT

#include "ferrybus/channel/counters_page.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

constexpr size_t kBytes = 64 + 2048 * 128;

// All counters the same: a mixture of two writes is seen.
ChannelCounters All(uint64_t value) {
  return {value, value, value, value, value, value,
          value, value, value, value, value, value};
}

TEST(CountersPageTest, WhatIsWrittenIsRead) {
  const auto page = *CountersPage::Create();
  const auto reader = *CountersReader::Map(page->fd());
  const ChannelCounters counters = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  EXPECT_EQ(reader->Read(5).status().code(), absl::StatusCode::kNotFound);
  page->Write(5, counters);
  page->Write(2047, All(9));
  ASSERT_TRUE(reader->Read(5).ok());
  EXPECT_EQ(*reader->Read(5), counters);
  EXPECT_EQ(*reader->Read(2047), All(9));
  page->Clear(5);
  EXPECT_EQ(reader->Read(5).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(reader->Read(4).status().code(), absl::StatusCode::kNotFound);
}

TEST(CountersPageTest, NumbersOfNoChannelAreIgnored) {
  const auto page = *CountersPage::Create();
  const auto reader = *CountersReader::Map(page->fd());
  for (uint32_t id : {0u, 2048u, ~0u}) {
    page->Write(id, All(1));
    page->Clear(id);
    EXPECT_EQ(reader->Read(id).status().code(), absl::StatusCode::kNotFound);
  }
}

// A reader written in another language goes by this.
TEST(CountersPageTest, TheLayoutIsFixed) {
  const auto page = *CountersPage::Create();
  page->Write(3, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  std::array<unsigned char, 24> header;
  ASSERT_EQ(pread(page->fd(), header.data(), header.size(), 0), 24);
  const std::array<unsigned char, 24> expected = {
      'f', 'r', 'r', 'y', 'c', 't', 's', '1', 1, 0, 0, 0,
      64,  0,   0,   0,   128, 0,   0,   0,   0, 8, 0, 0};
  EXPECT_EQ(header, expected);
  std::array<uint64_t, 16> slot;
  ASSERT_EQ(pread(page->fd(), slot.data(), sizeof(slot), 64 + 3 * 128), 128);
  EXPECT_EQ(slot, (std::array<uint64_t, 16>{2, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
                                            11, 12, 0, 0}));
}

TEST(CountersPageTest, WhoHasTheDescriptorCanOnlyRead) {
  const auto page = *CountersPage::Create();
  // As another process would get it, and as it could open it again.
  const std::string path = absl::StrCat("/proc/self/fd/", page->fd());
  for (const int fd : {dup(page->fd()), open(path.c_str(), O_RDWR)}) {
    ASSERT_GE(fd, 0);
    EXPECT_EQ(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0),
              MAP_FAILED);
    EXPECT_EQ(pwrite(fd, "x", 1, 0), -1);
    EXPECT_EQ(ftruncate(fd, 0), -1);
    EXPECT_EQ(ftruncate(fd, 2 * kBytes), -1);
    void* const read_only = mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, fd, 0);
    ASSERT_NE(read_only, MAP_FAILED);
    EXPECT_NE(mprotect(read_only, kBytes, PROT_READ | PROT_WRITE), 0);
    munmap(read_only, kBytes);
    close(fd);
  }
}

TEST(CountersReaderTest, OtherFilesAreRefused) {
  const int pipe_like = open("/dev/null", O_RDONLY);
  EXPECT_FALSE(CountersReader::Map(pipe_like).ok());
  EXPECT_FALSE(CountersReader::Map(-1).ok());
  close(pipe_like);
  for (const auto& [bytes, seals] : {std::pair<off_t, int>{kBytes, 0},
                                     {4096, F_SEAL_SHRINK},
                                     {kBytes, F_SEAL_SHRINK}}) {
    const int fd = memfd_create("other", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    ASSERT_EQ(ftruncate(fd, bytes), 0);
    ASSERT_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
    EXPECT_FALSE(CountersReader::Map(fd).ok()) << bytes << " " << seals;
    close(fd);
  }
}

// A page whose writer ended in the middle of a slot.
TEST(CountersReaderTest, AWriterThatEndedWithinASlotHangsNobody) {
  const auto page = *CountersPage::Create();
  page->Write(3, All(1));
  page->Write(4, All(2));
  std::string bytes(kBytes, '\0');
  ASSERT_EQ(pread(page->fd(), bytes.data(), kBytes, 0), ssize_t{kBytes});
  bytes[64 + 3 * 128] = 1;
  const int fd = memfd_create("forged", MFD_ALLOW_SEALING | MFD_CLOEXEC);
  ASSERT_EQ(write(fd, bytes.data(), kBytes), ssize_t{kBytes});
  ASSERT_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
  const auto reader = *CountersReader::Map(fd);
  close(fd);
  EXPECT_EQ(reader->Read(3).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(*reader->Read(4), All(2));
}

bool IsAllOneValue(const ChannelCounters& counters) {
  return counters == All(counters.packets_in);
}

TEST(CountersReaderTest, ASlotIsOfOneMoment) {
  const auto page = *CountersPage::Create();
  page->Write(7, All(0));
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    for (uint64_t i = 1; !stop; ++i) page->Write(7, All(i));
  });
  const auto reader = *CountersReader::Map(page->fd());
  uint64_t last = 0;
  int changes = 0;
  while (changes < 1000) {
    const auto counters = reader->Read(7);
    if (!counters.ok()) continue;  // the writer never rests
    ASSERT_TRUE(IsAllOneValue(*counters)) << counters->packets_in;
    ASSERT_GE(counters->packets_in, last);
    if (counters->packets_in != last) ++changes;
    last = counters->packets_in;
  }
  stop = true;
  writer.join();
}

// The child sees what its parent writes, and nothing torn.
int ReadUntilTheEnd(int fd, uint64_t end) {
  const auto reader = CountersReader::Map(fd);
  if (!reader.ok()) return 1;
  uint64_t last = 0;
  while (last != end) {
    const auto counters = (*reader)->Read(7);
    if (!counters.ok()) continue;
    if (!IsAllOneValue(*counters)) return 2;
    if (counters->packets_in < last) return 3;
    last = counters->packets_in;
  }
  return 0;
}

TEST(CountersReaderTest, AnotherProcessReadsMeanwhile) {
  constexpr uint64_t kEnd = 300'000;
  const auto page = *CountersPage::Create();
  page->Write(7, All(0));
  const pid_t child = fork();
  if (child == 0) {
    alarm(120);  // if the end never comes
    _exit(ReadUntilTheEnd(page->fd(), kEnd));
  }
  ASSERT_GT(child, 0);
  for (uint64_t i = 1; i <= kEnd; ++i) page->Write(7, All(i));
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace ferrybus
