// SPDX-License-Identifier: MIT
//
// Other people's queues as lanes.  Each is used in the way that its
// documentation recommends for one producer and one consumer.

#ifndef FERRYBUS_BENCH_PEER_LANES_H_
#define FERRYBUS_BENCH_PEER_LANES_H_

#include <readerwriterqueue/readerwriterqueue.h>

#include <array>
#include <atomic>
#include <boost/lockfree/spsc_queue.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "ferrybus/bench/lane.h"
#include "ferrybus/ringbuffer/wide_copy.h"

namespace ferrybus::bench {

template <size_t kBytes>
struct alignas(kBytes < 64 ? 8 : 64) Message {
  Message() {}  // not zeroed: it is about to be overwritten
  std::array<std::byte, kBytes> bytes;
};

// boost::lockfree::spsc_queue: slots in private memory, published one by one.
template <size_t kBytes>
class BoostLane final : public Lane {
 public:
  explicit BoostLane(uint32_t data_bytes)
      : messages_(kBytes), queue_(data_bytes / sizeof(Slot)) {}

  void Produce(uint64_t packets) override {
    for (uint64_t i = 0; i < packets;) {
      if (queue_.push(*reinterpret_cast<const Slot*>(messages_[i]))) {
        ++i;
      } else {
        Pause();
      }
    }
  }

  void Consume(uint64_t packets) override {
    Reader reader(kBytes);
    for (uint64_t i = 0; i < packets;) {
      if (queue_.read_available() == 0) continue;
      reader.Read(&queue_.front(), kBytes);
      queue_.pop();
      ++i;
    }
  }

 private:
  using Slot = std::array<std::byte, kBytes>;
  const Messages messages_;
  boost::lockfree::spsc_queue<Slot> queue_;
};

// The same, where the consumer takes all that there is at once.
template <size_t kBytes>
class BoostAllLane final : public Lane {
 public:
  explicit BoostAllLane(uint32_t data_bytes)
      : messages_(kBytes), queue_(data_bytes / sizeof(Slot)) {}

  void Produce(uint64_t packets) override {
    for (uint64_t i = 0; i < packets;) {
      if (queue_.push(*reinterpret_cast<const Slot*>(messages_[i]))) {
        ++i;
      } else {
        Pause();
      }
    }
  }

  void Consume(uint64_t packets) override {
    Reader reader(kBytes);
    for (uint64_t i = 0; i < packets;) {
      i += queue_.consume_all(
          [&](const Slot& slot) { reader.Read(&slot, kBytes); });
    }
  }

 private:
  using Slot = std::array<std::byte, kBytes>;
  const Messages messages_;
  boost::lockfree::spsc_queue<Slot> queue_;
};

// moodycamel::ReaderWriterQueue: blocks of slots, published one by one.
template <size_t kBytes>
class ReaderWriterQueueLane final : public Lane {
 public:
  explicit ReaderWriterQueueLane(uint32_t data_bytes)
      : messages_(kBytes), queue_(data_bytes / sizeof(Slot)) {}

  void Produce(uint64_t packets) override {
    for (uint64_t i = 0; i < packets;) {
      if (queue_.try_enqueue(*reinterpret_cast<const Slot*>(messages_[i]))) {
        ++i;
      } else {
        Pause();
      }
    }
  }

  void Consume(uint64_t packets) override {
    Reader reader(kBytes);
    for (uint64_t i = 0; i < packets;) {
      const Slot* const front = queue_.peek();
      if (front == nullptr) continue;
      reader.Read(front, kBytes);
      queue_.pop();
      ++i;
    }
  }

 private:
  using Slot = std::array<std::byte, kBytes>;
  const Messages messages_;
  moodycamel::ReaderWriterQueue<Slot> queue_;
};

// No queue: chunks of 64 KiB, each with a flag of its own that says full or
// empty.  What the machine allows to a program that promises nothing.
class ChunkFlagLane final : public Lane {
 public:
  ChunkFlagLane(uint32_t payload_bytes, uint32_t data_bytes)
      : payload_bytes_(payload_bytes),
        per_chunk_(kChunkBytes / payload_bytes),
        chunks_(data_bytes / kChunkBytes),
        flags_(chunks_),
        data_(static_cast<std::byte*>(std::aligned_alloc(64, data_bytes))),
        messages_(payload_bytes) {
    std::memset(data_.get(), 0, data_bytes);
  }

  void Produce(uint64_t packets) override {
    size_t chunk = 0;
    for (uint64_t i = 0; i < packets; chunk = (chunk + 1) % chunks_) {
      while (flags_[chunk].full.load(std::memory_order_acquire)) Pause();
      std::byte* at = data_.get() + chunk * kChunkBytes;
      for (uint64_t n = 0; n < per_chunk_; ++n, ++i, at += payload_bytes_) {
        __builtin_prefetch(at + 512, 1);
        ringbuffer::WideCopy(at, messages_[i], payload_bytes_);
      }
      flags_[chunk].full.store(true, std::memory_order_release);
    }
  }

  void Consume(uint64_t packets) override {
    Reader reader(payload_bytes_);
    size_t chunk = 0;
    for (uint64_t i = 0; i < packets; chunk = (chunk + 1) % chunks_) {
      while (!flags_[chunk].full.load(std::memory_order_acquire)) Pause();
      const std::byte* at = data_.get() + chunk * kChunkBytes;
      for (uint64_t n = 0; n < per_chunk_; ++n, ++i, at += payload_bytes_) {
        reader.Read(at, payload_bytes_);
      }
      flags_[chunk].full.store(false, std::memory_order_release);
    }
  }

 private:
  static constexpr uint32_t kChunkBytes = 64 << 10;
  struct alignas(128) Flag {
    std::atomic<bool> full{false};
  };
  struct Free {
    void operator()(std::byte* data) const { std::free(data); }
  };

  const uint32_t payload_bytes_;
  const uint64_t per_chunk_;
  const size_t chunks_;
  std::vector<Flag> flags_;
  std::unique_ptr<std::byte, Free> data_;
  const Messages messages_;
};

}  // namespace ferrybus::bench

#endif  // FERRYBUS_BENCH_PEER_LANES_H_
