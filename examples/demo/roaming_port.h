// SPDX-License-Identifier: MIT
//
// The guest's end of a port whose host changes: the guest's process stands
// still when the machine asks, finds it again on the host that it moved to, and
// goes on, with the RAM that arrived there in the place of the old.
//
// Every mapping of the old RAM in this process, the rings' among them, is
// replaced at its address by the same part of the new: what a hypervisor does
// under a virtual machine, done by the guest's process itself.
//
// Ownership: owns the port; the bus borrows memory() and doorbell().
// Thread safety: one thread, the only one that touches RAM.
// Trust: the sockets' paths are the embedder's.

#ifndef FERRYBUS_EXAMPLES_DEMO_ROAMING_PORT_H_
#define FERRYBUS_EXAMPLES_DEMO_ROAMING_PORT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ferrybus/channel/doorbell.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/channel/transport/port.h"
#include "ferrybus/channel/transport/unique_fd.h"
#include "ferrybus/vsc/bus.h"
#include "ferrybus/vsc/guest_port.h"

namespace ferrybus::demo {

class RoamingPort {
 public:
  // Waits until one of the sockets (tools/migrate/guest_link.h) takes it.
  static absl::StatusOr<std::unique_ptr<RoamingPort>> Open(
      std::vector<std::string> sockets, absl::Duration patience);

  MemfdGuestMemory* memory() { return memory_.get(); }
  Doorbell* doorbell() { return &doorbell_; }

  // Carries messages and signals and polls the bus; or, while it stands still,
  // looks for the machine.  True: call again without waiting.
  bool Pump(vsc::Bus& bus);
  // Nothing of RAM, rings and buffers is to be touched.
  bool stands_still() const { return stands_still_; }
  // Until there is something to do, 1 ms at most.
  void Wait();

  uint64_t moves() const { return moves_; }
  // The machine was not found again within the patience.
  bool is_lost() const { return is_lost_; }

 private:
  // Rings where the machine is.
  class Switch final : public Doorbell {
   public:
    void Ring(uint32_t channel_id) override { now->Ring(channel_id); }
    Doorbell* now = nullptr;
  };

  RoamingPort(std::vector<std::string> sockets, absl::Duration patience)
      : sockets_(std::move(sockets)),
        candidates_(sockets_.size()),
        patience_(patience) {}

  // True: one of the sockets gave a port, and this is home now.
  absl::StatusOr<bool> LookForHome();
  absl::Status MoveIn(Port port);
  void ListenToHome();

  const std::vector<std::string> sockets_;
  std::vector<UniqueFd> candidates_;  // connected, not taken yet
  const absl::Duration patience_;
  std::unique_ptr<MemfdGuestMemory> memory_;
  std::unique_ptr<vsc::GuestPort> port_;
  Switch doorbell_;
  UniqueFd home_;
  bool stands_still_ = true;
  bool is_lost_ = false;
  uint64_t moves_ = 0;
  absl::Time still_since_;
};

}  // namespace ferrybus::demo

#endif  // FERRYBUS_EXAMPLES_DEMO_ROAMING_PORT_H_
