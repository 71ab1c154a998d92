// SPDX-License-Identifier: MIT
//
// Writes the seed inputs of the migration's fuzz targets: one migration as it
// goes when nothing fails.
//
//   write_migration_corpus savestate/migration/corpus

#include <stdlib.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/checkpoint.h"
#include "ferrybus/savestate/migration/fake_machine.h"
#include "ferrybus/savestate/migration/migration_fuzz_input.h"
#include "ferrybus/savestate/migration/migration_source.h"
#include "ferrybus/savestate/migration/migration_target.h"
#include "ferrybus/savestate/migration/snapshot_folder.h"

namespace {

using namespace ferrybus::migration;  // NOLINT: this is its tool

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

class Host final : public TargetHost {
 public:
  absl::StatusOr<std::vector<Migratable*>> CreateDevices(
      const Hello& /*hello*/, std::vector<int> /*descriptors*/,
      bool /*is_recovery*/) override {
    device = std::make_unique<FakeDevice>(
        "fake", Capabilities{.live_migration = true}, &state);
    return std::vector<Migratable*>{device.get()};
  }
  void DestroyDevices() override { device.reset(); }

  FakeMachineState state{kFuzzPages};
  std::unique_ptr<FakeDevice> device;
};

struct Recorded {
  std::string to_target;
  std::string to_source;
  size_t before_last = 0;  // of the events at the target
  std::vector<std::string> messages;
  std::vector<std::string> blocks;
};

Recorded Record() {
  FakeMachineState state(kFuzzPages);
  FakeDevice device("fake", Capabilities{.live_migration = true}, &state);
  auto pages = *PendingPages::Create(&device, MemoryOrigin::kZeros);
  device.Run();
  uint64_t request = 0;
  for (; request < 10; ++request) device.Do(request);
  FakeLedger ledgers[2];
  OwnershipRecord owner;
  owner.state = Ownership::kOwner;
  owner.epoch = 1;
  ledgers[0].set_record(owner);
  SourceOptions options;
  options.machine = kFuzzMachine;
  options.migration_id = kFuzzMigrationId;
  options.peer = "there";
  options.block_bytes = 2 * kFakePageSize;
  PendingPages* const list = pages.get();
  MigrationSource source(options, absl::MakeConstSpan(&list, 1), &ledgers[0]);
  Host host;
  MigrationTarget target(
      {.machine = kFuzzMachine, .session = kFuzzSession, .peer = "there"},
      &host, &ledgers[1]);
  Recorded recorded;
  PageEncoder encoder;
  absl::Time now = absl::UnixEpoch();
  source.Start(now);
  for (int step = 0; step < 1000 && !source.is_finished(); ++step) {
    now += absl::Milliseconds(1);
    if (request < 14 && device.is_running()) {
      device.Do(request++);
      AppendEvent(FuzzEvent::kRequest, "", &recorded.to_source);
    }
    for (auto block = source.TakeBlock(encoder, now); !block.bytes.empty();
         block = source.TakeBlock(encoder, now)) {
      target.OnBlock(AsBytes(block.bytes), now);
      AppendEvent(FuzzEvent::kBlock, block.bytes, &recorded.to_target);
      recorded.blocks.push_back(block.bytes);
    }
    source.Poll(now);
    while (auto message = source.TakeMessage()) {
      target.OnMessage(AsBytes(message->bytes), {}, now);
      recorded.before_last = recorded.to_target.size();
      AppendEvent(FuzzEvent::kMessage, message->bytes, &recorded.to_target);
      recorded.messages.push_back(message->bytes);
    }
    target.Poll(now);
    while (auto message = target.TakeMessage()) {
      source.OnMessage(AsBytes(*message), now);
      AppendEvent(FuzzEvent::kMessage, *message, &recorded.to_source);
      recorded.messages.push_back(*message);
    }
  }
  if (target.phase() != TargetPhase::kRunning) {
    std::fprintf(stderr, "it did not move: %s\n",
                 source.progress().status.ToString().c_str());
  }
  return recorded;
}

// What a folder with a machine has beside its memory.
std::string SnapshotFrame() {
  std::string root = std::filesystem::temp_directory_path() / "seed.XXXXXX";
  if (mkdtemp(root.data()) == nullptr) return {};
  FakeMachineState state(kFuzzPages);
  FakeDevice device("fake", {}, &state);
  device.Run();
  std::string frame;
  if (SaveSnapshot(root + "/s", {&device}).ok()) {
    frame = ferrybus::savestate::CheckpointFolder::Open(root + "/s/state")
                ->LoadNewest()
                ->bytes;
  }
  std::filesystem::remove_all(root);
  return frame;
}

void Write(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::string folder = argv[1];
  Recorded recorded = Record();
  recorded.messages.push_back(SerializeMessage(
      Abort{.reason = absl::CancelledError("no"), .session = kFuzzSession}));
  Write(folder + "/migration_target/moves", recorded.to_target);
  Write(folder + "/migration_source/moves", recorded.to_source);
  std::string undecided = recorded.to_target.substr(0, recorded.before_last);
  AppendEvent(FuzzEvent::kDisconnect, "", &undecided);
  AppendEvent(FuzzEvent::kDecision, "1", &undecided);
  Write(folder + "/migration_target/asks", undecided);
  for (size_t i = 0; i < recorded.messages.size(); ++i) {
    Write(absl::StrCat(folder, "/migration_message/", i), recorded.messages[i]);
  }
  for (size_t i = 0; i < recorded.blocks.size() && i < 4; ++i) {
    Write(absl::StrCat(folder, "/page_block/", i), recorded.blocks[i]);
  }
  Write(folder + "/snapshot_folder/whole", SnapshotFrame());
  return 0;
}
