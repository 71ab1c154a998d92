// SPDX-License-Identifier: MIT

#include "ferrybus/tests/faults/resource_limit.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::testing {
namespace {

using ::testing::HasSubstr;

constexpr size_t kPageBytes = 4096;
constexpr size_t kDescriptorsMax = 64;
constexpr size_t kPagesMax = 4096;
// More than any scenario allocates.
constexpr size_t kHeapBytes = size_t{64} << 20;
constexpr size_t kStackBytes = size_t{1} << 20;

// From /proc/self/statm, without a descriptor or memory of the heap's own.
size_t MappedPages() {
  const int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  char text[128] = {};
  EXPECT_GT(read(file, text, sizeof(text) - 1), 0);
  close(file);
  return std::strtoull(text, nullptr, 10);
}

// A heap and a stack that have all they will need, and grow no more.
[[gnu::noinline]] void FillHeapAndStack() {
  volatile char stack[kStackBytes];
  for (size_t i = 0; i < kStackBytes; i += kPageBytes) stack[i] = 1;
  EXPECT_EQ(stack[0], 1);
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
  mallopt(M_ARENA_MAX, 1);
  void* const block = std::malloc(kHeapBytes);
  ASSERT_NE(block, nullptr);
  std::free(block);
}

class AddressSpaceLimit {
 public:
  explicit AddressSpaceLimit(size_t room_pages) {
    EXPECT_EQ(getrlimit(RLIMIT_AS, &before_), 0);
    rlimit limit = before_;
    limit.rlim_cur = (MappedPages() + room_pages) * kPageBytes;
    EXPECT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
  }
  ~AddressSpaceLimit() { EXPECT_EQ(setrlimit(RLIMIT_AS, &before_), 0); }
  AddressSpaceLimit(const AddressSpaceLimit&) = delete;
  AddressSpaceLimit& operator=(const AddressSpaceLimit&) = delete;

 private:
  rlimit before_ = {};
};

void PrintSaid(const std::string& what, size_t room, const char* unit,
               const std::set<std::string>& said) {
  std::printf("%s: %zu %s; with less:\n", what.c_str(), room, unit);
  for (const std::string& text : said) std::printf("  %s\n", text.c_str());
}

}  // namespace

std::set<int> OpenDescriptors() {
  std::set<int> open;
  for (const auto& entry :
       std::filesystem::directory_iterator("/proc/self/fd")) {
    open.insert(std::stoi(entry.path().filename().string()));
  }
  // The iterator's own is closed by now.
  for (auto at = open.begin(); at != open.end();) {
    at = fcntl(*at, F_GETFD) < 0 ? open.erase(at) : std::next(at);
  }
  return open;
}

// The limit is on numbers: below it are those that are open, and `room` free.
DescriptorLimit::DescriptorLimit(size_t room) {
  EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
  const std::set<int> open = OpenDescriptors();
  int limit = 0;
  for (size_t free = 0; free < room || open.count(limit) != 0; ++limit) {
    if (open.count(limit) == 0) ++free;
  }
  rlimit wanted = before_;
  wanted.rlim_cur = static_cast<rlim_t>(limit);
  EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &wanted), 0);
}

DescriptorLimit::~DescriptorLimit() {
  EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before_), 0);
}

size_t UntilDescriptorsSuffice(
    const std::string& what, absl::FunctionRef<absl::Status()> scenario,
    absl::FunctionRef<void(const absl::Status&)> afterwards) {
  // Once without a limit, for CanLimitDescriptorsOfThreads()' reason: the types
  // of one thread are mostly the same each time.
  afterwards(scenario());
  std::set<std::string> said;
  for (size_t room = 0; room < kDescriptorsMax; ++room) {
    const std::set<int> before = OpenDescriptors();
    absl::Status status;
    {
      const DescriptorLimit limit(room);
      status = scenario();
    }
    EXPECT_EQ(OpenDescriptors(), before)
        << what << ", room for " << room << ": " << status;
    afterwards(status);
    if (::testing::Test::HasFailure()) return room;  // once is enough
    if (status.ok()) {
      PrintSaid(what, room, "descriptors", said);
      return room;
    }
    said.insert(status.ToString());
    EXPECT_THAT(status.ToString(), HasSubstr(std::strerror(EMFILE)))
        << what << ", room for " << room;
  }
  ADD_FAILURE() << what << " never succeeds";
  return 0;
}

size_t UntilAddressSpaceSuffices(
    const std::string& what, absl::FunctionRef<absl::Status()> scenario,
    absl::FunctionRef<void(const absl::Status&)> afterwards) {
  FillHeapAndStack();
  // Once without a limit: what other libraries map for good is there then.
  afterwards(scenario());
  std::set<std::string> said;
  for (size_t room = 0; room < kPagesMax; ++room) {
    const size_t before = MappedPages();
    absl::Status status;
    {
      const AddressSpaceLimit limit(room);
      status = scenario();
    }
    EXPECT_EQ(MappedPages(), before)
        << what << ", room for " << room << " pages: " << status;
    afterwards(status);
    if (::testing::Test::HasFailure()) return room;  // once is enough
    if (status.ok()) {
      PrintSaid(what, room, "pages", said);
      return room;
    }
    if (!said.insert(status.ToString()).second) continue;
    EXPECT_THAT(status.ToString(), HasSubstr(std::strerror(ENOMEM)))
        << what << ", room for " << room << " pages";
  }
  ADD_FAILURE() << what << " never succeeds";
  return 0;
}

// gcc has no macro of that sanitizer; the build has both or none.
bool CanLimitDescriptorsOfThreads() {
#if defined(__SANITIZE_ADDRESS__)
  return false;
#else
  return true;
#endif
}

bool CanLimitAddressSpace() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return false;
#else
  return true;
#endif
}

bool SucceedsInChild(absl::FunctionRef<void()> run) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    run();
    std::fflush(nullptr);
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_FALSE(WIFSIGNALED(status)) << strsignal(WTERMSIG(status));
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace ferrybus::testing
