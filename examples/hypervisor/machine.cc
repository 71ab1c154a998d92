// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/machine.h"

#include <sys/eventfd.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/examples/demo/control.h"
#include "ferrybus/examples/hypervisor/acpi_tables.h"
#include "ferrybus/examples/hypervisor/hyperv.h"
#include "ferrybus/examples/hypervisor/hyperv_cpuid.h"
#include "ferrybus/savestate/crc32c.h"

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
  ram_ = *std::move(memory);
  auto log = PageLog::Create(ram_->page_count());
  if (!log.ok()) return log.status();
  page_log_ = *std::move(log);
  memory_ = std::make_unique<LoggedMemory>(ram_.get(), page_log_.get());
  dirty_log_ =
      std::make_unique<KvmDirtyLog>(kvm_.get(), ram(), page_log_.get());
  absl::Status status = kvm_->SetRam(ram(), 0);
  if (status.ok() && mode_ == HypervMode::kUserspace) {
    status = kvm_->TrapHypervMsrs();
  }
  if (!status.ok()) return status;
  std::optional<BootEntry> entry;
  if (!options.linux.kernel_path.empty()) {
    const uint64_t rsdp = WriteAcpiTables(options.vp_count, ram());
    const absl::StatusOr<BootEntry> loaded =
        LoadLinux(options.linux, rsdp, ram());
    if (!loaded.ok()) return loaded.status();
    entry = *loaded;
  }

  absl::StatusOr<PortPair> port = CreatePort(ram_->file());
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
  BusBridge::DoorbellSwitch doorbells;
  if (has_doorbells()) {
    doorbells = [this](uint32_t connection_id, int event, bool on) {
      kvm_->SetDoorbell(connection_id, event, on);
    };
  }
  absl::StatusOr<std::unique_ptr<BusBridge>> bridge = BusBridge::Open(
      std::move(port->guest), synic_.get(), std::move(doorbells));
  if (!bridge.ok()) return bridge.status();
  bridge_ = *std::move(bridge);
  end_event_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
  status = BuildProcessors(options.vp_count);
  return status.ok() && entry.has_value() ? vcpus_[0]->SetEntry(*entry)
                                          : status;
}

absl::Status Machine::BuildProcessors(uint32_t count) {
  const absl::StatusOr<std::vector<kvm_cpuid_entry2>> cpuid =
      kvm_->SupportedCpuid();
  if (!cpuid.ok()) return cpuid.status();
  const VcpuWorld world = {mode_,         kvm_.get(),   memory_.get(),
                           synic_.get(),  msrs_.get(),  bridge_.get(),
                           serial_.get(), &cmos_clock_, &acpi_events_};
  for (uint32_t i = 0; i < count; ++i) {
    const std::vector<kvm_cpuid_entry2> leaves =
        HypervCpuid(*cpuid, mode_, i, count);
    cpuid_digest_ = savestate::ExtendCrc32c(
        cpuid_digest_, {reinterpret_cast<const std::byte*>(leaves.data()),
                        leaves.size() * sizeof(leaves[0])});
    absl::StatusOr<std::unique_ptr<Vcpu>> vcpu = Vcpu::Create(world, i, leaves);
    if (!vcpu.ok()) return vcpu.status();
    vcpus_.push_back(*std::move(vcpu));
  }
  return mode_ == HypervMode::kKvm ? kvm_->SetSintRoutes(count, kVmbusSint)
                                   : absl::OkStatus();
}

absl::Span<std::byte> Machine::ram() const {
  return ram_->Translate(0, ram_->page_count() * 4096);
}

std::string Machine::Description() const {
  return absl::StrCat(
      "ram=", ram().size(), "\ncpus=", vcpus_.size(),
      "\nhyperv=", mode_ == HypervMode::kKvm ? "kvm" : "userspace",
      "\ntsc-khz=", vcpus_[0]->tsc_khz(), "\ncpuid=", absl::Hex(cpuid_digest_),
      "\n");
}

void Machine::Start() {
  if (end_ != MachineEnd::kNone) return;
  bridge_->Continue();
  bridge_thread_ = std::thread([this] { bridge_->Run(); });
  for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) {
    vcpu->Continue();
    threads_.emplace_back([this, &vcpu] { RunVcpu(*vcpu); });
  }
}

void Machine::RunVcpu(Vcpu& vcpu) {
  const MachineEnd end = vcpu.Run();
  if (end == MachineEnd::kStopped) return;
  const std::lock_guard lock(end_mutex_);
  if (end_ != MachineEnd::kNone) return;
  end_ = end;
  error_ = vcpu.error();
  (void)eventfd_write(end_event_.get(), 1);
}

void Machine::StopProcessors() {
  // A thread that was joined is not there to be interrupted.
  if (threads_.empty()) return;
  for (const std::unique_ptr<Vcpu>& vcpu : vcpus_) vcpu->Stop();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Machine::StopBridge() {
  if (!bridge_thread_.joinable()) return;
  bridge_->Stop();
  bridge_thread_.join();
}

absl::Status Machine::Pause() {
  StopProcessors();
  return end_ == MachineEnd::kNone
             ? absl::OkStatus()
             : absl::FailedPreconditionError("the machine has ended");
}

PortState Machine::DrainPort() {
  StopBridge();
  return bridge_->Drain(host_port_);
}

MachineEnd Machine::Finish(std::string* error) {
  StopProcessors();
  StopBridge();
  *error = error_;
  return end_ == MachineEnd::kNone ? MachineEnd::kStopped : end_;
}

Machine::~Machine() {
  std::string ignored;
  Finish(&ignored);
}

absl::StatusOr<MachineState> Machine::Save() const {
  MachineState state;
  PlatformState& platform = state.platform;
  platform.partition_ns = static_cast<uint64_t>(demo::NowNs() - start_ns_);
  platform.acpi_events = acpi_events_;
  platform.cmos_register = cmos_clock_.selected();
  platform.hyperv = msrs_->Save();
  const SerialState serial = serial_->Save();
  platform.serial = serial.registers;
  state.serial_input = serial.input;
  for (size_t i = 0; i < vcpus_.size(); ++i) {
    state.vcpus.emplace_back();
    const absl::Status status = vcpus_[i]->Save(&state.vcpus[i]);
    if (!status.ok()) return status;
    state.vcpus[i].synic = synic_->Save(static_cast<uint32_t>(i));
  }
  const absl::Status status = kvm_->SavePlatform(&state);
  if (!status.ok()) return status;
  return state;
}

absl::Status Machine::Load(const MachineState& state) {
  const PlatformState& platform = state.platform;
  start_ns_ = demo::NowNs() - static_cast<int64_t>(platform.partition_ns);
  acpi_events_ = platform.acpi_events;
  cmos_clock_.Select(platform.cmos_register);
  msrs_->Load(platform.hyperv, start_ns_);
  absl::Status status = kvm_->LoadClock(platform.clock);
  for (size_t i = 0; i < vcpus_.size() && status.ok(); ++i) {
    synic_->Load(static_cast<uint32_t>(i), state.vcpus[i].synic);
    status = vcpus_[i]->Load(state.vcpus[i]);
  }
  if (status.ok()) status = kvm_->LoadInterrupts(state);
  if (status.ok()) serial_->Load({platform.serial, state.serial_input});
  return status;
}

}  // namespace ferrybus::hypervisor
