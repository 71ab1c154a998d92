// SPDX-License-Identifier: MIT
//
// The registry: names, hooks, and that this program reached every point, with
// every kind of fault that the point can have.

#include "ferrybus/savestate/fault_points.h"

#include <set>
#include <string>

#include "ferrybus/tests/faults/planned_fault.h"
#include "gtest/gtest.h"

namespace ferrybus::testing {
namespace {

using savestate::FaultPointInfo;
using savestate::FaultPoints;

TEST(FaultPointsTest, NamesAreUnique) {
  std::set<absl::string_view> names;
  for (const FaultPointInfo& info : FaultPoints()) {
    EXPECT_TRUE(names.insert(info.name).second) << info.name;
    EXPECT_EQ(savestate::FaultPointName(info.point), info.name);
  }
}

TEST(FaultPointsTest, TheInnermostHookIsAsked) {
  EXPECT_TRUE(savestate::PassFaultPoint(FaultPoint::kSavePacket).ok());
  {
    const PlannedFault outer({FaultPoint::kSavePacket, FaultKind::kError});
    {
      const PlannedFault inner({FaultPoint::kSaveFrame, FaultKind::kError});
      EXPECT_TRUE(savestate::PassFaultPoint(FaultPoint::kSavePacket).ok());
      EXPECT_FALSE(savestate::PassFaultPoint(FaultPoint::kSaveFrame).ok());
    }
    EXPECT_FALSE(savestate::PassFaultPoint(FaultPoint::kSavePacket).ok());
    EXPECT_TRUE(savestate::PassFaultPoint(FaultPoint::kSavePacket).ok());
  }
  EXPECT_TRUE(savestate::PassFaultPoint(FaultPoint::kSavePacket).ok());
}

// After all tests.
class EveryPointWasReached final : public ::testing::Environment {
  void TearDown() override {
    if (GTEST_FLAG_GET(filter) != "*" ||
        ::testing::UnitTest::GetInstance()->failed_test_count() > 0) {
      return;
    }
    for (const FaultPointInfo& info : FaultPoints()) {
      for (FaultKind kind : kFaultKinds) {
        if (kind == FaultKind::kError && !info.can_fail) continue;
        EXPECT_GT(TimesHappened(info.point, kind), 0u)
            << Fault{info.point, kind}.ToString() << ": no test does it";
      }
    }
  }
};

const auto* const every_point_was_reached =
    ::testing::AddGlobalTestEnvironment(new EveryPointWasReached);

}  // namespace
}  // namespace ferrybus::testing
