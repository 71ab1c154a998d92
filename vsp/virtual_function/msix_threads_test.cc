// SPDX-License-Identifier: MIT

// vCPUs, device threads and a mover at once.

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "ferrybus/vsp/virtual_function/msix_table.h"
#include "ferrybus/vsp/virtual_function/msix_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

// The device does something while it takes over an entry.
class MeddlingHost final : public MsixHost, public MsixDevice {
 public:
  absl::StatusOr<MsixMessage> MapMessage(const MsixMessage& guest) override {
    return guest;
  }
  void SendMessage(uint32_t vector, const MsixMessage& message) override {
    sent.push_back(vector);
    last = message;
  }
  absl::Status WriteVirtualizedInterrupt(uint32_t,
                                         const MsixEntry& entry) override {
    device_entry = entry;
    ++writes;
    if (meddle) std::exchange(meddle, nullptr)();
    return absl::OkStatus();
  }

  std::function<void()> meddle;
  MsixEntry device_entry;
  MsixMessage last;
  int writes = 0;
  std::vector<uint32_t> sent;
};

void StartOne(MsixTable& table) {
  (void)table.Resume();
  (void)WriteEntry<uint64_t>(table, 0, kInterruptRange);
  (void)table.WriteControl(MsixTable::kEnable);
}

void Unmask(MsixTable& table) { (void)WriteEntry<uint32_t>(table, 12, 0); }

// doc:MX7
TEST(MsixThreadsTest, DeviceMayRaiseWhileItTakesAnEntry) {
  MeddlingHost host;
  MsixTable table({.vectors = 1}, &host, &host);
  StartOne(table);
  host.meddle = [&] { EXPECT_EQ(table.Raise(0), MsixRaise::kPending); };
  Unmask(table);
  EXPECT_EQ(host.sent.size(), 1u);
  host.meddle = [&] { EXPECT_EQ(table.Raise(0), MsixRaise::kPending); };
  (void)WriteEntry<uint32_t>(table, 8, 77);
  EXPECT_EQ(host.sent.size(), 2u);
  EXPECT_EQ(host.last.data, 77u);
}

TEST(MsixThreadsTest, MaskDuringTheUnmasksDeliveryReachesTheDevice) {
  MeddlingHost host;
  MsixTable table({.vectors = 1}, &host, &host);
  StartOne(table);
  std::thread other;
  host.meddle = [&] {
    other = std::thread([&] { (void)WriteEntry<uint32_t>(table, 12, 1); });
    while (ReadEntry(table, 8) >> 32 == 0) std::this_thread::yield();
  };
  Unmask(table);
  EXPECT_EQ(table.Raise(0), MsixRaise::kPending);
  other.join();
  EXPECT_TRUE(host.device_entry.is_masked());
  EXPECT_TRUE(host.sent.empty());
}

// bad:M8
TEST(MsixThreadsTest, WritesDuringADeliveryAreDeliveredOnce) {
  constexpr uint32_t kWriters = 8;
  MeddlingHost host;
  MsixTable table({.vectors = 1}, &host, &host);
  StartOne(table);
  std::vector<std::thread> writers;
  host.meddle = [&] {
    const uint64_t before = table.counters().guest_writes;
    for (uint32_t i = 0; i < kWriters; ++i) {
      writers.emplace_back(
          [&, i] { (void)WriteEntry<uint32_t>(table, 8, 100 + i); });
    }
    while (table.counters().guest_writes != before + kWriters) {
      std::this_thread::yield();
    }
  };
  Unmask(table);
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(host.writes, 2);
  EXPECT_EQ(host.device_entry.data, ReadEntry(table, 8) & 0xffffffff);
}

// A writer and a pause wait for the same delivery: whoever comes first, the
// device is not called once the pause has returned.
TEST(MsixThreadsTest, WriteThatWaitedBehindAPauseIsNotDelivered) {
  for (int round = 0; round < 100; ++round) {
    MeddlingHost host;
    MsixTable table({.vectors = 1}, &host, &host);
    StartOne(table);
    std::atomic<bool> is_paused = false;
    std::vector<std::thread> threads;
    host.meddle = [&] {
      threads.emplace_back([&] {
        table.Pause();
        is_paused = true;
      });
      for (int i = 0; i < 20; ++i) std::this_thread::yield();
      threads.emplace_back([&] { (void)WriteEntry<uint32_t>(table, 8, 5); });
      while ((ReadEntry(table, 8) & 0xff) != 5) std::this_thread::yield();
      for (int i = 0; i < 20; ++i) std::this_thread::yield();
      host.meddle = [&] {
        for (int i = 0; i < 20; ++i) std::this_thread::yield();
        EXPECT_FALSE(is_paused);
      };
    };
    Unmask(table);
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(table.Save().ok());
    is_paused = false;
    EXPECT_TRUE(table.Resume().ok());
    EXPECT_EQ(host.device_entry.data, 5u);
  }
}

constexpr uint32_t kVectors = 8;
constexpr int kRounds = 2000;

// Which data goes with an address: a torn message shows.
uint32_t DataFor(uint64_t address) {
  return static_cast<uint32_t>(address * 2654435761u);
}

struct Interrupts {
  std::array<std::atomic<uint64_t>, kVectors> causes = {};
  std::array<std::atomic<uint64_t>, kVectors> seen = {};
  std::atomic<int> torn = 0;
  std::atomic<int> overlapping = 0;
  std::atomic<bool> is_paused = false;
  std::atomic<int> while_paused = 0;
};

class CheckingHost final : public MsixHost, public MsixDevice {
 public:
  explicit CheckingHost(Interrupts* interrupts) : interrupts_(interrupts) {}
  absl::StatusOr<MsixMessage> MapMessage(const MsixMessage& guest) override {
    return guest;
  }
  void SendMessage(uint32_t vector, const MsixMessage& message) override {
    if (message.data != DataFor(message.address)) ++interrupts_->torn;
    if (interrupts_->is_paused) ++interrupts_->while_paused;
    interrupts_->seen[vector] = interrupts_->causes[vector].load();
  }
  absl::Status WriteVirtualizedInterrupt(uint32_t, const MsixEntry&) override {
    if (is_inside_.exchange(true)) ++interrupts_->overlapping;
    if (interrupts_->is_paused) ++interrupts_->while_paused;
    is_inside_ = false;
    return absl::OkStatus();
  }

 private:
  Interrupts* interrupts_;
  std::atomic<bool> is_inside_ = false;
};

// A driver: an entry is changed only while it is masked.
void RunDriver(MsixTable& table, uint32_t vector) {
  for (uint32_t i = 0; i < kRounds; ++i) {
    const uint64_t address = kInterruptRange + (i % 1000) * 16;
    (void)WriteEntry<uint32_t>(table, vector * 16 + 12, 1);
    (void)WriteEntry<uint64_t>(table, vector * 16, address);
    (void)WriteEntry<uint32_t>(table, vector * 16 + 8, DataFor(address));
    (void)WriteEntry<uint32_t>(table, vector * 16 + 12, 0);
    if (ReadEntry(table, vector * 16) != address) ADD_FAILURE();
  }
}

void RunDevice(MsixTable& table, Interrupts& interrupts, uint32_t vector) {
  for (int i = 0; i < kRounds; ++i) {
    ++interrupts.causes[vector];
    (void)table.Raise(vector);
    (void)table.Raise((vector + 1) % kVectors);
  }
}

void RunMover(MsixTable& table, Interrupts& interrupts) {
  for (int i = 0; i < kRounds / 2; ++i) {
    table.Pause();
    interrupts.is_paused = true;
    (void)table.Save();
    (void)table.WriteControl(i % 2 == 0 ? MsixTable::kEnable
                                        : MsixTable::kEnable |
                                              MsixTable::kFunctionMask);
    std::this_thread::yield();
    interrupts.is_paused = false;
    if (i % 3 == 0) (void)table.Rewrite();
    (void)table.Resume();
    (void)ReadPendingWord(table, 0);
    (void)table.counters();
  }
}

// doc:MX7 bad:M6
TEST(MsixThreadsTest, NoInterruptIsLostAndNoMessageTorn) {
  Interrupts interrupts;
  CheckingHost host(&interrupts);
  MsixTable table({.vectors = kVectors}, &host, &host);
  (void)table.Resume();
  std::vector<std::thread> threads;
  for (uint32_t v = 0; v < kVectors; v += 2) {
    threads.emplace_back([&, v] {
      RunDriver(table, v);
      RunDriver(table, v + 1);
    });
    threads.emplace_back([&, v] {
      RunDevice(table, interrupts, v);
      RunDevice(table, interrupts, v + 1);
    });
  }
  threads.emplace_back([&] { RunMover(table, interrupts); });
  for (std::thread& thread : threads) thread.join();
  (void)table.WriteControl(MsixTable::kEnable);
  for (uint32_t v = 0; v < kVectors; ++v) {
    EXPECT_EQ(interrupts.seen[v], interrupts.causes[v]) << v;
  }
  EXPECT_EQ(ReadPendingWord(table, 0), 0u);
  EXPECT_EQ(interrupts.torn, 0);
  EXPECT_EQ(interrupts.overlapping, 0);
  EXPECT_EQ(interrupts.while_paused, 0);
}

}  // namespace
}  // namespace ferrybus::vsp
