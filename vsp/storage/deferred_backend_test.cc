// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/storage/deferred_backend.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <vector>

namespace ferrybus::vsp {
namespace {

class DeferredBackendTest : public ::testing::Test {
 protected:
  DeferredBackendTest()
      : path_(::testing::TempDir() + "/deferred-" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::ofstream(path_) << std::string(size_t{1} << 16, 'a');
  }
  ~DeferredBackendTest() override { std::filesystem::remove(path_); }

  // The result of a read of the first page.
  int32_t Read(DeferredBackend& backend) {
    const iovec buffer = {page_, sizeof(page_)};
    EXPECT_EQ(backend.Enqueue(
                  {.op = BlockOp::kRead, .buffers = {&buffer, 1}, .cookie = 7}),
              EnqueueResult::kAccepted);
    backend.SubmitBatch();
    pollfd ready = {backend.event_fd(), POLLIN, 0};
    EXPECT_EQ(poll(&ready, 1, 10000), 1);
    int32_t result = 1;
    EXPECT_EQ(backend.Reap([&](uint64_t cookie, int32_t value) {
      EXPECT_EQ(cookie, 7u);
      result = value;
    }),
              1u);
    return result;
  }

  const std::string path_;
  BlockBackendOptions options_ = {
      .image = {.lock_deadline = absl::Milliseconds(50)}};
  alignas(4096) char page_[4096] = {};
};

TEST_F(DeferredBackendTest, DoesNotTouchTheImageBeforeItIsUsed) {
  auto owner = *OpenBlockBackend(path_, options_);
  auto backend = *DeferredBackend::Create(path_, options_);
  EXPECT_FALSE(backend->is_open());
  EXPECT_EQ(backend->info().size_bytes, uint64_t{1} << 16);
  owner = nullptr;
  EXPECT_EQ(Read(*backend), 4096);
  EXPECT_EQ(page_[4095], 'a');
  EXPECT_TRUE(backend->is_open());
  // The fence holds for the next one.
  EXPECT_FALSE(OpenBlockBackend(path_, options_).ok());
}

TEST_F(DeferredBackendTest, AnOwnerThatDoesNotLetGoIsADiskThatDied) {
  auto owner = *OpenBlockBackend(path_, options_);
  auto backend = *DeferredBackend::Create(path_, options_);
  EXPECT_EQ(Read(*backend), -EIO);
  EXPECT_EQ(backend->Open().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Read(*backend), -EIO);
  EXPECT_EQ(backend->Enqueue({.op = BlockOp::kFlush, .offset_bytes = 1}),
            EnqueueResult::kAccepted);
}

TEST_F(DeferredBackendTest, AnImageOfAnotherSizeIsRefused) {
  auto backend = *DeferredBackend::Create(path_, options_);
  std::filesystem::resize_file(path_, 1 << 15);
  EXPECT_EQ(backend->Open().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(DeferredBackendTest, WhatIsNoImage) {
  EXPECT_EQ(DeferredBackend::Create(path_ + "none", {}).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_FALSE(DeferredBackend::Create("/dev/null", {}).ok());
  std::filesystem::resize_file(path_, 511);
  EXPECT_EQ(DeferredBackend::Create(path_, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace ferrybus::vsp
