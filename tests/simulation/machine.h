// SPDX-License-Identifier: MIT
//
// What of the simulated machine is not a host's: its memory, its disk, the
// signals under way, and what is known of its requests.
//
// Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_MACHINE_H_
#define FERRYBUS_TESTS_SIMULATION_MACHINE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/doorbell.h"
#include "ferrybus/channel/server_connection_types.h"
#include "ferrybus/tests/simulation/context.h"
#include "ferrybus/tests/simulation/function_oracle.h"
#include "ferrybus/tests/simulation/guest_drivers.h"
#include "ferrybus/tests/simulation/guest_ram.h"
#include "ferrybus/tests/simulation/numbered_device.h"
#include "ferrybus/tests/simulation/virtual_disk.h"

namespace ferrybus::simulation {

inline constexpr uint64_t kGuestPages = 96;
inline constexpr uint64_t kDiskSectors = 128;

// The channel of this index, as it is offered and as a driver asks for it.
inline OfferParams ChannelParams(size_t index) {
  OfferParams params;
  params.interface_type.bytes[0] = static_cast<uint8_t>(0x51 + index);
  params.interface_instance.bytes[0] = static_cast<uint8_t>(1 + index);
  return params;
}

class SetDoorbell final : public Doorbell {
 public:
  explicit SetDoorbell(std::set<uint32_t>* rung) : rung_(rung) {}
  void Ring(uint32_t channel_id) override { rung_->insert(channel_id); }

 private:
  std::set<uint32_t>* const rung_;
};

// Signals between the guest and one host that were sent and not noticed.
struct SignalPort {
  std::set<uint32_t> to_host;
  std::set<uint32_t> to_guest;
  SetDoorbell guest_doorbell{&to_guest};
};

struct Machine {
  Machine(Context* its_context, const RunOptions& its_options)
      : context(its_context),
        options(its_options),
        ram(kGuestPages),
        disk(its_context, kDiskSectors),
        disk_oracle(kDiskSectors) {
    using vsp::IncomingPolicy;
    static constexpr IncomingPolicy kPolicies[kChannelCount] = {
        IncomingPolicy::kResume, IncomingPolicy::kDrain,
        IncomingPolicy::kResume, IncomingPolicy::kReissue,
        IncomingPolicy::kResume, IncomingPolicy::kResume};
    for (size_t i = 0; i < kChannelCount; ++i) {
      channels[i] = std::make_unique<ChannelOracles>(
          context, absl::StrCat("channel ", i), kPolicies[i]);
    }
  }

  Context* const context;
  const RunOptions options;
  GuestRam ram;
  VirtualDisk disk;
  DiskOracle disk_oracle;
  // The disk's packets and the accelerator's are not numbered.
  std::array<std::unique_ptr<ChannelOracles>, kChannelCount> channels;
  FunctionOracle function_oracle;
  std::array<SignalPort, 2> ports;
  // Where the guest's processors run; -1: nowhere.
  int runs_at = -1;
  // The disk's channel may fault: the guest cleared its ring.
  bool disk_may_fault = false;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_MACHINE_H_
