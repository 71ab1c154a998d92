// SPDX-License-Identifier: MIT
//
// A processor's state, out of KVM and into it.  The order is KVM's: what
// changes other parts comes before them.

#include <errno.h>

#include <cstring>

#include "absl/strings/str_format.h"
#include "ferrybus/examples/hypervisor/vcpu.h"

namespace ferrybus::hypervisor {
namespace {

// Hyper-V's registers, which KVM knows only if it plays Hyper-V.
bool IsHypervMsr(uint32_t msr) { return msr >> 28 == 4; }

}  // namespace

absl::Status Vcpu::Call(unsigned long request, const char* name,
                        const void* argument) const {
  if (ioctl(fd_.get(), request, argument) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrFormat("processor %d: %s: %s", static_cast<int>(index_), name,
                      std::strerror(errno)));
}

// Processors without XSAVE have none.
bool Vcpu::HasXcrs() const { return world_.kvm->Capability(KVM_CAP_XCRS) > 0; }

bool Vcpu::ReadMsr(uint32_t msr, uint64_t* value) const {
  KvmList<kvm_msr_entry> msrs(1);
  msrs.entries()->index = msr;
  if (ioctl(fd_.get(), kKvmGetMsrs, msrs.header()) != 1) return false;
  *value = msrs.entries()->data;
  return true;
}

absl::Status Vcpu::Save(VcpuState* state) const {
  const struct {
    unsigned long request;
    const char* name;
    void* to;
  } parts[] = {
      // The first may still start a processor.
      {KVM_GET_MP_STATE, "KVM_GET_MP_STATE", &state->run_state},
      {KVM_GET_REGS, "KVM_GET_REGS", &state->registers},
      {KVM_GET_SREGS, "KVM_GET_SREGS", &state->special},
      {kKvmGetXsave, "KVM_GET_XSAVE", &state->xsave},
      {KVM_GET_XCRS, "KVM_GET_XCRS", &state->xcrs},
      {KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS", &state->debug},
      {KVM_GET_LAPIC, "KVM_GET_LAPIC", &state->lapic},
      {KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS", &state->events},
  };
  for (const auto& part : parts) {
    if (part.request == KVM_GET_XCRS && !HasXcrs()) continue;
    const absl::Status status = Call(part.request, part.name, part.to);
    if (!status.ok()) return status;
  }
  state->msrs.clear();
  for (const uint32_t msr : SavedMsrs()) {
    kvm_msr_entry entry = {};
    entry.index = msr;
    uint64_t value = 0;
    if (world_.mode == HypervMode::kUserspace && IsHypervMsr(msr)) continue;
    if (!ReadMsr(msr, &value)) continue;
    entry.data = value;
    state->msrs.push_back(entry);
  }
  return absl::OkStatus();
}

absl::Status Vcpu::Load(const VcpuState& state) const {
  const struct {
    unsigned long request;
    const char* name;
    const void* from;
  } parts[] = {
      {KVM_SET_MP_STATE, "KVM_SET_MP_STATE", &state.run_state},
      {KVM_SET_REGS, "KVM_SET_REGS", &state.registers},
      {KVM_SET_SREGS, "KVM_SET_SREGS", &state.special},
      {kKvmSetXsave, "KVM_SET_XSAVE", &state.xsave},
      {KVM_SET_XCRS, "KVM_SET_XCRS", &state.xcrs},
      {KVM_SET_DEBUGREGS, "KVM_SET_DEBUGREGS", &state.debug},
      {KVM_SET_LAPIC, "KVM_SET_LAPIC", &state.lapic},
  };
  for (const auto& part : parts) {
    if (part.request == KVM_SET_XCRS && !HasXcrs()) continue;
    const absl::Status status = Call(part.request, part.name, part.from);
    if (!status.ok()) return status;
  }
  const absl::Status status = LoadMsrs(state.msrs);
  if (!status.ok()) return status;
  return Call(KVM_SET_VCPU_EVENTS, "KVM_SET_VCPU_EVENTS", &state.events);
}

// One by one, so that an error can say which.  Some are there to be read only.
absl::Status Vcpu::LoadMsrs(absl::Span<const kvm_msr_entry> msrs) const {
  for (const kvm_msr_entry& msr : msrs) {
    if (world_.mode == HypervMode::kUserspace && IsHypervMsr(msr.index)) {
      return absl::FailedPreconditionError(
          "a register that KVM plays Hyper-V with, of a machine without");
    }
    KvmList<kvm_msr_entry> list(1);
    *list.entries() = msr;
    uint64_t now = 0;
    if (ioctl(fd_.get(), kKvmSetMsrs, list.header()) != 1 &&
        (!ReadMsr(msr.index, &now) || now != msr.data)) {
      return absl::FailedPreconditionError(absl::StrFormat(
          "processor %d: this KVM does not take register %x as %x",
          static_cast<int>(index_), uint32_t{msr.index}, uint64_t{msr.data}));
    }
  }
  return absl::OkStatus();
}

}  // namespace ferrybus::hypervisor
