// SPDX-License-Identifier: MIT
//
// One guest from power-on to power-off, with its devices replaced meanwhile,
// and a report about it.
//
// Thread safety: one thread.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_SESSION_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_SESSION_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "ferrybus/examples/hypervisor/machine.h"

namespace ferrybus::hypervisor {

struct SessionOptions {
  MachineOptions machine;
  std::string disk_path;
  // For checkpoints; made if it is not there.
  std::string state_folder;
  // How often the devices' process is replaced once the guest is ready, and
  // how.  After the last time the guest is asked to power off.  0: the guest
  // runs until it ends by itself.
  uint32_t replacements = 0;
  int64_t interval_ms = 200;
  bool kill = false;
  // Once the guest is ready: a socket to it, under load until the end.
  bool connect = false;
  // The guest is given up after this; 0: never.
  int64_t timeout_seconds = 0;
  // Where the report goes, as JSON.  Empty: nowhere.
  std::string json_path;
};

// Ok: the guest has powered itself off, nothing was lost, and its kernel did
// not complain.
absl::Status RunSession(const SessionOptions& options);

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_SESSION_H_
