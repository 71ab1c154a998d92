// SPDX-License-Identifier: MIT
//
// A device's driver is replaced by one in another process: real processes, a
// real memfd, a command in between that must be counted exactly once.

#include "ferrybus/vsp/virtual_function/hot_update_handover.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/vsp/virtual_function/hot_update_messages_persist.h"

namespace ferrybus::vsp {
namespace {

constexpr uint64_t kPages = 16;
constexpr uint64_t kBytes = kPages * kHotUpdatePageBytes;

enum class Fault { kNone, kError, kKill, kHang };

// What happens at which call of the successor.
struct Plan {
  Fault fault = Fault::kNone;
  int at_call = 0;
};

// Writes each command's number in a page and adds it to a register, which is
// not in the device's memory.
class CountingDriver final : public HotUpdateDriver {
 public:
  explicit CountingDriver(absl::Span<std::byte> memory, Plan plan = {})
      : memory_(memory), plan_(plan) {}

  uint64_t Command(uint64_t number) {
    if (!is_running_) return 0;
    std::memcpy(&memory_[number % kPages * kHotUpdatePageBytes], &number,
                sizeof(number));
    return register_ += number;
  }
  void Begin() { is_running_ = true; }
  bool is_running() const { return is_running_; }

  absl::Status Save(HotUpdateBlocks& blocks) override {
    is_running_ = false;
    const HotUpdateRange ranges[] = {{0, 4}, {8, 8}};
    absl::Status status = blocks.SaveRanges(ranges);
    const uint64_t list[] = {6, 5, 7, 4};
    status.Update(blocks.SavePageList(
        {.pages = list, .size_bytes = 4 * kHotUpdatePageBytes}));
    const absl::Span<const std::byte> value(
        reinterpret_cast<const std::byte*>(&register_), sizeof(register_));
    const std::byte kind{7};
    status.Update(blocks.SaveBuffer(value, {&kind, 1}));
    return status;
  }
  void CancelUpdate() override { is_running_ = true; }

  absl::Status Restore(HotUpdateBlock block) override {
    absl::Status status = Call();
    if (!status.ok()) return status;
    if (block.metadata.empty()) {
      // Page 6 is the first of the list, and lies where it always did.
      const bool is_list = block.segments[0].size() == kHotUpdatePageBytes;
      const uint64_t page = is_list ? 6 : 0;
      if (block.segments[0].data() != &memory_[page * kHotUpdatePageBytes]) {
        return absl::InternalError("the pages lie elsewhere");
      }
      pages_ += block.size_bytes / kHotUpdatePageBytes;
      return absl::OkStatus();
    }
    if (block.metadata != std::vector<std::byte>{std::byte{7}} ||
        block.size_bytes != sizeof(register_)) {
      return absl::DataLossError("the register's block");
    }
    std::memcpy(&register_, block.segments[0].data(), sizeof(register_));
    return absl::OkStatus();
  }
  absl::Status Start() override {
    absl::Status status = Call();
    if (!status.ok()) return status;
    if (pages_ != kPages) return absl::DataLossError("pages are missing");
    is_running_ = true;
    return absl::OkStatus();
  }
  void RestoreComplete() override {}

 private:
  absl::Status Call() {
    if (plan_.fault == Fault::kNone || calls_++ != plan_.at_call) {
      return absl::OkStatus();
    }
    if (plan_.fault == Fault::kKill) raise(SIGKILL);
    while (plan_.fault == Fault::kHang) pause();
    return absl::InternalError("told to fail");
  }

  const absl::Span<std::byte> memory_;
  const Plan plan_;
  int calls_ = 0;
  uint64_t register_ = 0;
  uint64_t pages_ = 0;
  bool is_running_ = false;
};

absl::Span<std::byte> Map(int file) {
  void* memory =
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  EXPECT_NE(memory, MAP_FAILED);
  return {static_cast<std::byte*>(memory), kBytes};
}

struct Pair {
  UniqueFd ours, theirs;
};

Pair Sockets(int type) {
  int fds[2];
  EXPECT_EQ(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

constexpr int kTookOver = 10;
constexpr int kAborted = 11;

// The new process: takes over, then answers commands until their socket ends.
[[noreturn]] void RunNewProcess(UniqueFd socket, UniqueFd commands, Plan plan) {
  absl::StatusOr<TakenOver> taken =
      TakeOver(std::move(socket),
               [&](UniqueFd file, uint64_t size) -> absl::StatusOr<TakenOver> {
                 if (size != kBytes) return absl::InvalidArgumentError("size");
                 const absl::Span<std::byte> memory = Map(file.get());
                 return TakenOver{
                     std::make_unique<CountingDriver>(memory, plan), memory};
               });
  if (!taken.ok()) _exit(kAborted);
  auto& driver = static_cast<CountingDriver&>(*taken->driver);
  uint64_t number = 0;
  while (recv(commands.get(), &number, sizeof(number), 0) == sizeof(number)) {
    const uint64_t sum = driver.Command(number);
    (void)send(commands.get(), &sum, sizeof(sum), 0);
  }
  _exit(kTookOver);
}

class HandoverTest : public ::testing::Test {
 protected:
  HandoverTest() : file_(memfd_create("device", MFD_CLOEXEC)) {
    EXPECT_EQ(ftruncate(file_.get(), kBytes), 0);
    memory_ = Map(file_.get());
    auto driver = std::make_unique<CountingDriver>(memory_);
    driver->Begin();
    driver_ = std::move(driver);
  }
  ~HandoverTest() override { munmap(memory_.data(), memory_.size()); }

  CountingDriver& old() { return static_cast<CountingDriver&>(*driver_); }

  void Fork(Plan plan) {
    Pair update = Sockets(SOCK_STREAM);
    Pair commands = Sockets(SOCK_SEQPACKET);
    child_ = fork();
    if (child_ == 0) {
      update.ours = UniqueFd();
      commands.ours = UniqueFd();
      RunNewProcess(std::move(update.theirs), std::move(commands.theirs), plan);
    }
    process_ = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, child_, 0)));
    socket_ = std::move(update.ours);
    commands_ = std::move(commands.ours);
  }
  absl::Status Update(absl::Duration answer_max = absl::Seconds(10)) {
    auto successor = RemoteSuccessor::Create(
        std::move(socket_), std::move(process_), memory_, file_.get(),
        {.answer_max = answer_max});
    if (!successor.ok()) return successor.status();
    return HotUpdate(memory_, &driver_, *std::move(successor)).Run();
  }
  uint64_t CommandNew(uint64_t number) {
    uint64_t sum = 0;
    EXPECT_EQ(send(commands_.get(), &number, sizeof(number), 0), 8);
    EXPECT_EQ(recv(commands_.get(), &sum, sizeof(sum), 0), 8);
    return sum;
  }
  int WaitForChild() {
    commands_ = UniqueFd();
    int status = 0;
    EXPECT_EQ(waitpid(child_, &status, 0), child_);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  UniqueFd file_;
  absl::Span<std::byte> memory_;
  std::unique_ptr<HotUpdateDriver> driver_;
  pid_t child_ = -1;
  UniqueFd process_, socket_, commands_;
};

// doc:HU6 doc:HU8 doc:HU18
TEST_F(HandoverTest, TheNewProcessGoesOn) {
  uint64_t sum = 0;
  for (uint64_t i = 1; i <= 20; ++i) sum = old().Command(i);
  EXPECT_EQ(sum, 210u);
  Fork({});
  ASSERT_TRUE(Update().ok());
  for (uint64_t i = 21; i <= 40; ++i) sum = CommandNew(i);
  EXPECT_EQ(sum, 820u);
  EXPECT_EQ(WaitForChild(), kTookOver);
  // The pages were not copied: what the new process wrote is here.
  uint64_t last = 0;
  std::memcpy(&last, &memory_[40 % kPages * kHotUpdatePageBytes], 8);
  EXPECT_EQ(last, 40u);
}

// bad:H5: whatever becomes of the new process before it runs, the old driver
// runs on, with nothing lost.
TEST_F(HandoverTest, AnyFaultRollsBack) {
  int cases = 0;
  uint64_t expected = 0;
  for (Fault fault : {Fault::kError, Fault::kKill, Fault::kHang}) {
    for (int call = 0; call < 4; ++call) {  // three blocks, and the start
      ASSERT_EQ(old().Command(5), expected += 5);
      Fork({fault, call});
      // Only one that hangs is to be given up.
      const absl::Status status = Update(
          fault == Fault::kHang ? absl::Milliseconds(100) : absl::Seconds(10));
      EXPECT_FALSE(status.ok());
      ASSERT_TRUE(old().is_running()) << status;
      ASSERT_EQ(old().Command(1), expected += 1);
      const int end = WaitForChild();
      EXPECT_EQ(end, fault == Fault::kError ? kAborted : -SIGKILL);
      ++cases;
    }
  }
  std::cout << cases << " cases\n";
  Fork({});
  ASSERT_TRUE(Update().ok());
  EXPECT_EQ(CommandNew(1), expected + 1);
  EXPECT_EQ(WaitForChild(), kTookOver);
}

// The old process ends in the middle: nothing is started.
TEST_F(HandoverTest, WithoutAnOldProcessNothingStarts) {
  for (int steps = 0; steps < 4; ++steps) {
    Fork({});
    auto successor = RemoteSuccessor::Create(
        std::move(socket_), std::move(process_), memory_, file_.get());
    ASSERT_TRUE(successor.ok());
    HotUpdateBlocks blocks(memory_, {});
    blocks.Open();
    ASSERT_TRUE(old().Save(blocks).ok());
    for (int i = 0; i < std::min(steps, 3); ++i) {
      ASSERT_TRUE((*successor)->Restore(blocks.Take(i)).ok());
    }
    successor->reset();
    EXPECT_EQ(WaitForChild(), kAborted);
    old().CancelUpdate();
  }
}

TEST_F(HandoverTest, AProcessThatCannotBeEndedIsNoSuccessor) {
  Fork({});
  process_ = UniqueFd();
  EXPECT_EQ(Update().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(old().is_running());
  EXPECT_EQ(WaitForChild(), kAborted);
}

// What is not a hot update is refused.
TEST_F(HandoverTest, OtherBytesAreRefused) {
  for (const std::string& bytes :
       {std::string("\x04\0\0\0abcd", 8), std::string("\xff\xff\xff\xff", 4),
        std::string("\0\0\0\0", 4), std::string("\x02\0\0\0\x08\x03", 6),
        std::string("\x02\0\0\0\x08\x01", 6)}) {
    Fork({});
    ASSERT_EQ(send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
    EXPECT_EQ(WaitForChild(), kAborted);
    socket_ = UniqueFd();
  }
}

// -- An old process that says anything ---------------------------------------

// Each on its own, of a hot update that has begun.
class HandoverRequestTest : public HandoverTest {
 protected:
  void Say(const HotUpdateRequest& request, int descriptor = -1) {
    const std::string body = SerializeRequest(request);
    const auto size = static_cast<uint32_t>(body.size());
    std::string bytes(reinterpret_cast<const char*>(&size), sizeof(size));
    bytes += body;
    iovec data = {bytes.data(), bytes.size()};
    msghdr message = {};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    if (descriptor >= 0) {
      message.msg_control = control;
      message.msg_controllen = sizeof(control);
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
    }
    ASSERT_EQ(sendmsg(socket_.get(), &message, MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  absl::Status Answer() {
    uint32_t size = 0;
    EXPECT_EQ(recv(socket_.get(), &size, sizeof(size), MSG_WAITALL), 4);
    std::vector<std::byte> body(size);
    // Success is no bytes at all, and nothing would come.
    if (size != 0) {
      EXPECT_EQ(recv(socket_.get(), body.data(), size, MSG_WAITALL), size);
    }
    absl::Status answer = absl::DataLossError("no answer");
    EXPECT_TRUE(ParseAnswer(body, &answer).ok());
    return answer;
  }
  void Begin() {
    Fork({});
    Say({.step = HotUpdateStep::kBegin, .memory_bytes = kBytes}, file_.get());
    ASSERT_TRUE(Answer().ok());
  }
};

TEST_F(HandoverRequestTest, StepsOutOfTheirOrderAreRefused) {
  const auto wrong = [](int step) {
    return absl::FailedPreconditionError("step " + std::to_string(step) +
                                         " at the wrong time");
  };
  for (const HotUpdateStep step :
       {HotUpdateStep::kRestore, HotUpdateStep::kStart,
        HotUpdateStep::kComplete}) {
    Fork({});
    Say({.step = step});
    EXPECT_EQ(Answer(), wrong(static_cast<int>(step))) << "before the first";
    EXPECT_EQ(WaitForChild(), kAborted);
  }
  Fork({});
  Say({.step = HotUpdateStep::kBegin, .memory_bytes = kBytes});
  EXPECT_EQ(Answer(), wrong(1)) << "without a memory";
  EXPECT_EQ(WaitForChild(), kAborted);
  Begin();
  Say({.step = HotUpdateStep::kBegin, .memory_bytes = kBytes}, file_.get());
  EXPECT_EQ(Answer(), wrong(1)) << "twice";
  EXPECT_EQ(WaitForChild(), kAborted);
  Begin();
  Say({.step = HotUpdateStep::kComplete});
  EXPECT_EQ(Answer(), wrong(4)) << "before it started";
  EXPECT_EQ(WaitForChild(), kAborted);
  Begin();
  Say({.step = HotUpdateStep::kStart}, file_.get());
  EXPECT_EQ(Answer(), wrong(3)) << "with another memory";
  EXPECT_EQ(WaitForChild(), kAborted);
}

TEST_F(HandoverRequestTest, PagesOutsideOfTheMemoryAreRefused) {
  const std::pair<uint64_t, uint64_t> segments[] = {
      {kBytes, 1},
      {0, kBytes + 1},
      {kBytes + 1, 0},
      {~uint64_t{0}, 2},
      {4096, ~uint64_t{0} - 4000}};
  for (const auto& segment : segments) {
    Begin();
    Say({.step = HotUpdateStep::kRestore, .segments = {{0, 4096}, segment}});
    EXPECT_EQ(Answer(),
              absl::InvalidArgumentError(
                  std::to_string(segment.second) + " bytes at " +
                  std::to_string(segment.first) + " of a memory of 65536"));
    EXPECT_EQ(WaitForChild(), kAborted);
  }
}

TEST_F(HandoverRequestTest, ADriverThatIsNotMadeIsToldWhy) {
  Fork({});
  Say({.step = HotUpdateStep::kBegin, .memory_bytes = kBytes - 1}, file_.get());
  EXPECT_EQ(Answer(), absl::InvalidArgumentError("size"));
  EXPECT_EQ(WaitForChild(), kAborted);
}

// The other way round: a new process that answers with anything is ended.
TEST_F(HandoverRequestTest, AnAnswerThatIsNoneEndsTheNewProcess) {
  const std::string answers[] = {
      std::string("\xff\xff\xff\xff", 4),    // of 4 GiB
      std::string("\x02\0\0\0\x08\x63", 6),  // no such code
      std::string("\x02\0\0\0zz", 6)};
  for (const std::string& bytes : answers) {
    Pair update = Sockets(SOCK_STREAM);
    child_ = fork();
    if (child_ == 0) {
      while (true) pause();
    }
    process_ = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, child_, 0)));
    socket_ = std::move(update.ours);
    ASSERT_EQ(send(update.theirs.get(), bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
    EXPECT_FALSE(Update().ok());
    EXPECT_TRUE(old().is_running());
    EXPECT_EQ(WaitForChild(), -SIGKILL);
  }
}

}  // namespace
}  // namespace ferrybus::vsp
