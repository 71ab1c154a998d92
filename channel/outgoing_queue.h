// SPDX-License-Identifier: MIT
//
// The packets of an endpoint that wait for room in the outgoing ring, or for
// the channel to open.
//
// What it is: a FIFO of private copies.  Places that were used keep their
// memory, so that a warm queue, or one that was Reserve()d, takes packets
// without an allocation.
//
// Ownership: owns the bytes.  Thread safety: none; its owner locks.
// Cost: one copy per packet; Remove() moves what stands behind.

#ifndef FERRYBUS_CHANNEL_OUTGOING_QUEUE_H_
#define FERRYBUS_CHANNEL_OUTGOING_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/ringbuffer/ring_producer.h"

namespace ferrybus {

struct ReplyRoom;

struct QueuedPacket {
  ringbuffer::PacketHeader header;
  uint32_t extension_bytes = 0;
  std::vector<std::byte> bytes;  // extension, then payload
  // Who is told that the packet is in the ring; see OutgoingPacket.
  uint64_t tag = 0;
  bool wants_sent = false;
  ReplyRoom* reply = nullptr;

  absl::Span<const std::byte> extension() const {
    return absl::MakeConstSpan(bytes).first(extension_bytes);
  }
  absl::Span<const std::byte> payload() const {
    return absl::MakeConstSpan(bytes).subspan(extension_bytes);
  }
};

class OutgoingQueue {
 public:
  bool empty() const { return size_ == 0; }
  uint32_t size() const { return size_; }
  QueuedPacket& at(uint32_t index) {
    return places_[(first_ + index) % places_.size()];
  }
  const QueuedPacket& at(uint32_t index) const {
    return places_[(first_ + index) % places_.size()];
  }
  const QueuedPacket& front() const { return at(0); }

  // From now on `count` packets of up to `bytes` each are taken without an
  // allocation.
  void Reserve(uint32_t count, uint32_t bytes) {
    if (count > places_.size()) Grow(count);
    for (QueuedPacket& place : places_) place.bytes.reserve(bytes);
    reserved_ = count > reserved_ ? count : reserved_;
  }

  // A copy at the end; the result may be filled further.
  QueuedPacket& Push(const ringbuffer::PacketHeader& header,
                     absl::Span<const std::byte> extension,
                     absl::Span<const std::byte> payload) {
    if (size_ == places_.size()) Grow(size_ == 0 ? 8 : 2 * size_);
    QueuedPacket& packet = at(size_++);
    packet.header = header;
    packet.extension_bytes = static_cast<uint32_t>(extension.size());
    packet.bytes.assign(extension.begin(), extension.end());
    packet.bytes.insert(packet.bytes.end(), payload.begin(), payload.end());
    packet.tag = 0;
    packet.wants_sent = false;
    packet.reply = nullptr;
    return packet;
  }

  void PopFront() {
    first_ = (first_ + 1) % static_cast<uint32_t>(places_.size());
    --size_;
  }

  void Remove(uint32_t index) {
    for (; index + 1 < size_; ++index) std::swap(at(index), at(index + 1));
    --size_;
  }

  // Gives back the memory of a long queue.
  void Clear() {
    first_ = size_ = 0;
    if (places_.size() > reserved_) places_.resize(reserved_);
  }

 private:
  void Grow(uint32_t count) {
    std::vector<QueuedPacket> places(count);
    for (uint32_t i = 0; i < size_; ++i) places[i] = std::move(at(i));
    places_ = std::move(places);
    first_ = 0;
  }

  std::vector<QueuedPacket> places_;
  uint32_t first_ = 0;
  uint32_t size_ = 0;
  uint32_t reserved_ = 0;
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_OUTGOING_QUEUE_H_
