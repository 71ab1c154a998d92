// SPDX-License-Identifier: MIT
//
// Machines into a folder, and back; what is refused.

#include "ferrybus/savestate/migration/snapshot_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "ferrybus/savestate/frame.h"

namespace ferrybus::migration {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kMemoryBytes = (2 << 20) + 8192;

// Memory, a word of state, and a list of what was called.
class Device final : public Migratable {
 public:
  explicit Device(std::string name)
      : memory(kMemoryBytes), name_(std::move(name)) {}

  std::string name() const override { return name_; }
  Capabilities capabilities() const override { return {}; }
  std::vector<Segment> segments() const override {
    return {{.id = 3, .ranges = {{0, memory.size()}}}};
  }
  std::string CreationParameters() const override { return "made of " + name_; }
  absl::Status Prepare(Role) override { return absl::OkStatus(); }
  void End() override { calls.push_back("End"); }
  savestate::SizeAnswer SaveImmutable(absl::Span<std::byte> out) override {
    return Give(name_, out);
  }
  absl::Status ReadMemory(uint32_t, uint64_t offset,
                          absl::Span<std::byte> out) override {
    std::memcpy(out.data(), &memory[offset], out.size());
    return absl::OkStatus();
  }
  absl::StatusOr<bool> Pause() override {
    if (!fail_pause.ok()) return fail_pause;
    return ++pauses_ > 1;  // not at once
  }
  savestate::SizeAnswer SaveMutable(absl::Span<std::byte> out) override {
    return Give(state, out);
  }
  void Retire() override { calls.push_back("Retire"); }
  absl::Status RestoreImmutable(absl::Span<const std::byte> data) override {
    return Text(data) == name_ ? absl::OkStatus()
                               : absl::FailedPreconditionError("other name");
  }
  absl::Status WriteMemory(uint32_t, uint64_t offset,
                           absl::Span<const std::byte> data) override {
    std::memcpy(&memory[offset], data.data(), data.size());
    return absl::OkStatus();
  }
  absl::Status RestoreMutable(absl::Span<const std::byte> data) override {
    state = Text(data);
    return absl::OkStatus();
  }
  void Resume() override { calls.push_back("Resume"); }

  std::vector<std::byte> memory;
  std::string state;
  std::vector<std::string> calls;
  absl::Status fail_pause;

 private:
  static savestate::SizeAnswer Give(const std::string& text,
                                    absl::Span<std::byte> out) {
    if (out.size() < text.size()) {
      return savestate::SizeAnswer::TooSmall(text.size());
    }
    if (!text.empty()) std::memcpy(out.data(), text.data(), text.size());
    return savestate::SizeAnswer::Ok(text.size());
  }
  static std::string Text(absl::Span<const std::byte> bytes) {
    return std::string(reinterpret_cast<const char*>(bytes.data()),
                       bytes.size());
  }

  const std::string name_;
  int pauses_ = 0;
};

class SnapshotTest : public testing::Test {
 protected:
  SnapshotTest() {
    std::string folder = testing::TempDir() + "/snapshot.XXXXXX";
    root_ = mkdtemp(folder.data());
    folder_ = root_ + "/s";
    a_.memory[5] = std::byte{1};
    a_.memory[kMemoryBytes - 1] = std::byte{2};
    b_.memory[1 << 20] = std::byte{3};
    a_.state = "state of a";
  }
  ~SnapshotTest() override { std::filesystem::remove_all(root_); }

  absl::Status Restore(Device& a, Device& b) {
    const auto snapshot = Snapshot::Open(folder_);
    if (!snapshot.ok()) return snapshot.status();
    return snapshot->Restore({&a, &b});
  }

  std::string root_;
  std::string folder_;
  Device a_{"a"};
  Device b_{"b"};
};

// promise:P1
TEST_F(SnapshotTest, ComesBackFromTheFolder) {
  ASSERT_TRUE(SaveSnapshot(folder_, {&a_, &b_}).ok());
  EXPECT_THAT(a_.calls, ElementsAre("Retire", "End"));
  EXPECT_EQ(Snapshot::Open(folder_)->CreationParameters("b"), "made of b");
  EXPECT_EQ(Snapshot::Open(folder_)->CreationParameters("c"), "");
  Device a("a");
  Device b("b");
  const absl::Status restored = Restore(a, b);
  ASSERT_TRUE(restored.ok()) << restored;
  EXPECT_EQ(a.memory, a_.memory);
  EXPECT_EQ(b.memory, b_.memory);
  EXPECT_EQ(a.state, "state of a");
  EXPECT_THAT(a.calls, ElementsAre("End", "Resume"));
}

TEST_F(SnapshotTest, AFolderThatIsThereIsNotTouched) {
  ASSERT_TRUE(SaveSnapshot(folder_, {&a_, &b_}).ok());
  Device other("a");
  EXPECT_TRUE(absl::IsAlreadyExists(SaveSnapshot(folder_, {&other})));
  EXPECT_THAT(other.calls, testing::IsEmpty());
}

TEST_F(SnapshotTest, AFailureLeavesTheDevicesRunningAndNothingToRestore) {
  b_.fail_pause = absl::UnavailableError("no");
  EXPECT_TRUE(absl::IsUnavailable(SaveSnapshot(folder_, {&a_, &b_})));
  EXPECT_THAT(a_.calls, ElementsAre("Resume", "End"));
  EXPECT_FALSE(Snapshot::Open(folder_).ok());
}

TEST_F(SnapshotTest, ChangedMemoryIsNoticed) {
  ASSERT_TRUE(SaveSnapshot(folder_, {&a_, &b_}).ok());
  std::fstream file(folder_ + "/b.3");
  file.seekp(12345);
  file.put('x');
  file.close();
  Device a("a");
  Device b("b");
  EXPECT_THAT(Restore(a, b).message(), HasSubstr("checksum"));
  EXPECT_THAT(a.calls, testing::IsEmpty());
  std::filesystem::resize_file(folder_ + "/b.3", 100);
  EXPECT_THAT(Restore(a, b).message(), HasSubstr("no file of"));
}

TEST_F(SnapshotTest, ANameThatIsNoFilesIsRefused) {
  for (const char* name : {"", "../a", "/a"}) {
    Device device(name);
    EXPECT_TRUE(absl::IsInvalidArgument(SaveSnapshot(folder_, {&device})));
    EXPECT_THAT(device.calls, testing::IsEmpty());
  }
  EXPECT_FALSE(std::filesystem::exists(folder_));
}

TEST_F(SnapshotTest, ALinkIsNotFollowed) {
  ASSERT_TRUE(SaveSnapshot(folder_, {&a_, &b_}).ok());
  std::filesystem::rename(folder_ + "/b.3", root_ + "/elsewhere");
  std::filesystem::create_symlink(root_ + "/elsewhere", folder_ + "/b.3");
  Device a("a");
  Device b("b");
  EXPECT_FALSE(Restore(a, b).ok());
  EXPECT_THAT(b.calls, testing::IsEmpty());
}

// What a later version writes, and says that it is needed.
TEST_F(SnapshotTest, UnknownSectionsThatAreNeededAreRefused) {
  for (const bool is_required : {false, true}) {
    for (const uint32_t version : {1u, 2u}) {
      savestate::FrameWriter writer("ferrybus-snapshot");
      writer.AddSection(version == 1 ? "more" : "name", 0, version,
                        is_required ? savestate::SectionKind::kRequired
                                    : savestate::SectionKind::kOptional,
                        "x");
      const auto parsed = Snapshot::Parse(root_, *writer.Finish());
      EXPECT_EQ(absl::IsUnimplemented(parsed.status()), is_required)
          << parsed.status();
    }
  }
}

TEST_F(SnapshotTest, OtherDevicesAreRefused) {
  ASSERT_TRUE(SaveSnapshot(folder_, {&a_, &b_}).ok());
  Device a("a");
  Device c("c");
  EXPECT_TRUE(absl::IsDataLoss(Restore(a, c)));
  EXPECT_THAT(c.calls, testing::IsEmpty());
}

}  // namespace
}  // namespace ferrybus::migration
