// SPDX-License-Identifier: MIT

#include "ferrybus/tests/migration/memory_host.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "ferrybus/savestate/steady_clock.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {
namespace {

constexpr char kDevice[] = "memory";
constexpr absl::Duration kSettleTime = absl::Seconds(60);

int MakeMemfd(uint64_t size_bytes) {
  const int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  EXPECT_EQ(ftruncate(fd, static_cast<off_t>(size_bytes)), 0);
  EXPECT_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
  return fd;
}

}  // namespace

// ---- TestMemory

TestMemory::TestMemory(uint64_t size_bytes)
    : TestMemory(MakeMemfd(size_bytes), size_bytes) {}

TestMemory::TestMemory(int fd, uint64_t size_bytes) : fd_(fd) {
  void* const memory =
      mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (memory == MAP_FAILED) std::abort();
  bytes_ = {static_cast<std::byte*>(memory), size_bytes};
}

TestMemory::~TestMemory() {
  munmap(bytes_.data(), bytes_.size());
  close(fd_);
}

// ---- MemoryHost

MemoryHost::MemoryHost(uint64_t pages, Capabilities capabilities)
    : size_bytes_(pages * migrate_tool::kPatternPageBytes),
      capabilities_(capabilities) {
  auto disk = std::make_unique<FakeLedger>();
  disk_ = disk.get();
  ledger_ = std::make_unique<LockedLedger>(std::move(disk));
  memory_ = std::make_unique<TestMemory>(size_bytes_);
}

void MemoryHost::MakeDevice(MemoryOrigin origin) {
  pages_.reset();
  device_ = std::make_unique<migrate_tool::MemoryDevice>(
      kDevice, "", memory_->bytes(), capabilities_, memory_->fd());
  pages_ = *PendingPages::Create(device_.get(), origin);
}

void MemoryHost::Own() {
  ASSERT_TRUE(ledger_
                  ->Store({.state = Ownership::kOwner,
                           .epoch = 1,
                           .migration_id = {},
                           .peer = {},
                           .messages = {}})
                  .ok());
  absl::MutexLock lock(&mutex_);
  MakeDevice(MemoryOrigin::kZeros);
  device_->Run();
}

bool MemoryHost::is_running() const {
  absl::MutexLock lock(&mutex_);
  return device_ != nullptr && device_->is_running();
}

bool MemoryHost::Write() {
  absl::MutexLock lock(&mutex_);
  if (device_ == nullptr || !device_->BeginWrite()) return false;
  migrate_tool::PatternMemory pattern(memory_->bytes());
  device_->MarkWritten(pattern.WriteNext().offset_bytes,
                       migrate_tool::kPatternPageBytes);
  device_->MarkWritten(0, migrate_tool::kPatternPageBytes);
  device_->EndWrite();
  return true;
}

absl::Status MemoryHost::CheckMemory() const {
  absl::MutexLock lock(&mutex_);
  return migrate_tool::PatternMemory(memory_->bytes()).Check();
}

uint64_t MemoryHost::writes() const {
  absl::MutexLock lock(&mutex_);
  return migrate_tool::PatternMemory(memory_->bytes()).writes();
}

uint64_t MemoryHost::memory_inode() const {
  absl::MutexLock lock(&mutex_);
  struct stat info = {};
  EXPECT_EQ(fstat(memory_->fd(), &info), 0);
  return info.st_ino;
}

absl::StatusOr<MachineRegistry::Arrival> MemoryHost::BeginArrival(
    const std::string& /*machine*/) {
  return Arrival{.host = this, .ledger = ledger_.get()};
}

absl::StatusOr<OwnershipLedger*> MemoryHost::FindLedger(
    const std::string& machine) {
  if (machine == kMachine) return ledger_.get();
  return absl::NotFoundError(absl::StrCat("no machine ", machine));
}

absl::StatusOr<std::vector<Migratable*>> MemoryHost::CreateDevices(
    const Hello& /*hello*/, std::vector<int> descriptors, bool is_recovery) {
  absl::MutexLock lock(&mutex_);
  pages_.reset();
  device_.reset();
  if (!descriptors.empty()) {
    memory_ = std::make_unique<TestMemory>(descriptors[0], size_bytes_);
  } else if (!is_recovery) {
    memory_ = std::make_unique<TestMemory>(size_bytes_);
  }
  MakeDevice(descriptors.empty() && !is_recovery ? MemoryOrigin::kZeros
                                                 : MemoryOrigin::kUnknown);
  return std::vector<Migratable*>{device_.get()};
}

void MemoryHost::DestroyDevices() {
  absl::MutexLock lock(&mutex_);
  pages_.reset();
  device_.reset();
}

// ---- WritingClient

WritingClient::WritingClient(MemoryHost* source, MemoryHost* target)
    : source_(source), target_(target), thread_([this] { Run(); }) {}

void WritingClient::Run() {
  while (!is_ending_) {
    const bool is_at_source = source_->Write();
    const bool is_at_target = target_->Write();
    written_ += (is_at_source ? 1 : 0) + (is_at_target ? 1 : 0);
    // Seen one after the other: twice is once too often all the same, as a
    // machine goes one way here.
    if (is_at_target && source_->is_running()) was_at_both_ = true;
    absl::SleepFor(absl::Milliseconds(1));
  }
}

void WritingClient::Stop() {
  is_ending_ = true;
  if (thread_.joinable()) thread_.join();
}

std::string WritingClient::CheckEnd() {
  const absl::Time until = savestate::SteadyNow() + kSettleTime;
  while (!target_->book().Running().empty() ||
         !source_->book().Running().empty()) {
    if (savestate::SteadyNow() > until) return "still undecided";
    absl::SleepFor(absl::Milliseconds(5));
  }
  Stop();
  if (was_at_both_) return "it ran at both hosts";
  if (source_->is_running() == target_->is_running()) {
    return source_->is_running() ? "two run it" : "nobody runs it";
  }
  MemoryHost& owner = target_->is_running() ? *target_ : *source_;
  MemoryHost& other = target_->is_running() ? *source_ : *target_;
  if (owner.record().state != Ownership::kOwner) return "its ledger says no";
  if (other.record().state == Ownership::kOwner ||
      other.record().state == Ownership::kPrepared) {
    return "the other's ledger says yes";
  }
  if (owner.writes() != written_) {
    return absl::StrCat(owner.writes(), " writes in memory, the client's were ",
                        written_.load());
  }
  return std::string(owner.CheckMemory().message());
}

}  // namespace ferrybus::migration
