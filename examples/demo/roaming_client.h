// SPDX-License-Identifier: MIT
//
// The client process of `demo --migrate`: a guest with a disk and an
// accelerator under load, whose machine moves between hosts.
//
// The disk's requests are those of the other demo (workload.h); each of the
// accelerator's answers is compared with the client's own computation.

#ifndef FERRYBUS_EXAMPLES_DEMO_ROAMING_CLIENT_H_
#define FERRYBUS_EXAMPLES_DEMO_ROAMING_CLIENT_H_

#include <cstdint>
#include <string>
#include <vector>

namespace ferrybus::demo {

struct RoamingClientOptions {
  std::string manifest_path;
  uint64_t seed = 0;
  uint64_t vram_bytes = 0;
  std::vector<std::string> sockets;
};

// The process's exit code.  Speaks over the control socket: "running" once the
// devices are there; at {"command": "finish"} it ends with "result".
int RunRoamingClient(const RoamingClientOptions& options);

}  // namespace ferrybus::demo

#endif  // FERRYBUS_EXAMPLES_DEMO_ROAMING_CLIENT_H_
