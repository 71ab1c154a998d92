// SPDX-License-Identifier: MIT
//
// What the simulation's judges must notice.

#include <cstring>
#include <vector>

#include "ferrybus/tests/simulation/disk_model.h"
#include "ferrybus/tests/simulation/request_oracle.h"
#include "ferrybus/tests/simulation/virtual_disk.h"
#include "gtest/gtest.h"

namespace ferrybus::simulation {
namespace {

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

class RequestOracleTest : public ::testing::Test {
 protected:
  RequestOracleTest() : oracle_(&context_, "it", false) {
    oracle_.Opened();
    for (int i = 0; i < 3; ++i) {
      payloads_.push_back(oracle_.Payload(oracle_.NextName()));
      oracle_.Sent(true);
    }
  }
  void Deliver(size_t number) {
    names_.push_back(oracle_.Delivered(AsBytes(payloads_[number])));
  }
  void Answer(size_t index) {
    oracle_.Answered(names_[index].tag(),
                     AsBytes(oracle_.Reply(names_[index])));
  }
  std::string kind() const {
    return context_.failure.has_value() ? context_.failure->kind : "";
  }

  Context context_;
  RequestOracle oracle_;
  std::vector<std::string> payloads_;
  std::vector<RequestName> names_;
};

TEST_F(RequestOracleTest, AllIsWell) {
  for (size_t i = 0; i < 3; ++i) Deliver(i);
  EXPECT_NE(oracle_.Owed(), "");
  for (size_t i : {2, 0, 1}) Answer(i);
  EXPECT_EQ(oracle_.Owed(), "");
  EXPECT_EQ(kind(), "");
}

TEST_F(RequestOracleTest, Order) {
  Deliver(1);
  EXPECT_EQ(kind(), "lost-packet");
}

TEST_F(RequestOracleTest, DeliveredTwice) {
  Deliver(0);
  Deliver(0);
  EXPECT_EQ(kind(), "doubled-packet");
}

TEST_F(RequestOracleTest, DeferredComesAgain) {
  Deliver(0);
  oracle_.Deferred(names_[0]);
  Deliver(0);
  EXPECT_EQ(kind(), "");
}

TEST_F(RequestOracleTest, AnsweredTwice) {
  Deliver(0);
  Answer(0);
  Answer(0);
  EXPECT_EQ(kind(), "doubled-answer");
}

TEST_F(RequestOracleTest, RestoredAfterTheAnswer) {
  Deliver(0);
  Answer(0);
  oracle_.Restored(names_[0]);
  EXPECT_EQ(kind(), "doubled-packet");
}

TEST_F(RequestOracleTest, WrongBytes) {
  payloads_[0].back() ^= 1;
  Deliver(0);
  EXPECT_EQ(kind(), "wrong-bytes");
}

TEST_F(RequestOracleTest, AnAnswerAfterTheEnd) {
  Deliver(0);
  oracle_.Closed();
  Answer(0);
  EXPECT_EQ(kind(), "stray-answer");
}

class DiskModelTest : public ::testing::Test {
 protected:
  void Write(uint32_t version, DiskModel::End end) {
    model_.BeginWrite(0, 1, version, absl::MakeSpan(bytes_[version]));
    model_.EndWrite(0, 1, end);
  }
  bool MayRead(uint32_t version) {
    DiskModel copy = model_;  // reading tells which it is
    copy.BeginRead(0, 1);
    return copy.EndRead(0, bytes_[version]).empty();
  }

  DiskModel model_{8};
  std::vector<std::byte> bytes_[4] = {
      std::vector<std::byte>(512), std::vector<std::byte>(512),
      std::vector<std::byte>(512), std::vector<std::byte>(512)};
};

TEST_F(DiskModelTest, TheLastAnsweredWriteIsThere) {
  Write(1, DiskModel::End::kOk);
  Write(2, DiskModel::End::kOk);
  EXPECT_FALSE(MayRead(0));
  EXPECT_FALSE(MayRead(1));  // lost, or an older one done again
  EXPECT_TRUE(MayRead(2));
}

TEST_F(DiskModelTest, AnUnknownEndLeavesBoth) {
  Write(1, DiskModel::End::kOk);
  Write(2, DiskModel::End::kUnknown);
  EXPECT_TRUE(MayRead(1));
  EXPECT_TRUE(MayRead(2));
  EXPECT_FALSE(MayRead(0));
}

TEST_F(DiskModelTest, PowerLossTakesWhatWasNotFlushed) {
  Write(1, DiskModel::End::kDurable);
  Write(2, DiskModel::End::kOk);
  model_.OnPowerLoss();
  EXPECT_TRUE(MayRead(1));
  EXPECT_TRUE(MayRead(2));
  EXPECT_FALSE(MayRead(0));
}

TEST_F(DiskModelTest, AFlushKeepsWhatWasAnsweredBefore) {
  Write(1, DiskModel::End::kOk);
  const uint64_t flush = model_.BeginFlush();
  model_.EndFlush(flush);
  const uint64_t late = model_.BeginFlush();
  Write(2, DiskModel::End::kOk);
  model_.EndFlush(late);
  model_.OnPowerLoss();
  EXPECT_FALSE(MayRead(0));
  EXPECT_TRUE(MayRead(1));
  EXPECT_TRUE(MayRead(2));
}

class VirtualDiskTest : public ::testing::Test {
 protected:
  void Do(ImageBackend& backend, vsp::BlockOp op, std::byte fill) {
    std::fill(buffer_.begin(), buffer_.end(), fill);
    const iovec iov = {buffer_.data(), buffer_.size()};
    vsp::BlockRequest request;
    request.op = op;
    if (op != vsp::BlockOp::kFlush) request.buffers = absl::MakeSpan(&iov, 1);
    ASSERT_EQ(backend.Enqueue(request), vsp::EnqueueResult::kAccepted);
    backend.SubmitBatch();
  }
  size_t Reap(ImageBackend& backend) {
    backend.Advance(/*all=*/true);
    return backend.Reap([](uint64_t, int32_t result) { EXPECT_GE(result, 0); });
  }

  Context context_;
  VirtualDisk disk_{&context_, 8};
  std::vector<std::byte> buffer_ = std::vector<std::byte>(512);
};

TEST_F(VirtualDiskTest, OnlyWhatWasFlushedSurvivesForSure) {
  int lost = 0;
  for (int i = 0; i < 64; ++i) {
    ImageBackend backend(&context_, &disk_);
    Do(backend, vsp::BlockOp::kWrite, std::byte{1});
    EXPECT_EQ(Reap(backend), 1u);
    Do(backend, vsp::BlockOp::kFlush, {});
    EXPECT_EQ(Reap(backend), 1u);
    Do(backend, vsp::BlockOp::kWrite, std::byte{2});
    EXPECT_EQ(Reap(backend), 1u);
    disk_.PowerLoss();
    Do(backend, vsp::BlockOp::kRead, {});
    EXPECT_EQ(Reap(backend), 1u);
    EXPECT_TRUE(buffer_[0] == std::byte{1} || buffer_[0] == std::byte{2});
    lost += buffer_[0] == std::byte{1} ? 1 : 0;
  }
  EXPECT_GT(lost, 0);
  EXPECT_LT(lost, 64);
}

// The fence: what a killed owner had begun ends before the next one begins.
TEST_F(VirtualDiskTest, TheNextOwnerWaitsForTheOneBefore) {
  auto first = std::make_unique<ImageBackend>(&context_, &disk_);
  Do(*first, vsp::BlockOp::kWrite, std::byte{1});
  EXPECT_EQ(Reap(*first), 1u);
  Do(*first, vsp::BlockOp::kWrite, std::byte{2});
  ImageBackend second(&context_, &disk_);
  std::vector<std::byte> found(512);
  const iovec iov = {found.data(), found.size()};
  vsp::BlockRequest read;
  read.buffers = absl::MakeSpan(&iov, 1);
  ASSERT_EQ(second.Enqueue(read), vsp::EnqueueResult::kAccepted);
  second.SubmitBatch();
  EXPECT_EQ(Reap(second), 0u);
  first->Kill();
  first = nullptr;
  EXPECT_EQ(Reap(second), 0u);
  disk_.AdvanceOrphans(/*all=*/true);
  EXPECT_EQ(Reap(second), 1u);
  EXPECT_EQ(found[0], std::byte{2});
}

}  // namespace
}  // namespace ferrybus::simulation
