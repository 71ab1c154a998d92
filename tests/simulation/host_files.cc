// SPDX-License-Identifier: MIT

#include "ferrybus/tests/simulation/host_files.h"

#include <errno.h>

#include <utility>
#include <vector>

namespace ferrybus::simulation {

void FolderDisk::FailSoon() {
  Random& random = context_->random;
  const size_t call = faulty_.calls() + random.Below(24);
  if (random.OneIn(6)) return faulty_.ShortenAt(call);
  // Alone, or with all that follow: then what was half done cannot be taken
  // back, either.
  faulty_.FailAt(call, random.OneIn(2) ? EIO : ENOSPC, random.OneIn(2));
}

void FolderDisk::PowerLoss() {
  std::vector<savestate::SimulatedDisk> states = disk_.CrashStates();
  disk_ = std::move(states[context_->random.Below(states.size())]);
}

}  // namespace ferrybus::simulation
