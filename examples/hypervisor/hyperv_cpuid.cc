// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/hyperv_cpuid.h"

namespace ferrybus::hypervisor {
namespace {

constexpr uint32_t kFirstLeaf = 0x40000000;
constexpr uint32_t kLastLeaf = 0x40000005;
constexpr uint32_t kLeavesEnd = 0x40010000;

// Leaf 1, ECX.
constexpr uint32_t kHypervisorPresent = uint32_t{1} << 31;
// Leaf 0x40000001, EAX: "Hv#1" makes KVM itself answer as Hyper-V; "Hv#0"
// leaves that to us.  Guests go by the name in leaf 0x40000000.
constexpr uint32_t kInterfaceHv1 = 0x31237648;
constexpr uint32_t kInterfaceHv0 = 0x30237648;
// Leaf 0x40000003, EAX: reference counter, SynIC, hypercalls, VP index,
// reference TSC page, frequencies.
constexpr uint32_t kFeatures =
    1 << 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 11;
constexpr uint32_t kPrivileges = 1 << 4 | 1 << 5;      // EBX: post, signal
constexpr uint32_t kMiscellaneous = 1 << 8 | 1 << 10;  // EDX: frequency, crash
// Leaf 0x40000004, EAX: relaxed timing, no automatic end of interrupt.
constexpr uint32_t kHints = 1 << 5 | 1 << 9;
constexpr uint32_t kBuild = 20348;
constexpr uint32_t kVersion = 10 << 16;

bool IsHypervisorLeaf(uint32_t function) {
  return function >= kFirstLeaf && function < kLeavesEnd;
}

kvm_cpuid_entry2 Leaf(uint32_t function, uint32_t eax, uint32_t ebx,
                      uint32_t ecx, uint32_t edx) {
  kvm_cpuid_entry2 entry = {};
  entry.function = function;
  entry.eax = eax;
  entry.ebx = ebx;
  entry.ecx = ecx;
  entry.edx = edx;
  return entry;
}

// One package with `vp_count` cores; the APIC id is the processor's number.
void SetTopology(kvm_cpuid_entry2* entry, uint32_t vp, uint32_t vp_count) {
  switch (entry->function) {
    case 1:
      entry->ecx |= kHypervisorPresent;
      entry->ebx = (entry->ebx & 0xffff) | vp_count << 16 | vp << 24;
      break;
    case 0xb:
    case 0x1f:
      entry->eax = entry->ebx = entry->ecx = 0;  // says nothing
      entry->edx = vp;
      break;
    case 0x80000008:
      entry->ecx = (entry->ecx & ~0xffffu) | (vp_count - 1);
      break;
    case 0x8000001e:
      entry->eax = vp;
      entry->ebx = vp;
      entry->ecx = 0;
      break;
    default:
      break;
  }
}

}  // namespace

std::vector<kvm_cpuid_entry2> HypervCpuid(
    const std::vector<kvm_cpuid_entry2>& supported, HypervMode mode,
    uint32_t vp, uint32_t vp_count) {
  std::vector<kvm_cpuid_entry2> entries;
  for (kvm_cpuid_entry2 entry : supported) {
    // KVM's own leaves: a guest takes the first hypervisor that it knows.
    if (IsHypervisorLeaf(entry.function)) continue;
    SetTopology(&entry, vp, vp_count);
    entries.push_back(entry);
  }
  const uint32_t interface =
      mode == HypervMode::kKvm ? kInterfaceHv1 : kInterfaceHv0;
  // "Microsoft Hv".
  entries.push_back(
      Leaf(kFirstLeaf, kLastLeaf, 0x7263694d, 0x666f736f, 0x76482074));
  entries.push_back(Leaf(kFirstLeaf + 1, interface, 0, 0, 0));
  entries.push_back(Leaf(kFirstLeaf + 2, kBuild, kVersion, 0, 0));
  entries.push_back(
      Leaf(kFirstLeaf + 3, kFeatures, kPrivileges, 0, kMiscellaneous));
  // Spin locks: never say that we spin for long.
  entries.push_back(Leaf(kFirstLeaf + 4, kHints, 0xffffffff, 0, 0));
  entries.push_back(Leaf(kFirstLeaf + 5, vp_count, vp_count, 0, 0));
  return entries;
}

}  // namespace ferrybus::hypervisor
