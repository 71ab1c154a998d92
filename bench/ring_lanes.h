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

struct RingUse {
  ringbuffer::BatchBound batch;
  // Also publish at once what finds an idle reader.
  bool adaptive = false;
  uint32_t reader_pause = 0;  // pauses between two looks at an empty ring
  uint32_t data_bytes = 1 << 20;
};

template <class Access, uint32_t kBytes>
class RingLane final : public Lane {
 public:
  explicit RingLane(const RingUse& use)
      : use_(use), ring_(use.data_bytes), messages_(kBytes) {}

  void Produce(uint64_t packets) override {
    Producer producer(ring_.view());
    Batch batch;
    for (uint64_t i = 0; i < packets;) {
      const ringbuffer::WriteResult result =
          producer.Write({ringbuffer::PacketType::kDataInBand, 0, i}, {},
                         {messages_[i], kBytes});
      if (result == ringbuffer::WriteResult::kOk) [[likely]] {
        ++i;
        if (use_.adaptive) {
          Use(producer.PublishIfDue(use_.batch));
          continue;
        }
        if (!batch.Add(use_.batch)) continue;
      } else {
        Pause();
      }
      Use(producer.Publish());
      batch = Batch();
    }
    Use(producer.Publish());
  }

  void Consume(uint64_t packets) override {
    Consumer consumer(ring_.view(), use_.data_bytes);
    typename Consumer::PacketView packet;
    Reader reader(kBytes);
    Batch batch;
    for (uint64_t i = 0; i < packets;) {
      const ringbuffer::ReadResult result = consumer.Next(&packet);
      if (result == ringbuffer::ReadResult::kOk) [[likely]] {
        const auto& payload = packet.payload;
        reader.Read(payload.size(),
                    [&payload](uint32_t at) { return payload.Load64(at); });
        ++i;
        if (!batch.Add(use_.batch)) continue;
      } else {
        if (result == ringbuffer::ReadResult::kCorrupt) std::abort();
        for (uint32_t n = 0; n < use_.reader_pause; ++n) Pause();
      }
      Use(consumer.Release());
      batch = Batch();
    }
    Use(consumer.Release());
  }

 private:
  using Producer = ringbuffer::BasicRingProducer<Access>;
  using Consumer = ringbuffer::BasicRingConsumer<Access>;

  // What was staged, or taken, since the last publication.
  struct Batch {
    uint32_t bytes = 0;
    uint32_t packets = 0;

    // True: the batch is full.
    bool Add(const ringbuffer::BatchBound& bound) {
      bytes += kBytes + ringbuffer::kMinPacketBytes;
      return bytes >= bound.bytes || ++packets >= bound.packets;
    }
  };

  // The signal decision is made; there is nobody to be signalled.
  static void Use(bool signal) { asm volatile("" ::"r"(signal)); }

  const RingUse use_;
  const MemfdRing ring_;
  const Messages messages_;
};

}  // namespace ferrybus::bench

#endif  // FERRYBUS_BENCH_RING_LANES_H_
