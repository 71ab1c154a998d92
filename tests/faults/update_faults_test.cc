// SPDX-License-Identifier: MIT
//
// Every fault point of a hot update, in the old process and in the new one, x
// {kill, error, delay, no memory}: the device has its old driver or its new
// one, and each command was counted once.

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ferrybus/tests/faults/planned_fault.h"
#include "ferrybus/vsp/virtual_function/hot_update.h"
#include "ferrybus/vsp/virtual_function/hot_update_handover.h"
#include "gtest/gtest.h"

namespace ferrybus::testing {
namespace {

using vsp::HotUpdate;
using vsp::HotUpdateBlock;
using vsp::HotUpdateBlocks;
using vsp::HotUpdateRange;
using vsp::kHotUpdatePageBytes;
using vsp::RemoteSuccessor;
using vsp::TakenOver;

constexpr uint64_t kPages = 8;
constexpr uint64_t kBytes = kPages * kHotUpdatePageBytes;
constexpr int kServed = 10;
constexpr int kAborted = 11;

// Adds up the numbers of its commands, in a register of its own, and keeps the
// last in the device's memory.
class AddingDriver final : public vsp::HotUpdateDriver {
 public:
  explicit AddingDriver(absl::Span<std::byte> memory) : memory_(memory) {}

  void Begin() { is_running_ = true; }
  // 0: it does not run.
  uint64_t Command(uint64_t number) {
    if (!is_running_) return 0;
    std::memcpy(memory_.data(), &number, sizeof(number));
    return sum_ += number;
  }

  absl::Status Save(HotUpdateBlocks& blocks) override {
    is_running_ = false;
    const HotUpdateRange all[] = {{0, kPages}};
    absl::Status status = blocks.SaveRanges(all);
    const std::byte kind{1};
    status.Update(blocks.SaveBuffer(
        {reinterpret_cast<const std::byte*>(&sum_), sizeof(sum_)}, {&kind, 1}));
    return status;
  }
  void CancelUpdate() override { is_running_ = true; }
  absl::Status Restore(HotUpdateBlock block) override {
    if (!block.metadata.empty()) {
      std::memcpy(&sum_, block.segments[0].data(), sizeof(sum_));
    }
    return absl::OkStatus();
  }
  absl::Status Start() override {
    is_running_ = true;
    return absl::OkStatus();
  }
  void RestoreComplete() override {}

 private:
  const absl::Span<std::byte> memory_;
  uint64_t sum_ = 0;
  bool is_running_ = false;
};

absl::Span<std::byte> Map(int file) {
  void* const memory =
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  EXPECT_NE(memory, MAP_FAILED);
  return {static_cast<std::byte*>(memory), kBytes};
}

std::pair<UniqueFd, UniqueFd> Sockets(int type) {
  int fds[2];
  EXPECT_EQ(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// A device with a driver here, and a new process that may take it over.
class Device {
 public:
  Device() : file_(memfd_create("device", MFD_CLOEXEC)) {
    EXPECT_EQ(ftruncate(file_.get(), kBytes), 0);
    memory_ = Map(file_.get());
    auto driver = std::make_unique<AddingDriver>(memory_);
    driver->Begin();
    for (uint64_t number = 1; number <= 4; ++number) driver->Command(number);
    driver_ = std::move(driver);
  }
  ~Device() { munmap(memory_.data(), memory_.size()); }

  // `fault`, if any, is of the new process.
  void StartNewProcess(const Fault* fault) {
    // A delay lasts for ever; whatever else happens does not depend on time.
    const bool is_waited_for =
        fault != nullptr && fault->kind == FaultKind::kDelay;
    answer_max_ = is_waited_for ? absl::Seconds(1) : absl::Seconds(60);
    auto [update, its_update] = Sockets(SOCK_STREAM);
    auto [commands, its_commands] = Sockets(SOCK_SEQPACKET);
    process_id_ = fork();
    if (process_id_ == 0) {
      update = UniqueFd();
      commands = UniqueFd();
      RunNewProcess(std::move(its_update), std::move(its_commands), fault);
    }
    process_ =
        UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, process_id_, 0)));
    update_ = std::move(update);
    commands_ = std::move(commands);
  }
  absl::Status Update() {
    auto successor = RemoteSuccessor::Create(
        std::move(update_), std::move(process_), memory_, file_.get(),
        {.answer_max = answer_max_});
    if (!successor.ok()) return successor.status();
    return HotUpdate(memory_, &driver_, *std::move(successor)).Run();
  }
  // As seen when the old process is gone.
  void ForgetOld() {
    update_ = UniqueFd();
    process_ = UniqueFd();
  }

  uint64_t CommandOld(uint64_t number) {
    auto* const old = dynamic_cast<AddingDriver*>(driver_.get());
    return old == nullptr ? 0 : old->Command(number);
  }
  // 0: it does not run.
  uint64_t CommandNew(uint64_t number) {
    uint64_t sum = 0;
    if (send(commands_.get(), &number, sizeof(number), MSG_NOSIGNAL) != 8 ||
        recv(commands_.get(), &sum, sizeof(sum), 0) != 8) {
      return 0;
    }
    return sum;
  }
  // Its exit code, or minus the signal that ended it.
  int WaitForNewProcess() {
    commands_ = UniqueFd();
    int status = 0;
    EXPECT_EQ(waitpid(process_id_, &status, 0), process_id_);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  [[noreturn]] static void RunNewProcess(UniqueFd update, UniqueFd commands,
                                         const Fault* fault) {
    std::unique_ptr<PlannedFault> planned;
    if (fault != nullptr) {
      planned = std::make_unique<PlannedFault>(
          *fault, FaultActions{.during_delay = [] { pause(); }});
    }
    absl::StatusOr<TakenOver> taken = vsp::TakeOver(
        std::move(update),
        [](UniqueFd file, uint64_t) -> absl::StatusOr<TakenOver> {
          const absl::Span<std::byte> memory = Map(file.get());
          return TakenOver{std::make_unique<AddingDriver>(memory), memory};
        });
    if (!taken.ok()) _exit(kAborted);
    auto& driver = static_cast<AddingDriver&>(*taken->driver);
    uint64_t number = 0;
    while (recv(commands.get(), &number, 8, 0) == 8) {
      const uint64_t sum = driver.Command(number);
      (void)send(commands.get(), &sum, sizeof(sum), MSG_NOSIGNAL);
    }
    _exit(kServed);
  }

  UniqueFd file_;
  absl::Span<std::byte> memory_;
  std::unique_ptr<vsp::HotUpdateDriver> driver_;
  pid_t process_id_ = -1;
  UniqueFd process_, update_, commands_;
  absl::Duration answer_max_;
};

// Whatever becomes of the new process: the old driver runs on, with its sum.
// bad:H5
TEST(UpdateFaultsTest, EveryPointOfTheNewProcess) {
  ForEachFault(FaultPoint::kTakeOverCreate, FaultPoint::kTakeOverStarted, 2,
               [](const Fault& fault) {
                 Device device;
                 device.StartNewProcess(&fault);
                 const absl::Status status = device.Update();
                 if (status.ok()) {  // it was not that often there
                   EXPECT_EQ(device.CommandNew(5), 15u);
                   EXPECT_EQ(device.WaitForNewProcess(), kServed);
                   return false;
                 }
                 EXPECT_EQ(device.CommandOld(5), 15u) << status;
                 EXPECT_NE(device.WaitForNewProcess(), kServed);
                 return true;
               });
}

// What fails in the old process rolls back while there is a way back.
// bad:H5
TEST(UpdateFaultsTest, EveryPointOfTheOldProcess) {
  ForEachFault(
      FaultPoint::kUpdateSave, FaultPoint::kUpdateStarted, 2,
      [](const Fault& fault) {
        if (fault.kind == FaultKind::kKill ||
            fault.kind == FaultKind::kNoMemory) {
          Device device;
          device.StartNewProcess(nullptr);
          const bool is_ended = EndsInChild([&] {
            PlannedFault planned(fault);
            ASSERT_TRUE(device.Update().ok());
          });
          device.ForgetOld();
          // A process takes its driver with it; another runs only if it had
          // been started.  A starved one ends at its next allocation.
          const uint64_t sum = device.CommandNew(5);
          const bool runs = sum != 0;
          EXPECT_EQ(device.WaitForNewProcess(), runs ? kServed : kAborted);
          EXPECT_EQ(sum, runs ? 15u : 0u);
          if (fault.kind == FaultKind::kKill) {
            EXPECT_EQ(runs,
                      !is_ended || fault.point == FaultPoint::kUpdateStarted);
          }
          return is_ended;
        }
        Device device;
        device.StartNewProcess(nullptr);
        PlannedFault planned(fault, {.during_delay = [] {
                               absl::SleepFor(absl::Milliseconds(5));
                             }});
        const absl::Status status = device.Update();
        const bool is_error =
            planned.has_happened() && fault.kind == FaultKind::kError;
        EXPECT_EQ(status.ok(), !is_error) << status;
        EXPECT_EQ(device.CommandOld(5), is_error ? 15u : 0u);
        EXPECT_EQ(device.CommandNew(5), is_error ? 0u : 15u);
        EXPECT_EQ(device.WaitForNewProcess(), is_error ? kAborted : kServed);
        return planned.has_happened();
      });
}

// A fault while it rolls back.
TEST(UpdateFaultsTest, RollBack) {
  constexpr Fault kRefused = {FaultPoint::kTakeOverStart, FaultKind::kError};
  ForEachFault(FaultPoint::kUpdateRollBack, FaultPoint::kUpdateRollBack, 2,
               [&](const Fault& fault) {
                 Device device;
                 device.StartNewProcess(&kRefused);
                 bool has_happened = false;
                 if (fault.kind == FaultKind::kDelay) {
                   PlannedFault planned(fault);
                   EXPECT_FALSE(device.Update().ok());
                   has_happened = planned.has_happened();
                   EXPECT_EQ(device.CommandOld(5), 15u);
                 } else {
                   has_happened = EndsInChild([&] {
                     PlannedFault planned(fault);
                     ASSERT_FALSE(device.Update().ok());
                   });
                 }
                 device.ForgetOld();
                 EXPECT_EQ(device.CommandNew(5), 0u);
                 EXPECT_EQ(device.WaitForNewProcess(), kAborted);
                 return has_happened;
               });
}

}  // namespace
}  // namespace ferrybus::testing
