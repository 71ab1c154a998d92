// SPDX-License-Identifier: MIT

// The fence: a new owner gets an image only after the old owner's last write,
// even if the old owner was killed.

#include <fcntl.h>
#include <liburing.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "ferrybus/vsp/storage/open_block_backend.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

constexpr size_t kWriteBytes = 1 << 20;
constexpr size_t kWrites = 64;
constexpr uint64_t kImageBytes = uint64_t{kWriteBytes} * kWrites;

BlockBackendOptions Options(BlockEngine engine, absl::Duration deadline) {
  BlockBackendOptions options;
  options.engine = engine;
  options.image.lock_deadline = deadline;
  return options;
}

class ImageFenceTest : public testing::TestWithParam<BlockEngine> {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "/image_fence_" + std::to_string(getpid()) +
            ".img";
    const int fd = open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(ftruncate(fd, kImageBytes), 0);
    close(fd);
  }
  void TearDown() override { unlink(path_.c_str()); }

  // A child that opens the image, keeps writing with a full queue, and says
  // through `ready_fd` that it does.  It never returns.
  [[noreturn]] void RunOldOwner(int ready_fd) {
    auto backend =
        OpenBlockBackend(path_, Options(GetParam(), absl::Seconds(5)));
    if (!backend.ok()) _exit(2);
    void* memory = std::aligned_alloc(4096, kWriteBytes);
    const iovec buffer[] = {{memory, kWriteBytes}};
    for (uint8_t round = 1;; ++round) {
      std::memset(memory, round, kWriteBytes);
      size_t left = kWrites;
      for (size_t i = 0; i < kWrites; ++i) {
        const EnqueueResult result =
            (*backend)->Enqueue({.op = BlockOp::kWrite,
                                 .offset_bytes = i * kWriteBytes,
                                 .buffers = buffer});
        if (result != EnqueueResult::kAccepted) _exit(3);
      }
      (*backend)->SubmitBatch();
      if (round == 2 && write(ready_fd, "w", 1) != 1) _exit(4);
      while (left > 0) {
        left -= (*backend)->Reap([](uint64_t, int32_t result) {
          if (result != static_cast<int32_t>(kWriteBytes)) _exit(5);
        });
      }
    }
  }

  // The ends of some writes' ranges: quick, so that a write that lands after
  // the lock was taken is not over before anybody looks.
  std::string Sample() {
    std::string bytes;
    const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    for (size_t i = 1; i <= kWrites; i += 3) {
      char block[512] = {};
      const size_t at = i * kWriteBytes - sizeof(block);
      EXPECT_EQ(pread(fd, block, sizeof(block), static_cast<off_t>(at)), 512);
      bytes.append(block, sizeof(block));
    }
    close(fd);
    return bytes;
  }

  std::string path_;
};

INSTANTIATE_TEST_SUITE_P(Engines, ImageFenceTest,
                         testing::Values(BlockEngine::kUring,
                                         BlockEngine::kThreads),
                         [](const auto& info) {
                           return std::string(info.param == BlockEngine::kUring
                                                  ? "Uring"
                                                  : "Threads");
                         });

TEST_P(ImageFenceTest, SecondOwnerWaitsUntilItsDeadline) {
  auto first = OpenBlockBackend(path_, Options(GetParam(), absl::Seconds(5)));
  ASSERT_TRUE(first.ok()) << first.status();
  auto second =
      OpenBlockBackend(path_, Options(GetParam(), absl::Milliseconds(30)));
  EXPECT_EQ(second.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_NE(second.status().message().find(path_), std::string::npos);
  first->reset();
  second = OpenBlockBackend(path_, Options(GetParam(), absl::Seconds(5)));
  EXPECT_TRUE(second.ok()) << second.status();
}

TEST_P(ImageFenceTest, ReadersShareAndKeepWritersOut) {
  BlockBackendOptions reader = Options(GetParam(), absl::Milliseconds(30));
  reader.image.read_only = true;
  auto first = OpenBlockBackend(path_, reader);
  auto second = OpenBlockBackend(path_, reader);
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(second.ok()) << second.status();
  auto writer =
      OpenBlockBackend(path_, Options(GetParam(), absl::Milliseconds(30)));
  EXPECT_EQ(writer.status().code(), absl::StatusCode::kDeadlineExceeded);
}

// What the fence stands on: a lock outlives its descriptor for as long as a
// request on the file is in the kernel.  A pipe, since its reads last as long
// as the test wants.
class PendingRequestTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ =
        testing::TempDir() + "/image_fence_pipe_" + std::to_string(getpid());
    ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
    owner_ = open(path_.c_str(), O_RDWR | O_CLOEXEC);
    next_ = open(path_.c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_GE(owner_, 0);
    ASSERT_GE(next_, 0);
    ASSERT_EQ(flock(owner_, LOCK_EX | LOCK_NB), 0);
  }
  void TearDown() override {
    close(next_);
    unlink(path_.c_str());
  }

  bool TryLock() { return flock(next_, LOCK_EX | LOCK_NB) == 0; }
  void ExpectLockedUntilRequestEnds() {
    // Not close(): in the middle of a request is where it is meant to be, and
    // the thread sanitizer would report it.
    ASSERT_EQ(syscall(SYS_close, owner_), 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_FALSE(TryLock());
    ASSERT_EQ(write(next_, "x", 1), 1);
    for (int i = 0; i < 1000 && !TryLock(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_TRUE(TryLock());
  }

  std::string path_;
  int owner_ = -1;
  int next_ = -1;
};

TEST_F(PendingRequestTest, OfIoUringHoldsTheLock) {
  io_uring ring;
  if (io_uring_queue_init(4, &ring, 0) < 0) GTEST_SKIP() << "no io_uring";
  char byte = 0;
  io_uring_prep_read(io_uring_get_sqe(&ring), owner_, &byte, 1, 0);
  ASSERT_EQ(io_uring_submit(&ring), 1);
  ExpectLockedUntilRequestEnds();
  io_uring_queue_exit(&ring);
}

TEST_F(PendingRequestTest, OfAThreadHoldsTheLock) {
  char byte = 0;
  std::thread reader([&] { EXPECT_EQ(read(owner_, &byte, 1), 1); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  ExpectLockedUntilRequestEnds();
  reader.join();
}

// promise:P1' (the backend's part: nothing is reissued before the old owner's
// writes have ended)
TEST_P(ImageFenceTest, ImageIsStillOnceTheLockOfAKilledOwnerIsHeld) {
  for (int round = 0; round < 3; ++round) {
    int ready[2];
    ASSERT_EQ(pipe2(ready, O_CLOEXEC), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) RunOldOwner(ready[1]);
    close(ready[1]);
    char byte = 0;
    ASSERT_EQ(read(ready[0], &byte, 1), 1) << "the old owner did not start";
    close(ready[0]);
    // It is alive and holds the image.
    EXPECT_EQ(
        OpenBlockBackend(path_, Options(GetParam(), absl::Milliseconds(10)))
            .status()
            .code(),
        absl::StatusCode::kDeadlineExceeded);

    ASSERT_EQ(kill(child, SIGKILL), 0);
    auto next = OpenBlockBackend(path_, Options(GetParam(), absl::Seconds(30)));
    ASSERT_TRUE(next.ok()) << next.status();
    const std::string at_lock = Sample();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    EXPECT_TRUE(at_lock == Sample()) << "written to after the lock was held";
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << "the old owner ended by itself";
  }
}

}  // namespace
}  // namespace ferrybus::vsp
