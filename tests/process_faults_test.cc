// SPDX-License-Identifier: MIT
//
// The guest and the host as processes of their own, over one memory: stopped
// for a while at any moment, and killed both.
//
//   FERRYBUS_STOP_SECONDS=N   the longest stop of each (3)
//   FERRYBUS_KILLS=N          how often both are killed (40)

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ferrybus/ringbuffer/testing/test_seed.h"
#include "ferrybus/savestate/checkpoint.h"
#include "ferrybus/tests/testing/counted_traffic.h"
#include "ferrybus/tests/testing/move_harness.h"
#include "gtest/gtest.h"

namespace ferrybus::testing {
namespace {

using ringbuffer::testing::TestSeed;
using savestate::CheckpointFolder;
using savestate::LoadedCheckpoint;

int FromEnvironment(const char* name, int otherwise) {
  const char* const text = std::getenv(name);
  return text != nullptr ? std::atoi(text) : otherwise;
}

// Runs `work` in a process of its own, and ends that with what it returns.
pid_t InProcess(const std::function<int()>& work) {
  const pid_t child = fork();
  if (child < 0) std::abort();  // kill(-1) would be everybody
  if (child != 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // not to outlive a test that is ended
  _exit(work());
}

// What it ended with; -1: a signal.
int Wait(pid_t child) {
  int status = 0;
  if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

// A guest and a host that are connected.
struct Sides {
  Sides() {
    harness.guest().AddDriver(kTestInterface, &driver);
    harness.StartHost(&device);
    EXPECT_TRUE(harness.guest().Connect().ok());
    EXPECT_TRUE(harness.Pump());
  }
  CountedTraffic traffic;
  MoveHarness harness{MoveHarness::Options()};
  EchoDriver driver{&traffic};
  PiledDevice device{vsp::IncomingPolicy::kResume, &traffic};
};

// What the processes of a test tell each other, beside the bus.
struct Progress {
  std::atomic<uint64_t> answered_to_guest{0};
  std::atomic<uint64_t> answered_to_host{0};
  std::atomic<uint64_t> checkpoints{0};
  std::atomic<bool> is_guest_done{false};
  std::atomic<bool> is_host_done{false};
};

class SharedProgress {
 public:
  SharedProgress()
      : progress_(new (mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Progress) {}
  ~SharedProgress() { munmap(progress_, sizeof(Progress)); }
  Progress* operator->() const { return progress_; }

 private:
  Progress* const progress_;
};

// ---- Stopped

constexpr uint64_t kRequests = 20'000;

// A side's work: asks, answers what the other asks, until both have all their
// answers.  Returns 0 if each came once.
int GuestWork(Sides& sides, const SharedProgress& progress) {
  auto& [traffic, harness, driver, device] = sides;
  const AnswerLedger& ledger = traffic.guest;
  while (!progress->is_guest_done || !progress->is_host_done) {
    while (ledger.asked() < kRequests && driver.SendRequest(100)) {
    }
    driver.Flush();
    harness.PumpGuest();
    progress->answered_to_guest = ledger.answered();
    if (ledger.answered() == kRequests) progress->is_guest_done = true;
    absl::SleepFor(absl::Microseconds(50));
  }
  return ledger.doubled() == 0 && ledger.IsEven() ? 0 : 1;
}

int HostWork(Sides& sides, const SharedProgress& progress) {
  auto& [traffic, harness, driver, device] = sides;
  std::mt19937_64 random(1);
  const AnswerLedger& ledger = traffic.host;
  while (!progress->is_guest_done || !progress->is_host_done) {
    while (ledger.asked() < kRequests && device.SendRequest(100)) {
    }
    device.Flush();
    harness.PumpHost();
    while (device.AnswerOne(random)) {
    }
    progress->answered_to_host = ledger.answered();
    if (ledger.answered() == kRequests) progress->is_host_done = true;
    absl::SleepFor(absl::Microseconds(50));
  }
  return ledger.doubled() == 0 && ledger.IsEven() && harness.faults().empty()
             ? 0
             : 1;
}

void StopFor(pid_t process, absl::Duration time) {
  kill(process, SIGSTOP);
  absl::SleepFor(time);
  kill(process, SIGCONT);
}

// bad:K3 promise:P2
TEST(ProcessFaultsTest, AStoppedSideIsWaitedFor) {
  std::mt19937_64 random(
      TestSeed("//tests:process_faults_test", "*AStoppedSideIsWaitedFor"));
  const SharedProgress progress;
  Sides sides;

  const pid_t processes[] = {
      InProcess([&] { return GuestWork(sides, progress); }),
      InProcess([&] { return HostWork(sides, progress); })};
  const absl::Duration longest =
      absl::Seconds(FromEnvironment("FERRYBUS_STOP_SECONDS", 3));
  uint64_t stops = 0;
  while (!progress->is_guest_done || !progress->is_host_done) {
    StopFor(processes[random() % 2], absl::Microseconds(random() % 3000));
    absl::SleepFor(absl::Microseconds(random() % 1000));
    // With requests under way.
    if (++stops == 20) StopFor(processes[0], longest);
    if (stops == 30) StopFor(processes[1], longest);
    ASSERT_LT(stops, 100'000u) << progress->answered_to_guest << " and "
                               << progress->answered_to_host << " answers";
  }
  EXPECT_EQ(Wait(processes[0]), 0) << "the guest";
  EXPECT_EQ(Wait(processes[1]), 0) << "the host";
  EXPECT_GT(stops, 30u);
  std::printf("%llu stops, %llu requests of each side\n",
              static_cast<unsigned long long>(stops),
              static_cast<unsigned long long>(kRequests));
}

// ---- Killed

absl::Status Checkpoint(MoveHarness& harness, CheckpointFolder& folder) {
  absl::StatusOr<std::string> saved = harness.Save();
  if (!saved.ok()) return saved.status();
  absl::Status written =
      folder
          .Write({reinterpret_cast<const std::byte*>(saved->data()),
                  saved->size()})
          .status();
  harness.host().Thaw();
  return written;
}

// Both sides under load, with a checkpoint now and then, until they are killed.
int RunUntilKilled(Sides& sides, const std::string& path,
                   const SharedProgress& progress) {
  auto& [traffic, harness, driver, device] = sides;
  std::mt19937_64 random(1);
  absl::StatusOr<CheckpointFolder> folder = CheckpointFolder::Open(path);
  if (!folder.ok()) return 1;
  while (traffic.doubled() == 0) {
    for (int i = 0; i < 5; ++i) {
      (void)driver.SendRequest(100);
      (void)device.SendRequest(100);
    }
    driver.Flush();
    device.Flush();
    harness.Pump(static_cast<int>(random() % 4));
    for (int i = 0; i < 4; ++i) (void)device.AnswerOne(random);
    if (random() % 8 != 0) continue;
    if (!Checkpoint(harness, *folder).ok()) return 2;
    ++progress->checkpoints;
  }
  return 3;
}

// Whoever comes next has the memory and a checkpoint that is older than it.
void ServeANewGuest(MoveHarness& harness, const std::string& path) {
  absl::StatusOr<CheckpointFolder> folder = CheckpointFolder::Open(path);
  ASSERT_TRUE(folder.ok()) << folder.status();
  absl::StatusOr<LoadedCheckpoint> loaded = folder->LoadNewest();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  CountedTraffic traffic;
  EchoDriver driver(&traffic);
  PiledDevice device(vsp::IncomingPolicy::kResume, &traffic);
  harness.RestartGuest();
  harness.guest().AddDriver(kTestInterface, &driver);
  const absl::Status restored = harness.RestoreHost(loaded->bytes, &device);
  ASSERT_TRUE(restored.ok()) << restored;
  ASSERT_TRUE(harness.guest().Connect().ok());
  ASSERT_TRUE(harness.Pump());
  std::mt19937_64 random(1);
  // The old guest's requests end with their channel; the new one's is offered
  // once the device has let go of them.
  while (device.AnswerOne(random)) {
  }
  ASSERT_TRUE(harness.Pump());
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(driver.SendRequest(100));
    ASSERT_TRUE(device.SendRequest(100));
    driver.Flush();
    device.Flush();
    ASSERT_TRUE(harness.Pump());
    while (device.AnswerOne(random)) {
    }
    ASSERT_TRUE(harness.Pump());
  }
  EXPECT_TRUE(traffic.IsEven());
  EXPECT_EQ(traffic.doubled(), 0u) << "a packet of the guest before";
  harness.RestartGuest();  // lets go of the driver and the device
}

// The guest's process takes its end of the bus with it: what boots on the
// memory is a new guest, and nothing of the old one's comes to it.
// bad:K4
TEST(ProcessFaultsTest, BothAreKilledAndTheMemorySurvives) {
  std::mt19937_64 random(
      TestSeed("//tests:process_faults_test", "*BothAreKilled*"));
  const int kills = FromEnvironment("FERRYBUS_KILLS", 40);
  uint64_t checkpoints = 0;
  for (int i = 0; i < kills; ++i) {
    const std::string path = ::testing::TempDir() + "/killed";
    std::filesystem::remove_all(path);
    const SharedProgress progress;
    Sides sides;
    const pid_t both =
        InProcess([&] { return RunUntilKilled(sides, path, progress); });
    while (progress->checkpoints == 0 && waitpid(both, nullptr, WNOHANG) == 0) {
      absl::SleepFor(absl::Microseconds(100));
    }
    absl::SleepFor(absl::Microseconds(random() % 20'000));
    kill(both, SIGKILL);
    ASSERT_EQ(Wait(both), -1) << "it ended by itself";
    checkpoints += progress->checkpoints;
    ServeANewGuest(sides.harness, path);
    ASSERT_FALSE(HasFailure()) << "kill " << i;
  }
  std::printf("%d kills, %llu checkpoints\n", kills,
              static_cast<unsigned long long>(checkpoints));
}

}  // namespace
}  // namespace ferrybus::testing
