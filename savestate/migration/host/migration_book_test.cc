// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/migration/host/migration_book.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace ferrybus::migration {
namespace {

class FakeMoving final : public Moving {
 public:
  FakeMoving(const std::string& machine, const std::string& id)
      : machine_(machine), id_(id) {}

  MigrationReport Report() const override {
    return {.migration_id = id_, .machine = machine_, .phase = phase};
  }
  void RequestCancel() override { is_cancelled = true; }
  bool IsUndecidedSource() const override { return is_undecided; }

  std::string phase = "copying";
  bool is_cancelled = false;
  bool is_undecided = true;

 private:
  const std::string machine_;
  const std::string id_;
};

MigrationName ById(const std::string& id) { return {.migration_id = id}; }

MigrationName Of(const std::string& machine) { return {.machine = machine}; }

TEST(MigrationBookTest, OneMigrationForAMachine) {
  MigrationBook book;
  FakeMoving first("vm", "1");
  FakeMoving second("vm", "2");
  FakeMoving other("vm2", "3");
  EXPECT_TRUE(book.Begin("vm", &first).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(book.Begin("vm", &second)));
  EXPECT_TRUE(book.Begin("vm2", &other).ok());
  EXPECT_EQ(book.Running().size(), 2u);
  book.End(&first);
  EXPECT_TRUE(book.Begin("vm", &second).ok());
  book.End(&second);
  book.End(&other);
}

TEST(MigrationBookTest, AnswersAfterTheEndAndForgetsTheOldest) {
  MigrationBook book(/*finished_max=*/2);
  for (int i = 0; i < 3; ++i) {
    FakeMoving moving("vm", absl::StrCat(i));
    ASSERT_TRUE(book.Begin("vm", &moving).ok());
    moving.phase = absl::StrCat("end ", i);
    book.End(&moving);
  }
  EXPECT_TRUE(absl::IsNotFound(book.Query(ById("0")).status()));
  EXPECT_EQ(book.Query(ById("1"))->phase, "end 1");
  EXPECT_EQ(book.Query(Of("vm"))->phase, "end 2");
  EXPECT_TRUE(absl::IsFailedPrecondition(book.Cancel(ById("2"))));
  EXPECT_TRUE(absl::IsNotFound(book.Cancel(Of("nobody"))));
}

TEST(MigrationBookTest, OnlyAnUndecidedSourceIsUndecided) {
  MigrationBook book;
  FakeMoving moving("vm", "1");
  EXPECT_FALSE(book.IsUndecided("1"));
  ASSERT_TRUE(book.Begin("vm", &moving).ok());
  EXPECT_TRUE(book.IsUndecided("1"));
  EXPECT_FALSE(book.IsUndecided("2"));
  EXPECT_TRUE(book.Cancel(Of("vm")).ok());
  EXPECT_TRUE(moving.is_cancelled);
  moving.is_undecided = false;
  EXPECT_FALSE(book.IsUndecided("1"));
  book.End(&moving);
}

}  // namespace
}  // namespace ferrybus::migration
