// SPDX-License-Identifier: MIT
//
// Every fault point of a save, its checkpoint and a restore x {kill, error,
// delay, no memory}, with packets of every kind in flight: whoever serves
// afterwards, each request is answered exactly once.

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <string>

#include "ferrybus/savestate/checkpoint.h"
#include "ferrybus/tests/faults/planned_fault.h"
#include "ferrybus/tests/testing/counted_traffic.h"
#include "ferrybus/tests/testing/move_harness.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::testing {
namespace {

using savestate::CheckpointFolder;
using savestate::LoadedCheckpoint;
using ::testing::HasSubstr;

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// A channel with packets in flight, whose state is in a checkpoint.
class World {
 public:
  World() : driver_(&traffic_) {
    const char* const base = std::getenv("TEST_TMPDIR");
    folder_ = std::string(base != nullptr ? base : "/tmp") + "/faults";
    std::filesystem::remove_all(folder_);
    harness_.guest().AddDriver(kTestInterface, &driver_);
    device_ = NewDevice();
    harness_.StartHost(device_.get());
    EXPECT_TRUE(harness_.guest().Connect().ok());
    EXPECT_TRUE(harness_.Pump());
    // Asked by both, answered by nobody; the host asks last, so that the guest
    // has not seen it.
    GuestAsks(5);
    EXPECT_TRUE(harness_.Pump());
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(device_->SendRequest(0));
    device_->Flush();
    EXPECT_TRUE(SaveAndWrite().ok());
    harness_.host().Thaw();
  }
  ~World() { std::filesystem::remove_all(folder_); }

  MoveHarness& harness() { return harness_; }

  void GuestAsks(int count) {
    for (int i = 0; i < count; ++i) EXPECT_TRUE(driver_.SendRequest(100));
    driver_.Flush();
  }

  absl::Status SaveAndWrite() {
    absl::StatusOr<CheckpointFolder> folder = CheckpointFolder::Open(folder_);
    if (!folder.ok()) return folder.status();
    absl::StatusOr<std::string> saved = harness_.Save();
    if (!saved.ok()) return saved.status();
    return folder->Write(AsBytes(*saved)).status();
  }
  absl::Status LoadAndRestore() {
    absl::StatusOr<CheckpointFolder> folder = CheckpointFolder::Open(folder_);
    if (!folder.ok()) return folder.status();
    absl::StatusOr<LoadedCheckpoint> loaded = folder->LoadNewest();
    if (!loaded.ok()) return loaded.status();
    // The host before is gone, and its device with it.
    harness_.DropHost();
    device_ = NewDevice();
    return harness_.RestoreHost(loaded->bytes, device_.get());
  }
  // All is answered, nothing twice.
  void Finish() {
    std::mt19937_64 random(1);
    for (int i = 0; i < 100 && !traffic_.IsEven(); ++i) {
      while (device_->AnswerOne(random)) {
      }
      harness_.Pump();
    }
    EXPECT_EQ(traffic_.guest.answered(), traffic_.guest.asked());
    EXPECT_EQ(traffic_.host.answered(), traffic_.host.asked());
    EXPECT_GE(traffic_.guest.asked(), 5u);
    EXPECT_GE(traffic_.host.asked(), 3u);
    EXPECT_EQ(traffic_.doubled(), 0u);
    EXPECT_TRUE(harness_.faults().empty());
  }

 private:
  std::unique_ptr<PiledDevice> NewDevice() {
    return std::make_unique<PiledDevice>(vsp::IncomingPolicy::kResume,
                                         &traffic_);
  }

  std::string folder_;
  CountedTraffic traffic_;
  MoveHarness harness_{MoveHarness::Options()};
  EchoDriver driver_;
  std::unique_ptr<PiledDevice> device_;
};

bool EndsTheProcess(const Fault& fault) {
  return fault.kind == FaultKind::kKill || fault.kind == FaultKind::kNoMemory;
}

// The checkpoint before, or the new one, is there and whole: the next process
// goes on from it.  Nothing of a save that failed is seen by the guest.
// promise:P1 promise:P7 bad:K1 bad:S20
TEST(SaveFaultsTest, EveryPointEveryKind) {
  ForEachFault(FaultPoint::kSaveConnection, FaultPoint::kCheckpointRemoveOld, 4,
               [](const Fault& fault) {
                 World world;
                 if (EndsTheProcess(fault)) {
                   const bool is_ended = EndsInChild([&] {
                     PlannedFault planned(fault);
                     ASSERT_TRUE(world.SaveAndWrite().ok());
                     ASSERT_TRUE(!planned.has_happened() ||
                                 fault.kind == FaultKind::kNoMemory);
                   });
                   const absl::Status status = world.LoadAndRestore();
                   EXPECT_TRUE(status.ok()) << status;
                   world.Finish();
                   return is_ended;
                 }
                 bool has_happened = false;
                 absl::Status status;
                 {
                   PlannedFault planned(
                       fault, {.during_delay = [&] { world.GuestAsks(2); }});
                   status = world.SaveAndWrite();
                   has_happened = planned.has_happened();
                 }
                 const bool is_error =
                     has_happened && fault.kind == FaultKind::kError;
                 EXPECT_EQ(status.ok(), !is_error) << status;
                 if (is_error) {
                   EXPECT_THAT(status.ToString(), HasSubstr(kPlannedError));
                   world.harness().host().Thaw();
                 } else {
                   status = world.LoadAndRestore();
                   EXPECT_TRUE(status.ok()) << status;
                 }
                 world.Finish();
                 return has_happened;
               });
}

// A restore that fails or ends anywhere before it has served is repeated from
// the same checkpoint.
// promise:P1 promise:P7
TEST(RestoreFaultsTest, EveryPointEveryKind) {
  ForEachFault(FaultPoint::kCheckpointLoad, FaultPoint::kRestoreStart, 5,
               [](const Fault& fault) {
                 World world;
                 bool has_happened = false;
                 if (EndsTheProcess(fault)) {
                   has_happened = EndsInChild([&] {
                     PlannedFault planned(fault);
                     ASSERT_TRUE(world.LoadAndRestore().ok());
                   });
                   // It served from then on, and the checkpoint is of before.
                   if (!has_happened) return false;
                 } else {
                   PlannedFault planned(
                       fault, {.during_delay = [&] { world.GuestAsks(2); }});
                   const absl::Status status = world.LoadAndRestore();
                   has_happened = planned.has_happened();
                   const bool is_error =
                       has_happened && fault.kind == FaultKind::kError;
                   EXPECT_EQ(status.ok(), !is_error) << status;
                   if (status.ok()) {
                     world.Finish();
                     return has_happened;
                   }
                   EXPECT_THAT(status.ToString(), HasSubstr(kPlannedError));
                 }
                 const absl::Status status = world.LoadAndRestore();
                 EXPECT_TRUE(status.ok()) << status;
                 world.Finish();
                 return has_happened;
               });
}

}  // namespace
}  // namespace ferrybus::testing
