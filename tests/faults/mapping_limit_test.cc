// SPDX-License-Identifier: MIT
//
// With too little address space (RLIMIT_AS) for what the library maps, page by
// page: each mapping fails with an error that says so, none is left behind, and
// what was there before goes on.
//
// Heap is not limited here: an allocation that fails ends the process, by
// decision (docs/decisions/0006).  Nor are the stacks of threads and the rings
// of io_uring, which other libraries map.

#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "ferrybus/channel/counters_page.h"
#include "ferrybus/channel/page_log.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/ringbuffer/paged_ring.h"
#include "ferrybus/tests/faults/handover_world.h"
#include "ferrybus/tests/faults/resource_limit.h"
#include "ferrybus/vsp/virtual_function/scattered_memory.h"
#include "gtest/gtest.h"

namespace ferrybus::testing {
namespace {

class MappingLimitTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!CanLimitAddressSpace()) GTEST_SKIP() << "a sanitizer needs it all";
  }
};

// Guest memory, signal page and rings, of both ends.
// bad:K10
TEST_F(MappingLimitTest, BothEndsOfAPort) {
  EXPECT_TRUE(SucceedsInChild([] {
    EXPECT_GT(UntilAddressSpaceSuffices("both ends", OpenBothEnds), 0u);
  }));
}

// bad:K10
TEST_F(MappingLimitTest, HostThatTakesOver) {
  EXPECT_TRUE(SucceedsInChild([] {
    Takeovers takeovers;
    EXPECT_GT(UntilAddressSpaceSuffices(
                  "taking over", [&] { return takeovers.TakeOver(); },
                  [&](const absl::Status& status) { takeovers.Look(status); }),
              0u);
  }));
}

// bad:K10
TEST_F(MappingLimitTest, CountersPage) {
  EXPECT_TRUE(SucceedsInChild([] {
    const auto make = [] {
      const auto page = CountersPage::Create();
      return page.ok() ? CountersReader::Map((*page)->fd()).status()
                       : page.status();
    };
    EXPECT_GT(UntilAddressSpaceSuffices("counters page", make), 0u);
  }));
}

// bad:K10
TEST_F(MappingLimitTest, PageLog) {
  EXPECT_TRUE(SucceedsInChild([] {
    const std::string path = ::testing::TempDir() + "/page_log";
    const auto make = [&] {
      const auto in_memory = PageLog::Create(1 << 20);
      if (!in_memory.ok()) return in_memory.status();
      const auto in_file = PageLog::Create(1 << 20, path);
      if (!in_file.ok()) return in_file.status();
      return PageLog::Open(1 << 20, path).status();
    };
    EXPECT_GT(UntilAddressSpaceSuffices("page log", make), 0u);
    unlink(path.c_str());
  }));
}

// bad:K10
TEST_F(MappingLimitTest, ScatteredMemory) {
  EXPECT_TRUE(SucceedsInChild([] {
    const UniqueFd file(memfd_create("device", MFD_CLOEXEC));
    ASSERT_EQ(ftruncate(file.get(), 64 << 10), 0);
    const auto make = [&] {
      return vsp::ScatteredMemory::Map(file.get(),
                                       {{8 << 10, 4 << 10}, {0, 8 << 10}})
          .status();
    };
    EXPECT_EQ(UntilAddressSpaceSuffices("scattered memory", make), 3u);
  }));
}

// It has no words, but the system's own error.
// bad:K10
TEST_F(MappingLimitTest, RingOfScatteredPages) {
  EXPECT_TRUE(SucceedsInChild([] {
    alignas(4096) static std::byte pages[3][4096];
    const auto make = [] {
      ringbuffer::PagedRing ring;
      const int error =
          ringbuffer::PagedRing::Create({pages[0], pages[1], pages[2]}, &ring);
      return error == 0 ? absl::OkStatus()
                        : absl::ErrnoToStatus(error, "paged ring");
    };
    EXPECT_EQ(UntilAddressSpaceSuffices("paged ring", make), 4u);
  }));
}

}  // namespace
}  // namespace ferrybus::testing
