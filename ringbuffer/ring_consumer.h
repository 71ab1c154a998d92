// SPDX-License-Identifier: MIT
//
// Reads packets out of one VMBus ring: the incoming half of a channel.
//
// What it is: the only writer of read_index and interrupt_mask.  Packets are
// taken one by one and given back together by Release(): one release store,
// one full fence and one signal decision for the whole batch.
//
// Lifetime: borrows the memory behind the view.  A packet's bytes stay in
// place until the Release() that covers it, also if the consumer object is
// moved meanwhile.
//
// Thread safety: one consumer per ring, one thread at a time; the right to
// read may pass to another thread over any release/acquire edge.
//
// Memory ordering: the load of write_index ([R1]) makes the packet bytes of
// the peer's [W1] visible; Release() orders every load of packet bytes before
// the store of read_index ([W2] pairs with the peer's [R2]).
//
// Trust: the peer may rewrite anything at any time.  Its index is fetched
// once per batch and checked; a descriptor is fetched once, into private
// memory, and only that copy is used.  Extension and payload are handed out as
// UntrustedBytes, which can only be copied out.
//
// Cost: no allocation, no lock, no system call.
//
//   while (consumer.Next(&packet) == ReadResult::kOk) Handle(packet);
//   if (consumer.Release()) doorbell.Signal();

#ifndef FERRYBUS_RINGBUFFER_RING_CONSUMER_H_
#define FERRYBUS_RINGBUFFER_RING_CONSUMER_H_

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

// Bytes in shared memory that the peer can change while they are looked at:
// there is no way to look, only to take a private copy.
template <class Access>
class BasicUntrustedBytes {
 public:
  BasicUntrustedBytes() = default;
  BasicUntrustedBytes(const std::byte* data, uint32_t size, Access access)
      : data_(data), size_(size), access_(access) {}

  uint32_t size() const { return size_; }

  // Copies the eight bytes at `offset`, a multiple of 8; beyond the end: 0.
  uint64_t Load64(uint32_t offset) const {
    if (offset >= size_) return 0;
    uint64_t value;
    access_.CopyFrom(&value, data_ + offset, sizeof(value));
    return value;
  }

  // Copies the first min(size(), to.size()) bytes; returns how many.
  size_t CopyTo(absl::Span<std::byte> to) const {
    const size_t bytes = to.size() < size_ ? to.size() : size_;
    if (bytes != 0) access_.CopyFrom(to.data(), data_, bytes);
    return bytes;
  }

 private:
  const std::byte* data_ = nullptr;
  uint32_t size_ = 0;
  [[no_unique_address]] Access access_;
};

template <class Access>
struct BasicPacketView {
  PacketType type = PacketType::kDataInBand;
  bool completion_requested = false;
  uint64_t transaction_id = 0;
  // Between descriptor and payload: the range list of a GPA-direct or
  // transfer-page packet (packet_ranges.h checks a copy of it).
  BasicUntrustedBytes<Access> extension;
  // Padded to a multiple of 8: the true length is in the payload itself.
  BasicUntrustedBytes<Access> payload;
};

enum class [[nodiscard]] ReadResult : uint8_t{
    kOk,
    kEmpty,
    // The peer broke the protocol; see fault().  Sticky.
    kCorrupt,
};

template <class Access = ProductionAccess>
class BasicRingConsumer {
 public:
  using PacketView = BasicPacketView<Access>;

  BasicRingConsumer() = default;

  // Continues at the indices found in the control page.  Check fault()
  // afterwards.  Packets longer than `max_packet_bytes` (descriptor, extension
  // and payload) are refused as corrupt; a bare descriptor never is.
  BasicRingConsumer(RingView ring, uint32_t max_packet_bytes,
                    Access access = Access())
      : ring_(ring),
        max_packet_bytes_(std::max(max_packet_bytes, kDescriptorBytes)),
        access_(access) {
    if (!IsValidDataSize(ring_.data_bytes)) {
      Fault(RingFault::kDataSize);
      return;
    }
    read_ = access_.LoadRelaxed(ring_.word(kReadIndexOffset));
    published_ = read_;
    write_ = read_;
    if (!CheckIndex(read_)) return;
    (void)RefreshWriteIndex();
  }

  // Takes the next packet.  kEmpty after everything published was taken.
  ABSL_ATTRIBUTE_ALWAYS_INLINE ReadResult Next(PacketView* packet) {
    if (available_ < kMinPacketBytes) [[unlikely]] {
      const ReadResult result = LookForMore();
      if (result != ReadResult::kOk) return result;
    }
    const std::byte* const start = ring_.data + read_;
    uint64_t descriptor[2];
    FetchDescriptor(start, available_, descriptor);
    if (descriptor[0] != shape_.word) [[unlikely]] {
      const RingFault fault = CheckShape(descriptor[0]);
      if (fault != RingFault::kNone) return Corrupt(fault);
    }
    if (shape_.ring_bytes > available_) [[unlikely]] {
      return Corrupt(RingFault::kTruncatedPacket);
    }
    *packet = ViewOf(start, descriptor[1], shape_);
    available_ -= shape_.ring_bytes;
    ++taken_packets_;
    read_ = Advance(read_, shape_.ring_bytes, ring_.data_bytes);
    return ReadResult::kOk;
  }

  // Takes packets, in order, until those of one call reach `bound`, or until
  // Next() would say something else than kOk, which is the result.  Gives each
  // to `visit(const PacketView&)`, which must not use this consumer.  About
  // half the instructions of Next(): the state stays in registers.
  template <typename Visit>
  ABSL_ATTRIBUTE_ALWAYS_INLINE ReadResult TakeBatch(const BatchBound& bound,
                                                    Visit visit) {
    if (available_ < kMinPacketBytes) [[unlikely]] {
      const ReadResult result = LookForMore();
      if (result != ReadResult::kOk) return result;
    }
    uint32_t read = read_;
    uint32_t available = available_;
    Shape shape = shape_;
    const uint32_t enough =
        bound.bytes < available ? available - bound.bytes : 0;
    uint32_t packets = 0;
    RingFault fault = RingFault::kNone;
    do {
      const std::byte* const start = ring_.data + read;
      uint64_t descriptor[2];
      FetchDescriptor(start, available, descriptor);
      if (descriptor[0] != shape.word) [[unlikely]] {
        available_ = available;
        fault = CheckShape(descriptor[0]);
        shape = shape_;
        if (fault != RingFault::kNone) break;
      }
      if (shape.ring_bytes > available) [[unlikely]] {
        fault = RingFault::kTruncatedPacket;
        break;
      }
      visit(ViewOf(start, descriptor[1], shape));
      available -= shape.ring_bytes;
      read = Advance(read, shape.ring_bytes, ring_.data_bytes);
      ++packets;
    } while (available > enough && packets < bound.packets);
    available_ = available;
    read_ = read;
    taken_packets_ += packets;
    return fault == RingFault::kNone ? ReadResult::kOk : Corrupt(fault);
  }

  // Gives the bytes of all packets taken so far back to the peer.  True: the
  // peer waits for room and must be signalled.
  [[nodiscard]] bool Release() {
    if (read_ == published_ || fault_ != RingFault::kNone) return false;
    const uint32_t before = published_;
    access_.StoreRelease(ring_.word(kReadIndexOffset), read_);  // [W2]
    published_ = read_;
    taken_packets_ = 0;
    access_.FullFence();  // [F1] index store before pending load
    const uint32_t pending =
        access_.LoadAcquire(ring_.word(kPendingSendSizeOffset));
    if (pending == 0) return false;
    if (!RefreshWriteIndex()) return false;
    // Only the crossing counts: a peer that is signalled without cause
    // throttles the channel.
    return FreeBytes(write_, before, ring_.data_bytes) <= pending &&
           FreeBytes(write_, published_, ring_.data_bytes) > pending;
  }

  // Release(), if the bound is reached: the peer's room then comes back in few
  // large pieces, not packet by packet.  Call it after each packet, and when
  // the ring is found empty either Release() or ReleaseIfIdle().
  [[nodiscard]] bool ReleaseIfDue(const BatchBound& bound) {
    const uint32_t bytes = UsedBytes(read_, published_, ring_.data_bytes);
    if (bytes < bound.bytes && taken_packets_ < bound.packets) return false;
    return Release();
  }

  // Release(), if the last `looks` calls of Next() all found the ring empty.
  // For a reader that spins: each release takes the line of the indices away
  // from a peer that is about to publish the next packet.
  [[nodiscard]] bool ReleaseIfIdle(uint32_t looks) {
    return empty_looks_ >= looks && Release();
  }

  // Un-takes everything since the last Release(): Next() delivers it again.
  void Rollback() {
    read_ = published_;
    taken_packets_ = 0;
    if (fault_ == RingFault::kNone) {
      available_ = UsedBytes(write_, read_, ring_.data_bytes);
    }
  }

  // Tells the peer not to signal: this side is awake and draining.
  void MaskSignals() {
    access_.StoreRelaxed(ring_.word(kInterruptMaskOffset), 1);
  }
  // Asks for signals again before sleeping, also if they were never masked.
  // True: packets arrived meanwhile, for which no signal will come, or the
  // ring is corrupt; call Next().
  //
  // REQUIRES: everything taken was released.  To a peer that sees an older
  // read_index this side looks awake, and it sends no signal.
  [[nodiscard]] bool UnmaskSignals() {
    access_.StoreRelaxed(ring_.word(kInterruptMaskOffset), 0);
    access_.SleepFence();  // [F1] mask store before write index load
    if (fault_ != RingFault::kNone || !RefreshWriteIndex()) return true;
    return read_ != write_;
  }

  RingFault fault() const { return fault_; }
  RingView ring() const { return ring_; }
  uint32_t max_packet_bytes() const { return max_packet_bytes_; }
  // REQUIRES: everything taken was released.
  RingPosition position() const { return {read_, write_}; }

 private:
  // How far ahead lines are fetched: some packets.
  static constexpr uint32_t kPrefetchBytes = 512;

  static bool IsKnownType(uint16_t type) {
    switch (static_cast<PacketType>(type)) {
      case PacketType::kDataInBand:
      case PacketType::kDataUsingTransferPages:
      case PacketType::kDataUsingGpaDirect:
      case PacketType::kCompletion:
        return true;
    }
    return false;
  }

  static bool HasRangeList(uint16_t type) {
    return type == static_cast<uint16_t>(PacketType::kDataUsingTransferPages) ||
           type == static_cast<uint16_t>(PacketType::kDataUsingGpaDirect);
  }

  // The first word of a descriptor that passed the checks, and what it says.
  // Only private memory: the peer cannot change it afterwards.
  struct Shape {
    // At first that of an empty in-band packet: a valid one at any time.
    uint64_t word = 6 | 2ull << 16 | 2ull << 32;
    PacketType type = PacketType::kDataInBand;
    bool completion_requested = false;
    uint32_t header_bytes = kDescriptorBytes;
    uint32_t payload_bytes = 0;
    uint32_t ring_bytes = kMinPacketBytes;  // with the trailer
  };

  // Most packets are of the shape of the one before.  Comparing lets the
  // processor go on to the next packet before this one has arrived.
  ABSL_ATTRIBUTE_ALWAYS_INLINE void FetchDescriptor(
      const std::byte* start, uint32_t available, uint64_t* descriptor) const {
    if (available > 2 * kPrefetchBytes) {
      // Not the lines that the writer may still be writing.
      access_.PrefetchForRead(start + kPrefetchBytes);
    }
    access_.CopyFrom(descriptor, start, kDescriptorBytes);
  }

  ABSL_ATTRIBUTE_ALWAYS_INLINE PacketView ViewOf(const std::byte* start,
                                                 uint64_t transaction_id,
                                                 const Shape& shape) const {
    return {shape.type,
            shape.completion_requested,
            transaction_id,
            {start + kDescriptorBytes, shape.header_bytes - kDescriptorBytes,
             access_},
            {start + shape.header_bytes, shape.payload_bytes, access_}};
  }

  // Nothing of what was seen is left, or less than any packet takes.
  ABSL_ATTRIBUTE_NOINLINE ReadResult LookForMore() {
    if (fault_ != RingFault::kNone) return ReadResult::kCorrupt;
    if (available_ == 0) {
      if (!RefreshWriteIndex()) return ReadResult::kCorrupt;
      if (available_ == 0) {
        ++empty_looks_;
        return ReadResult::kEmpty;
      }
      empty_looks_ = 0;
      if (available_ >= kMinPacketBytes) return ReadResult::kOk;
    }
    return Corrupt(RingFault::kTruncatedPacket);
  }

  ABSL_ATTRIBUTE_NOINLINE RingFault CheckShape(uint64_t word) {
    PacketDescriptor descriptor = {};
    std::memcpy(&descriptor, &word, sizeof(word));
    const RingFault fault = CheckDescriptor(descriptor);
    if (fault != RingFault::kNone) return fault;
    const uint32_t packet_bytes = descriptor.length8 * 8u;
    shape_.word = word;
    shape_.type = static_cast<PacketType>(descriptor.type);
    shape_.completion_requested = descriptor.flags != 0;
    shape_.header_bytes = descriptor.offset8 * 8u;
    shape_.payload_bytes = packet_bytes - shape_.header_bytes;
    shape_.ring_bytes = packet_bytes + kTrailerBytes;
    return RingFault::kNone;
  }

  RingFault CheckDescriptor(const PacketDescriptor& descriptor) const {
    if (!IsKnownType(descriptor.type)) return RingFault::kPacketType;
    if ((descriptor.flags & ~kFlagCompletionRequested) != 0) {
      return RingFault::kPacketFlags;
    }
    const uint32_t min_offset8 = HasRangeList(descriptor.type) ? 3 : 2;
    if (descriptor.offset8 < min_offset8) return RingFault::kHeaderLength;
    if (descriptor.length8 < descriptor.offset8) {
      return RingFault::kPacketLength;
    }
    const uint32_t packet_bytes = descriptor.length8 * 8u;
    if (packet_bytes > available_ - kTrailerBytes) {
      return RingFault::kTruncatedPacket;
    }
    if (packet_bytes > max_packet_bytes_) return RingFault::kPacketTooLong;
    return RingFault::kNone;
  }

  // Fetches the peer's index.  It may only have moved forward, and not past
  // what was released.
  bool RefreshWriteIndex() {
    const uint32_t now = access_.LoadAcquire(ring_.word(kWriteIndexOffset));
    if (!CheckIndex(now)) return false;
    if (UsedBytes(now, published_, ring_.data_bytes) <
        UsedBytes(write_, published_, ring_.data_bytes)) {
      Fault(RingFault::kIndexBackwards);
      return false;
    }
    write_ = now;
    available_ = UsedBytes(write_, read_, ring_.data_bytes);
    return true;
  }

  bool CheckIndex(uint32_t index) {
    if (index >= ring_.data_bytes) return Fault(RingFault::kIndexRange);
    if (index % 8 != 0) return Fault(RingFault::kIndexAlignment);
    return true;
  }

  ReadResult Corrupt(RingFault fault) {
    Fault(fault);
    return ReadResult::kCorrupt;
  }

  bool Fault(RingFault fault) {
    fault_ = fault;
    available_ = 0;  // every call comes to look
    return false;
  }

  RingView ring_;
  uint32_t available_ = 0;  // of read_ and write_
  Shape shape_;
  uint32_t read_ = 0;           // the next packet to take
  uint32_t published_ = 0;      // what the peer has been told
  uint32_t taken_packets_ = 0;  // since the last release
  uint32_t empty_looks_ = 0;    // since the last packet
  uint32_t write_ = 0;          // the peer's index, last checked value
  uint32_t max_packet_bytes_ = 0;
  RingFault fault_ = RingFault::kNone;
  [[no_unique_address]] Access access_;
};

using RingConsumer = BasicRingConsumer<ProductionAccess>;
using PacketView = BasicPacketView<ProductionAccess>;

}  // namespace ferrybus::ringbuffer

#endif  // FERRYBUS_RINGBUFFER_RING_CONSUMER_H_
