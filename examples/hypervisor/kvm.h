// SPDX-License-Identifier: MIT
//
// What this hypervisor asks of /dev/kvm: one virtual machine with interrupt
// controllers in the kernel and one slot of RAM from address 0 on.
//
// Thread safety: const methods from any thread.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_KVM_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_KVM_H_

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/examples/hypervisor/machine_state.h"

namespace ferrybus::hypervisor {

// Where Hyper-V's interface comes from.
enum class HypervMode {
  // KVM has it: MSRs, hypercalls and SINTs in the kernel.
  kKvm,
  // KVM knows nothing of it: each access to one of the MSRs comes here, and so
  // do the hypercalls, by way of an I/O port.
  kUserspace,
};

// KVM's structures that are a count and as many entries, zeroed.  Its own
// (kvm_cpuid2, kvm_msrs) have another layout in C++: they hide the array behind
// an empty structure, which takes up room there.
struct KvmListHeader {
  uint32_t count;
  uint32_t reserved;
};
template <typename Entry>
class KvmList {
 public:
  explicit KvmList(size_t count)
      : bytes_(sizeof(KvmListHeader) + count * sizeof(Entry)) {
    header()->count = static_cast<uint32_t>(count);
  }
  KvmListHeader* header() {
    return reinterpret_cast<KvmListHeader*>(bytes_.data());
  }
  Entry* entries() { return reinterpret_cast<Entry*>(header() + 1); }

 private:
  std::vector<char> bytes_;
};

// The calls that take one.
inline constexpr unsigned long kKvmGetSupportedCpuid =
    _IOWR(KVMIO, 0x05, KvmListHeader);
inline constexpr unsigned long kKvmSetCpuid = _IOW(KVMIO, 0x90, KvmListHeader);
inline constexpr unsigned long kKvmGetMsrs = _IOWR(KVMIO, 0x88, KvmListHeader);
inline constexpr unsigned long kKvmSetMsrs = _IOW(KVMIO, 0x89, KvmListHeader);
// kvm_xsave has such an array, too.
using XsaveArea = std::array<std::byte, 4096>;
inline constexpr unsigned long kKvmGetXsave = _IOR(KVMIO, 0xa4, XsaveArea);
inline constexpr unsigned long kKvmSetXsave = _IOW(KVMIO, 0xa5, XsaveArea);
inline constexpr unsigned long kKvmSetGsiRouting =
    _IOW(KVMIO, 0x6a, KvmListHeader);

// The status of a failed ioctl, by errno.
absl::Status IoctlError(const char* name);

class Kvm {
 public:
  // NotFound, PermissionDenied: no usable /dev/kvm.  Unimplemented: it lacks
  // something that is needed; the text says what.
  static absl::StatusOr<std::unique_ptr<Kvm>> Open();

  // A capability's number; 0: not there.
  int Capability(int capability) const;
  bool HasHyperv() const;
  // CPUID as the processor and KVM have it.
  absl::StatusOr<std::vector<kvm_cpuid_entry2>> SupportedCpuid() const;
  size_t run_bytes() const { return run_bytes_; }
  int vm() const { return vm_.get(); }

  // Maps RAM at guest address 0, or changes how: `flags` is 0 or
  // KVM_MEM_LOG_DIRTY_PAGES.
  absl::Status SetRam(absl::Span<std::byte> ram, uint32_t flags) const;
  // A bit for each page that a processor has written since the last call.
  absl::Status TakeDirtyLog(absl::Span<uint64_t> words) const;
  // Has accesses to Hyper-V's MSRs end in user space.
  absl::Status TrapHypervMsrs() const;
  // Has KVM write `event` when the guest signals this connection, or no more:
  // the guest need not be left for it.  Whatever fails, a signal that KVM does
  // not know comes by an exit.
  bool HasDoorbells() const { return Capability(KVM_CAP_HYPERV_EVENTFD) > 0; }
  void SetDoorbell(uint32_t connection_id, int event, bool on) const;
  // Interrupt lines: the 24 pins of the I/O APIC, and behind them one for the
  // SINT of each of `vp_count` virtual processors (HypervMode::kKvm only).
  absl::Status SetSintRoutes(uint32_t vp_count, uint32_t sint) const;

  // Interrupt controllers, timer and clock; the rest is left alone.
  absl::Status SavePlatform(MachineState* state) const;
  // The clock before the processors, whose registers go by it; the interrupts
  // after them, since they may raise one.
  absl::Status LoadClock(const kvm_clock_data& saved) const;
  absl::Status LoadInterrupts(const MachineState& state) const;

  void SetLine(uint32_t line, bool level) const;
  void RaiseSint(uint32_t vp) const;
  // An edge on a local APIC, without Hyper-V's help.
  void RaiseVector(uint32_t apic_id, uint8_t vector) const;

 private:
  Kvm() = default;

  UniqueFd kvm_;
  UniqueFd vm_;
  size_t run_bytes_ = 0;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_KVM_H_
