// SPDX-License-Identifier: MIT
//
// Other people's queues as lanes.  Each is used in the way that its
// documentation recommends for one producer and one consumer.

#ifndef FERRYBUS_BENCH_PEER_LANES_H_
#define FERRYBUS_BENCH_PEER_LANES_H_

#include <concurrentqueue/concurrentqueue.h>
#include <fcntl.h>
#include <readerwriterqueue/readerwriterqueue.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/lockfree/spsc_queue.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "ferrybus/bench/lane.h"
#include "ferrybus/ringbuffer/wide_copy.h"

namespace ferrybus::bench {

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

// moodycamel::ConcurrentQueue: for many on each side, here with one of each,
// in bursts, with tokens.
template <size_t kBytes>
class ConcurrentQueueLane final : public Lane {
 public:
  explicit ConcurrentQueueLane(uint32_t data_bytes)
      : messages_(kBytes), queue_(data_bytes / sizeof(Slot)) {}

  void Produce(uint64_t packets) override {
    const moodycamel::ProducerToken token(queue_);
    const auto burst = std::make_unique<Burst>();
    for (uint64_t i = 0; i < packets;) {
      const size_t n = std::min<uint64_t>(kBurst, packets - i);
      for (size_t k = 0; k < n; ++k) {
        ringbuffer::WideCopy((*burst)[k].data(), messages_[i + k], kBytes);
      }
      while (!queue_.try_enqueue_bulk(token, burst->data(), n)) Pause();
      i += n;
    }
  }

  void Consume(uint64_t packets) override {
    moodycamel::ConsumerToken token(queue_);
    Reader reader(kBytes);
    const auto burst = std::make_unique<Burst>();
    for (uint64_t i = 0; i < packets;) {
      const size_t n = queue_.try_dequeue_bulk(token, burst->data(), kBurst);
      for (size_t k = 0; k < n; ++k) reader.Read(&(*burst)[k], kBytes);
      i += n;
    }
  }

 private:
  static constexpr size_t kBurst = 32;
  using Slot = std::array<std::byte, kBytes>;
  using Burst = std::array<Slot, kBurst>;
  const Messages messages_;
  moodycamel::ConcurrentQueue<Slot> queue_;
};

// boost::lockfree::spsc_queue of bytes, each message behind its length: of the
// queues here the one that takes messages of any length.
class BoostBytesLane final : public Lane {
 public:
  BoostBytesLane(uint32_t length, uint32_t data_bytes)
      : length_(length), messages_(length), queue_(data_bytes) {}

  void Produce(uint64_t packets) override {
    for (uint64_t i = 0; i < packets; ++i) {
      const uint32_t length = messages_.length(i);
      while (queue_.write_available() < sizeof(length) + length) Pause();
      queue_.push(reinterpret_cast<const std::byte*>(&length), sizeof(length));
      queue_.push(messages_[i], length);
    }
  }

  void Consume(uint64_t packets) override {
    Reader reader(length_);
    std::array<std::byte, 4096> message;
    for (uint64_t i = 0; i < packets; ++i) {
      uint32_t length;
      Take(reinterpret_cast<std::byte*>(&length), sizeof(length));
      Take(message.data(), length);
      reader.Read(message.data(), length);
    }
  }

 private:
  void Take(std::byte* to, size_t bytes) {
    for (size_t got = 0; got < bytes;) got += queue_.pop(to + got, bytes - got);
  }

  const uint32_t length_;
  const Messages messages_;
  boost::lockfree::spsc_queue<std::byte> queue_;
};

// A pipe or a Unix socket: what people start from.  A system call for each
// message on both sides.
class DescriptorLane final : public Lane {
 public:
  enum class Kind { kPipe, kUnixSocket };

  DescriptorLane(uint32_t length, Kind kind)
      : length_(length), messages_(length) {
    // The socket keeps messages apart, so that they may have any length.
    const int made = kind == Kind::kPipe
                         ? pipe2(ends_, O_CLOEXEC)
                         : socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends_);
    if (made != 0) std::abort();
  }
  ~DescriptorLane() override {
    close(ends_[0]);
    close(ends_[1]);
  }

  void Produce(uint64_t packets) override {
    for (uint64_t i = 0; i < packets; ++i) {
      for (size_t sent = 0; sent < messages_.length(i);) {
        const ssize_t n =
            write(ends_[1], messages_[i] + sent, messages_.length(i) - sent);
        if (n < 0) std::abort();
        sent += static_cast<size_t>(n);
      }
    }
  }

  void Consume(uint64_t packets) override {
    Reader reader(length_);
    std::vector<std::byte> message(65536);
    for (uint64_t i = 0; i < packets; ++i) {
      const uint32_t length = messages_.length(i);
      for (size_t got = 0; got < length;) {
        const ssize_t n = read(ends_[0], message.data() + got, length - got);
        if (n <= 0) std::abort();
        got += static_cast<size_t>(n);
      }
      reader.Read(message.data(), length);
    }
  }

 private:
  const uint32_t length_;
  const Messages messages_;
  int ends_[2] = {};
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
