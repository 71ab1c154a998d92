// SPDX-License-Identifier: MIT
//
// The synthetic interrupt controller (SynIC): how a host's messages and event
// flags reach a virtual processor.
//
// What it is: for each processor a page of message slots and a page of event
// flags, both in guest RAM and chosen by the guest, and the interrupt source
// SINT 2, which is VMBus's.
//
// Thread safety: any thread.
// Trust: the guest chooses the pages, writes into them at any time, and may
// take them back at any time: an address that is no RAM is as good as none.

#ifndef FERRYBUS_EXAMPLES_HYPERVISOR_SYNIC_H_
#define FERRYBUS_EXAMPLES_HYPERVISOR_SYNIC_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>

#include "absl/types/span.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/examples/hypervisor/machine_state.h"

namespace ferrybus::hypervisor {

class Synic {
 public:
  enum class Delivery {
    kDelivered,
    kSlotBusy,  // the guest has not taken the one before; try again
    kDropped,   // the guest has no message page
  };

  // Interrupts processor `vp` by VMBus's SINT.  `sint` is its register, as far
  // as it is written here.
  using Interrupt = std::function<void(uint32_t vp, uint64_t sint)>;

  // Borrows the memory.
  Synic(const GuestMemory* memory, uint32_t vp_count, Interrupt interrupt);

  // The registers.  KVM, if it has the SynIC, tells only of the control
  // register and the two pages.  False: not a register of the SynIC.
  bool ReadMsr(uint32_t vp, uint32_t msr, uint64_t* value) const;
  bool WriteMsr(uint32_t vp, uint32_t msr, uint64_t value);

  // REQUIRES: there is such a processor.
  SynicVpState Save(uint32_t vp) const;
  void Load(uint32_t vp, const SynicVpState& state);

  // REQUIRES: at most kMaxMessageSizeBytes.
  Delivery PostMessage(uint32_t vp, absl::Span<const std::byte> payload);
  // Without the guest's event flags page, or for a processor that there is
  // not, nothing happens.
  void SetEventFlag(uint32_t vp, uint32_t flag);

 private:
  struct Vp {
    mutable std::mutex mutex;
    SynicVpState is;
  };

  // The SINT's part of a page, empty if there is none.
  absl::Span<std::byte> SintArea(const SynicVpState& vp, uint64_t page) const;

  const GuestMemory* const memory_;
  const Interrupt interrupt_;
  std::deque<Vp> vps_;
};

}  // namespace ferrybus::hypervisor

#endif  // FERRYBUS_EXAMPLES_HYPERVISOR_SYNIC_H_
