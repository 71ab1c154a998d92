// SPDX-License-Identifier: MIT
//
// A simulated host's own disk: the folders of its ledger and its checkpoints,
// with what fsync means.  A process that is killed loses nothing of it; a power
// loss takes what was not synced, or half of it.
//
// Ownership: whoever holds a folder open ends before PowerLoss().
// Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_HOST_FILES_H_
#define FERRYBUS_TESTS_SIMULATION_HOST_FILES_H_

#include "ferrybus/savestate/simulated_disk.h"
#include "ferrybus/tests/simulation/context.h"

namespace ferrybus::simulation {

class FolderDisk {
 public:
  explicit FolderDisk(Context* context) : context_(context) {}

  savestate::FileSystem& file_system() { return faulty_; }
  // One of the next calls fails, or is cut short.
  void FailSoon();
  void Heal() { faulty_.FailAt(~size_t{0}, 0, false); }
  void PowerLoss();

 private:
  Context* const context_;
  savestate::SimulatedDisk disk_;
  savestate::FaultyFileSystem faulty_{disk_};
};

struct HostFiles {
  explicit HostFiles(Context* context)
      : ledger(context), checkpoints(context) {}
  FolderDisk ledger;
  FolderDisk checkpoints;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_HOST_FILES_H_
