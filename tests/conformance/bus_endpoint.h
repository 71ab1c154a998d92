// SPDX-License-Identifier: MIT
//
// The adapter in process: our reference devices on a vsp::Bus.  The example of
// an adapter.
//
// Ownership: borrows guest RAM.  Thread safety: one thread.

#ifndef FERRYBUS_TESTS_CONFORMANCE_BUS_ENDPOINT_H_
#define FERRYBUS_TESTS_CONFORMANCE_BUS_ENDPOINT_H_

#include <deque>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/channel/doorbell.h"
#include "ferrybus/tests/conformance/endpoint.h"
#include "ferrybus/tests/conformance/reference_device.h"

namespace ferrybus::conformance {

class BusEndpoint final : public Endpoint, private Doorbell {
 public:
  explicit BusEndpoint(const MemfdGuestMemory& guest_ram) : ram_(guest_ram) {}

  absl::Status Start() override;
  void Post(uint32_t connection_id,
            absl::Span<const std::byte> payload) override;
  void Signal(uint32_t channel_id) override { signals_in_.insert(channel_id); }
  absl::Status Run() override;
  std::vector<Bytes> TakeMessages() override;
  std::vector<uint32_t> TakeSignals() override;

  absl::StatusOr<std::string> Save() override { return host_->Save(); }
  absl::Status Resume() override { return host_->Resume(); }
  void Kill() override { host_.reset(); }
  absl::Status Restore(const std::string& saved) override;

  absl::Status Rescind(uint32_t device) override {
    return host_->Rescind(device);
  }
  absl::Status Offer(uint32_t device) override { return host_->Offer(device); }
  absl::Status Pause(uint32_t device) override { return host_->Pause(device); }
  absl::Status Unpause(uint32_t device) override {
    return host_->Unpause(device);
  }

 private:
  Doorbell* doorbell() { return this; }
  void Ring(uint32_t channel_id) override { signals_out_.insert(channel_id); }

  const MemfdGuestMemory& ram_;
  std::deque<std::pair<uint32_t, Bytes>> messages_in_;
  std::set<uint32_t> signals_in_;
  std::set<uint32_t> signals_out_;
  std::unique_ptr<ReferenceHost> host_;
};

}  // namespace ferrybus::conformance

#endif  // FERRYBUS_TESTS_CONFORMANCE_BUS_ENDPOINT_H_
