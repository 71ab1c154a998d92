// SPDX-License-Identifier: MIT
//
// A device that numbers what it sends, holds what it gets, and completes it
// when the simulation says so, in any order.
//
// Ownership: borrows context and oracles.  Thread safety: none.

#ifndef FERRYBUS_TESTS_SIMULATION_NUMBERED_DEVICE_H_
#define FERRYBUS_TESTS_SIMULATION_NUMBERED_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ferrybus/tests/simulation/request_oracle.h"
#include "ferrybus/vsp/device.h"
#include "ferrybus/vsp/server_channel.h"

namespace ferrybus::simulation {

// Of one channel, for all its owners.
struct ChannelOracles {
  ChannelOracles(Context* context, const std::string& name,
                 vsp::IncomingPolicy its_policy)
      : policy(its_policy),
        guest(context, name + " guest's",
              policy == vsp::IncomingPolicy::kReissue),
        host(context, name + " host's", false) {}
  const vsp::IncomingPolicy policy;
  RequestOracle guest;  // asked by the guest
  RequestOracle host;   // asked by the host
  // The next restore of the device is refused.
  bool refuses_restore = false;
};

class NumberedDevice final : public vsp::Device {
 public:
  NumberedDevice(Context* context, ChannelOracles* oracles)
      : context_(context), oracles_(oracles) {}

  void Answer(uint64_t count);
  void Ask(uint64_t count);
  size_t held() const { return held_.size(); }

  // vsp::Device.
  absl::Status OnOpened(vsp::ServerChannel& channel,
                        absl::Span<const std::byte> user_data) override;
  void OnStarted() override;
  void OnClosed() override;
  void ProcessPacket(IncomingPacket packet) override;
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override;
  vsp::IncomingPolicy incoming_policy() const override {
    return oracles_->policy;
  }
  absl::StatusOr<std::string> SaveDevice() override { return "numbered"; }
  savestate::SizeAnswer SavePacket(const PacketInfo& packet,
                                   absl::Span<std::byte> out) override;
  savestate::SizeAnswer SaveAwaiting(uint64_t tag,
                                     absl::Span<std::byte> out) override;
  absl::Status OnRestored(vsp::ServerChannel& channel,
                          absl::Span<const std::byte> state) override;
  absl::Status RestoreAwaiting(uint64_t tag,
                               absl::Span<const std::byte> blob) override;
  absl::Status RestorePacket(IncomingPacket packet,
                             absl::Span<const std::byte> blob) override;

 private:
  struct Held {
    IncomingPacket packet;
    RequestName name;
  };

  void Complete(IncomingPacket packet, RequestName name);
  absl::Status MaybeRefuse();

  Context* const context_;
  ChannelOracles* const oracles_;
  vsp::ServerChannel* channel_ = nullptr;
  bool is_restored_ = false;
  std::vector<Held> held_;
};

}  // namespace ferrybus::simulation

#endif  // FERRYBUS_TESTS_SIMULATION_NUMBERED_DEVICE_H_
