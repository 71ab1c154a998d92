// SPDX-License-Identifier: MIT
//
// Lets several threads write into one VMBus ring: the virtual processors of a
// guest that share a channel.  The peer sees a single producer.
//
// What it is: a RingProducer behind a claim table.  A thread claims the next
// bytes of the ring, fills them with no lock held, side by side with others,
// and commits.  Packets lie in the ring in the order of their claims; whoever
// commits the oldest claim publishes it and all filled ones that follow, with
// one store, one fence and one signal decision.
//
// Waiting: no call waits for a thread that is filling.  A filler that is slow
// or preempted delays only when later packets become visible.  The lock inside
// (brief_lock.h) is held to stage a descriptor or to publish, never while
// payload is written.
//
// A claim must be filled and committed: later packets lie behind it, so it
// cannot be taken back.  Write every byte of it, zeros if need be; what is
// left out is what the ring held before.  A claim that is never committed ends
// the ring's traffic.
//
// Lifetime: borrows the memory behind the view.
//
// Thread safety: all functions, any thread.  Committing may be left to another
// thread than the one that claimed.
//
// Memory ordering: bytes filled by A happen-before the release of write_index
// ([W1]) by B, because A's Commit() releases the lock after they are written
// and B acquires it before it publishes ([B2], [B1]).  The same edge, the other
// way, hands the peer's release of freed bytes on: B's load of read_index
// ([R1]) happens-before the claim of A that overwrites them.  Publications are
// in one order, that of the lock, and each has a fence of its own and the end
// of the one before it as "before": to the peer a Dekker handshake with one
// producer.
//
// Trust: as RingProducer.  A broken read index faults the ring for all.
//
// Cost: no allocation; the lock twice and the cost of a RingProducer.  A thread
// with several claims commits the oldest last, to publish once.
//
//   const ClaimedPacket packet = producer.Claim(header, 0, bytes);
//   if (packet.result == WriteResult::kOk) {
//     Fill(packet.payload, bytes);
//     const Published published = producer.Commit(packet.ticket);
//     if (published.signal_peer) doorbell.Signal();
//     if (published.wake_waiters) room.WakeAll();
//   }

#ifndef FERRYBUS_RINGBUFFER_SHARED_PRODUCER_H_
#define FERRYBUS_RINGBUFFER_SHARED_PRODUCER_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "ferrybus/ringbuffer/brief_lock.h"
#include "ferrybus/ringbuffer/memory_access.h"
#include "ferrybus/ringbuffer/ring_index.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/ring_view.h"
#include "ferrybus/ringbuffer/wire.h"

namespace ferrybus::ringbuffer {

// Room in the ring that the caller has to fill.  The bytes are shared memory:
// write them once, never read them.
struct ClaimedPacket {
  // kFull: no room in the ring, or too many claims at once.
  WriteResult result = WriteResult::kFull;
  std::byte* extension = nullptr;
  std::byte* payload = nullptr;
  uint64_t ticket = 0;  // 0, 1, 2, ...: the packet's place in the ring
};

// What the caller owes others after a Commit().  Do it at once: until then
// nobody else will, and they may sleep.
struct [[nodiscard]] Published {
  // The peer had drained the ring and does not mask.
  bool signal_peer = false;
  // Threads that ArmPendingSend() sent to sleep must try again.
  bool wake_waiters = false;
};

struct [[nodiscard]] SharedWrite {
  WriteResult result = WriteResult::kFull;
  Published published;
};

// `kMaxClaims`, a power of two, bounds the claims at one time.
template <class Access = ProductionAccess, uint32_t kMaxClaims = 64>
class BasicSharedProducer {
  static_assert(Access::kInPlace);
  static_assert(std::has_single_bit(kMaxClaims));

 public:
  // As RingProducer; check fault() afterwards.
  explicit BasicSharedProducer(RingView ring, Access access = Access())
      : producer_(ring, access),
        published_end_(producer_.staged_end()),
        access_(access) {}

  // Takes the next packet of the ring, its descriptor, padding and trailer
  // written.  `extension_bytes` is a multiple of 8.
  [[nodiscard]] ClaimedPacket Claim(const PacketHeader& header,
                                    uint32_t extension_bytes,
                                    uint32_t payload_bytes) {
    const BriefLockHolder hold(&lock_);
    if (outstanding() == kMaxClaims) return {};
    const Reservation room =
        producer_.Reserve(header, extension_bytes, payload_bytes);
    if (room.result != WriteResult::kOk) return {room.result};
    Slot(next_) = {producer_.staged_end(), false};
    return {WriteResult::kOk, room.extension, room.payload, next_++};
  }

  // Says that the claim's bytes are written.  A ticket that is not outstanding
  // is an error of the caller; nothing happens.
  Published Commit(uint64_t ticket) {
    const BriefLockHolder hold(&lock_);
    if (ticket - oldest_ >= outstanding()) return {};
    Slot(ticket).filled = true;
    if (ticket != oldest_) return {};
    while (outstanding() != 0 && Slot(oldest_).filled) {
      published_end_ = Slot(oldest_).end;
      ++oldest_;
    }
    Published published;
    // Publishing takes the request for a signal back.
    published.wake_waiters = wanted_ != 0;
    wanted_ = 0;
    published.signal_peer = producer_.PublishTo(published_end_);
    return published;
  }

  // Claims, copies and commits.
  SharedWrite Write(const PacketHeader& header,
                    absl::Span<const std::byte> extension,
                    absl::Span<const std::byte> payload) {
    if (extension.size() > kMaxDataBytes || payload.size() > kMaxDataBytes) {
      return {WriteResult::kTooLarge, {}};
    }
    const ClaimedPacket packet =
        Claim(header, static_cast<uint32_t>(extension.size()),
              static_cast<uint32_t>(payload.size()));
    if (packet.result != WriteResult::kOk) return {packet.result, {}};
    if (!extension.empty()) {
      access_.CopyTo(packet.extension, extension.data(), extension.size());
    }
    if (!payload.empty()) {
      access_.CopyTo(packet.payload, payload.data(), payload.size());
    }
    return {WriteResult::kOk, Commit(packet.ticket)};
  }

  // After kFull.  False: sleep until the peer signals or a Commit() says
  // wake_waiters, whichever comes first, then claim again.  True: there is
  // room already, or the ring is corrupt; claim again now.
  //
  // The wake-up may come before this call returns, so note the state of what
  // you sleep on first.  Both wake all who sleep: the room may be for any.
  //
  // REQUIRES: ring_bytes > 0 (see PacketRingBytes), and before sleeping, that
  // the caller's own claims are committed: it would wait for itself.
  [[nodiscard]] bool ArmPendingSend(uint64_t ring_bytes) {
    const BriefLockHolder hold(&lock_);
    const uint32_t data_bytes = producer_.ring().data_bytes;
    const uint64_t bytes = std::min<uint64_t>(ring_bytes, data_bytes);
    // A smaller request must not take the signal from one that sleeps.
    wanted_ = std::max(wanted_, bytes);
    if (outstanding() == kMaxClaims) return false;
    // The peer counts the claims as free: wait for that much more.
    const uint32_t claimed =
        UsedBytes(producer_.staged_end(), published_end_, data_bytes);
    if (producer_.ArmPendingSend(wanted_ + claimed)) return true;
    // That asked for more than this caller needs.
    const RingPosition at = producer_.position();
    return bytes < FreeBytes(at.own_index, at.peer_index, data_bytes);
  }

  // For a save.  None: claims are outstanding.
  std::optional<RingPosition> position() {
    const BriefLockHolder hold(&lock_);
    if (outstanding() != 0) return std::nullopt;
    return producer_.position();
  }

  RingFault fault() {
    const BriefLockHolder hold(&lock_);
    return producer_.fault();
  }

 private:
  struct ClaimSlot {
    uint32_t end = 0;  // ring offset behind the packet
    bool filled = false;
  };

  uint64_t outstanding() const { return next_ - oldest_; }
  ClaimSlot& Slot(uint64_t ticket) { return claims_[ticket % kMaxClaims]; }

  BriefLock lock_;  // for all below but access_
  BasicRingProducer<Access> producer_;
  uint32_t published_end_ = 0;
  uint64_t oldest_ = 0;  // ticket of the oldest claim not published
  uint64_t next_ = 0;    // ticket of the next claim
  uint64_t wanted_ = 0;  // the most that a sleeper needs; 0: nobody sleeps
  ClaimSlot claims_[kMaxClaims];
  [[no_unique_address]] Access access_;
};

using SharedProducer = BasicSharedProducer<ProductionAccess>;

}  // namespace ferrybus::ringbuffer

#endif  // FERRYBUS_RINGBUFFER_SHARED_PRODUCER_H_
