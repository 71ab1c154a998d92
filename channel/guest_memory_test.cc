// SPDX-License-Identifier: MIT

#include "ferrybus/channel/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

UniqueFd Ram(off_t bytes, unsigned seals) {
  UniqueFd fd(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(ftruncate(fd.get(), bytes), 0);
  EXPECT_EQ(fcntl(fd.get(), F_ADD_SEALS, seals), 0);
  return fd;
}

// bad:R31
TEST(GuestMemoryTest, AFileThatMayShrinkIsRefused) {
  EXPECT_EQ(MemfdGuestMemory::Map(Ram(8192, F_SEAL_GROW)).status().code(),
            absl::StatusCode::kFailedPrecondition);
  UniqueFd pipe_end;
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  const UniqueFd other(fds[1]);
  EXPECT_FALSE(MemfdGuestMemory::Map(UniqueFd(fds[0])).ok());
  EXPECT_FALSE(MemfdGuestMemory::Map(UniqueFd()).ok());
  EXPECT_TRUE(MemfdGuestMemory::Map(Ram(8192, F_SEAL_SHRINK)).ok());
}

// bad:R31
TEST(GuestMemoryTest, AHoleReadsAsZero) {
  const auto memory = *MemfdGuestMemory::Create(8192);
  const absl::Span<std::byte> page = memory->Translate(4096, 4096);
  page[5] = std::byte{1};
  ASSERT_EQ(fallocate(memory->file(),
                      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192),
            0);
  EXPECT_EQ(page[5], std::byte{0});
  EXPECT_NE(ftruncate(memory->file(), 4096), 0);
}

// What the guest takes away reads as zeros, in the middle of a copy too; what
// is no RAM at all is not translated, and fails its packet there.
// bad:G9
TEST(GuestMemoryTest, PagesThatVanishDuringACopyReadAsZeros) {
  constexpr size_t kBytes = 64 * 4096;
  const auto memory = *MemfdGuestMemory::Create(kBytes);
  const absl::Span<std::byte> ram = memory->Translate(0, kBytes);
  std::atomic<bool> done = false;
  std::thread guest([&] {
    for (int round = 0; round < 200; ++round) {
      for (size_t i = 0; i < kBytes; i += 8) {
        __atomic_store_n(reinterpret_cast<uint64_t*>(ram.data() + i),
                         uint64_t{0x5a5a5a5a5a5a5a5a}, __ATOMIC_RELAXED);
      }
      EXPECT_EQ(
          fallocate(memory->file(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    0, static_cast<off_t>(kBytes)),
          0);
    }
    done = true;
  });
  std::vector<std::byte> copy(kBytes);
  while (!done) {
    // As the rings' access policies do it: by words that may change.
    for (size_t i = 0; i < kBytes; i += 8) {
      const uint64_t word = __atomic_load_n(
          reinterpret_cast<const uint64_t*>(ram.data() + i), __ATOMIC_RELAXED);
      std::memcpy(copy.data() + i, &word, sizeof(word));
    }
  }
  guest.join();
  for (const std::byte each : copy) {
    ASSERT_TRUE(each == std::byte{0} || each == std::byte{0x5a});
  }
}

// bad:S25
TEST(GuestMemoryTest, SizesThatAreNotPagesAreRefused) {
  for (const off_t bytes :
       {off_t{0}, off_t{1}, off_t{4095}, off_t{4097}, off_t{1} << 62}) {
    EXPECT_FALSE(MemfdGuestMemory::Map(Ram(bytes, F_SEAL_SHRINK)).ok())
        << bytes;
  }
}

// bad:R17
TEST(GuestMemoryTest, OnlyBytesOfRamAreTranslated) {
  const auto memory = *MemfdGuestMemory::Create(5000);
  EXPECT_EQ(memory->page_count(), 2u);
  EXPECT_EQ(memory->Translate(0, 8192).size(), 8192u);
  EXPECT_EQ(memory->Translate(8191, 1).size(), 1u);
  EXPECT_EQ(memory->Translate(8191, 1).data(),
            memory->Translate(0, 1).data() + 8191);
  struct {
    uint64_t gpa;
    uint64_t length;
  } const outside[] = {{0, 0},
                       {0, 8193},
                       {8191, 2},
                       {8192, 1},
                       {~0ull, 1},
                       {~0ull, 2},
                       {1, ~0ull},
                       {4096, ~0ull},
                       {~0ull - 4095, 8192},
                       {0, ~0ull},
                       {1ull << 63, 1ull << 63}};
  for (const auto& each : outside) {
    EXPECT_TRUE(memory->Translate(each.gpa, each.length).empty())
        << each.gpa << " " << each.length;
  }
}

TEST(GuestMemoryTest, TheFileIsTheMemory) {
  const auto memory = *MemfdGuestMemory::Create(8192);
  memory->Translate(4096, 1)[0] = std::byte{7};
  std::byte read{};
  ASSERT_EQ(pread(memory->file(), &read, 1,
                  static_cast<off_t>(memory->FileOffset(1))),
            1);
  EXPECT_EQ(read, std::byte{7});
}

}  // namespace
}  // namespace ferrybus
