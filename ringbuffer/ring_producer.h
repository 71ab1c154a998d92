// SPDX-License-Identifier: MIT
//
// Writes packets into one VMBus ring: the outgoing half of a channel.
//
// What it is: the only writer of write_index, pending_send_size and
// feature_bits.  Packets are staged one by one and made visible together by
// Publish(): one release store, one full fence and one signal decision for the
// whole batch.
//
// Lifetime: borrows the memory behind the view.
//
// Thread safety: one producer per ring, one thread at a time; the right to
// write may pass to another thread over any release/acquire edge.
//
// Memory ordering: packet bytes happen-before any peer read of a write_index
// that covers them ([W1] pairs with the peer's [R1]); the store of write_index
// is ordered before the load of the peer's interrupt mask by [F1].
//
// Trust: the peer's read_index and interrupt_mask are fetched, checked, then
// used.  The own write index is private; the shared word is never read back.
//
// Cost: no allocation, no lock, no system call.  The peer's read_index is
// fetched only when the cached value leaves too little room.
//
//   if (producer.Write({PacketType::kDataInBand, 0, id}, {}, payload) ==
//       WriteResult::kOk && producer.Publish()) doorbell.Signal();

#ifndef FERRYBUS_RINGBUFFER_RING_PRODUCER_H_
#define FERRYBUS_RINGBUFFER_RING_PRODUCER_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/base/attributes.h"
#include "absl/types/span.h"
#include "ferrybus/ringbuffer/memory_access.h"
#include "ferrybus/ringbuffer/ring_index.h"
#include "ferrybus/ringbuffer/ring_view.h"
#include "ferrybus/ringbuffer/wire.h"

namespace ferrybus::ringbuffer {

struct PacketHeader {
  PacketType type = PacketType::kDataInBand;
  uint16_t flags = 0;
  uint64_t transaction_id = 0;
};

enum class [[nodiscard]] WriteResult : uint8_t{
    kOk,
    // No room now.  ArmPendingSend() asks the peer for a signal.
    kFull,
    // Would not fit into an empty ring, or into 16-bit lengths.
    kTooLarge,
    // The peer's read index is impossible; see fault().  Sticky.
    kCorrupt,
};

// What WriteBatch() writes.
struct OutgoingPacket {
  PacketHeader header;
  absl::Span<const std::byte> extension;
  absl::Span<const std::byte> payload;
};

// How far WriteBatch() came, and what stopped it: kOk, nothing.
struct BatchResult {
  WriteResult result = WriteResult::kOk;
  uint32_t packets = 0;
};

// A staged packet to be filled in place.  The bytes are shared memory: write
// them once, never read them.
struct Reservation {
  WriteResult result = WriteResult::kFull;
  std::byte* extension = nullptr;
  std::byte* payload = nullptr;
};

template <class Access = ProductionAccess>
class BasicRingProducer {
 public:
  BasicRingProducer() = default;

  // Continues at the indices found in the control page (both zero in a new
  // ring).  Clears pending_send_size and announces the feature.
  //
  // Check fault() afterwards: kDataSize or an index fault leaves a handle on
  // which every write says kCorrupt.
  explicit BasicRingProducer(RingView ring, Access access = Access())
      : ring_(ring), access_(access) {
    if (!IsValidDataSize(ring_.data_bytes)) {
      Fault(RingFault::kDataSize);
      return;
    }
    write_ = access_.LoadRelaxed(ring_.word(kWriteIndexOffset));
    read_ = access_.LoadAcquire(ring_.word(kReadIndexOffset));
    published_ = write_;
    if (!CheckIndex(write_) || !CheckIndex(read_)) return;
    max_ring_bytes_ = MaxPacketRingBytes(ring_.data_bytes);
    CountRoom();
    access_.StoreRelaxed(ring_.word(kPendingSendSizeOffset), 0);
    access_.StoreRelaxed(ring_.word(kFeatureBitsOffset),
                         kFeaturePendingSendSize);
  }

  // Stages a packet: room for `extension_bytes` (a multiple of 8) and
  // `payload_bytes`, descriptor, padding and trailer already written.
  Reservation Reserve(const PacketHeader& header, uint32_t extension_bytes,
                      uint32_t payload_bytes) requires(Access::kInPlace) {
    return StageIfRoom(header, extension_bytes, payload_bytes);
  }

  // Stages a copy of `extension` and `payload`.
  ABSL_ATTRIBUTE_ALWAYS_INLINE WriteResult
  Write(const PacketHeader& header, absl::Span<const std::byte> extension,
        absl::Span<const std::byte> payload) {
    const Reservation room =
        StageIfRoom(header, extension.size(), payload.size());
    if (room.result == WriteResult::kOk) [[likely]] {
      Fill(room, extension, payload);
    }
    return room.result;
  }

  // Stages packets, in order, until there are `count` or those of this call
  // reach `bound`.  `packet_at(i)` gives the i-th, an OutgoingPacket; it may be
  // asked again, by a later call, for one that found no room, and must not use
  // this producer.  About half the instructions of Write(): the state stays in
  // registers.
  template <typename PacketAt>
  ABSL_ATTRIBUTE_ALWAYS_INLINE BatchResult WriteBatch(uint32_t count,
                                                      const BatchBound& bound,
                                                      PacketAt packet_at) {
    BatchResult batch;
    uint32_t write = write_;
    uint64_t room = room_;
    uint64_t bytes = 0;
    const uint32_t packets_max = count < bound.packets ? count : bound.packets;
    while (batch.packets < packets_max && bytes < bound.bytes) {
      const OutgoingPacket packet = packet_at(batch.packets);
      const uint64_t header_bytes = kDescriptorBytes + packet.extension.size();
      const uint64_t total =
          PacketRingBytes(header_bytes, packet.payload.size());
      if (total > room || header_bytes % 8 != 0) [[unlikely]] {
        write_ = write;
        room_ = room;  // stays, if it does not look
        batch.result = LookForRoom(total, packet.extension.size());
        room = room_;
        if (batch.result != WriteResult::kOk) break;
      }
      const uint32_t ring_bytes = static_cast<uint32_t>(total);
      PrefetchAhead(write, room, ring_bytes);
      Fill(StageAt(write, packet.header, static_cast<uint32_t>(header_bytes),
                   static_cast<uint32_t>(packet.payload.size()), ring_bytes),
           packet.extension, packet.payload);
      write = Advance(write, ring_bytes, ring_.data_bytes);
      room -= ring_bytes;
      bytes += ring_bytes;
      ++batch.packets;
    }
    write_ = write;
    room_ = room;
    staged_packets_ += batch.packets;
    return batch;
  }

  // Makes all staged packets visible.  True: the peer must be signalled, since
  // it had drained the ring and does not mask.
  [[nodiscard]] bool Publish() { return PublishTo(write_); }

  // The same for the packets staged before staged_end() had the value `end`;
  // later ones stay staged.
  [[nodiscard]] bool PublishTo(uint32_t end) {
    if (end == published_ || fault_ != RingFault::kNone) return false;
    const uint32_t before = published_;
    if (pending_armed_) {
      access_.StoreRelaxed(ring_.word(kPendingSendSizeOffset), 0);
      pending_armed_ = false;
    }
    access_.StoreRelease(ring_.word(kWriteIndexOffset), end);  // [W1]
    published_ = end;
    staged_packets_ = 0;
    access_.FullFence();  // [F1] index store before mask load
    if (access_.LoadAcquire(ring_.word(kInterruptMaskOffset)) != 0) {
      return false;
    }
    return RefreshReadIndex() && read_ == before;
  }

  // Publish(), if it is due: the peer has read all that it was told of, or the
  // bound is reached.  A single packet for an idle peer so goes at once, and
  // packets for a busy one go together.  Whoever has no more to send calls
  // Publish().  One relaxed load more for each call.
  [[nodiscard]] bool PublishIfDue(const BatchBound& bound) {
    const uint32_t bytes = UsedBytes(write_, published_, ring_.data_bytes);
    if (bytes < bound.bytes && staged_packets_ < bound.packets &&
        access_.LoadRelaxed(ring_.word(kReadIndexOffset)) != published_) {
      return false;
    }
    return Publish();
  }

  // Takes everything back that is staged and unpublished.
  void Discard() {
    write_ = published_;
    staged_packets_ = 0;
    if (fault_ == RingFault::kNone) CountRoom();
  }

  // Asks the peer for a signal once more than `ring_bytes` are free (see
  // PacketRingBytes).  The next Publish() takes the request back.  True: there
  // is room already or the ring is corrupt, no signal will come for it; write
  // again.
  //
  // The peer counts as free what it has not been told of: `ring_bytes` must
  // include what is staged and unpublished.
  [[nodiscard]] bool ArmPendingSend(uint64_t ring_bytes) {
    if (fault_ != RingFault::kNone) return true;
    const uint32_t wanted = static_cast<uint32_t>(
        ring_bytes < ring_.data_bytes ? ring_bytes : ring_.data_bytes - 1);
    access_.StoreRelaxed(ring_.word(kPendingSendSizeOffset), wanted);
    pending_armed_ = true;
    access_.SleepFence();  // [F1] pending store before read index load
    if (!RefreshReadIndex()) return true;
    return wanted < FreeBytes(write_, read_, ring_.data_bytes);
  }

  // What Write() would say to a packet of `ring_bytes` (PacketRingBytes, so not
  // 0) now; kCorrupt only if it had to look.
  WriteResult RoomFor(uint64_t ring_bytes) {
    return ring_bytes <= room_ ? WriteResult::kOk : LookForRoom(ring_bytes, 0);
  }

  bool has_unpublished() const { return write_ != published_; }
  // Ring offset at which the next packet will start.
  uint32_t staged_end() const { return write_; }
  RingFault fault() const { return fault_; }
  RingView ring() const { return ring_; }
  // REQUIRES: nothing staged and unpublished.
  RingPosition position() const { return {write_, read_}; }

 private:
  static constexpr uint32_t kCacheLineBytes = 64;
  // How far ahead lines are fetched for writing: some packets.
  static constexpr uint32_t kPrefetchBytes = 1024;

  ABSL_ATTRIBUTE_ALWAYS_INLINE Reservation
  StageIfRoom(const PacketHeader& header, uint64_t extension_bytes,
              uint64_t payload_bytes) {
    const uint64_t header_bytes = kDescriptorBytes + extension_bytes;
    const uint64_t total = PacketRingBytes(header_bytes, payload_bytes);
    if (total > room_ || extension_bytes % 8 != 0) [[unlikely]] {
      const WriteResult result = LookForRoom(total, extension_bytes);
      if (result != WriteResult::kOk) return {result};
    }
    const uint32_t ring_bytes = static_cast<uint32_t>(total);
    PrefetchAhead(write_, room_, ring_bytes);
    const Reservation room =
        StageAt(write_, header, static_cast<uint32_t>(header_bytes),
                static_cast<uint32_t>(payload_bytes), ring_bytes);
    room_ -= ring_bytes;
    ++staged_packets_;
    write_ = Advance(write_, ring_bytes, ring_.data_bytes);
    return room;
  }

  // Descriptor, padding and trailer of a packet at `write`.
  ABSL_ATTRIBUTE_ALWAYS_INLINE Reservation StageAt(uint32_t write,
                                                   const PacketHeader& header,
                                                   uint32_t header_bytes,
                                                   uint32_t payload_bytes,
                                                   uint32_t ring_bytes) {
    std::byte* const start = ring_.data + write;
    const uint32_t packet_bytes = ring_bytes - kTrailerBytes;
    // A PacketDescriptor, as the two words it is on the wire.
    const uint64_t descriptor[2] = {
        static_cast<uint64_t>(header.type) | (header_bytes / 8ull) << 16 |
            (packet_bytes / 8ull) << 32 | uint64_t{header.flags} << 48,
        header.transaction_id};
    if (const uint32_t padding = -payload_bytes % 8; padding != 0) {
      const uint64_t zero = 0;
      access_.CopyTo(start + packet_bytes - padding, &zero, padding);
    }
    access_.CopyTo(start, descriptor, sizeof(descriptor));
    const uint64_t trailer = uint64_t{write} << 32;
    access_.CopyTo(start + packet_bytes, &trailer, sizeof(trailer));
    return {WriteResult::kOk, start + kDescriptorBytes, start + header_bytes};
  }

  ABSL_ATTRIBUTE_ALWAYS_INLINE void Fill(const Reservation& room,
                                         absl::Span<const std::byte> extension,
                                         absl::Span<const std::byte> payload) {
    if (!extension.empty()) {
      access_.CopyTo(room.extension, extension.data(), extension.size());
    }
    if (!payload.empty()) {
      access_.CopyTo(room.payload, payload.data(), payload.size());
    }
  }

  // The lines of the packets to come are taken from the reader's core while
  // this one is written: as many as this one has, or the beginning of the next
  // one, which the processor then continues by itself.  Not where the reader
  // may still be reading.
  ABSL_ATTRIBUTE_ALWAYS_INLINE void PrefetchAhead(uint32_t write, uint64_t room,
                                                  uint32_t ring_bytes) const {
    if (room < ring_bytes + 2 * kPrefetchBytes) return;
    const std::byte* const ahead =
        ring_.data + write + std::max(ring_bytes, kPrefetchBytes);
    const uint32_t bytes = std::min(ring_bytes, kPrefetchBytes);
    for (uint32_t at = 0; at < bytes; at += kCacheLineBytes) {
      access_.PrefetchForWrite(ahead + at);
    }
  }

  // Whether a packet that did not fit, or cannot ever fit, fits after all.
  ABSL_ATTRIBUTE_NOINLINE WriteResult LookForRoom(uint64_t ring_bytes,
                                                  uint64_t extension_bytes) {
    if (fault_ != RingFault::kNone) return WriteResult::kCorrupt;
    if (ring_bytes > max_ring_bytes_ || extension_bytes % 8 != 0) {
      return WriteResult::kTooLarge;
    }
    if (!RefreshReadIndex()) return WriteResult::kCorrupt;
    return ring_bytes > room_ ? WriteResult::kFull : WriteResult::kOk;
  }

  // A packet must leave at least one unit of 8 bytes free.
  void CountRoom() {
    const uint64_t fits = FreeBytes(write_, read_, ring_.data_bytes) - 8;
    room_ = fits < max_ring_bytes_ ? fits : max_ring_bytes_;
  }

  // Fetches the peer's index.  It may only have moved forward, and not past
  // what was published.
  bool RefreshReadIndex() {
    const uint32_t now = access_.LoadAcquire(ring_.word(kReadIndexOffset));
    // [R2] acquire: pairs with [W2]; freed bytes are overwritten afterwards.
    if (!CheckIndex(now)) return false;
    if (UsedBytes(now, read_, ring_.data_bytes) >
        UsedBytes(published_, read_, ring_.data_bytes)) {
      return Fault(RingFault::kIndexBackwards);
    }
    read_ = now;
    CountRoom();
    return true;
  }

  bool CheckIndex(uint32_t index) {
    if (index >= ring_.data_bytes) return Fault(RingFault::kIndexRange);
    if (index % 8 != 0) return Fault(RingFault::kIndexAlignment);
    return true;
  }

  bool Fault(RingFault fault) {
    fault_ = fault;
    room_ = 0;  // every write comes to look
    return false;
  }

  RingView ring_;
  uint64_t room_ = 0;            // for one packet; of write_ and read_
  uint64_t max_ring_bytes_ = 0;  // of one packet, ever
  uint32_t write_ = 0;           // where the next packet goes
  uint32_t published_ = 0;       // what the peer has been told
  uint32_t staged_packets_ = 0;  // since the last publish
  uint32_t read_ = 0;            // the peer's index, last checked value
  bool pending_armed_ = false;
  RingFault fault_ = RingFault::kNone;
  [[no_unique_address]] Access access_;
};

using RingProducer = BasicRingProducer<ProductionAccess>;

}  // namespace ferrybus::ringbuffer

#endif  // FERRYBUS_RINGBUFFER_RING_PRODUCER_H_
