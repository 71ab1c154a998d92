// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/kvm.h"

#include <errno.h>
#include <fcntl.h>

#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace ferrybus::hypervisor {
namespace {

constexpr uint32_t kIoApicPins = 24;
constexpr uint32_t kPicPins = 16;
// Hyper-V's MSRs are 0x40000000...0x400001ff.
constexpr uint32_t kFirstMsr = 0x40000000;
constexpr uint32_t kMsrCount = 0x200;
// Below the hole that KVM needs for itself, a page table and a task segment
// of processors that cannot run real mode.
constexpr uint64_t kIdentityMapAddress = 0xfeffc000;

// What cannot be done without, and what it is for.
constexpr struct {
  int capability;
  const char* name;
} kNeeded[] = {
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP (interrupt controllers in the kernel)"},
    {KVM_CAP_PIT2, "KVM_CAP_PIT2 (timer)"},
    {KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI (interrupts by vector)"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
};

}  // namespace

absl::Status IoctlError(const char* name) {
  return absl::ErrnoToStatus(errno, name);
}

absl::StatusOr<std::unique_ptr<Kvm>> Kvm::Open() {
  std::unique_ptr<Kvm> kvm(new Kvm());
  kvm->kvm_ = UniqueFd(open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!kvm->kvm_.valid()) {
    return absl::ErrnoToStatus(
        errno,
        "/dev/kvm: this needs KVM (the module kvm_intel or kvm_amd, and the "
        "right to open the device)");
  }
  if (ioctl(kvm->kvm_.get(), KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
    return absl::UnimplementedError("/dev/kvm speaks another version of KVM");
  }
  for (const auto& [capability, name] : kNeeded) {
    if (kvm->Capability(capability) <= 0) {
      return absl::UnimplementedError(absl::StrCat("/dev/kvm has no ", name));
    }
  }
  kvm->run_bytes_ =
      static_cast<size_t>(ioctl(kvm->kvm_.get(), KVM_GET_VCPU_MMAP_SIZE, 0));
  kvm->vm_ = UniqueFd(ioctl(kvm->kvm_.get(), KVM_CREATE_VM, 0));
  if (!kvm->vm_.valid()) return IoctlError("KVM_CREATE_VM");
  const int vm = kvm->vm();
  if (ioctl(vm, KVM_SET_TSS_ADDR, kIdentityMapAddress + 0x1000) != 0) {
    return IoctlError("KVM_SET_TSS_ADDR");
  }
  uint64_t identity_map = kIdentityMapAddress;
  if (ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) != 0) {
    return IoctlError("KVM_SET_IDENTITY_MAP_ADDR");
  }
  if (ioctl(vm, KVM_CREATE_IRQCHIP, 0) != 0) {
    return IoctlError("KVM_CREATE_IRQCHIP");
  }
  kvm_pit_config pit = {};
  if (ioctl(vm, KVM_CREATE_PIT2, &pit) != 0) {
    return IoctlError("KVM_CREATE_PIT2");
  }
  return kvm;
}

int Kvm::Capability(int capability) const {
  return ioctl(kvm_.get(), KVM_CHECK_EXTENSION, capability);
}

bool Kvm::HasHyperv() const {
  return Capability(KVM_CAP_HYPERV) > 0 &&
         Capability(KVM_CAP_HYPERV_SYNIC2) > 0;
}

absl::StatusOr<std::vector<kvm_cpuid_entry2>> Kvm::SupportedCpuid() const {
  constexpr uint32_t kEntriesMax = 256;
  KvmList<kvm_cpuid_entry2> cpuid(kEntriesMax);
  if (ioctl(kvm_.get(), kKvmGetSupportedCpuid, cpuid.header()) != 0) {
    return IoctlError("KVM_GET_SUPPORTED_CPUID");
  }
  return std::vector<kvm_cpuid_entry2>(cpuid.entries(),
                                       cpuid.entries() + cpuid.header()->count);
}

absl::Status Kvm::SetRam(absl::Span<std::byte> ram, uint32_t flags) const {
  kvm_userspace_memory_region region = {};
  region.flags = flags;
  region.memory_size = ram.size();
  region.userspace_addr = reinterpret_cast<uint64_t>(ram.data());
  if (ioctl(vm(), KVM_SET_USER_MEMORY_REGION, &region) != 0) {
    return IoctlError("KVM_SET_USER_MEMORY_REGION");
  }
  return absl::OkStatus();
}

absl::Status Kvm::TakeDirtyLog(absl::Span<uint64_t> words) const {
  kvm_dirty_log log = {};
  log.dirty_bitmap = words.data();
  if (ioctl(vm(), KVM_GET_DIRTY_LOG, &log) != 0) {
    return IoctlError("KVM_GET_DIRTY_LOG");
  }
  return absl::OkStatus();
}

absl::Status Kvm::TrapHypervMsrs() const {
  if (Capability(KVM_CAP_X86_USER_SPACE_MSR) <= 0 ||
      Capability(KVM_CAP_X86_MSR_FILTER) <= 0) {
    return absl::UnimplementedError(
        "/dev/kvm has neither Hyper-V's interface nor "
        "KVM_CAP_X86_USER_SPACE_MSR");
  }
  kvm_enable_cap enable = {};
  enable.cap = KVM_CAP_X86_USER_SPACE_MSR;
  enable.args[0] = KVM_MSR_EXIT_REASON_FILTER;
  if (ioctl(vm(), KVM_ENABLE_CAP, &enable) != 0) {
    return IoctlError("KVM_CAP_X86_USER_SPACE_MSR");
  }
  std::array<uint8_t, kMsrCount / 8> denied = {};  // a 0 bit traps
  kvm_msr_filter filter = {};
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  filter.ranges[0].flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
  filter.ranges[0].base = kFirstMsr;
  filter.ranges[0].nmsrs = kMsrCount;
  filter.ranges[0].bitmap = denied.data();
  if (ioctl(vm(), KVM_X86_SET_MSR_FILTER, &filter) != 0) {
    return IoctlError("KVM_X86_SET_MSR_FILTER");
  }
  return absl::OkStatus();
}

void Kvm::SetDoorbell(uint32_t connection_id, int event, bool on) const {
  kvm_hyperv_eventfd doorbell = {};
  doorbell.conn_id = connection_id;
  doorbell.fd = event;
  doorbell.flags = on ? 0 : KVM_HYPERV_EVENTFD_DEASSIGN;
  (void)ioctl(vm(), KVM_HYPERV_EVENTFD, &doorbell);
}

absl::Status Kvm::SetSintRoutes(uint32_t vp_count, uint32_t sint) const {
  const uint32_t count = kIoApicPins + kPicPins + vp_count;
  KvmList<kvm_irq_routing_entry> routing(count);
  kvm_irq_routing_entry* entry = routing.entries();
  for (uint32_t pin = 0; pin < kIoApicPins; ++pin, ++entry) {
    entry->gsi = pin;
    entry->type = KVM_IRQ_ROUTING_IRQCHIP;
    entry->u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
    entry->u.irqchip.pin = pin;
  }
  for (uint32_t pin = 0; pin < kPicPins; ++pin, ++entry) {
    entry->gsi = pin;
    entry->type = KVM_IRQ_ROUTING_IRQCHIP;
    entry->u.irqchip.irqchip =
        pin < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
    entry->u.irqchip.pin = pin % 8;
  }
  for (uint32_t vp = 0; vp < vp_count; ++vp, ++entry) {
    entry->gsi = kIoApicPins + vp;
    entry->type = KVM_IRQ_ROUTING_HV_SINT;
    entry->u.hv_sint.vcpu = vp;
    entry->u.hv_sint.sint = sint;
  }
  if (ioctl(vm(), kKvmSetGsiRouting, routing.header()) != 0) {
    return IoctlError("KVM_SET_GSI_ROUTING");
  }
  return absl::OkStatus();
}

absl::Status Kvm::SavePlatform(MachineState* state) const {
  for (uint32_t i = 0; i < state->interrupt_controllers.size(); ++i) {
    state->interrupt_controllers[i].chip_id = i;
    if (ioctl(vm(), KVM_GET_IRQCHIP, &state->interrupt_controllers[i]) != 0) {
      return IoctlError("KVM_GET_IRQCHIP");
    }
  }
  if (ioctl(vm(), KVM_GET_PIT2, &state->platform.timer) != 0) {
    return IoctlError("KVM_GET_PIT2");
  }
  if (ioctl(vm(), KVM_GET_CLOCK, &state->platform.clock) != 0) {
    return IoctlError("KVM_GET_CLOCK");
  }
  return absl::OkStatus();
}

absl::Status Kvm::LoadClock(const kvm_clock_data& saved) const {
  kvm_clock_data clock = {};  // goes on from where it stood
  clock.clock = saved.clock;
  if (ioctl(vm(), KVM_SET_CLOCK, &clock) != 0) {
    return IoctlError("KVM_SET_CLOCK");
  }
  return absl::OkStatus();
}

absl::Status Kvm::LoadInterrupts(const MachineState& state) const {
  for (uint32_t i = 0; i < state.interrupt_controllers.size(); ++i) {
    kvm_irqchip chip = state.interrupt_controllers[i];
    chip.chip_id = i;
    if (ioctl(vm(), KVM_SET_IRQCHIP, &chip) != 0) {
      return IoctlError("KVM_SET_IRQCHIP");
    }
  }
  if (ioctl(vm(), KVM_SET_PIT2, &state.platform.timer) != 0) {
    return IoctlError("KVM_SET_PIT2");
  }
  return absl::OkStatus();
}

void Kvm::SetLine(uint32_t line, bool level) const {
  kvm_irq_level irq = {};
  irq.irq = line;
  irq.level = level ? 1 : 0;
  (void)ioctl(vm(), KVM_IRQ_LINE, &irq);
}

void Kvm::RaiseSint(uint32_t vp) const { SetLine(kIoApicPins + vp, true); }

void Kvm::RaiseVector(uint32_t apic_id, uint8_t vector) const {
  kvm_msi msi = {};
  msi.address_lo = 0xfee00000u | apic_id << 12;
  msi.data = vector;
  (void)ioctl(vm(), KVM_SIGNAL_MSI, &msi);
}

}  // namespace ferrybus::hypervisor
