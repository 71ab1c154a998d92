// SPDX-License-Identifier: MIT
//
// The process that serves the guest's devices, and that is replaced under the
// running guest: a bus, until it is told to save itself and end.
//
// Commands on the control socket:
//   {"command": "go", "restore": bool, "socket": object or null}, followed by
//   the port
//   {"command": "connect"}
//   {"command": "move", "wait_for_kill": bool}
//   {"command": "status"}, {"command": "power_off"}, {"command": "stop"}
// Answers: {"event": "serving" | "saved" | "status" | "failed", ...}.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_DEVICE_PROCESS_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_DEVICE_PROCESS_H_

#include <cstdint>
#include <string>

namespace ferrybus::hypervisor {

struct DeviceProcessOptions {
  std::string image_path;
  std::string checkpoint_folder;
  int64_t start_ns = 0;  // Machine::start_ns()
  uint32_t vp_count = 1;
};

// Runs until it has moved or was stopped.  The process's exit code.
int RunDeviceProcess(const DeviceProcessOptions& options);

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_DEVICE_PROCESS_H_
