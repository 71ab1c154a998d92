// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/machine.h"

#include <sys/eventfd.h>

#include <utility>

#include "ferrybus/channel/messages.h"
#include "ferrybus/examples/demo/control.h"
#include "ferrybus/examples/hypervisor/acpi_tables.h"
#include "ferrybus/examples/hypervisor/hyperv.h"
#include "ferrybus/examples/hypervisor/hyperv_cpuid.h"

namespace ferrybus::hypervisor {
namespace {

absl::StatusOr<HypervMode> ChooseMode(HypervChoice choice, const Kvm& kvm) {
  switch (choice) {
    case HypervChoice::kAuto:
      return kvm.HasHyperv() ? HypervMode::kKvm : HypervMode::kUserspace;
    case HypervChoice::kUserspace:
      return HypervMode::kUserspace;
    case HypervChoice::kKvm:
      break;
  }
  if (kvm.HasHyperv()) return HypervMode::kKvm;
  return absl::UnimplementedError(
      "/dev/kvm has no Hyper-V interface (KVM_CAP_HYPERV_SYNIC2); "
      "--hyperv=userspace does without");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Machine>> Machine::Create(
    const MachineOptions& options) {
  if (options.ram_bytes < kRamBytesMin || options.ram_bytes > kRamBytesMax ||
      options.vp_count == 0 || options.vp_count > kVpCountMax) {
    return absl::InvalidArgumentError(
        "a guest has 64 MiB to 3 GiB of RAM and 1 to 64 processors");
  }
  std::unique_ptr<Machine> machine(new Machine());
  const absl::Status status = machine->Build(options);
  if (!status.ok()) return status;
  return machine;
}

absl::Status Machine::Build(const MachineOptions& options) {
  absl::StatusOr<std::unique_ptr<Kvm>> kvm = Kvm::Open();
  if (!kvm.ok()) return kvm.status();
  kvm_ = *std::move(kvm);
  const absl::StatusOr<HypervMode> mode = ChooseMode(options.hyperv, *kvm_);
  if (!mode.ok()) return mode.status();
  mode_ = *mode;

  absl::StatusOr<std::unique_ptr<MemfdGuestMemory>> memory =
      MemfdGuestMemory::Create(options.ram_bytes);
  if (!memory.ok()) return memory.status();
  memory_ = *std::move(memory);
  const absl::Span<std::byte> ram =
      memory_->Translate(0, memory_->page_count() * 4096);
  absl::Status status = kvm_->SetRam(ram);
  if (status.ok()) {
    status = mode_ == HypervMode::kUserspace ? kvm_->TrapHypervMsrs()
                                             : absl::OkStatus();
  }
  if (!status.ok()) return status;
  const uint64_t rsdp = WriteAcpiTables(options.vp_count, ram);
  const absl::StatusOr<BootEntry> entry = LoadLinux(options.linux, rsdp, ram);
  if (!entry.ok()) return entry.status();

  absl::StatusOr<PortPair> port = CreatePort(memory_->file());
  if (!port.ok()) return port.status();
  host_port_ = std::move(port->host);
  start_ns_ = demo::NowNs();
  synic_ = std::make_unique<Synic>(
      memory_.get(), options.vp_count, [this](uint32_t vp, uint64_t sint) {
        if (mode_ == HypervMode::kKvm) {
          kvm_->RaiseSint(vp);
        } else if ((sint & kSintMasked) == 0) {
          kvm_->RaiseVector(vp, static_cast<uint8_t>(sint));
        }
      });
  msrs_ = std::make_unique<HypervMsrs>(memory_.get(), synic_.get(), start_ns_);
  serial_ = std::make_unique<SerialPort>(options.console, [this](bool level) {
    kvm_->SetLine(SerialPort::kLine, level);
  });
  absl::StatusOr<std::unique_ptr<BusBridge>> bridge =
      BusBridge::Open(std::move(port->guest), synic_.get());
  if (!bridge.ok()) return bridge.status();
  bridge_ = *std::move(bridge);
  end_event_ = UniqueFd(eventfd(0, EFD_CLOEXEC));

  const absl::StatusOr<std::vector<kvm_cpuid_entry2>> cpuid =
      kvm_->SupportedCpuid();
  if (!cpuid.ok()) return cpuid.status();
  const VcpuWorld world = {mode_,         kvm_.get(),   memory_.get(),
                           synic_.get(),  msrs_.get(),  bridge_.get(),
                           serial_.get(), &acpi_events_};
  for (uint32_t i = 0; i < options.vp_count; ++i) {
    absl::StatusOr<std::unique_ptr<Vcpu>> vcpu =
        Vcpu::Create(world, i, HypervCpuid(*cpuid, mode_, i, options.vp_count));
    if (!vcpu.ok()) return vcpu.status();
    vcpus_.push_back(*std::move(vcpu));
  }
  if (mode_ == HypervMode::kKvm) {
    status = kvm_->SetSintRoutes(options.vp_count, kVmbusSint);
    if (!status.ok()) return status;
  }
  return vcpus_[0]->SetEntry(*entry);
}

void Machine::Start() {
  threads_.emplace_back([this] { bridge_->Run(); });
  for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) {
    threads_.emplace_back([this, &vcpu] { RunVcpu(*vcpu); });
  }
}

void Machine::RunVcpu(Vcpu& vcpu) {
  const MachineEnd end = vcpu.Run();
  const std::lock_guard lock(end_mutex_);
  if (end_ != MachineEnd::kNone) return;
  end_ = end;
  error_ = vcpu.error();
  (void)eventfd_write(end_event_.get(), 1);
}

MachineEnd Machine::Finish(std::string* error) {
  bridge_->Stop();
  for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) vcpu->Stop();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  *error = error_;
  return end_;
}

Machine::~Machine() {
  std::string ignored;
  if (!threads_.empty()) Finish(&ignored);
}

}  // namespace ferrybus::hypervisor
