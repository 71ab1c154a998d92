// SPDX-License-Identifier: MIT
//
// With room for 0, 1, 2, ... descriptors (RLIMIT_NOFILE), whatever opens some
// either succeeds or says that there were too many open files; it leaves none
// open, and what was there before is still there.
//
// Not here: migration over gRPC, whose library opens descriptors of its own;
// and the heap, as an allocation that fails ends the process, by decision
// (docs/decisions/0006).  Address space: mapping_limit_test.cc.

#include "ferrybus/tests/faults/resource_limit.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/channel/counters_page.h"
#include "ferrybus/channel/page_log.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/ringbuffer/sleepers.h"
#include "ferrybus/savestate/checkpoint.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/migration/fake_machine.h"
#include "ferrybus/savestate/migration/snapshot_folder.h"
#include "ferrybus/savestate/migration/unix/unix_socket.h"
#include "ferrybus/savestate/steady_clock.h"
#include "ferrybus/tests/faults/handover_world.h"
#include "ferrybus/vsp/storage/deferred_backend.h"
#include "ferrybus/vsp/storage/open_block_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::testing {
namespace {

using migration::FakeDevice;
using migration::FakeMachineState;
using migration::FileLedger;
using migration::Ownership;
using migration::OwnershipRecord;
using migration::Snapshot;
using migration::UnixSocket;
using savestate::CheckpointFolder;
using ::testing::HasSubstr;

class DescriptorLimitTest : public ::testing::Test {
 protected:
  DescriptorLimitTest() {
    std::string pattern = ::testing::TempDir() + "/limitXXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~DescriptorLimitTest() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
};

// Memfds, eventfds, sockets, epoll.
// bad:K10
TEST_F(DescriptorLimitTest, BothEndsOfAPort) {
  // Two ports of five, guest memory of its own, and the host's bus and epoll.
  EXPECT_GE(UntilDescriptorsSuffice("both ends", OpenBothEnds), 13u);
}

// The port comes over a socket, and may be cut; the host is restored.
// bad:K10
TEST_F(DescriptorLimitTest, HostThatTakesOver) {
  Takeovers takeovers;
  const size_t needed = UntilDescriptorsSuffice(
      "taking over", [&] { return takeovers.TakeOver(); },
      [&](const absl::Status& status) { takeovers.Look(status); });
  // The test's two sockets, the port, the host's bus and epoll.
  EXPECT_EQ(needed, 9u);
}

// bad:K10
TEST_F(DescriptorLimitTest, WhatABusHasBesides) {
  const std::string path = folder_ + "/log";
  const auto make = [&] {
    const auto page = CountersPage::Create();
    if (!page.ok()) return page.status();
    const auto sleeper = ringbuffer::EventFdSleeper::Create((*page)->fd());
    if (!sleeper.ok()) return sleeper.status();
    const auto log = PageLog::Create(64, path);
    return log.ok() ? PageLog::Open(64, path).status() : log.status();
  };
  EXPECT_EQ(UntilDescriptorsSuffice("counters, sleeper, page log", make), 3u);
}

// ---- Storage

class DiskLimitTest : public DescriptorLimitTest {
 protected:
  DiskLimitTest() { std::ofstream(path_) << std::string(size_t{1} << 16, 'a'); }

  // The result of a read, or why there is none.
  absl::StatusOr<int32_t> Read(vsp::BlockBackend& backend) {
    const iovec buffer = {page_, sizeof(page_)};
    if (backend.Enqueue({.op = vsp::BlockOp::kRead,
                         .buffers = {&buffer, 1},
                         .cookie = 7}) != vsp::EnqueueResult::kAccepted) {
      return absl::InternalError("not taken");
    }
    backend.SubmitBatch();
    pollfd ready = {backend.event_fd(), POLLIN, 0};
    if (poll(&ready, 1, 10000) != 1) return absl::InternalError("no answer");
    int32_t result = 0;
    backend.Reap([&result](uint64_t, int32_t value) { result = value; });
    return result;
  }

  const std::string path_ = folder_ + "/disk";
  alignas(4096) char page_[4096] = {};
};

// bad:K10
TEST_F(DiskLimitTest, EveryEngine) {
  for (const vsp::BlockEngine engine :
       {vsp::BlockEngine::kThreads, vsp::BlockEngine::kUring}) {
    vsp::BlockBackendOptions options;
    options.engine = engine;
    const absl::Status here = vsp::OpenBlockBackend(path_, options).status();
    if (!here.ok()) continue;  // a system without io_uring
    const auto open = [&] {
      const auto backend = vsp::OpenBlockBackend(path_, options);
      if (!backend.ok()) return backend.status();
      EXPECT_EQ(*Read(**backend), 4096);
      return absl::OkStatus();
    };
    EXPECT_GE(UntilDescriptorsSuffice("disk", open), 2u);
  }
}

// A disk that cannot be opened when it is needed answers all the same.
// bad:K10
TEST_F(DiskLimitTest, OpenedWhenItIsUsed) {
  const auto open = [&] {
    const auto backend = vsp::DeferredBackend::Create(path_, {});
    if (!backend.ok()) return backend.status();
    const absl::StatusOr<int32_t> result = Read(**backend);
    if (!result.ok()) return result.status();
    EXPECT_EQ(*result, (*backend)->Open().ok() ? 4096 : -EIO);
    return (*backend)->Open();
  };
  EXPECT_GE(UntilDescriptorsSuffice("deferred disk", open), 4u);
}

// ---- State on disk

std::string FrameOf(const std::string& text) {
  savestate::FrameWriter writer("test");
  writer.AddSection("text", 0, 1, savestate::SectionKind::kOptional, text);
  return *writer.Finish();
}

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// The newest checkpoint is the one that was written last; one that could not
// be written has changed nothing.
// bad:K10
TEST_F(DescriptorLimitTest, Checkpoint) {
  const std::string path = folder_ + "/checkpoints";
  std::string last = FrameOf("first");
  ASSERT_TRUE(CheckpointFolder::Open(path)->Write(AsBytes(last)).ok());
  int attempts = 0;
  const auto write_and_load = [&]() -> absl::Status {
    auto folder = CheckpointFolder::Open(path);
    if (!folder.ok()) return folder.status();
    const std::string next = FrameOf(std::to_string(++attempts));
    const auto written = folder->Write(AsBytes(next));
    if (!written.ok()) return written.status();
    last = next;
    return folder->LoadNewest().status();
  };
  const auto look = [&](const absl::Status&) {
    const auto loaded = CheckpointFolder::Open(path)->LoadNewest();
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(loaded->bytes, last);
    EXPECT_TRUE(loaded->refused.empty());
  };
  EXPECT_EQ(UntilDescriptorsSuffice("checkpoint", write_and_load, look), 3u);
}

// One that cannot be opened for want of descriptors is not taken for a bad one.
// bad:K10
TEST_F(DescriptorLimitTest, LoadingACheckpoint) {
  const std::string path = folder_ + "/checkpoints";
  auto folder = *CheckpointFolder::Open(path);
  for (const char* const text : {"older", "newer"}) {
    ASSERT_TRUE(folder.Write(AsBytes(FrameOf(text))).ok());
  }
  const auto load = [&] {
    const auto loaded = folder.LoadNewest();
    if (loaded.ok()) {
      EXPECT_EQ(loaded->bytes, FrameOf("newer"));
    }
    return loaded.status();
  };
  EXPECT_EQ(UntilDescriptorsSuffice("loading", load), 1u);
}

// bad:K10
TEST_F(DescriptorLimitTest, Ledger) {
  OwnershipRecord record;
  record.state = Ownership::kOwner;
  record.epoch = 1;
  const std::string path = folder_ + "/ledger";
  ASSERT_TRUE((*FileLedger::Open(path))->Store(record).ok());
  const auto store = [&] {
    auto ledger = FileLedger::Open(path);
    if (!ledger.ok()) return ledger.status();
    OwnershipRecord next = record;
    ++next.epoch;
    const absl::Status status = (*ledger)->Store(next);
    if (status.ok()) record = next;
    return status;
  };
  const auto look = [&](const absl::Status&) {
    EXPECT_EQ(*(*FileLedger::Open(path))->Load(), record);
  };
  EXPECT_EQ(UntilDescriptorsSuffice("ledger", store, look), 3u);
}

// A ledger that is open goes on once there are descriptors again.
// bad:K10
TEST_F(DescriptorLimitTest, OpenLedger) {
  OwnershipRecord record;
  record.state = Ownership::kOwner;
  record.epoch = 1;
  auto ledger = *FileLedger::Open(folder_ + "/ledger");
  ASSERT_TRUE(ledger->Store(record).ok());
  OwnershipRecord next = record;
  next.epoch = 2;
  {
    const DescriptorLimit limit(0);
    EXPECT_THAT(ledger->Store(next).ToString(), HasSubstr("Too many open"));
  }
  EXPECT_EQ(*ledger->Load(), record);
  EXPECT_TRUE(ledger->Store(next).ok());
  EXPECT_EQ(*ledger->Load(), next);
}

// bad:K10
TEST_F(DescriptorLimitTest, SavingASnapshot) {
  FakeMachineState state;
  std::unique_ptr<FakeDevice> device;
  const auto renew = [&] {
    device = std::make_unique<FakeDevice>("memory", migration::Capabilities(),
                                          &state);
    device->Run();
    device->Do(1);
  };
  renew();
  const std::string path = folder_ + "/snapshot";
  const auto save = [&] {
    return migration::SaveSnapshot(path, {device.get()});
  };
  const auto look = [&](const absl::Status& status) {
    EXPECT_EQ(device->is_running(), !status.ok());
    EXPECT_EQ(Snapshot::Open(path).ok(), status.ok());
    std::filesystem::remove_all(path);
    if (status.ok()) renew();
  };
  EXPECT_EQ(UntilDescriptorsSuffice("saving a snapshot", save, look), 3u);
}

// bad:K10
TEST_F(DescriptorLimitTest, RestoringASnapshot) {
  FakeMachineState state;
  FakeDevice device("memory", {}, &state);
  device.Run();
  device.Do(1);
  const std::string path = folder_ + "/snapshot";
  ASSERT_TRUE(migration::SaveSnapshot(path, {&device}).ok());
  const auto restore = [&] {
    FakeMachineState other;
    FakeDevice restored("memory", {}, &other);
    const auto snapshot = Snapshot::Open(path);
    const absl::Status status =
        snapshot.ok() ? snapshot->Restore({&restored}) : snapshot.status();
    EXPECT_EQ(restored.is_running(), status.ok());
    if (status.ok()) {
      EXPECT_EQ(other.memory, state.memory);
      EXPECT_EQ(other.done, state.done);
    }
    return status;
  };
  EXPECT_EQ(UntilDescriptorsSuffice("restoring a snapshot", restore), 3u);
  // The files of memory are opened when no other descriptor is any more.
  const Snapshot snapshot = *Snapshot::Open(path);
  FakeMachineState other;
  FakeDevice restored("memory", {}, &other);
  const DescriptorLimit limit(0);
  EXPECT_THAT(snapshot.Restore({&restored}).ToString(),
              HasSubstr("memory: restore: "));
  EXPECT_FALSE(restored.is_running());
}

// ---- Descriptors in messages

// Those that do not fit are cut by the system: the frame is refused, and those
// that came are closed.
// bad:K10
TEST_F(DescriptorLimitTest, DescriptorsInAFrame) {
  std::vector<UniqueFd> sent;
  for (int i = 0; i < 5; ++i) sent.emplace_back(dup(0));
  const auto send_and_receive = [&]() -> absl::Status {
    int pair[2] = {};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
      return absl::ErrnoToStatus(errno, "the test's own sockets");
    }
    auto here = *UnixSocket::Adopt(UniqueFd(pair[0]));
    auto there = *UnixSocket::Adopt(UniqueFd(pair[1]));
    absl::Status status =
        here->Send(migration::FrameKind::kMessage, "message", sent);
    if (!status.ok()) return status;
    const auto frame =
        there->Receive({}, savestate::SteadyNow() + absl::Seconds(10));
    if (frame.ok()) {
      EXPECT_EQ(frame->descriptors.size(), sent.size());
    }
    return frame.status();
  };
  EXPECT_EQ(UntilDescriptorsSuffice("frame", send_and_receive), 7u);
}

}  // namespace
}  // namespace ferrybus::testing
