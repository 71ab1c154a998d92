// SPDX-License-Identifier: MIT
//
// The process that serves the guest's devices, and that is replaced under the
// running guest: a bus, until it is told to save itself and end.
//
// Commands on the control socket:
//   {"command": "go", "restore": bool, "cpus": number, "start_ns": number,
//    "socket": object, "sub_channels": number, "unnamed_signals": bool},
//    followed by the port
//   {"command": "start"}
//   {"command": "connect"}
//   {"command": "move", "wait_for_kill": bool}
//   {"command": "status"}, {"command": "power_off"}, {"command": "stop"}
// Answers: {"event": "ready" | "saved" | "status" | "failed", ...}.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_DEVICE_PROCESS_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_DEVICE_PROCESS_H_

#include <cstdint>
#include <string>

#include "ferrybus/examples/demo/control.h"
#include "ferrybus/examples/hypervisor/machine_state.h"

namespace ferrybus::hypervisor {

struct DeviceProcessOptions {
  std::string image_path;
  std::string checkpoint_folder;
  // To the disk, no more than the guest has processors; 0: one for each four.
  uint32_t disk_channels = 0;
};

// Which pages of guest RAM the process may have written (PageLog).
std::string PageLogPath(const DeviceProcessOptions& options);

// The socket's part of messages.
demo::Json ToJson(const ProbeState& probe);
ProbeState ProbeFromJson(const demo::Json& json);

// Runs until it has moved or was stopped.  The process's exit code.
int RunDeviceProcess(const DeviceProcessOptions& options);

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_DEVICE_PROCESS_H_
