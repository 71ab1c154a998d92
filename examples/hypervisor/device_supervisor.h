// SPDX-License-Identifier: MIT
//
// Starts the process that serves the guest's devices, and replaces it: the old
// one saves itself and ends, or is killed, and the next goes on from the
// checkpoint, here or on another host.  The guest is not told.
//
// Thread safety: one thread at a time; the one that starts a process must live
// as long as it does (they end with it).

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_DEVICE_SUPERVISOR_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_DEVICE_SUPERVISOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ferrybus/examples/demo/control.h"
#include "ferrybus/examples/hypervisor/device_process.h"
#include "ferrybus/examples/hypervisor/machine.h"
#include "ferrybus/examples/hypervisor/machine_state.h"

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

  explicit DeviceSupervisor(const DeviceProcessOptions& options)
      : options_(options) {}

  // Has the next process ready to run, since it takes its time; or later.
  absl::Status StartStandby();
  // Borrows the machine whose devices they are.
  void SetMachine(const Machine* machine) { machine_ = machine; }

  absl::Status Start();
  // All three of the next ones.
  absl::Status Replace(bool kill);

  // Ends the process, and has the next one ready to run.
  absl::Status Save(bool kill);
  // It takes the saved state over, or refuses it.
  absl::Status Load();
  // It serves.
  void Run() { server_.control().Send({{"command", "start"}}); }

  // Nothing of what it did counts: the process is killed.
  void Abandon() { server_ = demo::Child(); }

  // What Save() left.
  absl::StatusOr<std::string> saved_bus() const;
  const ProbeState& saved_probe() const { return probe_; }
  uint64_t saved_sub_channels() const { return sub_channels_; }
  // What the Load() shall find, instead of a Save().
  absl::Status StoreSaved(const ChannelsState& state);
  // PageLog of the process that runs.
  std::string page_log_path() const { return PageLogPath(options_); }

  // Json null: the process is gone.
  demo::Json Status();
  // Opens a socket to the guest, which listens.
  void Connect() { server_.control().Send({{"command", "connect"}}); }
  absl::Status PowerOff();
  // Ends the process, and adds its numbers to the totals.
  absl::Status Stop();

  const Totals& totals() const { return totals_; }

 private:
  absl::Status Go(bool restore);
  absl::StatusOr<demo::Json> Expect(const char* event);
  void AddUp(const demo::Json& status);

  const DeviceProcessOptions options_;
  const Machine* machine_ = nullptr;
  demo::Child server_;
  demo::Child standby_;
  bool has_standby_ = false;
  ProbeState probe_;
  uint64_t sub_channels_ = 0;
  Totals totals_;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_DEVICE_SUPERVISOR_H_
