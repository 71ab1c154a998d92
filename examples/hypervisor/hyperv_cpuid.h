// SPDX-License-Identifier: MIT
//
// What the guest's processors say about themselves: KVM's CPUID, turned into
// that of a Hyper-V partition.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_HYPERV_CPUID_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_HYPERV_CPUID_H_

#include <linux/kvm.h>

#include <cstdint>
#include <vector>

#include "ferrybus/examples/hypervisor/kvm.h"

namespace ferrybus::hypervisor {

// `supported` is KVM's; the result is for virtual processor `vp`.
std::vector<kvm_cpuid_entry2> HypervCpuid(
    const std::vector<kvm_cpuid_entry2>& supported, HypervMode mode,
    uint32_t vp, uint32_t vp_count);

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_HYPERV_CPUID_H_
