// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/vcpu.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "ferrybus/examples/hypervisor/acpi_tables.h"
#include "ferrybus/examples/hypervisor/hyperv.h"

namespace ferrybus::hypervisor {
namespace {

// Interrupts KVM_RUN; its handler does nothing.
constexpr int kStopSignal = SIGUSR1;

constexpr uint32_t kMsrTsc = 0x10;

// The keyboard controller's port for commands; 0xfe pulls the reset line.
constexpr uint16_t kKeyboardCommand = 0x64;
constexpr uint8_t kKeyboardReset = 0xfe;

}  // namespace

absl::StatusOr<std::unique_ptr<Vcpu>> Vcpu::Create(
    const VcpuWorld& world, uint32_t index,
    const std::vector<kvm_cpuid_entry2>& cpuid) {
  std::unique_ptr<Vcpu> vcpu(new Vcpu(world, index));
  vcpu->fd_ = UniqueFd(ioctl(world.kvm->vm(), KVM_CREATE_VCPU, index));
  if (!vcpu->fd_.valid()) return IoctlError("KVM_CREATE_VCPU");
  void* const run =
      mmap(nullptr, world.kvm->run_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED,
           vcpu->fd_.get(), 0);
  if (run == MAP_FAILED) return IoctlError("mmap of kvm_run");
  vcpu->run_ = static_cast<kvm_run*>(run);
  vcpu->tsc_khz_ = static_cast<uint32_t>(
      std::max(0, ioctl(vcpu->fd_.get(), KVM_GET_TSC_KHZ, 0)));

  KvmList<kvm_cpuid_entry2> list(cpuid.size());
  std::copy(cpuid.begin(), cpuid.end(), list.entries());
  if (ioctl(vcpu->fd_.get(), kKvmSetCpuid, list.header()) != 0) {
    return IoctlError("KVM_SET_CPUID2");
  }
  if (world.mode == HypervMode::kKvm) {
    kvm_enable_cap synic = {};
    synic.cap = KVM_CAP_HYPERV_SYNIC2;
    if (ioctl(vcpu->fd_.get(), KVM_ENABLE_CAP, &synic) != 0) {
      return IoctlError("KVM_CAP_HYPERV_SYNIC2");
    }
  } else {
    world.msrs->SetTscFrequency(uint64_t{vcpu->tsc_khz()} * 1000);
  }
  return vcpu;
}

Vcpu::~Vcpu() {
  if (run_ != nullptr) munmap(run_, world_.kvm->run_bytes());
}

absl::Status Vcpu::SetEntry(const BootEntry& entry) {
  kvm_sregs segments = {};
  if (ioctl(fd_.get(), KVM_GET_SREGS, &segments) != 0) {
    return IoctlError("KVM_GET_SREGS");
  }
  SetBootSegments(&segments);
  if (ioctl(fd_.get(), KVM_SET_SREGS, &segments) != 0) {
    return IoctlError("KVM_SET_SREGS");
  }
  kvm_regs registers = BootRegisters(entry);
  if (ioctl(fd_.get(), KVM_SET_REGS, &registers) != 0) {
    return IoctlError("KVM_SET_REGS");
  }
  return absl::OkStatus();
}

MachineEnd Vcpu::Run() {
  struct sigaction action = {};
  action.sa_handler = [](int) {};
  sigaction(kStopSignal, &action, nullptr);
  thread_ = pthread_self();
  while (true) {
    if (ioctl(fd_.get(), KVM_RUN, 0) != 0) {
      // Only now what it had asked for before is done.
      if (errno == EINTR && stopping_) return MachineEnd::kStopped;
      if (errno == EINTR || errno == EAGAIN) continue;
      return Fail(absl::StrCat("KVM_RUN: ", std::strerror(errno)));
    }
    const MachineEnd end = HandleExit();
    if (end != MachineEnd::kNone) return end;
  }
}

void Vcpu::Stop() {
  stopping_ = true;
  // A processor that is about to enter the guest finds this instead of the
  // signal.
  reinterpret_cast<std::atomic<uint8_t>*>(&run_->immediate_exit)->store(1);
  if (const pthread_t thread = thread_; thread != pthread_t{}) {
    pthread_kill(thread, kStopSignal);
  }
}

void Vcpu::Continue() {
  run_->immediate_exit = 0;
  thread_ = pthread_t{};
  stopping_ = false;
}

MachineEnd Vcpu::Fail(std::string error) {
  error_ = absl::StrCat("processor ", index_, ": ", error);
  return MachineEnd::kFailed;
}

// As far as the processor still knows.
std::string Vcpu::Where() const {
  kvm_regs registers = {};
  kvm_sregs special = {};
  (void)ioctl(fd_.get(), KVM_GET_REGS, &registers);
  (void)ioctl(fd_.get(), KVM_GET_SREGS, &special);
  return absl::StrFormat("rip %x, rsp %x, cr2 %x, cr3 %x",
                         uint64_t{registers.rip}, uint64_t{registers.rsp},
                         uint64_t{special.cr2}, uint64_t{special.cr3});
}

MachineEnd Vcpu::TripleFault() {
  error_ = absl::StrFormat("processor %d: triple fault at %s",
                           static_cast<int>(index_), Where());
  return MachineEnd::kTripleFault;
}

// What the guest says of its crash, as Linux does: why, and where it was.
MachineEnd Vcpu::Crash() {
  std::array<uint64_t, 5> told = {};
  for (uint32_t i = 0; i < told.size(); ++i) {
    const uint32_t msr = kMsrCrash0 + i;
    if (world_.mode == HypervMode::kKvm) {
      (void)ReadMsr(msr, &told[i]);
    } else {
      world_.msrs->Read(index_, msr, &told[i]);
    }
  }
  error_ = absl::StrFormat(
      "processor %d: the guest reports a crash: error %x, rip %x, rax %x, rsp "
      "%x",
      static_cast<int>(index_), told[0], told[2], told[3], told[4]);
  return MachineEnd::kCrash;
}

MachineEnd Vcpu::InternalError() {
  const auto& failure = run_->emulation_failure;
  std::string code = "no code";
  if (failure.suberror == KVM_INTERNAL_ERROR_EMULATION && failure.ndata > 0 &&
      (failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) !=
          0) {
    const size_t size =
        std::min<size_t>(failure.insn_size, sizeof(failure.insn_bytes));
    code = absl::BytesToHexString(
        {reinterpret_cast<const char*>(failure.insn_bytes), size});
  }
  return Fail(absl::StrFormat(
      "this KVM cannot run the guest's code (internal error %d at %s: %s); KVM "
      "without the processor's help, in a virtual machine, cannot",
      static_cast<int>(failure.suberror), Where(), code));
}

MachineEnd Vcpu::HandleExit() {
  switch (run_->exit_reason) {
    case KVM_EXIT_IO:
      return HandlePort();
    case KVM_EXIT_MMIO:
      // Nothing is there: reads give ones, like on a bus without a device.
      if (run_->mmio.is_write == 0) {
        std::memset(run_->mmio.data, 0xff, sizeof(run_->mmio.data));
      }
      return MachineEnd::kNone;
    case KVM_EXIT_HYPERV:
      return HandleHypervisorExit();
    case KVM_EXIT_X86_RDMSR: {
      uint64_t value = 0;
      run_->msr.error =
          world_.msrs->Read(index_, run_->msr.index, &value) ? 0 : 1;
      run_->msr.data = value;
      return MachineEnd::kNone;
    }
    case KVM_EXIT_X86_WRMSR:
      return HandleMsrWrite();
    case KVM_EXIT_SHUTDOWN:
      return TripleFault();
    case KVM_EXIT_SYSTEM_EVENT:
      return run_->system_event.type == KVM_SYSTEM_EVENT_CRASH
                 ? Crash()
                 : MachineEnd::kReset;
    case KVM_EXIT_INTR:
      return MachineEnd::kNone;
    case KVM_EXIT_INTERNAL_ERROR:
      return InternalError();
    default:
      return Fail(absl::StrCat("unexpected exit ", run_->exit_reason));
  }
}

MachineEnd Vcpu::HandlePort() {
  const auto& io = run_->io;
  std::byte* data = reinterpret_cast<std::byte*>(run_) + io.data_offset;
  for (uint32_t i = 0; i < io.count; ++i, data += io.size) {
    uint32_t value = 0;
    if (io.direction == KVM_EXIT_IO_OUT) {
      std::memcpy(&value, data, io.size);
      const MachineEnd end = WritePort(io.port, value, io.size);
      if (end != MachineEnd::kNone) return end;
    } else {
      value = ReadPort(io.port);
      std::memcpy(data, &value, io.size);
    }
  }
  return MachineEnd::kNone;
}

uint32_t Vcpu::ReadPort(uint16_t port) {
  constexpr uint32_t kNothingThere = 0xffffffff;
  const uint16_t serial = static_cast<uint16_t>(port - SerialPort::kFirstPort);
  if (serial < SerialPort::kPortCount) return world_.serial->Read(serial);
  if (port == kAcpiControlPort) return kAcpiEnabled;
  if (port >= kAcpiEventPort && port < kAcpiControlPort) {
    return *world_.acpi_events >> (port - kAcpiEventPort) * 8;
  }
  if (port == CmosClock::kDataPort) {
    return world_.cmos_clock->Read(time(nullptr));
  }
  if (port == kKeyboardCommand) return 0;  // ready for a command
  return kNothingThere;
}

MachineEnd Vcpu::WritePort(uint16_t port, uint32_t value, uint32_t bytes) {
  const uint16_t serial = static_cast<uint16_t>(port - SerialPort::kFirstPort);
  if (serial < SerialPort::kPortCount) {
    world_.serial->Write(serial, static_cast<uint8_t>(value));
  } else if (port == kAcpiControlPort) {
    if ((value & kAcpiPowerOff) == kAcpiPowerOff) return MachineEnd::kPowerOff;
  } else if (port == kAcpiEnablePort) {
    *world_.acpi_events = value << 16;
  } else if (port == CmosClock::kSelectPort) {
    world_.cmos_clock->Select(value);
  } else if (port == kKeyboardCommand && value == kKeyboardReset) {
    return MachineEnd::kReset;
  } else if (port == kHypercallPort && bytes == 4 &&
             world_.mode == HypervMode::kUserspace) {
    HandleHypercallPort();
  }
  return MachineEnd::kNone;
}

void Vcpu::HandleHypercallPort() {
  kvm_regs registers = {};
  if (ioctl(fd_.get(), KVM_GET_REGS, &registers) != 0) return;
  registers.rax = static_cast<uint64_t>(HandleHypercall(
      {registers.rcx, registers.rdx}, *world_.memory, world_.hypercalls));
  (void)ioctl(fd_.get(), KVM_SET_REGS, &registers);
}

MachineEnd Vcpu::HandleHypervisorExit() {
  auto& exit = run_->hyperv;
  if (exit.type == KVM_EXIT_HYPERV_HCALL) {
    exit.u.hcall.result = static_cast<uint64_t>(
        HandleHypercall({exit.u.hcall.input, exit.u.hcall.params[0]},
                        *world_.memory, world_.hypercalls));
  } else if (exit.type == KVM_EXIT_HYPERV_SYNIC) {
    const auto& synic = exit.u.synic;
    world_.synic->WriteMsr(index_, kMsrSynicControl, synic.control);
    world_.synic->WriteMsr(index_, kMsrEventFlagsPage, synic.evt_page);
    world_.synic->WriteMsr(index_, kMsrMessagePage, synic.msg_page);
  }
  return MachineEnd::kNone;
}

MachineEnd Vcpu::HandleMsrWrite() {
  const uint32_t msr = run_->msr.index;
  const bool known = world_.msrs->Write(index_, msr, run_->msr.data,
                                        [this] { return ReadTsc(); });
  run_->msr.error = known ? 0 : 1;
  return known && msr == kMsrCrashControl ? Crash() : MachineEnd::kNone;
}

uint64_t Vcpu::ReadTsc() const {
  uint64_t value = 0;
  (void)ReadMsr(kMsrTsc, &value);
  return value;
}

}  // namespace ferrybus::hypervisor
