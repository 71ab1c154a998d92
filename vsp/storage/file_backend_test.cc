// SPDX-License-Identifier: MIT

// Both file backends against a real image.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "ferrybus/vsp/storage/open_block_backend.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

constexpr uint64_t kImageBytes = 4u << 20;

struct Config {
  BlockEngine engine;
  bool direct;
};

std::string ConfigName(const testing::TestParamInfo<Config>& info) {
  return std::string(info.param.engine == BlockEngine::kUring ? "Uring"
                                                              : "Threads") +
         (info.param.direct ? "Direct" : "Buffered");
}

// 4 KiB-aligned test memory.
class AlignedMemory {
 public:
  explicit AlignedMemory(size_t bytes)
      : bytes_(static_cast<std::byte*>(std::aligned_alloc(4096, bytes))) {
    std::memset(bytes_.get(), 0, bytes);
  }
  std::byte* get() const { return bytes_.get(); }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> bytes_;
};

class FileBackendTest : public testing::TestWithParam<Config> {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "/file_backend_" + std::to_string(getpid()) +
            ".img";
    const int fd = open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(ftruncate(fd, kImageBytes), 0);
    close(fd);
    Open();
  }

  void TearDown() override {
    backend_.reset();
    unlink(path_.c_str());
  }

  BlockBackendOptions Options() const {
    BlockBackendOptions options;
    options.engine = GetParam().engine;
    options.image.direct = GetParam().direct;
    return options;
  }

  void Open() { Open(Options()); }
  void Open(const BlockBackendOptions& options) {
    backend_.reset();
    auto backend = OpenBlockBackend(path_, options);
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
  }

  void Enqueue(const BlockRequest& request) {
    ASSERT_EQ(backend_->Enqueue(request), EnqueueResult::kAccepted);
  }

  // Waits for `count` completions; results by cookie.
  std::map<uint64_t, int32_t> Await(size_t count) {
    std::map<uint64_t, int32_t> results;
    backend_->SubmitBatch();
    while (results.size() < count) {
      pollfd wait = {backend_->event_fd(), POLLIN, 0};
      if (poll(&wait, 1, 20000) != 1) {
        ADD_FAILURE() << "no completion in 20 s";
        break;
      }
      backend_->Reap([&](uint64_t cookie, int32_t result) {
        EXPECT_TRUE(results.emplace(cookie, result).second) << cookie;
      });
    }
    return results;
  }

  int32_t Run(BlockRequest request) {
    request.cookie = 1;
    if (backend_->Enqueue(request) != EnqueueResult::kAccepted) return -1;
    return Await(1)[1];
  }

  std::string path_;
  std::unique_ptr<BlockBackend> backend_;
};

INSTANTIATE_TEST_SUITE_P(Engines, FileBackendTest,
                         testing::Values(Config{BlockEngine::kUring, true},
                                         Config{BlockEngine::kUring, false},
                                         Config{BlockEngine::kThreads, true},
                                         Config{BlockEngine::kThreads, false}),
                         ConfigName);

TEST_P(FileBackendTest, SaysWhatItIs) {
  EXPECT_EQ(backend_->info().size_bytes, kImageBytes);
  EXPECT_FALSE(backend_->info().read_only);
  const std::string& text = backend_->info().description;
  EXPECT_NE(text.find(GetParam().engine == BlockEngine::kUring ? "io_uring"
                                                               : "4 threads"),
            std::string::npos)
      << text;
  if (!GetParam().direct) {
    EXPECT_NE(text.find("buffered (as asked)"), std::string::npos) << text;
  }
  RecordProperty("description", text);
}

TEST_P(FileBackendTest, ReadsBackWhatItWroteFromManyBuffers) {
  AlignedMemory memory(65536);
  for (size_t i = 0; i < 32768; ++i) {
    memory.get()[i] = std::byte(i * 7 + i / 512);
  }
  const iovec from[] = {{memory.get(), 4096},
                        {memory.get() + 4096, 512},
                        {memory.get() + 4608, 32768 - 4608}};
  EXPECT_EQ(Run({.op = BlockOp::kWrite, .offset_bytes = 1536, .buffers = from}),
            32768);
  const iovec to[] = {{memory.get() + 32768, 512},
                      {memory.get() + 33280, 32256}};
  EXPECT_EQ(Run({.op = BlockOp::kRead, .offset_bytes = 1536, .buffers = to}),
            32768);
  EXPECT_EQ(std::memcmp(memory.get(), memory.get() + 32768, 32768), 0);
}

TEST_P(FileBackendTest, TakesBuffersAtAnyAddress) {
  AlignedMemory memory(16384);
  for (size_t i = 0; i < 4096; ++i) memory.get()[i + 5] = std::byte(i * 3);
  const iovec from[] = {{memory.get() + 5, 1000}, {memory.get() + 1005, 3096}};
  EXPECT_EQ(Run({.op = BlockOp::kWrite, .offset_bytes = 0, .buffers = from}),
            4096);
  const iovec to[] = {{memory.get() + 8193, 4000}, {memory.get() + 12193, 96}};
  EXPECT_EQ(Run({.op = BlockOp::kRead, .offset_bytes = 0, .buffers = to}),
            4096);
  EXPECT_EQ(std::memcmp(memory.get() + 5, memory.get() + 8193, 4096), 0);
}

TEST_P(FileBackendTest, FlushesAndWritesDurably) {
  AlignedMemory memory(4096);
  const iovec buffer[] = {{memory.get(), 4096}};
  EXPECT_EQ(Run({.op = BlockOp::kFlush}), 0);
  EXPECT_EQ(Run({.op = BlockOp::kWrite, .durable = true, .buffers = buffer}),
            4096);
}

TEST_P(FileBackendTest, DiscardedRangeReadsAsZeroesAndFreesSpace) {
  if (!backend_->info().can_discard) GTEST_SKIP() << "no hole punching here";
  constexpr size_t kBytes = 1 << 20;
  AlignedMemory memory(kBytes);
  std::memset(memory.get(), 0x77, kBytes);
  const iovec buffer[] = {{memory.get(), kBytes}};
  ASSERT_EQ(Run({.op = BlockOp::kWrite, .buffers = buffer}),
            static_cast<int32_t>(kBytes));
  ASSERT_EQ(Run({.op = BlockOp::kFlush}), 0);
  struct stat before = {};
  ASSERT_EQ(stat(path_.c_str(), &before), 0);
  // Not on page boundaries: the edges must be zeroed, too.
  ASSERT_EQ(Run({.op = BlockOp::kDiscard,
                 .offset_bytes = 512,
                 .length_bytes = kBytes - 1024}),
            0);
  struct stat after = {};
  ASSERT_EQ(stat(path_.c_str(), &after), 0);
  EXPECT_LT(after.st_blocks, before.st_blocks);
  ASSERT_EQ(Run({.op = BlockOp::kRead, .buffers = buffer}),
            static_cast<int32_t>(kBytes));
  EXPECT_EQ(memory.get()[511], std::byte{0x77});
  EXPECT_EQ(memory.get()[512], std::byte{0});
  EXPECT_EQ(memory.get()[kBytes - 513], std::byte{0});
  EXPECT_EQ(memory.get()[kBytes - 512], std::byte{0x77});
}

TEST_P(FileBackendTest, RefusesRangesThatAreNotOnTheDisk) {
  AlignedMemory memory(8192);
  const iovec two_blocks[] = {{memory.get(), 1024}};
  const iovec odd[] = {{memory.get(), 513}};
  const iovec nothing[] = {{memory.get(), 0}};
  const BlockRequest bad[] = {
      {.offset_bytes = kImageBytes - 512, .buffers = two_blocks},
      {.offset_bytes = kImageBytes, .buffers = two_blocks},
      {.offset_bytes = ~uint64_t{511}, .buffers = two_blocks},
      {.offset_bytes = 1, .buffers = two_blocks},
      {.offset_bytes = 0, .buffers = odd},
      {.offset_bytes = 0, .buffers = nothing},
      {.offset_bytes = 0},
      {.op = BlockOp::kDiscard, .offset_bytes = 512, .length_bytes = 0},
      {.op = BlockOp::kDiscard,
       .offset_bytes = 512,
       .length_bytes = ~uint64_t{511}},
      {.op = BlockOp::kDiscard,
       .offset_bytes = 512,
       .length_bytes = kImageBytes},
  };
  for (const BlockRequest& request : bad) {
    EXPECT_EQ(backend_->Enqueue(request), EnqueueResult::kInvalid)
        << request.offset_bytes;
  }
  const std::vector<iovec> many(kIovecsMax + 1, iovec{memory.get(), 512});
  EXPECT_EQ(backend_->Enqueue({.buffers = many}), EnqueueResult::kInvalid);
  EXPECT_EQ(Run({.offset_bytes = kImageBytes - 1024, .buffers = two_blocks}),
            1024);
}

TEST_P(FileBackendTest, ReadOnlyDiskRefusesChanges) {
  BlockBackendOptions options = Options();
  options.image.read_only = true;
  Open(options);
  AlignedMemory memory(4096);
  const iovec buffer[] = {{memory.get(), 4096}};
  EXPECT_TRUE(backend_->info().read_only);
  EXPECT_EQ(backend_->Enqueue({.op = BlockOp::kWrite, .buffers = buffer}),
            EnqueueResult::kInvalid);
  EXPECT_EQ(Run({.op = BlockOp::kRead, .buffers = buffer}), 4096);
  EXPECT_EQ(Run({.op = BlockOp::kFlush}), 0);
}

TEST_P(FileBackendTest, KeepsAFullQueueApart) {
  constexpr size_t kDepth = 256;
  AlignedMemory memory(kDepth * 8192);
  std::vector<iovec> buffers(kDepth);
  for (size_t i = 0; i < kDepth; ++i) {
    buffers[i] = {memory.get() + i * 8192, 8192};
    std::memset(buffers[i].iov_base, static_cast<int>(i), 8192);
    Enqueue({.op = BlockOp::kWrite,
             .offset_bytes = i * 8192,
             .buffers = absl::MakeConstSpan(&buffers[i], 1),
             .cookie = i});
  }
  EXPECT_EQ(backend_->Enqueue({.op = BlockOp::kFlush}), EnqueueResult::kFull);
  for (const auto& [cookie, result] : Await(kDepth)) {
    EXPECT_EQ(result, 8192) << cookie;
  }
  std::memset(memory.get(), 0xee, kDepth * 8192);
  for (size_t i = 0; i < kDepth; ++i) {
    Enqueue({.op = BlockOp::kRead,
             .offset_bytes = i * 8192,
             .buffers = absl::MakeConstSpan(&buffers[kDepth - 1 - i], 1),
             .cookie = i});
  }
  EXPECT_EQ(Await(kDepth).size(), kDepth);
  for (size_t i = 0; i < kDepth; ++i) {
    const std::byte* at = memory.get() + (kDepth - 1 - i) * 8192;
    EXPECT_EQ(at[0], std::byte(i));
    EXPECT_EQ(at[8191], std::byte(i));
  }
}

TEST_P(FileBackendTest, FileThatShrankIsAnErrorNotShortData) {
  AlignedMemory memory(65536);
  ASSERT_EQ(truncate(path_.c_str(), 8192), 0);
  const iovec across[] = {{memory.get(), 8192}};
  EXPECT_LT(Run({.offset_bytes = 4096, .buffers = across}), 0);
  const iovec behind[] = {{memory.get(), 4096}};
  EXPECT_LT(Run({.offset_bytes = 65536, .buffers = behind}), 0);
  EXPECT_EQ(Run({.offset_bytes = 4096, .buffers = behind}), 4096);
}

// The limit cuts the write in two: the first half is done, the second fails.
TEST_P(FileBackendTest, WriteThatTheSystemCutsShortReportsItsError) {
  AlignedMemory memory(8192);
  std::memset(memory.get(), 0x44, 8192);
  const iovec buffer[] = {{memory.get(), 8192}};
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  // Beyond the limit a signal comes, too.
  const auto old_handler = signal(SIGXFSZ, SIG_IGN);
  rlimit limit = before;
  limit.rlim_cur = 65536 + 4096;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const int32_t result =
      Run({.op = BlockOp::kWrite, .offset_bytes = 65536, .buffers = buffer});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, old_handler);
  EXPECT_EQ(result, -EFBIG);
  // And it works again.
  EXPECT_EQ(
      Run({.op = BlockOp::kWrite, .offset_bytes = 65536, .buffers = buffer}),
      8192);
}

// What was submitted has landed when the destructor returns.
TEST_P(FileBackendTest, DestructionWaitsForWhatIsInFlight) {
  constexpr size_t kBytes = 1 << 20;
  AlignedMemory memory(kBytes);
  std::memset(memory.get(), 0x21, kBytes);
  const iovec buffer[] = {{memory.get(), kBytes}};
  for (uint64_t i = 0; i < 4; ++i) {
    Enqueue({.op = BlockOp::kWrite,
             .offset_bytes = i * kBytes,
             .buffers = buffer,
             .cookie = i});
  }
  backend_->SubmitBatch();
  Enqueue({.op = BlockOp::kFlush});  // enqueued, never submitted
  backend_.reset();
  memory = AlignedMemory(kBytes);
  Open();  // takes the lock: nothing of the old owner runs any more
  const iovec again[] = {{memory.get(), kBytes}};
  EXPECT_EQ(Run({.op = BlockOp::kRead, .buffers = again}),
            static_cast<int32_t>(kBytes));
}

// Random operations against a model of the disk.
TEST_P(FileBackendTest, AgreesWithAModelOverRandomOperations) {
  const char* seed_text = std::getenv("FERRYBUS_TEST_SEED");
  const uint64_t seed =
      seed_text != nullptr ? std::strtoull(seed_text, nullptr, 0) : 20260101;
  std::printf("repeat with FERRYBUS_TEST_SEED=%llu\n",
              static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  std::vector<std::byte> model(kImageBytes);
  AlignedMemory memory(1 << 16);
  for (int round = 0; round < 300; ++round) {
    const uint64_t blocks = 1 + random() % 64;
    const uint64_t bytes = blocks * 512;
    const uint64_t offset = random() % (kImageBytes / 512 - blocks) * 512;
    const size_t skew = random() % 2 == 0 ? 0 : random() % 4096;
    const size_t cut = random() % (bytes + 1);
    const iovec buffers[] = {{memory.get() + skew, cut},
                             {memory.get() + skew + cut, bytes - cut}};
    switch (random() % 4) {
      case 0:
        if (!backend_->info().can_discard) break;
        ASSERT_EQ(Run({.op = BlockOp::kDiscard,
                       .offset_bytes = offset,
                       .length_bytes = bytes}),
                  0);
        std::memset(&model[offset], 0, bytes);
        break;
      case 1:
        for (size_t i = 0; i < bytes; ++i) {
          memory.get()[skew + i] = std::byte(random());
        }
        std::memcpy(&model[offset], memory.get() + skew, bytes);
        ASSERT_EQ(Run({.op = BlockOp::kWrite,
                       .durable = random() % 16 == 0,
                       .offset_bytes = offset,
                       .buffers = buffers}),
                  static_cast<int32_t>(bytes));
        break;
      default:
        ASSERT_EQ(Run({.offset_bytes = offset, .buffers = buffers}),
                  static_cast<int32_t>(bytes));
        ASSERT_EQ(std::memcmp(&model[offset], memory.get() + skew, bytes), 0)
            << "round " << round;
    }
  }
}

TEST(OpenBlockBackendTest, RefusesWhatIsNotADisk) {
  const std::string path =
      testing::TempDir() + "/not_a_disk_" + std::to_string(getpid());
  EXPECT_EQ(OpenBlockBackend(path, {}).status().code(),
            absl::StatusCode::kNotFound);
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(OpenBlockBackend(path, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(ftruncate(fd, 1000), 0);
  EXPECT_EQ(OpenBlockBackend(path, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  close(fd);
  unlink(path.c_str());
  BlockBackendOptions read_only;
  read_only.image.read_only = true;
  EXPECT_EQ(OpenBlockBackend("/dev/null", read_only).status().code(),
            absl::StatusCode::kInvalidArgument);
}

class EngineTest : public FileBackendTest {};

INSTANTIATE_TEST_SUITE_P(Engines, EngineTest,
                         testing::Values(Config{BlockEngine::kUring, false},
                                         Config{BlockEngine::kThreads, false}),
                         ConfigName);

TEST_P(EngineTest, RefusesWhatItCannotHave) {
  backend_.reset();
  BlockBackendOptions options = Options();
  options.queue_depth = 0;
  const absl::Status none = OpenBlockBackend(path_, options).status();
  options.queue_depth = 4097;
  options.thread_count = 65;
  const absl::Status many = OpenBlockBackend(path_, options).status();
  if (GetParam().engine == BlockEngine::kUring) {
    EXPECT_EQ(none, absl::InvalidArgumentError(
                        "io_uring: queue depth 0, must be 1 to 4096"));
    EXPECT_EQ(many, absl::InvalidArgumentError(
                        "io_uring: queue depth 4097, must be 1 to 4096"));
    return;
  }
  EXPECT_EQ(none, absl::InvalidArgumentError(
                      "thread backend: queue depth 0 and 4 threads; both must "
                      "be positive, threads <= 64"));
  EXPECT_EQ(many, absl::InvalidArgumentError(
                      "thread backend: queue depth 4097 and 65 threads; both "
                      "must be positive, threads <= 64"));
  options.thread_count = 0;
  EXPECT_FALSE(OpenBlockBackend(path_, options).ok());
}

int OpenDescriptors() {
  int count = 0;
  for (int fd = 0; fd < 256; ++fd) count += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
  return count;
}

// Whichever descriptor is the one too many, it says so and keeps none.
TEST_P(EngineTest, WithoutDescriptorsItKeepsNone) {
  backend_.reset();
  rlimit usual = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &usual), 0);
  const int before = OpenDescriptors();
  const int next = dup(0);
  close(next);
  int refused = 0;
  for (int more = 0; more < 8; ++more) {
    rlimit few = usual;
    few.rlim_cur = static_cast<rlim_t>(next + more);
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    auto backend = OpenBlockBackend(path_, Options());
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &usual), 0);
    if (backend.ok()) break;
    ++refused;
    EXPECT_NE(backend.status().message().find("Too many open files"),
              std::string::npos)
        << backend.status();
    EXPECT_EQ(backend.status().code(),
              more == 0 ? absl::StatusCode::kResourceExhausted
                        : absl::StatusCode::kUnavailable)
        << backend.status();
    EXPECT_EQ(OpenDescriptors(), before) << backend.status();
    // Nor the lock.
    Open();
    backend_.reset();
  }
  EXPECT_EQ(refused, GetParam().engine == BlockEngine::kUring ? 3 : 2);
}

TEST_P(EngineTest, ThreadsTakeTheirPlaceAndSayWhy) {
  BlockBackendOptions options = Options();
  options.engine = BlockEngine::kAuto;
  options.queue_depth = 5000;  // more than io_uring takes
  Open(options);
  EXPECT_EQ(backend_->info().description,
            "4 threads, buffered (as asked); io_uring given up: io_uring: "
            "queue depth 5000, must be 1 to 4096");
  const AlignedMemory memory(4096);
  const iovec buffer[] = {{memory.get(), 4096}};
  EXPECT_EQ(Run({.op = BlockOp::kWrite, .buffers = buffer}), 4096);
}

}  // namespace
}  // namespace ferrybus::vsp
