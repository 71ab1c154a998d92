// SPDX-License-Identifier: MIT
//
// Our own reference devices (device_protocol.h), on vsp::Device, and the host
// that offers them: what both shipped adapters serve.
//
// Ownership: ReferenceHost owns bus and devices, borrows memory and doorbell.
// Thread safety: one thread.

#ifndef FERRYBUS_TESTS_CONFORMANCE_REFERENCE_DEVICE_H_
#define FERRYBUS_TESTS_CONFORMANCE_REFERENCE_DEVICE_H_

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ferrybus/channel/doorbell.h"
#include "ferrybus/channel/guest_memory.h"
#include "ferrybus/tests/conformance/device_protocol.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/device.h"

namespace ferrybus::conformance {

class ReferenceDevice final : public vsp::Device {
 public:
  explicit ReferenceDevice(uint32_t number) : number_(number) {}

  // Null while it is not open.
  vsp::ServerChannel* channel() const { return channel_; }

  absl::Status OnOpened(vsp::ServerChannel& channel,
                        absl::Span<const std::byte> user_data) override;
  void OnSuspend() override;
  void OnClosed() override;
  void ProcessPacket(IncomingPacket packet) override;
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override;

  vsp::IncomingPolicy incoming_policy() const override;
  absl::StatusOr<std::string> SaveDevice() override;
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
  struct Counts {
    uint64_t awaiting = 0;
    uint64_t completions = 0;
    uint64_t digest = 0;
  };

  void Carry(const DeviceHeader& header, IncomingPacket packet);
  void Release(const DeviceHeader& header, IncomingPacket packet);
  void SendOwn(const DeviceHeader& header, bool wants_completion);
  static void External(const DeviceHeader& header, IncomingPacket packet);
  void Map(const DeviceHeader& header, IncomingPacket packet);
  void CompleteHeld(size_t count, bool newest_first);

  const uint32_t number_;
  vsp::ServerChannel* channel_ = nullptr;
  std::deque<IncomingPacket> held_;
  Counts counts_;
};

class ReferenceHost {
 public:
  ReferenceHost(const GuestMemory* memory, Doorbell* doorbell);

  absl::Status Start();
  absl::StatusOr<std::string> Save();
  absl::Status Resume();
  absl::Status Restore(const std::string& saved);
  absl::Status Rescind(uint32_t device);
  absl::Status Offer(uint32_t device);
  absl::Status Pause(uint32_t device);
  absl::Status Unpause(uint32_t device);

  // Null before Start() or Restore().
  vsp::Bus* bus() { return bus_.get(); }

 private:
  static OfferParams Params(uint32_t device);
  absl::StatusOr<vsp::ServerChannel*> Channel(uint32_t device);

  const GuestMemory* const memory_;
  Doorbell* const doorbell_;
  // Outlive the bus; what they hold may outlive its channels.
  std::vector<std::unique_ptr<ReferenceDevice>> devices_;
  std::unique_ptr<vsp::Bus> bus_;
  // By device.  After a restore only those of open channels are known.
  std::map<uint32_t, OfferId> offers_;
};

}  // namespace ferrybus::conformance

#endif  // FERRYBUS_TESTS_CONFORMANCE_REFERENCE_DEVICE_H_
