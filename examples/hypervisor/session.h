// SPDX-License-Identifier: MIT
//
// One guest from power-on to power-off, with its devices replaced meanwhile,
// itself moved to other processes, and a report about it.
//
// A process that the guest has moved to is a child of the one before, does the
// same again, and reports to it.
//
// Thread safety: one thread.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_SESSION_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_SESSION_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "ferrybus/examples/hypervisor/machine.h"
#include "ferrybus/examples/hypervisor/network_server.h"

namespace ferrybus::hypervisor {

struct SessionOptions {
  MachineOptions machine;
  std::string disk_path;
  uint32_t disk_channels = 0;  // DeviceProcessOptions
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
  // After the replacements: the guest is moved to another process so often;
  // then so often, by way of a folder.  Each process does its share of the
  // replacements, and the last one powers off.
  uint32_t moves = 0;
  uint32_t snapshots = 0;
  // Instead of powering off: the guest is saved in this folder, which must not
  // be there.
  std::string save_to;
  // Instead of powering off: the guest moves to this host, HOST:PORT, and
  // nothing is left of it here.  Without `moves` and `snapshots`.
  std::string move_to;
  // Instead of booting: it goes on from there.
  std::string restore_from;
  // Nor booting: a guest that is ready comes from another host.
  bool receive = false;
  // For both of these.
  NetworkOptions network;
  // Nor booting: it comes from the process that began this one.
  bool incoming = false;
  // In a process that was begun to continue a guest, which is ready.
  bool is_continued = false;
  // Where the report goes, as JSON.  Empty: nowhere.
  std::string json_path;
};

// Of the replacements, those that are done before the guest is handed over.
inline uint32_t ReplacementsHere(const SessionOptions& options) {
  return options.replacements / (options.moves + options.snapshots + 1);
}

// Ok: the guest has powered itself off, was saved or has moved, nothing was
// lost, and its kernel did not complain.
absl::Status RunSession(const SessionOptions& options);

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_SESSION_H_
