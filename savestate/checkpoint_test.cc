// SPDX-License-Identifier: MIT

#include "ferrybus/savestate/checkpoint.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/simulated_disk.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ferrybus::savestate {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A frame that differs for every `content`.
std::string FrameWith(uint64_t content) {
  FrameWriter writer("test");
  writer.AddSection("state", content, 1, SectionKind::kRequired,
                    std::string(100 + content * 8, 'x'));
  return writer.Finish().value();
}

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()),
                             text.size());
}

CheckpointFolder OpenOrDie(FileSystem& disk, const std::string& path = "vm1") {
  auto folder = CheckpointFolder::Open(path, {}, disk);
  EXPECT_TRUE(folder.ok()) << folder.status();
  return *std::move(folder);
}

// What a later process finds.
LoadedCheckpoint LoadAfresh(FileSystem& disk) {
  auto folder = CheckpointFolder::Open("vm1", {}, disk);
  EXPECT_TRUE(folder.ok()) << folder.status();
  if (!folder.ok()) return {};
  auto loaded = folder->LoadNewest();
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return loaded.ok() ? *loaded : LoadedCheckpoint();
}

TEST(CheckpointFolderTest, LoadsWhatWasWritten) {
  SimulatedDisk disk;
  CheckpointFolder folder = OpenOrDie(disk);
  EXPECT_EQ(folder.LoadNewest().status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(folder.Write(AsBytes(FrameWith(1))).value(), 1u);
  EXPECT_EQ(folder.Write(AsBytes(FrameWith(2))).value(), 2u);
  const auto newest = folder.LoadNewest();
  ASSERT_TRUE(newest.ok()) << newest.status();
  EXPECT_EQ(newest->generation, 2u);
  EXPECT_EQ(newest->bytes, FrameWith(2));
  EXPECT_THAT(newest->refused, IsEmpty());
  EXPECT_EQ(folder.Load(1)->bytes, FrameWith(1));
  EXPECT_EQ(folder.Load(3).status().code(), absl::StatusCode::kNotFound);
}

TEST(CheckpointFolderTest, KeepsTwoGenerations) {
  SimulatedDisk disk;
  CheckpointFolder folder = OpenOrDie(disk);
  for (uint64_t i = 1; i <= 5; ++i) {
    ASSERT_TRUE(folder.Write(AsBytes(FrameWith(i))).ok());
  }
  EXPECT_THAT(folder.Generations().value(), ElementsAre(4, 5));
  EXPECT_THAT(disk.names(),
              ElementsAre("checkpoint-0000000000000004.ferry",
                          "checkpoint-0000000000000005.ferry", "lock"));
}

TEST(CheckpointFolderTest, RemovesLaterWhatWasKept) {
  SimulatedDisk disk;
  CheckpointFolder folder = OpenOrDie(disk);
  folder.RemoveOld();  // nothing
  for (uint64_t i = 1; i <= 5; ++i) {
    ASSERT_TRUE(folder.WriteAndKeep(AsBytes(FrameWith(i))).ok());
  }
  EXPECT_THAT(folder.Generations().value(), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_EQ(folder.LoadNewest()->generation, 5u);
  folder.RemoveOld();
  EXPECT_THAT(folder.Generations().value(), ElementsAre(5));
}

TEST(CheckpointFolderTest, GoesOnCountingWhenOpenedAgain) {
  SimulatedDisk disk;
  for (uint64_t i = 1; i <= 3; ++i) {
    CheckpointFolder folder = OpenOrDie(disk);
    EXPECT_EQ(folder.Write(AsBytes(FrameWith(i))).value(), i);
  }
  // Nothing was loaded, so nothing is known to be good: all are kept.
  EXPECT_THAT(OpenOrDie(disk).Generations().value(), ElementsAre(1, 2, 3));
}

TEST(CheckpointFolderTest, NeverRemovesTheLastGoodGeneration) {
  SimulatedDisk disk;
  {
    CheckpointFolder folder = OpenOrDie(disk);
    ASSERT_TRUE(folder.Write(AsBytes(FrameWith(1))).ok());
    ASSERT_TRUE(folder.Write(AsBytes(FrameWith(2))).ok());
    ASSERT_TRUE(folder.Write(AsBytes(FrameWith(3))).ok());
  }
  disk.set_content("checkpoint-0000000000000003.ferry", "garbage");
  CheckpointFolder folder = OpenOrDie(disk);
  EXPECT_EQ(folder.LoadNewest()->generation, 2u);
  EXPECT_EQ(folder.Write(AsBytes(FrameWith(4))).value(), 4u);
  EXPECT_THAT(folder.Generations().value(), ElementsAre(2, 3, 4));
  EXPECT_EQ(folder.Write(AsBytes(FrameWith(5))).value(), 5u);
  EXPECT_THAT(folder.Generations().value(), ElementsAre(4, 5));
}

TEST(CheckpointFolderTest, RefusesToWriteWhatIsNotAFrame) {
  SimulatedDisk disk;
  CheckpointFolder folder = OpenOrDie(disk);
  const auto refused = folder.Write(AsBytes("not a frame"));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(folder.Generations().value(), IsEmpty());
}

// bad:K7
TEST(CheckpointFolderTest, FallsBackFromDamagedGenerationsAndSaysSo) {
  const std::string good = FrameWith(2);
  const std::string torn = good.substr(0, good.size() / 2);
  std::string zero_tail = good;
  zero_tail.replace(good.size() - 64, 64, 64, '\0');
  const std::string zeros(good.size(), '\0');
  for (const std::string& damaged : {torn, zero_tail, zeros, std::string()}) {
    SimulatedDisk disk;
    {
      CheckpointFolder folder = OpenOrDie(disk);
      ASSERT_TRUE(folder.Write(AsBytes(FrameWith(1))).ok());
      ASSERT_TRUE(folder.Write(AsBytes(good)).ok());
    }
    disk.set_content("checkpoint-0000000000000002.ferry", damaged);
    const LoadedCheckpoint loaded = LoadAfresh(disk);
    EXPECT_EQ(loaded.generation, 1u);
    EXPECT_EQ(loaded.bytes, FrameWith(1));
    ASSERT_EQ(loaded.refused.size(), 1u);
    EXPECT_EQ(loaded.refused[0].generation, 2u);
    EXPECT_FALSE(loaded.refused[0].reason.ok());
    EXPECT_THAT(std::string(loaded.refused[0].reason.message()),
                HasSubstr("vm1/checkpoint-0000000000000002.ferry"));
  }
}

TEST(CheckpointFolderTest, SaysWhenNoGenerationIsGood) {
  SimulatedDisk disk;
  CheckpointFolder folder = OpenOrDie(disk);
  ASSERT_TRUE(folder.Write(AsBytes(FrameWith(1))).ok());
  disk.set_content("checkpoint-0000000000000001.ferry", "FERRY");
  const auto loaded = folder.LoadNewest();
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("truncated"));
}

TEST(CheckpointFolderTest, BoundsWhatItReads) {
  SimulatedDisk disk;
  OpenOrDie(disk).Write(AsBytes(FrameWith(100))).value();
  auto folder = CheckpointFolder::Open("vm1", {.total_bytes_max = 1000}, disk);
  ASSERT_TRUE(folder.ok());
  EXPECT_EQ(folder->Load(1).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(CheckpointFolderTest, RefusesAGenerationThatHasNoSuccessor) {
  SimulatedDisk disk;
  {
    CheckpointFolder folder = OpenOrDie(disk);
    ASSERT_TRUE(folder.Write(AsBytes(FrameWith(1))).ok());
  }
  disk.Rename(0, "checkpoint-0000000000000001.ferry",
              "checkpoint-ffffffffffffffff.ferry");
  EXPECT_EQ(CheckpointFolder::Open("vm1", {}, disk).status().code(),
            absl::StatusCode::kResourceExhausted);
}

// A machine that is out of descriptors is no reason to go back in time.
TEST(CheckpointFolderTest, DoesNotFallBackForAFaultOfTheMachine) {
  SimulatedDisk disk;
  {
    CheckpointFolder folder = OpenOrDie(disk);
    ASSERT_TRUE(folder.Write(AsBytes(FrameWith(1))).ok());
    ASSERT_TRUE(folder.Write(AsBytes(FrameWith(2))).ok());
  }
  FaultyFileSystem faulty(disk);
  CheckpointFolder folder = OpenOrDie(faulty);
  faulty.FailAt(faulty.calls() + 1, EMFILE, false);
  EXPECT_EQ(folder.LoadNewest().status().code(),
            absl::StatusCode::kUnavailable);
  faulty.FailAt(faulty.calls() + 1, EIO, false);
  const auto loaded = folder.LoadNewest();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->generation, 1u);
  EXPECT_EQ(loaded->refused.size(), 1u);
}

// The fault that is injected at the n-th call of Write, for every n.
struct Fault {
  const char* name;
  int error;  // 0: a short write
  bool sticky;
};

class CheckpointFaultAtCallTest : public ::testing::TestWithParam<Fault> {};

// bad:K5 promise:P6
TEST_P(CheckpointFaultAtCallTest, OldCheckpointSurvives) {
  const Fault fault = GetParam();
  bool reached = true;
  for (size_t n = 0; reached; ++n) {
    SCOPED_TRACE(n);
    SimulatedDisk disk;
    {
      CheckpointFolder folder = OpenOrDie(disk);
      ASSERT_TRUE(folder.Write(AsBytes(FrameWith(1))).ok());
      ASSERT_TRUE(folder.Write(AsBytes(FrameWith(2))).ok());
    }
    FaultyFileSystem faulty(disk);
    absl::StatusOr<uint64_t> written;
    {
      CheckpointFolder folder = OpenOrDie(faulty);
      ASSERT_TRUE(folder.LoadNewest().ok());
      const size_t first = faulty.calls();
      if (fault.error == 0) {
        faulty.ShortenAt(first + n);
      } else {
        faulty.FailAt(first + n, fault.error, fault.sticky);
      }
      written = folder.Write(AsBytes(FrameWith(3)));
      reached = faulty.calls() > first + n;
      if (!written.ok() && !fault.sticky) {
        // Cleaned up at once, by the object that failed.
        EXPECT_EQ(disk.names().size(), 3u)
            << ::testing::PrintToString(disk.names());
      }
      faulty.FailAt(~size_t{0}, 0, false);
    }
    const LoadedCheckpoint loaded = LoadAfresh(disk);
    EXPECT_THAT(loaded.refused, IsEmpty());
    if (written.ok()) {
      EXPECT_EQ(*written, 3u);
      EXPECT_EQ(loaded.bytes, FrameWith(3));
    } else if (!fault.sticky) {
      EXPECT_EQ(loaded.bytes, FrameWith(2)) << written.status();
    } else {
      // The clean-up failed too; the new one may be there, but whole.
      EXPECT_TRUE(loaded.bytes == FrameWith(2) || loaded.bytes == FrameWith(3));
      EXPECT_EQ(OpenOrDie(disk).Load(2)->bytes, FrameWith(2));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    EveryCall, CheckpointFaultAtCallTest,
    ::testing::Values(Fault{"Eio", EIO, false}, Fault{"Enospc", ENOSPC, false},
                      Fault{"Eintr", EINTR, false},
                      Fault{"Emfile", EMFILE, false}, Fault{"Short", 0, false},
                      Fault{"EioForEver", EIO, true},
                      Fault{"EnospcForEver", ENOSPC, true}),
    [](const auto& info) { return info.param.name; });

// bad:K5
TEST(CheckpointFaultsTest, InterruptedAndShortCallsAreRepeated) {
  for (size_t n = 0; n < 30; ++n) {
    SimulatedDisk disk(7);  // 7 bytes at a time
    FaultyFileSystem faulty(disk);
    CheckpointFolder folder = OpenOrDie(faulty);
    faulty.FailAt(faulty.calls() + n, EINTR, false);
    const auto written = folder.Write(AsBytes(FrameWith(1)));
    const std::string failed = faulty.failed_call();
    if (failed == "Open" || failed == "Write" || failed == "Close") {
      EXPECT_TRUE(written.ok()) << failed << ": " << written.status();
    }
  }
}

// bad:K5
TEST(CheckpointFaultsTest, FailedSyncIsFinal) {
  SimulatedDisk disk;
  FaultyFileSystem faulty(disk);
  CheckpointFolder folder = OpenOrDie(faulty);
  ASSERT_TRUE(folder.Write(AsBytes(FrameWith(1))).ok());
  faulty.FailSync(EIO);
  EXPECT_EQ(folder.Write(AsBytes(FrameWith(2))).status().code(),
            absl::StatusCode::kDataLoss);
  faulty.FailSync(0);
  const size_t calls = faulty.calls();
  const auto again = folder.Write(AsBytes(FrameWith(3)));
  EXPECT_EQ(again.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(again.status().message()), HasSubstr("fsync"));
  EXPECT_EQ(faulty.calls(), calls);
  // Reading still works.
  EXPECT_EQ(folder.LoadNewest()->bytes, FrameWith(1));
}

// A fault at every call of Open and of LoadNewest: an error, no crash, no
// descriptor kept (the simulated lock would stay taken).
TEST(CheckpointFaultsTest, OpeningAndLoadingReportFaults) {
  for (int error : {EIO, ENOSPC, EINTR, EMFILE}) {
    bool reached = true;
    for (size_t n = 0; reached; ++n) {
      SimulatedDisk disk;
      OpenOrDie(disk).Write(AsBytes(FrameWith(1))).value();
      FaultyFileSystem faulty(disk);
      faulty.FailAt(n, error, false);
      {
        auto folder = CheckpointFolder::Open("vm1", {}, faulty);
        if (folder.ok()) folder->LoadNewest().status().IgnoreError();
      }
      reached = faulty.calls() > n;
      EXPECT_EQ(LoadAfresh(disk).bytes, FrameWith(1));
    }
  }
}

// A Write whose last fsync failed, and whose rename could not be taken back:
// what the next one who opens the folder finds, and acts on, no power loss
// takes.
// bad:K5 bad:K6 promise:P6
TEST(CheckpointPowerLossTest, WhatIsFoundAfterAFailedWriteStays) {
  SimulatedDisk disk;
  FaultyFileSystem faulty(disk);
  {
    CheckpointFolder folder = OpenOrDie(faulty);
    ASSERT_TRUE(folder.Write(AsBytes(FrameWith(1))).ok());
    // Open, write, fsync, close and rename succeed.
    faulty.FailAt(faulty.calls() + 5, EIO, /*sticky=*/true);
    ASSERT_FALSE(folder.Write(AsBytes(FrameWith(2))).ok());
    EXPECT_STREQ(faulty.failed_call(), "Sync");
  }
  CheckpointFolder folder = OpenOrDie(disk);
  ASSERT_EQ(folder.LoadNewest().value().bytes, FrameWith(2));
  folder.RemoveOld();
  for (SimulatedDisk& after : disk.CrashStates()) {
    EXPECT_EQ(OpenOrDie(after).LoadNewest().value().bytes, FrameWith(2));
  }
}

// bad:K6 promise:P6
TEST(CheckpointPowerLossTest, NewestOrPreviousIsFoundWhereverItHappens) {
  SimulatedDisk disk(100);  // several writes per file
  uint64_t acknowledged = 0;
  uint64_t attempted = 0;
  size_t states = 0;
  const auto check = [&] {
    for (SimulatedDisk& after : disk.CrashStates()) {
      ++states;
      CheckpointFolder folder = OpenOrDie(after);
      const auto loaded = folder.LoadNewest();
      if (acknowledged > 0) {
        ASSERT_TRUE(loaded.ok()) << loaded.status();
      }
      if (loaded.ok()) {
        ASSERT_GE(loaded->generation, acknowledged);
        ASSERT_LE(loaded->generation, attempted);
        ASSERT_EQ(loaded->bytes, FrameWith(loaded->generation));
        // No generation was ever published half written.
        ASSERT_THAT(loaded->refused, IsEmpty());
      } else {
        ASSERT_EQ(loaded.status().code(), absl::StatusCode::kNotFound);
      }
      // Life goes on there.
      ASSERT_TRUE(folder.Write(AsBytes(FrameWith(99))).ok());
      ASSERT_EQ(folder.LoadNewest()->bytes, FrameWith(99));
    }
  };
  disk.set_before_call(check);
  CheckpointFolder folder = OpenOrDie(disk);
  for (uint64_t i = 1; i <= 4; ++i) {
    attempted = i;
    ASSERT_EQ(folder.Write(AsBytes(FrameWith(i))).value(), i);
    acknowledged = i;
    check();
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(states, 200u);
}

class CheckpointOnDiskTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove_all(path_); }
  const std::string path_ =
      std::string(::testing::TempDir()) + "/checkpoints_" +
      ::testing::UnitTest::GetInstance()->current_test_info()->name();
  const std::string first_ = path_ + "/checkpoint-0000000000000001.ferry";
};

// bad:K8
TEST_F(CheckpointOnDiskTest, SecondWriterIsRefused) {
  auto& posix = PosixFileSystem::Get();
  auto first = std::make_unique<CheckpointFolder>(OpenOrDie(posix, path_));
  const auto second = CheckpointFolder::Open(path_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("another writer"));
  // The refused one did not give the lock away.
  EXPECT_FALSE(CheckpointFolder::Open(path_).ok());
  ASSERT_TRUE(first->Write(AsBytes(FrameWith(1))).ok());
  first.reset();
  EXPECT_EQ(OpenOrDie(posix, path_).LoadNewest()->bytes, FrameWith(1));
}

// promise:P6
TEST_F(CheckpointOnDiskTest, WritesAndLoads) {
  {
    CheckpointFolder folder = OpenOrDie(PosixFileSystem::Get(), path_);
    for (uint64_t i = 1; i <= 4; ++i) {
      ASSERT_EQ(folder.Write(AsBytes(FrameWith(i))).value(), i);
    }
  }
  CheckpointFolder folder = OpenOrDie(PosixFileSystem::Get(), path_);
  EXPECT_THAT(folder.Generations().value(), ElementsAre(3, 4));
  EXPECT_EQ(folder.LoadNewest()->bytes, FrameWith(4));
  EXPECT_EQ(folder.Load(3)->bytes, FrameWith(3));
}

TEST_F(CheckpointOnDiskTest, OnlyTheOwnerMayRead) {
  CheckpointFolder folder = OpenOrDie(PosixFileSystem::Get(), path_);
  ASSERT_TRUE(folder.Write(AsBytes(FrameWith(1))).ok());
  struct stat info;
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  ASSERT_EQ(stat(first_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(CheckpointOnDiskTest, RemovesLeftoversOfAnInterruptedWrite) {
  ASSERT_TRUE(std::filesystem::create_directory(path_));
  const std::string leftover = path_ + "/checkpoint-0000000000000007.tmp";
  const std::string other = path_ + "/notes.tmp";
  std::ofstream(leftover) << "half";
  std::ofstream(other) << "not ours";
  CheckpointFolder folder = OpenOrDie(PosixFileSystem::Get(), path_);
  EXPECT_FALSE(std::filesystem::exists(leftover));
  EXPECT_TRUE(std::filesystem::exists(other));
  EXPECT_EQ(folder.Write(AsBytes(FrameWith(1))).value(), 8u);
}

// Links, folders and pipes in the place of a checkpoint: refused at once.
TEST_F(CheckpointOnDiskTest, RefusesWhatIsNotARegularFile) {
  CheckpointFolder folder = OpenOrDie(PosixFileSystem::Get(), path_);
  ASSERT_TRUE(folder.Write(AsBytes(FrameWith(1))).ok());
  const auto name = [&](int i) {
    return path_ + "/checkpoint-000000000000000" + std::to_string(i) + ".ferry";
  };
  ASSERT_EQ(symlink(first_.c_str(), name(2).c_str()), 0);
  ASSERT_EQ(mkfifo(name(3).c_str(), 0600), 0);
  ASSERT_EQ(mkdir(name(4).c_str(), 0700), 0);
  const auto loaded = folder.LoadNewest();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->generation, 1u);
  EXPECT_EQ(loaded->refused.size(), 3u);
}

TEST_F(CheckpointOnDiskTest, ReportsAMissingParent) {
  EXPECT_EQ(CheckpointFolder::Open(path_ + "/a/b").status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace ferrybus::savestate
