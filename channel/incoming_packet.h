// SPDX-License-Identifier: MIT
//
// One packet that the peer sent and that its receiver has not completed yet.
//
// What it is: a move-only handle.  Holding it means "in flight": the packet
// counts against the channel's quota, keeps its guest memory reachable and is
// part of what a save stores.  It ends by Complete(), once, from any thread.
//
// Ownership: the bytes behind payload() and guest_buffers() belong to the
// channel and live until Complete() or the handle's end.  A handle may outlive
// its channel and the bus: Complete() then says kGone.  Guest memory must
// outlive it.
//
// Thread safety: a handle may move to another thread; one thread uses it at a
// time.  Complete() takes the channel's lock, so handles of one channel may
// be completed from different threads at once, in any order.
//
// Trust: the peer wrote every byte of payload(), but it can no longer change
// them: descriptor, ranges and payload were copied once out of the ring and
// checked against it.  guest_buffers() is memory that the peer goes on sharing:
// bytes there can change while they are read.
//
// Cost: no allocation once a channel's slots are warm.
//
// A receiver that cannot go on here, since it would have to block, or since
// guest memory is not there yet, gives the packet back with Defer(): it comes
// again.
//
//   void ProcessPacket(IncomingPacket packet) override {
//     std::array<std::byte, 64> reply = Answer(packet.payload());
//     packet.Complete(reply);
//   }
//
// Source: KMCL's VMBPACKETCOMPLETION; VmbChannelPacketComplete.

#ifndef FERRYBUS_CHANNEL_INCOMING_PACKET_H_
#define FERRYBUS_CHANNEL_INCOMING_PACKET_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ferrybus/channel/guest_pins.h"
#include "ferrybus/ringbuffer/wire.h"

namespace ferrybus {

// What Complete() did.
enum class CompleteResult {
  // The completion is in the ring, queued behind a full ring, or (for a
  // packet that asked for none) the packet simply ended.
  kOk,
  // The channel was closed, reset or moved to another owner meanwhile; the
  // peer no longer waits for this packet and nothing was written.
  kGone,
};

// The channel's side of a handle.  Not for users.
class IncomingPacketOwner {
 public:
  virtual CompleteResult CompletePacket(
      uint32_t slot, uint32_t generation,
      absl::Span<const std::byte> payload) = 0;
  // The handle ended without Complete().
  virtual void DropPacket(uint32_t slot, uint32_t generation) = 0;
  // The packet's receiver found it malformed beyond repair.
  virtual void FailPacket(uint32_t slot, uint32_t generation,
                          std::string_view reason) = 0;
  // The receiver wants the packet again.
  virtual void DeferPacket(uint32_t slot, uint32_t generation) {
    FailPacket(slot, generation, "it cannot be given back");
  }
  virtual absl::StatusOr<absl::Span<const iovec>> MapGuestBuffers(
      uint32_t slot) = 0;
  virtual absl::StatusOr<ExternalData> PinGuestBuffers(uint32_t slot,
                                                       GuestAccess access) {
    (void)access;
    const absl::Status status = MapGuestBuffers(slot).status();
    if (!status.ok()) return status;
    return ExternalData::kReady;
  }

 protected:
  ~IncomingPacketOwner() = default;
};

// What a packet is, readable while it is in flight.
struct PacketInfo {
  // Unique among the packets in flight on the channel, below its quota: the
  // index to use for a device's own table.  Transaction ids are the peer's
  // choice and need not be unique.
  uint32_t slot = 0;
  uint32_t generation = 0;
  ringbuffer::PacketType type = ringbuffer::PacketType::kDataInBand;
  bool completion_requested = false;
  uint64_t transaction_id = 0;
  absl::Span<const std::byte> payload;
  // The range list of a GPA-direct or transfer-page packet as it stood in the
  // descriptor; empty for in-band packets.
  absl::Span<const std::byte> extension;
  // Bytes of guest memory that the ranges describe; 0 for in-band packets.
  uint64_t external_bytes = 0;
  uint32_t external_ranges = 0;
  // Its receiver may block: it is called outside of the ring's batch.
  bool may_block = false;
};

class [[nodiscard]] IncomingPacket {
 public:
  IncomingPacket() = default;
  IncomingPacket(IncomingPacketOwner* owner, const PacketInfo* info)
      : owner_(owner), info_(info), generation_(info->generation) {}
  IncomingPacket(IncomingPacket&& other) noexcept
      : owner_(std::exchange(other.owner_, nullptr)),
        info_(std::exchange(other.info_, nullptr)),
        generation_(other.generation_) {}
  IncomingPacket& operator=(IncomingPacket&& other) noexcept {
    if (this != &other) {
      Drop();
      owner_ = std::exchange(other.owner_, nullptr);
      info_ = std::exchange(other.info_, nullptr);
      generation_ = other.generation_;
    }
    return *this;
  }
  // A handle that ends without Complete() leaves the peer waiting for ever,
  // so the channel is faulted, unless it was closed meanwhile.
  ~IncomingPacket() { Drop(); }

  explicit operator bool() const { return owner_ != nullptr; }

  const PacketInfo& info() const { return *info_; }
  absl::Span<const std::byte> payload() const { return info_->payload; }
  uint64_t transaction_id() const { return info_->transaction_id; }
  bool completion_requested() const { return info_->completion_requested; }
  bool may_block() const { return info_->may_block; }
  bool has_external_data() const { return !info_->extension.empty(); }

  // The guest memory that the packet describes, in its order, adjacent pages
  // joined.  Valid until Complete().  Empty for an in-band packet.
  //
  // OutOfRange: a page lies outside guest RAM.  The packet stays usable: the
  // receiver completes it with its protocol's error status.
  absl::StatusOr<absl::Span<const iovec>> guest_buffers() {
    return owner_->MapGuestBuffers(info_->slot);
  }

  // Keeps the bytes of guest_buffers() in place until the packet ends
  // (channel/guest_pins.h).  kPending: give the packet back with Defer(); it
  // comes again when they are.  Errors as guest_buffers(), and InvalidArgument
  // if it was asked for read-only before and for writing now.
  absl::StatusOr<ExternalData> PinGuestBuffers(
      GuestAccess access = GuestAccess::kReadWrite) {
    return owner_->PinGuestBuffers(info_->slot, access);
  }

  // Gives the packet back.  It comes again, before any later one, with
  // may_block() true; what was held of its payload is not valid any more.
  void Defer() {
    std::exchange(owner_, nullptr)->DeferPacket(info_->slot, generation_);
  }

  // Ends the packet; sends `payload` in a completion packet if the peer asked
  // for one.  Never blocks, never fails for want of ring space.
  CompleteResult Complete(absl::Span<const std::byte> payload = {}) {
    IncomingPacketOwner* owner = std::exchange(owner_, nullptr);
    return owner->CompletePacket(info_->slot, generation_, payload);
  }

  // The packet is malformed beyond repair: faults the channel.
  void Fail(std::string_view reason) {
    IncomingPacketOwner* owner = std::exchange(owner_, nullptr);
    owner->FailPacket(info_->slot, generation_, reason);
  }

 private:
  void Drop() {
    if (owner_ == nullptr) return;
    std::exchange(owner_, nullptr)->DropPacket(info_->slot, generation_);
  }

  IncomingPacketOwner* owner_ = nullptr;
  const PacketInfo* info_ = nullptr;
  uint32_t generation_ = 0;
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_INCOMING_PACKET_H_
