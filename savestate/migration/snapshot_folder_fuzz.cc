// SPDX-License-Identifier: MIT
//
// Hostile bytes as the checkpoint of a machine in a folder, its checksums made
// right as a hostile author would: a device runs if all of it was accepted, and
// else does not.

#include <stdlib.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <system_error>

#include "ferrybus/savestate/frame_fixup.h"
#include "ferrybus/savestate/migration/fake_machine.h"
#include "ferrybus/savestate/migration/migration_fuzz_input.h"
#include "ferrybus/savestate/migration/snapshot_folder.h"

namespace {

using namespace ferrybus::migration;  // NOLINT: this is its test

// One with the memory that the inputs' checkpoints belong to.
class Folder {
 public:
  Folder() {
    std::error_code error;
    root_ = std::filesystem::temp_directory_path(error) / "snapshot.XXXXXX";
    if (mkdtemp(root_.data()) == nullptr) std::abort();
    FakeMachineState state(kFuzzPages);
    FakeDevice device("fake", {}, &state);
    device.Run();
    if (!SaveSnapshot(path(), {&device}).ok()) std::abort();
  }
  ~Folder() {
    std::error_code error;
    std::filesystem::remove_all(root_, error);
  }
  std::string path() const { return root_ + "/s"; }

 private:
  std::string root_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  static const Folder folder;
  std::string bytes(reinterpret_cast<const char*>(data), size_bytes);
  ferrybus::savestate::FixChecksums(&bytes);
  const absl::StatusOr<Snapshot> snapshot =
      Snapshot::Parse(folder.path(), bytes);
  if (!snapshot.ok()) return 0;
  if (snapshot->CreationParameters("fake").size() > size_bytes) std::abort();
  FakeMachineState state(kFuzzPages);
  FakeDevice device("fake", {}, &state);
  const absl::Status restored = snapshot->Restore({&device});
  if (device.is_running() != restored.ok()) std::abort();
  return 0;
}
