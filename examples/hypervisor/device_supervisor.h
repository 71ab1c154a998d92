// SPDX-License-Identifier: MIT
//
// Starts the process that serves the guest's devices, and replaces it: the old
// one saves itself and ends, or is killed, and the next goes on from the
// checkpoint.  The guest is not told.
//
// Thread safety: one thread, which must live as long as the processes (they
// end with it).

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_DEVICE_SUPERVISOR_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_DEVICE_SUPERVISOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/examples/demo/control.h"
#include "ferrybus/examples/hypervisor/device_process.h"

namespace ferrybus::hypervisor {

class DeviceSupervisor {
 public:
  struct Totals {
    uint64_t replacements = 0;
    uint64_t in_flight_moved = 0;  // requests
    uint64_t disk_packets = 0;
    uint64_t disk_io_errors = 0;
    uint64_t disk_refused = 0;
    std::vector<std::string> faults;  // channels that the guest broke
  };

  // Borrows the host's end of the port.
  DeviceSupervisor(const DeviceProcessOptions& options, const Port* port)
      : options_(options), port_(port) {}

  absl::Status Start();
  absl::Status Replace(bool kill);
  // Json null: the process is gone.
  demo::Json Status();
  // Opens a socket to the guest, which listens.
  void Connect() { server_.control().Send({{"command", "connect"}}); }
  absl::Status PowerOff();
  // Ends the process, and adds its numbers to the totals.
  absl::Status Stop();

  const Totals& totals() const { return totals_; }

 private:
  absl::StatusOr<demo::Child> StartStandby() const;
  absl::Status Go(bool restore, const demo::Json& socket);
  absl::StatusOr<demo::Json> Expect(const char* event);
  void AddUp(const demo::Json& status);

  const DeviceProcessOptions options_;
  const Port* const port_;
  demo::Child server_;
  Totals totals_;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_DEVICE_SUPERVISOR_H_
