// SPDX-License-Identifier: MIT
//
// Hyper-V's registers in user space (HypervMode::kUserspace): identity,
// hypercall page, time.  Those of the SynIC are in synic.h.
//
// Thread safety: any thread.
// Trust: any value may be written; a page that is no RAM is refused.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_HYPERV_MSRS_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_HYPERV_MSRS_H_

#include <cstdint>
#include <mutex>

#include "absl/functional/function_ref.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/examples/hypervisor/machine_state.h"
#include "ferrybus/examples/hypervisor/synic.h"

namespace ferrybus::hypervisor {

// The hypercall page writes to this port; only the kernel may, since Linux
// gives no program the right to it.
inline constexpr uint16_t kHypercallPort = 0xb4;

class HypervMsrs {
 public:
  // Borrows both.  `start_ns`: when the partition's clock was 0, by
  // CLOCK_MONOTONIC.
  HypervMsrs(const GuestMemory* memory, Synic* synic, int64_t start_ns)
      : memory_(memory), synic_(synic), start_ns_(start_ns) {}

  void SetTscFrequency(uint64_t hz) { tsc_hz_ = hz; }
  // While no processor runs.
  HypervMsrsState Save() const;
  void Load(const HypervMsrsState& state, int64_t start_ns);

  // False: the guest gets a general protection fault.  `tsc` reads the
  // processor's time stamp counter, as the guest sees it.
  bool Read(uint32_t vp, uint32_t msr, uint64_t* value) const;
  bool Write(uint32_t vp, uint32_t msr, uint64_t value,
             absl::FunctionRef<uint64_t()> tsc);

 private:
  uint64_t ReferenceTime() const;  // 100 ns
  bool WriteHypercallPage();
  bool WriteTscPage(uint64_t value, uint64_t tsc);

  const GuestMemory* const memory_;
  Synic* const synic_;
  int64_t start_ns_;
  uint64_t tsc_hz_ = 0;
  mutable std::mutex mutex_;
  HypervMsrsState is_;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_HYPERV_MSRS_H_
