// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/hot_update.h"

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/vsp/virtual_function/hot_update_blocks.h"
#include "ferrybus/vsp/virtual_function/hot_update_test_util.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Phase = HotUpdate::Phase;

// A device that serves a client, and a successor for its driver.
class Device {
 public:
  explicit Device(DriverPlan old_plan = {}, DriverPlan new_plan = {}) {
    auto old = std::make_unique<TestDriver>(&memory, &board, old_plan);
    old->Begin();
    driver = std::move(old);
    new_plan.name = "new";
    successor = std::make_unique<TestDriver>(&memory, &board, new_plan);
  }
  TestDriver& current() { return static_cast<TestDriver&>(*driver); }
  HotUpdate& Begin(const HotUpdateLimits& limits = {}) {
    return update.emplace(memory.bytes(), &driver, std::move(successor),
                          limits);
  }
  size_t Count(const std::string& call) const {
    size_t count = 0;
    for (const std::string& c : board.calls) count += c == call ? 1 : 0;
    return count;
  }
  // Empty, or what is wrong: one driver, this one, which serves the client.
  std::string CheckOnly(const std::string& name) {
    if (board.alive != 1 || board.running != 1 || board.running_max != 1) {
      return absl::StrCat(board.alive, " alive, ", board.running, " running, ",
                          board.running_max, " at once");
    }
    if (current().name() != name) return current().name() + " runs";
    if (update->blocks().size() != 0 || update->blocks().copied_bytes() != 0) {
      return "memory is kept";
    }
    return client.CommandAll(current());
  }

  DeviceMemory memory{kTestPages};
  DriverBoard board;
  TestClient client;
  std::unique_ptr<HotUpdateDriver> driver;
  std::unique_ptr<HotUpdateDriver> successor;
  std::optional<HotUpdate> update;
};

// doc:HU6 doc:HU8 doc:HU10 doc:HU18
TEST(HotUpdateTest, FunctionsGoOnUnderTheirNewDriver) {
  Device device;
  ASSERT_EQ(device.client.CommandAll(device.current()), "");
  const std::vector<std::byte> before = device.memory.Copy();
  HotUpdate& update = device.Begin();
  ASSERT_TRUE(update.Save().ok());
  EXPECT_EQ(update.blocks().size(), kTestBlocks);
  // Registers are a page for each copy; the device's pages stay.
  EXPECT_LT(update.blocks().copied_bytes(),
            kTestFunctions * (kHotUpdatePageBytes + 64));
  for (size_t i = 0; i < kTestBlocks; ++i) {
    ASSERT_TRUE(update.Restore(i).ok());
    EXPECT_EQ(device.board.running, 0);
    EXPECT_EQ(device.board.alive, 2);
  }
  EXPECT_EQ(device.memory.Copy(), before);
  ASSERT_TRUE(update.Start().ok());
  EXPECT_EQ(device.CheckOnly("new"), "");
  EXPECT_EQ(device.Count("new:restore"), kTestBlocks);
  EXPECT_EQ(device.Count("new:start"), 1u);
  EXPECT_EQ(device.Count("new:complete"), 1u);
  EXPECT_EQ(device.Count("old:cancel"), 0u);
  // After the last restore, in this order.
  EXPECT_THAT(
      std::vector<std::string>(device.board.calls.end() - 4,
                               device.board.calls.end()),
      ElementsAre("new:restore", "new:start", "new:complete", "old:destroyed"));
}

// doc:HU1 doc:HU6
TEST(HotUpdateTest, DriverThatWasASuccessorIsReplacedInItsTurn) {
  Device device;
  for (int i = 0; i < 20; ++i) {
    HotUpdate& update = device.Begin();
    ASSERT_TRUE(update.Run().ok());
    ASSERT_EQ(device.CheckOnly("new"), "") << i;
    EXPECT_EQ(update.phase(), Phase::kDone);
    device.successor = std::make_unique<TestDriver>(
        &device.memory, &device.board, DriverPlan{.name = "new"});
  }
}

// doc:HU15
TEST(HotUpdateTest, DriversWithoutTheCapabilityAreNotCalled) {
  for (bool is_old : {true, false}) {
    DriverPlan old_plan;
    DriverPlan new_plan;
    (is_old ? old_plan : new_plan).can_hot_update = false;
    Device device(old_plan, new_plan);
    EXPECT_EQ(device.Begin().Run().code(), StatusCode::kUnimplemented);
    EXPECT_EQ(device.CheckOnly("old"), "");
    EXPECT_THAT(device.board.calls, ElementsAre("new:destroyed"));
  }
}

// bad:H6
TEST(HotUpdateTest, MetadataOfALaterVersionIsRefusedAndTheOldDriverRunsOn) {
  DriverPlan old_plan;
  old_plan.version = 2;
  Device device(old_plan, {});
  ASSERT_EQ(device.client.CommandAll(device.current()), "");
  const absl::Status status = device.Begin().Run();
  EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("restoring block 0 of 9: state of version 2, this "
                        "driver reads up to 1; the old driver runs on"));
  EXPECT_EQ(device.update->reason(), status);
  EXPECT_EQ(device.CheckOnly("old"), "");

  // One that knows it takes over.
  device.successor = std::make_unique<TestDriver>(
      &device.memory, &device.board,
      DriverPlan{.name = "newer", .version = 3, .version_max = 3});
  EXPECT_TRUE(device.Begin().Run().ok());
  EXPECT_EQ(device.CheckOnly("newer"), "");
}

// bad:H2 bad:H3
TEST(HotUpdateTest, BlocksThatAreRefusedRollBackIfTheDriverGivesUp) {
  const HotUpdateLimits limits[] = {{.blocks_max = 8},
                                    {.metadata_bytes_max = 9},
                                    {.copied_bytes_max = 4096},
                                    {.ranges_max = 7}};
  for (const HotUpdateLimits& limit : limits) {
    Device device;
    EXPECT_FALSE(device.Begin(limit).Run().ok());
    EXPECT_EQ(device.CheckOnly("old"), "");
    EXPECT_EQ(device.Count("old:cancel"), 1u);
    EXPECT_EQ(device.Count("new:restore"), 0u);
  }
}

enum class Fault { kFail, kCancel, kRequest, kKill };
constexpr Fault kFaults[] = {Fault::kFail, Fault::kCancel, Fault::kRequest,
                             Fault::kKill};

// Of the driver `name`, in its call number `n` of this kind.
struct FaultAt {
  std::string name;
  std::string call;
  size_t n;
  Fault fault;
};

absl::Status Strike(const FaultAt& at, Device* device, bool* is_killed) {
  switch (at.fault) {
    case Fault::kFail:
      return absl::InternalError("struck");
    case Fault::kCancel:
      device->update->Cancel();
      return absl::OkStatus();
    case Fault::kRequest:
      device->update->RequestCancel();
      return absl::OkStatus();
    case Fault::kKill:
      *is_killed = true;
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

// Returns what is wrong.
std::string RunWithFault(const FaultAt& at) {
  Device* found = nullptr;
  bool is_killed = false;  // the successor answers no more
  const auto plan = [&](const std::string& name) {
    DriverPlan result;
    result.on_call = [&, name](const std::string& call, size_t n) {
      absl::Status status;
      if (at.name == name && at.call == call && at.n == n) {
        status = Strike(at, found, &is_killed);
      }
      if (name == "new" && is_killed) return absl::UnavailableError("gone");
      return status;
    };
    return result;
  };
  Device device(plan("old"), plan("new"));
  found = &device;
  if (std::string wrong = device.client.CommandAll(device.current());
      !wrong.empty()) {
    return wrong;
  }
  const std::vector<std::byte> before = device.memory.Copy();
  const absl::Status status = device.Begin().Run();
  if (device.memory.Copy() != before) return "memory has changed";
  // Once the successor starts it is too late to cancel.
  const bool is_late = at.call == "complete" ||
                       (at.call == "start" && at.fault != Fault::kFail &&
                        at.fault != Fault::kKill);
  if (is_late) {
    if (!status.ok()) return status.ToString();
    return device.CheckOnly("new");
  }
  const StatusCode wanted = at.fault == Fault::kFail ? StatusCode::kInternal
                            : at.fault == Fault::kKill
                                ? StatusCode::kUnavailable
                                : StatusCode::kCancelled;
  if (status.code() != wanted) return status.ToString();
  if (device.update->phase() != Phase::kRolledBack) return "phase";
  if (device.Count("old:cancel") != 1) return "cancel calls";
  if (device.Count("new:complete") != 0) return "complete calls";
  return device.CheckOnly("old");
}

// bad:H4 bad:H7 doc:HU16 doc:HU20
TEST(HotUpdateTest, EveryFaultAtEveryCallLeavesOneDriver) {
  std::vector<FaultAt> all;
  for (Fault fault : kFaults) {
    all.push_back({"old", "save", 0, fault});
    for (size_t n = 0; n < kTestBlocks; ++n) {
      all.push_back({"old", "saved block", n, fault});
      all.push_back({"new", "restore", n, fault});
    }
    all.push_back({"new", "start", 0, fault});
    all.push_back({"new", "complete", 0, fault});
  }
  for (const FaultAt& at : all) {
    EXPECT_EQ(RunWithFault(at), "") << at.name << ", " << at.call << " " << at.n
                                    << ", fault " << static_cast<int>(at.fault);
  }
  std::printf("%zu faults\n", all.size());
  EXPECT_EQ(all.size(), 4 * (2 * kTestBlocks + 3));
}

enum class End { kCancel, kRequest, kDestroy };

// bad:H4 bad:H7
TEST(HotUpdateTest, CancelledOrDestroyedBetweenTwoStepsTheOldDriverRunsOn) {
  for (End end : {End::kCancel, End::kRequest, End::kDestroy}) {
    // Steps before it: none, save, each restore.
    for (size_t steps = 0; steps < kTestBlocks + 2; ++steps) {
      Device device;
      HotUpdate& update = device.Begin();
      if (steps > 0) {
        ASSERT_TRUE(update.Save().ok());
      }
      for (size_t i = 1; i < steps; ++i) {
        ASSERT_TRUE(update.Restore(i - 1).ok());
      }
      const size_t calls = device.board.calls.size();
      if (end == End::kRequest) {
        update.RequestCancel();
        EXPECT_EQ(device.board.calls.size(), calls);
        EXPECT_EQ((steps == 0                 ? update.Save()
                   : steps == kTestBlocks + 1 ? update.Start()
                                              : update.Restore(steps - 1))
                      .code(),
                  StatusCode::kCancelled);
      } else if (end == End::kCancel) {
        update.Cancel();
      } else {
        device.update.reset();
        device.successor = std::make_unique<TestDriver>(
            &device.memory, &device.board, DriverPlan{.name = "other"});
        device.Begin().Cancel();
      }
      EXPECT_EQ(device.CheckOnly("old"), "") << steps;
      EXPECT_EQ(device.Count("old:cancel"), steps == 0 ? 0u : 1u);
      EXPECT_EQ(device.Count("new:start"), 0u);
      EXPECT_EQ(device.update->phase(), Phase::kRolledBack);
      EXPECT_EQ(device.update->reason().code(), StatusCode::kCancelled);
      // The end is the end.
      EXPECT_EQ(device.update->Save().code(), StatusCode::kFailedPrecondition);
      device.update->Cancel();
      EXPECT_EQ(device.CheckOnly("old"), "");
    }
  }
}

// bad:H5
TEST(HotUpdateTest, BlocksOutOfOrderTwiceOrMissingRollBack) {
  for (size_t good = 0; good <= kTestBlocks; ++good) {
    for (size_t index = 0; index <= kTestBlocks + 1; ++index) {
      Device device;
      HotUpdate& update = device.Begin();
      ASSERT_TRUE(update.Save().ok());
      for (size_t i = 0; i < good; ++i) ASSERT_TRUE(update.Restore(i).ok());
      const bool is_start = index == kTestBlocks + 1;
      if (is_start ? good == kTestBlocks
                   : index == good && good < kTestBlocks) {
        continue;
      }
      const absl::Status status =
          is_start ? update.Start() : update.Restore(index);
      EXPECT_EQ(status.code(), is_start ? StatusCode::kFailedPrecondition
                                        : StatusCode::kInvalidArgument);
      EXPECT_EQ(device.CheckOnly("old"), "") << good << ", " << index;
      EXPECT_EQ(device.Count("new:restore"), good);
      EXPECT_EQ(device.Count("new:start"), 0u);
    }
  }
}

class KeepingDriver final : public HotUpdateDriver {
 public:
  absl::Status Save(HotUpdateBlocks& blocks) override {
    kept = &blocks;
    return absl::OkStatus();
  }
  void CancelUpdate() override {}
  absl::Status Restore(HotUpdateBlock) override { return absl::OkStatus(); }
  absl::Status Start() override { return absl::OkStatus(); }
  void RestoreComplete() override {}

  HotUpdateBlocks* kept = nullptr;
};

// doc:HU5
TEST(HotUpdateTest, BlocksAfterTheReturnOfSaveAreRefused) {
  auto old = std::make_unique<KeepingDriver>();
  KeepingDriver* const keeping = old.get();
  std::unique_ptr<HotUpdateDriver> driver = std::move(old);
  HotUpdate update({}, &driver, std::make_unique<KeepingDriver>());
  ASSERT_TRUE(update.Save().ok());
  const std::vector<std::byte> byte(1);
  EXPECT_EQ(keeping->kept->SaveBuffer(byte).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(update.blocks().size(), 0u);
  EXPECT_TRUE(update.Start().ok());
}

TEST(HotUpdateTest, DriverThatTakesStepsIsRefusedAndTheUpdateGoesOn) {
  Device* found = nullptr;
  size_t refused = 0;
  DriverPlan plan;
  plan.on_call = [&](const std::string& call, size_t) {
    if (call == "cancel") return absl::OkStatus();
    for (const absl::Status& status :
         {found->update->Save(), found->update->Restore(0),
          found->update->Start(), found->update->Run()}) {
      if (status.code() == StatusCode::kFailedPrecondition) ++refused;
    }
    return absl::OkStatus();
  };
  Device device(plan, plan);
  found = &device;
  ASSERT_TRUE(device.Begin().Run().ok());
  // save, each block twice, start, complete
  EXPECT_EQ(refused, 4 * (2 * kTestBlocks + 3));
  EXPECT_EQ(device.CheckOnly("new"), "");
}

}  // namespace
}  // namespace ferrybus::vsp
