// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/io_table.h"

#include <cerrno>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

struct alignas(4096) Page {
  std::byte bytes[4096] = {};
};

uint32_t MustStart(IoTable& table, const BlockRequest& request) {
  uint32_t index = ~0u;
  EXPECT_EQ(table.Start(request, &index), EnqueueResult::kAccepted);
  return index;
}

TEST(IoTableTest, GoesOnBehindAShortTransferAcrossBuffers) {
  IoTable table(2, 1, 0);
  std::vector<std::byte> memory(1536);
  const iovec buffers[] = {
      {&memory[0], 512}, {&memory[512], 512}, {&memory[1024], 512}};
  const uint32_t index = MustStart(
      table, {.op = BlockOp::kRead, .offset_bytes = 4096, .buffers = buffers});
  PendingIo& io = table.at(index);

  EXPECT_FALSE(io.Account(700));
  EXPECT_EQ(io.offset_bytes, 4796u);
  ASSERT_EQ(io.iovec_count(), 2u);
  EXPECT_EQ(io.iovecs()[0].iov_base, &memory[700]);
  EXPECT_EQ(io.iovecs()[0].iov_len, 324u);
  EXPECT_FALSE(io.Account(324));
  ASSERT_EQ(io.iovec_count(), 1u);
  EXPECT_TRUE(io.Account(512));
  EXPECT_EQ(table.Finish(index), 1536);
}

TEST(IoTableTest, EndOfFileInsideATransferIsAnError) {
  IoTable table(1, 1, 0);
  std::byte memory[512];
  const iovec buffers[] = {{memory, sizeof(memory)}};
  const uint32_t index = MustStart(table, {.buffers = buffers});
  EXPECT_TRUE(table.at(index).Account(0));
  EXPECT_EQ(table.Finish(index), -EIO);
}

TEST(IoTableTest, RetriesInterruptionsButNotForEver) {
  IoTable table(1, 1, 0);
  std::byte memory[512];
  const iovec buffers[] = {{memory, sizeof(memory)}};
  const uint32_t index = MustStart(table, {.buffers = buffers});
  int attempts = 1;
  while (!table.at(index).Account(attempts % 2 == 0 ? -EINTR : -EAGAIN)) {
    ASSERT_LT(++attempts, 1000);
  }
  EXPECT_GT(attempts, 10);
  EXPECT_LT(table.Finish(index), 0);
}

TEST(IoTableTest, RefusesBeyondItsDepthUntilOneFinishes) {
  IoTable table(2, 1, 0);
  const uint32_t first = MustStart(table, {.op = BlockOp::kFlush});
  (void)MustStart(table, {.op = BlockOp::kFlush});
  uint32_t index = 0;
  EXPECT_EQ(table.Start({.op = BlockOp::kFlush}, &index), EnqueueResult::kFull);
  (void)table.Finish(first);
  EXPECT_EQ(MustStart(table, {.op = BlockOp::kFlush}), first);
  EXPECT_EQ(table.used(), 2u);
}

TEST(IoTableTest, BouncesAWriteThatIsNotAligned) {
  IoTable table(1, 512, 4096);
  Page page;
  for (size_t i = 0; i < 512; ++i) page.bytes[i + 3] = std::byte(i);
  const iovec buffers[] = {{page.bytes + 3, 100}, {page.bytes + 103, 412}};
  const uint32_t index =
      MustStart(table, {.op = BlockOp::kWrite, .buffers = buffers});
  const PendingIo& io = table.at(index);
  ASSERT_EQ(io.iovec_count(), 1u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(io.iovecs()[0].iov_base) % 512, 0u);
  EXPECT_EQ(std::memcmp(io.iovecs()[0].iov_base, page.bytes + 3, 512), 0);
  EXPECT_TRUE(table.at(index).Account(512));
  EXPECT_EQ(table.Finish(index), 512);
}

TEST(IoTableTest, BouncedReadReachesTheGuestOnlyWhenWhole) {
  IoTable table(1, 512, 4096);
  Page page;
  const iovec buffers[] = {{page.bytes + 1, 512}};
  uint32_t index = MustStart(table, {.buffers = buffers});
  std::memset(table.at(index).iovecs()[0].iov_base, 0x5a, 512);
  EXPECT_TRUE(table.at(index).Account(-EIO));
  EXPECT_EQ(table.Finish(index), -EIO);
  EXPECT_EQ(page.bytes[1], std::byte{0});

  index = MustStart(table, {.buffers = buffers});
  std::memset(table.at(index).iovecs()[0].iov_base, 0x5a, 512);
  EXPECT_TRUE(table.at(index).Account(512));
  EXPECT_EQ(table.Finish(index), 512);
  EXPECT_EQ(page.bytes[0], std::byte{0});
  EXPECT_EQ(page.bytes[1], std::byte{0x5a});
  EXPECT_EQ(page.bytes[512], std::byte{0x5a});
  EXPECT_EQ(page.bytes[513], std::byte{0});
}

TEST(IoTableTest, BounceMemoryIsCappedButOneRequestAlwaysFits) {
  IoTable table(3, 512, 1024);
  std::vector<std::byte> memory(8193);
  const iovec large[] = {{&memory[memory.size() - 8192], 8192}};
  // Whatever address the allocator gave, one of the two is not aligned.
  const iovec odd[] = {
      {large[0].iov_base, 511},
      {static_cast<std::byte*>(large[0].iov_base) + 511, 8192 - 511}};
  const uint32_t first = MustStart(table, {.buffers = odd});
  uint32_t index = 0;
  EXPECT_EQ(table.Start({.buffers = odd}, &index), EnqueueResult::kFull);
  EXPECT_EQ(table.used(), 1u);
  EXPECT_TRUE(table.at(first).Account(8192));
  (void)table.Finish(first);
  EXPECT_EQ(MustStart(table, {.buffers = odd}), first);
}

TEST(IoTableTest, AlignedBuffersAreUsedInPlace) {
  IoTable table(1, 512, 0);
  Page page;
  const iovec buffers[] = {{page.bytes, 512}, {page.bytes + 1024, 1024}};
  const uint32_t index = MustStart(table, {.buffers = buffers});
  ASSERT_EQ(table.at(index).iovec_count(), 2u);
  EXPECT_EQ(table.at(index).iovecs()[0].iov_base, page.bytes);
}

}  // namespace
}  // namespace ferrybus::vsp
