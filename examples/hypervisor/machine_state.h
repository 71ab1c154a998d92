// SPDX-License-Identifier: MIT
//
// A stopped machine without its memory: processors, interrupt controllers,
// timers, console; and what was under way on its bus.
//
// As bytes both are frames (savestate/frame.h) whose sections are KVM's own
// structures, as this kernel's interface has them: for the same architecture,
// and a KVM that knows them.
//
// Thread safety: plain values, pure functions.
// Trust: what is parsed may be a file's or a peer's.  Sizes, counts and numbers
// of registers are checked here; what is in KVM's structures KVM checks itself,
// and whatever it accepts a hostile guest could have brought about.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_MACHINE_STATE_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_MACHINE_STATE_H_

#include <linux/kvm.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/channel/transport/message_socket.h"

namespace ferrybus::hypervisor {

struct SynicVpState {
  uint64_t control = 0;
  uint64_t event_flags_page = 0;
  uint64_t message_page = 0;
  std::array<uint64_t, kSintCount> sints = {};
};

struct VcpuState {
  kvm_mp_state run_state = {};
  kvm_regs registers = {};
  kvm_sregs special = {};
  kvm_debugregs debug = {};
  std::array<std::byte, 4096> xsave = {};
  kvm_xcrs xcrs = {};
  kvm_lapic_state lapic = {};
  kvm_vcpu_events events = {};
  SynicVpState synic;
  std::vector<kvm_msr_entry> msrs;
};

// HypervMsrs.
struct HypervMsrsState {
  uint64_t guest_os_id = 0;
  uint64_t hypercall = 0;
  uint64_t reference_tsc = 0;
  std::array<uint64_t, 5> crash = {};
};

// SerialPort.
struct SerialRegisters {
  uint8_t interrupt_enable = 0;
  uint8_t line_control = 0;
  uint8_t modem_control = 0;
  uint8_t scratch = 0;
  uint8_t divisor[2] = {1, 0};
  uint8_t is_empty_due = 0;
  uint8_t line = 0;
};
inline constexpr size_t kSerialInputMax = 4096;
struct SerialState {
  SerialRegisters registers;
  std::string input;
};

// What is the same for all processors, but the console's input.
struct PlatformState {
  uint64_t partition_ns = 0;  // the partition's clock
  uint32_t acpi_events = 0;
  uint32_t cmos_register = 0;  // CmosClock: the selected one
  kvm_clock_data clock = {};
  kvm_pit_state2 timer = {};
  HypervMsrsState hyperv;
  SerialRegisters serial;
};

struct MachineState {
  PlatformState platform;
  std::array<kvm_irqchip, 3> interrupt_controllers = {};
  std::string serial_input;
  std::vector<VcpuState> vcpus;
};

absl::StatusOr<std::string> SerializeMachineState(const MachineState& state);
// For a machine of so many processors.
absl::StatusOr<MachineState> ParseMachineState(
    absl::Span<const std::byte> bytes, uint32_t vp_count);

// The registers that a processor's state has; those that a KVM does not know
// are left out.  In the order in which they are set.
absl::Span<const uint32_t> SavedMsrs();

// BusBridge: what neither side had taken when both had stopped.
struct PortState {
  struct TargetVp {
    uint32_t channel_id = 0;
    uint32_t vp = 0;
  };
  std::vector<SocketMessage> to_guest;
  std::vector<SocketMessage> to_host;
  std::vector<uint32_t> signals;     // channels, to the host
  std::vector<TargetVp> target_vps;  // of the channels that are open
};

// SocketProbe.
struct ProbeState {
  uint64_t is_open = 0;
  uint64_t sent = 0;
  uint64_t received = 0;
  uint64_t wrong = 0;
};

struct ChannelsState {
  std::string bus;  // vsp::Bus::Save(); checked by Bus::Restore()
  ProbeState probe;
  uint64_t sub_channels = 0;  // of the disk
  PortState port;
};

absl::StatusOr<std::string> SerializeChannelsState(const ChannelsState& state);
absl::StatusOr<ChannelsState> ParseChannelsState(
    absl::Span<const std::byte> bytes);

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_MACHINE_STATE_H_
