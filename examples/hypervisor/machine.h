// SPDX-License-Identifier: MIT
//
// The virtual machine: RAM, processors, console, and the bridge to whoever
// serves its bus.
//
// Ownership: owns everything of the guest's; the serving process has only the
// host's end of the port.
// Thread safety: one thread, but Type() from any.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_MACHINE_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_MACHINE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/page_log.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/examples/hypervisor/boot_linux.h"
#include "ferrybus/examples/hypervisor/bus_bridge.h"
#include "ferrybus/examples/hypervisor/cmos_clock.h"
#include "ferrybus/examples/hypervisor/hyperv_msrs.h"
#include "ferrybus/examples/hypervisor/kvm.h"
#include "ferrybus/examples/hypervisor/kvm_dirty_log.h"
#include "ferrybus/examples/hypervisor/machine_state.h"
#include "ferrybus/examples/hypervisor/serial_port.h"
#include "ferrybus/examples/hypervisor/synic.h"
#include "ferrybus/examples/hypervisor/vcpu.h"

namespace ferrybus::hypervisor {

// Who plays Hyper-V, by the command line.
enum class HypervChoice { kAuto, kKvm, kUserspace };

struct MachineOptions {
  // Without a kernel_path: RAM stays empty, for a state to load.
  LinuxImage linux;
  uint64_t ram_bytes = uint64_t{512} << 20;
  uint32_t vp_count = 2;
  HypervChoice hyperv = HypervChoice::kAuto;
  // Called with what the guest prints, by its processors.
  std::function<void(char)> console;
};

// Below the I/O APIC and what else is memory mapped on a PC.
inline constexpr uint64_t kRamBytesMax = uint64_t{3} << 30;
inline constexpr uint64_t kRamBytesMin = uint64_t{64} << 20;
inline constexpr uint32_t kVpCountMax = 64;

class Machine {
 public:
  // Everything is ready, nothing runs.  Errors say what is missing or wrong.
  static absl::StatusOr<std::unique_ptr<Machine>> Create(
      const MachineOptions& options);
  ~Machine();

  HypervMode mode() const { return mode_; }
  uint32_t vp_count() const { return static_cast<uint32_t>(vcpus_.size()); }
  // The host's end of the bus; duplicate it for each serving process.
  const Port& host_port() const { return host_port_; }
  // KVM wakes that process up, by HostPortOptions::unnamed_signals.
  bool has_doorbells() const {
    return mode_ == HypervMode::kKvm && kvm_->HasDoorbells();
  }
  // Those for which the guest had to be left.
  uint64_t hypercalls() const { return bridge_->hypercalls(); }
  // When the partition's clock was 0, by CLOCK_MONOTONIC.
  int64_t start_ns() const { return start_ns_; }
  absl::Span<std::byte> ram() const;
  KvmDirtyLog& dirty_log() { return *dirty_log_; }
  // What another host's machine must have in common with this one, to go on
  // there: "key=value" lines.
  std::string Description() const;

  // Starts or continues: the bridge, then the processors.
  void Start();
  // Stops the processors.  FailedPrecondition: the machine has ended.  The
  // bridge still carries to the guest.
  absl::Status Pause();
  // While it is paused, and nobody serves the bus: stops the bridge, too, and
  // takes out what neither side has taken.
  PortState DrainPort();
  // Puts it (back) in.
  void FillPort(const PortState& port) { bridge_->Fill(port); }
  // While it is paused; or before it ever ran, in a machine without a kernel
  // (MachineOptions), for the Load(), which may fail and leave it half done.
  absl::StatusOr<MachineState> Save() const;
  absl::Status Load(const MachineState& state);

  // What is typed on the console.
  void Type(absl::string_view text) { serial_->Type(text); }

  // Readable once the machine has ended.
  int end_fd() const { return end_event_.get(); }
  // Stops what still runs.  Why the machine had ended (kStopped: this ended
  // it), and with kFailed what went wrong.
  MachineEnd Finish(std::string* error);

 private:
  Machine() = default;
  absl::Status Build(const MachineOptions& options);
  absl::Status BuildProcessors(uint32_t count);
  void RunVcpu(Vcpu& vcpu);
  void StopProcessors();
  void StopBridge();

  HypervMode mode_ = HypervMode::kKvm;
  int64_t start_ns_ = 0;
  uint32_t cpuid_digest_ = 0;
  std::unique_ptr<MemfdGuestMemory> ram_;
  // What this process writes into it.
  std::unique_ptr<PageLog> page_log_;
  std::unique_ptr<LoggedMemory> memory_;
  Port host_port_;
  std::unique_ptr<Kvm> kvm_;
  std::unique_ptr<KvmDirtyLog> dirty_log_;
  std::unique_ptr<Synic> synic_;
  std::unique_ptr<HypervMsrs> msrs_;
  std::unique_ptr<SerialPort> serial_;
  CmosClock cmos_clock_;
  std::atomic<uint32_t> acpi_events_ = 0;
  std::unique_ptr<BusBridge> bridge_;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
  std::vector<std::thread> threads_;  // of the processors
  std::thread bridge_thread_;
  UniqueFd end_event_;
  std::mutex end_mutex_;
  MachineEnd end_ = MachineEnd::kNone;
  std::string error_;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_MACHINE_H_
