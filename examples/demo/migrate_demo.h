// SPDX-License-Identifier: MIT
//
// `demo --migrate`: a machine with a disk and an accelerator, both under load,
// moves between two hosts, there and back.
//
// The hosts are network namespaces with a shaped link; each runs
// ferrybus-migrated, and `ferrybus migrate` moves the machine, over TLS.  The
// client's process is the guest (roaming_client.h): it checks every answer.  Or
// both are processes of this host, and memory goes by descriptor.

#ifndef FERRYBUS_EXAMPLES_DEMO_MIGRATE_DEMO_H_
#define FERRYBUS_EXAMPLES_DEMO_MIGRATE_DEMO_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace ferrybus::demo {

struct MigrateDemoOptions {
  uint64_t moves = 20;  // ten there, ten back
  uint64_t seed = 0;
  uint64_t image_mib = 256;
  uint64_t vram_mib = 1024;
  // Pages that the accelerator works on in a second; about half of its work
  // writes.
  uint64_t steps = 25000;
  uint64_t link_mbit = 1000;
  uint64_t streams = 2;
  double interval_ms = 500;
  // Two processes of this host instead, which hand the machine over.
  bool one_host = false;
  // link_demo.h instead.
  bool throughput = false;
  std::string json_path;
  std::string folder;
  std::string daemon_program;
  std::string command_program;
};

// Ok when nothing was lost, doubled or different.
absl::Status RunMigrateDemo(const MigrateDemoOptions& options);

}  // namespace ferrybus::demo

#endif  // FERRYBUS_EXAMPLES_DEMO_MIGRATE_DEMO_H_
