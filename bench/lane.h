// SPDX-License-Identifier: MIT
//
// A lane: one way to bring messages from one thread to another, measured.
//
// All lanes do the same work.  The producer copies each message out of private
// memory to where the lane wants it; the consumer reads one word of every
// cache line of it, where it lies or in the copy that the lane makes.  The
// first word of a message says which one it is, so that a lane that loses,
// doubles or reorders stops the program.

#ifndef FERRYBUS_BENCH_LANE_H_
#define FERRYBUS_BENCH_LANE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace ferrybus::bench {

class Lane {
 public:
  virtual ~Lane() = default;

  // Each sends, or takes, `packets` messages.  On two threads at once.
  virtual void Produce(uint64_t packets) = 0;
  virtual void Consume(uint64_t packets) = 0;
};

// Instead of a length: lengths of 8 to 1,504 bytes, as a network has them.
inline constexpr uint32_t kMixed = 0;

// Some messages to be sent in turn, few enough to stay in the sender's cache.
// Sixteen: a stamp stored just before it is copied would cost a stall that no
// real sender has.
class Messages {
 public:
  explicit Messages(uint32_t length)
      : mask_(length == kMixed ? 63
              : length <= 1024 ? 15
                               : 1) {
    for (uint64_t i = 0; i <= mask_; ++i) {
      messages_[i] = {data_.size(), length == kMixed ? MixedLength(i) : length};
      data_.resize(data_.size() + messages_[i].length);
      std::memcpy(&data_[messages_[i].at], &i, sizeof(i));
    }
  }

  const std::byte* operator[](uint64_t i) const {
    return data_.data() + messages_[i & mask_].at;
  }
  uint32_t length(uint64_t i) const { return messages_[i & mask_].length; }
  uint64_t stamp(uint64_t i) const { return i & mask_; }

 private:
  struct Message {
    size_t at = 0;
    uint32_t length = 0;
  };

  // Multiples of 8, 377 on average: half of 8 to 128 bytes, a quarter to 512,
  // a quarter to 1,504, in no order that a processor could learn quickly.
  static uint32_t MixedLength(uint64_t i) {
    const uint64_t random = (i + 1) * 0x9e3779b97f4a7c15ull >> 32;
    const uint32_t most = i % 4 < 2 ? 16 : i % 4 == 2 ? 64 : 188;
    const uint32_t least = i % 4 < 2 ? 1 : i % 4 == 2 ? 17 : 65;
    return 8 * static_cast<uint32_t>(least + random % (most - least + 1));
  }

  uint64_t mask_;
  std::array<Message, 64> messages_;
  std::vector<std::byte> data_;
};

// What the consumer does with each message.
class Reader {
 public:
  explicit Reader(uint32_t length) : messages_(length) {}
  ~Reader() {
    if (wrong_ != 0) {
      std::fputs("a lane lost, doubled or reordered a message\n", stderr);
      std::abort();
    }
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // `load(offset)` returns the word there.
  template <typename Load>
  inline __attribute__((always_inline)) void Read(uint32_t bytes, Load load) {
    wrong_ |= load(0) ^ messages_.stamp(next_);
    wrong_ |= bytes ^ messages_.length(next_);
    ++next_;
    for (uint32_t at = 64; at < bytes; at += 64) sum_ += load(at);
    asm volatile("" ::"r"(sum_));
  }
  inline __attribute__((always_inline)) void Read(const void* message,
                                                  uint32_t bytes) {
    Read(bytes, [message](uint32_t at) {
      uint64_t word;
      std::memcpy(&word, static_cast<const std::byte*>(message) + at,
                  sizeof(word));
      return word;
    });
  }

 private:
  const Messages messages_;
  uint64_t next_ = 0;
  uint64_t wrong_ = 0;
  uint64_t sum_ = 0;
};

// What a program that waits does between two looks.
inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace ferrybus::bench

#endif  // FERRYBUS_BENCH_LANE_H_
