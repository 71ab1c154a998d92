// SPDX-License-Identifier: MIT
//
// Many of our rings between one pair of threads, each with a little to do.

#ifndef FERRYBUS_BENCH_CHANNELS_LANE_H_
#define FERRYBUS_BENCH_CHANNELS_LANE_H_

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>

#include "ferrybus/bench/lane.h"
#include "ferrybus/bench/ring_lanes.h"
#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_producer.h"

namespace ferrybus::bench {

// Both threads go round the channels; the producer puts up to `per_visit`
// messages into each, and publishes, the consumer takes what it finds.
template <uint32_t kLength>
class ChannelsLane final : public Lane {
 public:
  ChannelsLane(uint32_t channels, uint32_t per_visit, uint32_t data_bytes)
      : per_visit_(per_visit), messages_(kLength) {
    for (uint32_t i = 0; i < channels; ++i) {
      const MemfdRing& ring = rings_.emplace_back(data_bytes);
      producers_.emplace_back(ring.view());
      consumers_.emplace_back(ring.view(), data_bytes);
    }
  }

  void Produce(uint64_t packets) override {
    std::deque<uint64_t> sent(producers_.size());
    for (uint64_t total = 0; total < packets;) {
      for (size_t c = 0; c < producers_.size() && total < packets; ++c) {
        total += Put(producers_[c], &sent[c],
                     std::min<uint64_t>(per_visit_, packets - total));
      }
    }
  }

  void Consume(uint64_t packets) override {
    // Each channel's messages are counted from the first again.
    std::deque<Reader> readers;
    for (size_t c = 0; c < consumers_.size(); ++c) {
      readers.emplace_back(kLength);
    }
    for (uint64_t total = 0; total < packets;) {
      for (size_t c = 0; c < consumers_.size(); ++c) {
        total += Take(consumers_[c], readers[c]);
      }
    }
  }

 private:
  uint64_t Put(ringbuffer::RingProducer& producer, uint64_t* sent,
               uint64_t wanted) {
    uint64_t n = 0;
    while (n < wanted &&
           producer.Write({ringbuffer::PacketType::kDataInBand, 0, *sent}, {},
                          {messages_[*sent], kLength}) ==
               ringbuffer::WriteResult::kOk) {
      ++*sent;
      ++n;
    }
    signals_ += producer.Publish() ? 1 : 0;
    return n;
  }

  uint64_t Take(ringbuffer::RingConsumer& consumer, Reader& reader) {
    ringbuffer::PacketView packet;
    ringbuffer::ReadResult result;
    uint64_t n = 0;
    while ((result = consumer.Next(&packet)) == ringbuffer::ReadResult::kOk) {
      const auto& payload = packet.payload;
      reader.Read(payload.size(),
                  [&payload](uint32_t at) { return payload.Load64(at); });
      ++n;
    }
    if (result == ringbuffer::ReadResult::kCorrupt) std::abort();
    if (n != 0 && consumer.Release()) std::abort();  // nobody asked for that
    return n;
  }

  const uint32_t per_visit_;
  uint64_t signals_ = 0;  // of the producing side
  std::deque<MemfdRing> rings_;
  std::deque<ringbuffer::RingProducer> producers_;
  std::deque<ringbuffer::RingConsumer> consumers_;
  const Messages messages_;
};

}  // namespace ferrybus::bench

#endif  // FERRYBUS_BENCH_CHANNELS_LANE_H_
