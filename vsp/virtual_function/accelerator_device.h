// SPDX-License-Identifier: MIT
//
// The channel through which a guest reaches an accelerator.
//
// A packet in flight is a command in the accelerator's queue; the two are moved
// apart from each other, the packets with their bus and the queue with the
// virtual function, and find each other again by the command's ticket.  So
// pause the accelerator before the bus is saved, and restore its state before
// the bus starts.  It does not run before its channel has started, nor after
// that was closed: then commands wait for the next one, and their answers are
// dropped.
//
// Ownership: borrows the accelerator.  Destroyed after its channel.
// Thread safety: the channel's callbacks on the bus's thread, the accelerator
// on any.
// Trust: packets are the guest's: every one is answered, with a status.  What a
// restored packet says about its ticket is checked.
//
//   AcceleratorDevice device(&accelerator);
//   bus.Offer({.interface_type = accelerator::kInterface, ...}, &device);

#ifndef FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_DEVICE_H_
#define FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "ferrybus/channel/incoming_packet.h"
#include "ferrybus/channel/protocols/accelerator.h"
#include "ferrybus/channel/server_connection_types.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/device.h"
#include "ferrybus/vsp/virtual_function/accelerator.h"

namespace ferrybus::vsp {

class AcceleratorDevice final : public Device, private AcceleratorPort {
 public:
  explicit AcceleratorDevice(Accelerator* accelerator)
      : accelerator_(accelerator) {}
  ~AcceleratorDevice() override;
  AcceleratorDevice(const AcceleratorDevice&) = delete;
  AcceleratorDevice& operator=(const AcceleratorDevice&) = delete;

  size_t in_flight() const;
  // Restored packets whose command the accelerator did not know.
  uint64_t not_executed() const { return not_executed_; }

  // -- Device --------------------------------------------------------------
  void OnStarted() override;
  void OnClosed() override;
  void ProcessPacket(IncomingPacket packet) override;
  IncomingPolicy incoming_policy() const override {
    return IncomingPolicy::kResume;
  }
  // FailedPrecondition: the accelerator is not paused.
  savestate::SizeAnswer SavePacket(const PacketInfo& packet,
                                   absl::Span<std::byte> out) override;
  absl::Status RestorePacket(IncomingPacket packet,
                             absl::Span<const std::byte> blob) override;

 private:
  struct Held {
    IncomingPacket packet;
    absl::Span<const iovec> buffers;  // of guest memory
    bool is_restored = false;         // and not yet looked at
  };

  static accelerator::Command CommandOf(const IncomingPacket& packet);

  // AcceleratorPort.
  bool ReadData(uint64_t ticket, uint64_t offset_bytes,
                absl::Span<std::byte> out) override;
  bool WriteData(uint64_t ticket, uint64_t offset_bytes,
                 absl::Span<const std::byte> data) override;
  void OnDone(uint64_t ticket, const accelerator::Reply& reply,
              absl::Span<const std::byte> data) override;

  Accelerator* const accelerator_;
  uint64_t not_executed_ = 0;
  // Taken with the accelerator's lock held, never the other way round.
  mutable absl::Mutex mu_;
  std::map<uint64_t, Held> held_ ABSL_GUARDED_BY(mu_);  // by ticket
};

// The channel of an accelerator whose guest gets another bus: the old channel
// ends, a new one is offered.
//
// Ownership: borrows accelerator and buses; a bus that was replaced until
// is_settled(), the last one until its channel is gone.
// Thread safety: one thread, which is that of the buses.
//
// Source: DxgkDdiSetVirtualGpuVmBus.
class AcceleratorChannel {
 public:
  explicit AcceleratorChannel(Accelerator* accelerator)
      : accelerator_(accelerator) {}

  // InvalidArgument for no bus.  Else as Bus::Offer, and nothing changed.
  absl::Status SetBus(Bus* bus, const OfferParams& params);
  // No channel of before is left.
  bool is_settled();
  // Null before the first SetBus().
  AcceleratorDevice* device() const { return current_.device.get(); }

 private:
  struct Attachment {
    Bus* bus = nullptr;
    OfferId offer{};
    std::unique_ptr<AcceleratorDevice> device;
  };

  Accelerator* const accelerator_;
  Attachment current_;
  std::vector<Attachment> ending_;
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_VIRTUAL_FUNCTION_ACCELERATOR_DEVICE_H_
