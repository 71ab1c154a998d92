// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/ownership.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace ferrybus::migration {
namespace {

namespace fs = std::filesystem;

class OwnershipTest : public ::testing::Test {
 protected:
  OwnershipTest() { fs::remove_all(folder_); }
  ~OwnershipTest() override { fs::remove_all(folder_); }

  const std::string folder_ =
      ::testing::TempDir() + "/ownership-" +
      ::testing::UnitTest::GetInstance()->current_test_info()->name();
  const OwnershipRecord owner_ = {.state = Ownership::kOwner, .epoch = 3};
  const OwnershipRecord prepared_ = {.state = Ownership::kPrepared,
                                     .epoch = 4,
                                     .migration_id = std::string(16, 'm'),
                                     .peer = "host1:7070",
                                     .messages = {"hello", "data"}};
  const OwnershipRecord handed_over_ = {.state = Ownership::kHandedOver,
                                        .epoch = 4,
                                        .migration_id = std::string(16, 'm'),
                                        .peer = "host2:7070"};
};

TEST_F(OwnershipTest, IsThereAfterARestart) {
  for (const OwnershipRecord& record :
       {owner_, prepared_, handed_over_, OwnershipRecord()}) {
    {
      auto ledger = *FileLedger::Open(folder_);
      ASSERT_TRUE(ledger->Store(record).ok());
    }
    auto ledger = *FileLedger::Open(folder_);
    EXPECT_EQ(*ledger->Load(), record);
  }
}

TEST_F(OwnershipTest, NewFolderHasNone) {
  auto ledger = *FileLedger::Open(folder_);
  EXPECT_EQ(*ledger->Load(), OwnershipRecord());
}

// An older record would be a lie.
TEST_F(OwnershipTest, DamageIsNotAnsweredByAnOlderRecord) {
  {
    auto ledger = *FileLedger::Open(folder_);
    ASSERT_TRUE(ledger->Store(owner_).ok());
    ASSERT_TRUE(ledger->Store(handed_over_).ok());
  }
  fs::path newest;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (entry.path().extension() != ".ferry") continue;
    if (newest.empty() || entry.path() > newest) newest = entry.path();
  }
  std::fstream(newest, std::ios::in | std::ios::out).seekp(40) << 'x';
  auto ledger = *FileLedger::Open(folder_);
  EXPECT_EQ(ledger->Load().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(OwnershipTest, RecordsThatCannotBeAreRefused) {
  auto ledger = *FileLedger::Open(folder_);
  OwnershipRecord record = owner_;
  record.epoch = 0;
  EXPECT_FALSE(ledger->Store(record).ok());
  record = prepared_;
  record.messages.clear();
  EXPECT_FALSE(ledger->Store(record).ok());
  record = handed_over_;
  record.migration_id = "short";
  EXPECT_FALSE(ledger->Store(record).ok());
  EXPECT_EQ(*ledger->Load(), OwnershipRecord());
  const std::string bytes = SerializeOwnership(prepared_);
  for (size_t size = 0; size < bytes.size(); ++size) {
    const absl::StatusOr<OwnershipRecord> parsed = ParseOwnership(
        {reinterpret_cast<const std::byte*>(bytes.data()), size});
    EXPECT_FALSE(parsed.ok() && *parsed == prepared_);
  }
}

// bad:T5: what the source's host answers.
TEST_F(OwnershipTest, Decisions) {
  const std::string id(16, 'm');
  const std::string other(16, 'o');
  EXPECT_EQ(Decide(handed_over_, id, ""), Decision::kCommitted);
  EXPECT_EQ(Decide(handed_over_, id, id), Decision::kUndecided);
  EXPECT_EQ(Decide(handed_over_, other, ""), Decision::kAborted);
  EXPECT_EQ(Decide(OwnershipRecord(), id, ""), Decision::kUndecided);
  EXPECT_EQ(Decide(owner_, id, id), Decision::kUndecided);
  EXPECT_EQ(Decide(owner_, id, other), Decision::kAborted);
  EXPECT_EQ(Decide(owner_, id, ""), Decision::kAborted);
  EXPECT_EQ(Decide(prepared_, id, ""), Decision::kAborted);
}

}  // namespace
}  // namespace ferrybus::migration
