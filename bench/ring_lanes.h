// SPDX-License-Identifier: MIT
//
// Our ring as a lane, with the ways to use it.

#ifndef FERRYBUS_BENCH_RING_LANES_H_
#define FERRYBUS_BENCH_RING_LANES_H_

#include <cstdint>
#include <memory>

#include "ferrybus/bench/lane.h"
#include "ferrybus/ringbuffer/memory_access.h"
#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_mapping.h"
#include "ferrybus/ringbuffer/ring_producer.h"

namespace ferrybus::bench {

// A ring in a memfd of its own, every page present.
class MemfdRing {
 public:
  explicit MemfdRing(uint32_t data_bytes);
  ringbuffer::RingView view() const { return mapping_.view(); }

 private:
  ringbuffer::RingMapping mapping_;
};

// The publishing side's semantics of most queues: a release store, no fence,
// and nobody is ever signalled.
class NoFenceAccess : public ringbuffer::ProductionAccess {
 public:
  void FullFence() const { asm volatile("" ::: "memory"); }
};

// Without one of the tricks, to show what it buys.
class NoPrefetchAccess : public ringbuffer::ProductionAccess {
 public:
  void PrefetchForRead(const std::byte*) const {}
  void PrefetchForWrite(const std::byte*) const {}
};

class LibcCopyAccess : public ringbuffer::ProductionAccess {
 public:
  void CopyTo(std::byte* shared, const void* from, size_t bytes) const {
    std::memcpy(shared, from, bytes);
  }
};

inline constexpr uint32_t kIdleLooks = 256;

struct RingUse {
  ringbuffer::BatchBound batch;  // of the producer
  // Also publish at once what finds an idle reader.
  bool adaptive = false;
  // Of the consumer, which also releases what it has taken when it has found
  // the ring empty kIdleLooks times.
  ringbuffer::BatchBound release = {.bytes = 16384};
  uint32_t reader_pauses = 1;  // between two looks at an empty ring
  bool masks_signals = true;   // the consumer, which spins
  uint32_t data_bytes = 1 << 20;
};

// `kLength`: of each message, or kMixed.
template <class Access, uint32_t kLength, class ConsumerType>
class BasicRingLane final : public Lane {
 public:
  explicit BasicRingLane(const RingUse& use, Access access = Access())
      : use_(use), access_(access), ring_(use.data_bytes), messages_(kLength) {}

  void Produce(uint64_t packets) override {
    Producer producer(ring_.view(), access_);
    for (uint64_t i = 0; i < packets;) {
      const ringbuffer::BatchResult batch =
          use_.adaptive ? WriteAdaptively(producer, i, packets - i)
                        : WriteBatch(producer, i, packets - i);
      i += batch.packets;
      Use(producer.Publish());
      if (batch.result != ringbuffer::WriteResult::kOk) Pause();
    }
  }

  void Consume(uint64_t packets) override {
    ConsumerType consumer(ring_.view(), use_.data_bytes, access_);
    if (use_.masks_signals) consumer.MaskSignals();
    Reader reader(kLength);
    uint64_t i = 0;
    while (i < packets) {
      const ringbuffer::ReadResult result = consumer.TakeBatch(
          use_.release, [&](const typename ConsumerType::PacketView& packet) {
            const auto& payload = packet.payload;
            reader.Read(payload.size(),
                        [&payload](uint32_t at) { return payload.Load64(at); });
            ++i;
          });
      if (result == ringbuffer::ReadResult::kOk) [[likely]] {
        Use(consumer.ReleaseIfDue(use_.release));
      } else {
        if (result == ringbuffer::ReadResult::kCorrupt) std::abort();
        for (uint32_t n = 0; n < use_.reader_pauses; ++n) Pause();
        Use(consumer.ReleaseIfIdle(kIdleLooks));
      }
    }
    Use(consumer.Release());
  }

 private:
  using Producer = ringbuffer::BasicRingProducer<Access>;

  ringbuffer::OutgoingPacket PacketAt(uint64_t i) const {
    const uint32_t length = kLength == kMixed ? messages_.length(i) : kLength;
    return {{ringbuffer::PacketType::kDataInBand, 0, i},
            {},
            {messages_[i], length}};
  }

  ringbuffer::BatchResult WriteBatch(Producer& producer, uint64_t first,
                                     uint64_t packets) {
    return producer.WriteBatch(
        static_cast<uint32_t>(packets), use_.batch,
        [this, first](uint32_t n) { return PacketAt(first + n); });
  }

  // A few at a time, published at once if the reader is idle.
  ringbuffer::BatchResult WriteAdaptively(Producer& producer, uint64_t first,
                                          uint64_t packets) {
    constexpr ringbuffer::BatchBound kFew = {.bytes = 2048, .packets = 16};
    ringbuffer::BatchResult all;
    while (all.packets < packets) {
      const uint64_t next = first + all.packets;
      const ringbuffer::BatchResult some = producer.WriteBatch(
          static_cast<uint32_t>(packets) - all.packets, kFew,
          [this, next](uint32_t n) { return PacketAt(next + n); });
      all.packets += some.packets;
      Use(producer.PublishIfDue(use_.batch));
      all.result = some.result;
      if (some.result != ringbuffer::WriteResult::kOk) break;
    }
    return all;
  }

  // The signal decision is made; there is nobody to be signalled.
  static void Use(bool signal) { asm volatile("" ::"r"(signal)); }

  const RingUse use_;
  const Access access_;
  const MemfdRing ring_;
  const Messages messages_;
};

template <class Access, uint32_t kLength>
using RingLane =
    BasicRingLane<Access, kLength, ringbuffer::BasicRingConsumer<Access>>;

// The consumer without its checks, for what they cost: it believes the peer's
// index and descriptors, and is otherwise the same.
class TrustingConsumer {
 public:
  using PacketView = ringbuffer::PacketView;

  TrustingConsumer(ringbuffer::RingView ring, uint32_t,
                   ringbuffer::ProductionAccess access)
      : ring_(ring),
        access_(access),
        read_(access_.LoadRelaxed(ring_.word(ringbuffer::kReadIndexOffset))),
        published_(read_),
        write_(read_) {}

  void MaskSignals() {
    access_.StoreRelaxed(ring_.word(ringbuffer::kInterruptMaskOffset), 1);
  }

  template <typename Visit>
  inline __attribute__((always_inline)) ringbuffer::ReadResult TakeBatch(
      const ringbuffer::BatchBound& bound, Visit visit) {
    if (read_ == write_) [[unlikely]] {
      write_ = access_.LoadAcquire(ring_.word(ringbuffer::kWriteIndexOffset));
      if (read_ == write_) return ringbuffer::ReadResult::kEmpty;
    }
    uint32_t read = read_;
    uint32_t bytes = 0;
    uint32_t packets = 0;
    do {
      const std::byte* const start = ring_.data + read;
      access_.PrefetchForRead(start + kPrefetchBytes);
      uint64_t descriptor[2];
      access_.CopyFrom(descriptor, start, sizeof(descriptor));
      if (descriptor[0] != word_) [[unlikely]]
        Decode(descriptor[0]);
      visit(PacketView{type_,
                       completion_requested_,
                       descriptor[1],
                       {start + ringbuffer::kDescriptorBytes,
                        header_bytes_ - ringbuffer::kDescriptorBytes, access_},
                       {start + header_bytes_, payload_bytes_, access_}});
      read = ringbuffer::Advance(read, ring_bytes_, ring_.data_bytes);
      bytes += ring_bytes_;
    } while (read != write_ && bytes < bound.bytes &&
             ++packets < bound.packets);
    read_ = read;
    return ringbuffer::ReadResult::kOk;
  }

  bool Release() {
    if (read_ == published_) return false;
    access_.StoreRelease(ring_.word(ringbuffer::kReadIndexOffset), read_);
    published_ = read_;
    access_.FullFence();
    return access_.LoadAcquire(
               ring_.word(ringbuffer::kPendingSendSizeOffset)) != 0;
  }
  bool ReleaseIfDue(const ringbuffer::BatchBound& bound) {
    return ringbuffer::UsedBytes(read_, published_, ring_.data_bytes) >=
               bound.bytes &&
           Release();
  }
  bool ReleaseIfIdle(uint32_t) { return Release(); }

 private:
  static constexpr uint32_t kPrefetchBytes = 512;

  __attribute__((noinline)) void Decode(uint64_t word) {
    ringbuffer::PacketDescriptor descriptor = {};
    std::memcpy(&descriptor, &word, sizeof(word));
    word_ = word;
    type_ = static_cast<ringbuffer::PacketType>(descriptor.type);
    completion_requested_ = descriptor.flags != 0;
    header_bytes_ = descriptor.offset8 * 8u;
    payload_bytes_ = descriptor.length8 * 8u - header_bytes_;
    ring_bytes_ = descriptor.length8 * 8u + ringbuffer::kTrailerBytes;
  }

  ringbuffer::RingView ring_;
  ringbuffer::ProductionAccess access_;
  uint32_t read_;
  uint32_t published_;
  uint32_t write_;
  uint64_t word_ = 0;
  ringbuffer::PacketType type_{};
  bool completion_requested_ = false;
  uint32_t header_bytes_ = 0;
  uint32_t payload_bytes_ = 0;
  uint32_t ring_bytes_ = 0;
};

template <uint32_t kLength>
using TrustingRingLane =
    BasicRingLane<ringbuffer::ProductionAccess, kLength, TrustingConsumer>;

}  // namespace ferrybus::bench

#endif  // FERRYBUS_BENCH_RING_LANES_H_
