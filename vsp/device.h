// SPDX-License-Identifier: MIT
//
// The device behind a channel: what an embedder implements.
//
// What it is: a set of callbacks.  Only ProcessPacket must be written; a
// device that wants to move while requests are in flight also writes
// SavePacket and RestorePacket.
//
// Ownership: the bus borrows the device; it must outlive its channel's offer.
//
// Threading: every callback runs on the thread that calls Bus::Poll() (or the
// bus method named), never two at once for one channel.  Packets may be
// completed from any thread.
//
// Order per channel: OnOpened, (OnStarted, ProcessPacket*, OnSuspend)*,
// OnClosed; OnPostStarted after OnStarted, packets may come before it.  After a
// restore OnRestored replaces OnOpened, then RestorePacket once for each saved
// packet in its saved order, then, when the restore is final, OnStarted.
//
// Trust: payloads were copied out of shared memory and can no longer change;
// guest buffers can.
//
//   class Echo final : public ferrybus::vsp::Device {
//     void ProcessPacket(ferrybus::IncomingPacket packet) override {
//       std::vector<std::byte> reply(packet.payload().begin(),
//                                    packet.payload().end());
//       packet.Complete(reply);
//     }
//   };
//
// Source: KMCL callbacks EvtVmbChannelOpened, -Started, -Suspend, -Closed,
// -ProcessPacket, -ProcessingComplete, -SavePacket, -RestorePacket.

#ifndef FERRYBUS_VSP_DEVICE_H_
#define FERRYBUS_VSP_DEVICE_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "ferrybus/channel/incoming_packet.h"
#include "ferrybus/savestate/size_negotiation.h"

namespace ferrybus::vsp {

class ServerChannel;

// What becomes of packets that are in flight when the channel is saved.
enum class IncomingPolicy {
  // Pausing waits until the device completed them all (KMCL's behaviour).
  kDrain,
  // The device's SavePacket blob says how far it came; RestorePacket goes on
  // from there.
  kResume,
  // The packet itself is saved, and delivered again once the restore is final.
  // Only for requests that may run twice; the old owner's backend must be
  // fenced first (docs/DESIGN.md, "Fencing").
  kReissue,
};

class Device {
 public:
  virtual ~Device() = default;

  // The peer opened the channel; `user_data` is its 120 bytes from OPEN.  A
  // failure refuses the open.
  virtual absl::Status OnOpened(ServerChannel& channel,
                                absl::Span<const std::byte> user_data) {
    (void)channel, (void)user_data;
    return absl::OkStatus();
  }
  // Packets flow when this returns; what is sent here goes out then.
  virtual void OnStarted() {}
  // Packets flow.  Runs outside of any batch and message, so that it may call
  // Bus::Poll() to wait for an answer.
  virtual void OnPostStarted() {}
  // No ProcessPacket from here on; completions still reach the peer.
  virtual void OnSuspend() {}
  // The peer closed the channel.  Handles still held are dead (Complete()
  // returns kGone) and must be ended: the peer's teardown waits for that, so
  // that no I/O touches memory the guest took back.  Mapped GPADLs end when
  // this returns.
  virtual void OnClosed() {}

  // With packet.may_block() it may call Bus::Poll() to wait for an answer;
  // no other packet of the channel comes meanwhile.
  virtual void ProcessPacket(IncomingPacket packet) = 0;
  // The guest completed a packet sent with ServerChannel::Send and `tag`.
  virtual void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) {
    (void)tag, (void)reply;
  }
  // The packet sent with `tag` and `wants_sent` is in the ring.
  virtual void OnSent(uint64_t tag) { (void)tag; }
  // A batch of `count` >= 1 packets ended: the place to submit work at once.
  virtual void ProcessingComplete(size_t count) { (void)count; }

  // -- Save and restore ----------------------------------------------------

  virtual IncomingPolicy incoming_policy() const {
    return IncomingPolicy::kDrain;
  }

  // The device's state beside its packets (negotiated version, mode pages).
  // Empty: none.
  virtual absl::StatusOr<std::string> SaveDevice() { return std::string(); }

  // Two-call sizing: `out` empty asks for the size; answer kTooSmall with the
  // bytes needed, or kOk with 0 when there is nothing to save.  Then called
  // again with that many zeroed bytes.  Called with the channel frozen, for
  // each packet in flight.
  virtual savestate::SizeAnswer SavePacket(const PacketInfo& packet,
                                           absl::Span<std::byte> out) {
    (void)packet, (void)out;
    return savestate::SizeAnswer::Ok(0);
  }

  // The same for a packet of the device's own that awaits the guest's
  // completion.
  virtual savestate::SizeAnswer SaveAwaiting(uint64_t tag,
                                             absl::Span<std::byte> out) {
    (void)tag, (void)out;
    return savestate::SizeAnswer::Ok(0);
  }

  // The device stands on a new endpoint.  `state` is what SaveDevice gave.
  // A failure refuses the whole restore.
  virtual absl::Status OnRestored(ServerChannel& channel,
                                  absl::Span<const std::byte> state) {
    (void)channel, (void)state;
    return absl::OkStatus();
  }

  // A packet of the device's own awaits the guest's completion again.
  virtual absl::Status RestoreAwaiting(uint64_t tag,
                                       absl::Span<const std::byte> blob) {
    (void)tag, (void)blob;
    return absl::OkStatus();
  }
  // One packet in flight again, with the blob SavePacket wrote.  The device
  // takes the handle and completes it later; it begins no work before
  // OnStarted, since the restore may still be refused.  A failure refuses it:
  // nothing has been sent by then.
  //
  // Packets of a kReissue device without a blob do not come here: they are
  // given to ProcessPacket after OnStarted.
  virtual absl::Status RestorePacket(IncomingPacket packet,
                                     absl::Span<const std::byte> blob) {
    (void)packet, (void)blob;
    return absl::UnimplementedError(
        "the device saved packets in flight, but has no RestorePacket");
  }
};

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_DEVICE_H_
