// SPDX-License-Identifier: MIT
//
// One virtual processor: runs the guest's code, and answers what it asks of
// the machine around it.
//
// Thread safety: Run() on a thread of its own; Stop() from any; the others
// while it does not run.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_VCPU_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_VCPU_H_

#include <linux/kvm.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/examples/hypervisor/boot_linux.h"
#include "ferrybus/examples/hypervisor/cmos_clock.h"
#include "ferrybus/examples/hypervisor/hypercalls.h"
#include "ferrybus/examples/hypervisor/hyperv_msrs.h"
#include "ferrybus/examples/hypervisor/kvm.h"
#include "ferrybus/examples/hypervisor/machine_state.h"
#include "ferrybus/examples/hypervisor/serial_port.h"
#include "ferrybus/examples/hypervisor/synic.h"

namespace ferrybus::hypervisor {

// Why a machine ended.
enum class MachineEnd {
  kNone,
  kPowerOff,
  kReset,
  kTripleFault,
  kCrash,
  kStopped,
  kFailed
};

// What a processor reaches; all borrowed.
struct VcpuWorld {
  HypervMode mode = HypervMode::kKvm;
  const Kvm* kvm = nullptr;
  const GuestMemory* memory = nullptr;
  Synic* synic = nullptr;
  HypervMsrs* msrs = nullptr;
  HypercallSink* hypercalls = nullptr;
  SerialPort* serial = nullptr;
  CmosClock* cmos_clock = nullptr;
  std::atomic<uint32_t>* acpi_events = nullptr;  // the event block's registers
};

class Vcpu {
 public:
  static absl::StatusOr<std::unique_ptr<Vcpu>> Create(
      const VcpuWorld& world, uint32_t index,
      const std::vector<kvm_cpuid_entry2>& cpuid);
  ~Vcpu();
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;

  // The first processor starts here; the others wait for it.
  absl::Status SetEntry(const BootEntry& entry);

  // Until the machine ends by this processor, or Stop().  kFailed: error()
  // says why.  Stopped, nothing that the guest asked for is half done.
  MachineEnd Run();
  void Stop();
  // After Stop(): it may run again.
  void Continue();

  // Its state, but the SynIC's.  A load that fails leaves it half done.
  absl::Status Save(VcpuState* state) const;
  absl::Status Load(const VcpuState& state) const;
  // At any time: KVM itself answers nothing while the processor runs.
  uint32_t tsc_khz() const { return tsc_khz_; }

  const std::string& error() const { return error_; }

 private:
  Vcpu(const VcpuWorld& world, uint32_t index) : world_(world), index_(index) {}

  MachineEnd HandleExit();
  MachineEnd HandlePort();
  MachineEnd WritePort(uint16_t port, uint32_t value, uint32_t bytes);
  uint32_t ReadPort(uint16_t port);
  MachineEnd HandleHypervisorExit();
  void HandleHypercallPort();
  MachineEnd HandleMsrWrite();
  uint64_t ReadTsc() const;
  absl::Status Call(unsigned long request, const char* name,
                    const void* argument) const;
  bool HasXcrs() const;
  // False: there is no such register.
  bool ReadMsr(uint32_t msr, uint64_t* value) const;
  absl::Status LoadMsrs(absl::Span<const kvm_msr_entry> msrs) const;
  MachineEnd Fail(std::string error);
  std::string Where() const;
  MachineEnd TripleFault();
  MachineEnd Crash();
  MachineEnd InternalError();

  const VcpuWorld world_;
  const uint32_t index_;
  UniqueFd fd_;
  kvm_run* run_ = nullptr;
  uint32_t tsc_khz_ = 0;
  std::atomic<bool> stopping_ = false;
  std::atomic<pthread_t> thread_ = {};
  std::string error_;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_VCPU_H_
