// SPDX-License-Identifier: MIT
//
// DPDK's rings as lanes: the one of its VMBus driver, which speaks the same
// wire format as ours, and rte_ring in its three forms, in bursts of 32.
// Nothing of DPDK is initialised: these parts need no environment.

#ifndef FERRYBUS_BENCH_DPDK_LANES_H_
#define FERRYBUS_BENCH_DPDK_LANES_H_

#include <rte_ring.h>
#include <rte_ring_elem.h>
#include <rte_ring_peek_zc.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/bench/lane.h"
#include "ferrybus/bench/ring_lanes.h"
#include "ferrybus/ringbuffer/testing/dpdk_channel.h"
#include "ferrybus/ringbuffer/wide_copy.h"

namespace ferrybus::bench {

// Both ends of a ring, used by one thread each.
class DpdkEnds {
 public:
  explicit DpdkEnds(uint32_t data_bytes) : ring_(data_bytes) {
    for (End* const end : {&sender_, &receiver_}) {
      end->channel.outgoing = ringbuffer::testing::AttachDpdkRing(ring_.view());
      end->channel.incoming = end->channel.outgoing;
      end->channel.monitor = &end->monitor;
    }
    // As its drivers do while they poll.
    *ring_.view().word(ringbuffer::kInterruptMaskOffset) = 1;
  }

  // Waits for room.
  void Send(const std::byte* message, uint32_t bytes, uint64_t id) {
    bool signal = false;
    // Its pointers are not const.
    while (rte_vmbus_chan_send(&sender_.channel, VMBUS_CHANPKT_TYPE_INBAND,
                               const_cast<std::byte*>(message), bytes, id, 0,
                               &signal) != 0) {
      Pause();
    }
  }

  // Waits for a message; returns its length.
  uint32_t Receive(absl::Span<std::byte> copy) {
    uint32_t bytes;
    uint64_t id = 0;
    do {
      bytes = static_cast<uint32_t>(copy.size());
    } while (
        rte_vmbus_chan_recv(&receiver_.channel, copy.data(), &bytes, &id) != 0);
    return bytes;
  }

 private:
  // On cache lines of its own.
  struct alignas(128) End {
    vmbus_channel channel = {};
    vmbus_mon_page monitor = {};
  };

  const MemfdRing ring_;
  End sender_;
  End receiver_;
};

// One packet a call, as its network driver sends and receives.
class DpdkVmbusLane final : public Lane {
 public:
  DpdkVmbusLane(uint32_t length, uint32_t data_bytes)
      : length_(length), messages_(length), ends_(data_bytes) {}

  void Produce(uint64_t packets) override {
    for (uint64_t i = 0; i < packets; ++i) {
      ends_.Send(messages_[i], messages_.length(i), i);
    }
  }

  void Consume(uint64_t packets) override {
    Reader reader(length_);
    std::vector<std::byte> copy(65536 + 64);
    for (uint64_t i = 0; i < packets; ++i) {
      reader.Read(copy.data(), ends_.Receive(absl::MakeSpan(copy)));
    }
  }

 private:
  const uint32_t length_;
  const Messages messages_;
  DpdkEnds ends_;
};

// An rte_ring with one producer and one consumer.
class RteRing {
 public:
  // `element_bytes`: a multiple of 4.
  RteRing(uint32_t element_bytes, uint32_t data_bytes) {
    uint32_t count = 1;
    while (count * 2 * element_bytes <= data_bytes) count *= 2;
    const ssize_t bytes = rte_ring_get_memsize_elem(element_bytes, count);
    const size_t whole = (static_cast<size_t>(bytes) + 4095) / 4096 * 4096;
    if (bytes < 0) std::abort();
    void* const memory = std::aligned_alloc(4096, whole);
    std::memset(memory, 0, whole);
    memory_.reset(static_cast<rte_ring*>(memory));
    if (rte_ring_init(memory_.get(), "lane", count,
                      RING_F_SP_ENQ | RING_F_SC_DEQ) != 0) {
      std::abort();
    }
  }
  rte_ring* get() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(rte_ring* ring) const { std::free(ring); }
  };
  std::unique_ptr<rte_ring, Free> memory_;
};

inline constexpr uint32_t kBurst = 32;

// The elements are the messages, filled and read where they lie.
class RteZeroCopyLane final : public Lane {
 public:
  RteZeroCopyLane(uint32_t payload_bytes, uint32_t data_bytes)
      : payload_bytes_(payload_bytes),
        ring_(payload_bytes, data_bytes),
        messages_(payload_bytes) {}

  void Produce(uint64_t packets) override {
    for (uint64_t i = 0; i < packets;) {
      const auto wanted =
          static_cast<uint32_t>(std::min<uint64_t>(kBurst, packets - i));
      rte_ring_zc_data room;
      const uint32_t n = rte_ring_enqueue_zc_burst_elem_start(
          ring_.get(), payload_bytes_, wanted, &room, nullptr);
      ForEach(room, n, [&](std::byte* slot) {
        ringbuffer::WideCopy(slot, messages_[i++], payload_bytes_);
      });
      rte_ring_enqueue_zc_elem_finish(ring_.get(), n);
      if (n == 0) Pause();
    }
  }

  void Consume(uint64_t packets) override {
    Reader reader(payload_bytes_);
    for (uint64_t i = 0; i < packets;) {
      rte_ring_zc_data there;
      const uint32_t n = rte_ring_dequeue_zc_burst_elem_start(
          ring_.get(), payload_bytes_, kBurst, &there, nullptr);
      ForEach(there, n, [&](const std::byte* slot) {
        reader.Read(slot, payload_bytes_);
      });
      rte_ring_dequeue_zc_elem_finish(ring_.get(), n);
      i += n;
    }
  }

 private:
  template <typename Do>
  void ForEach(const rte_ring_zc_data& data, uint32_t n, Do do_one) {
    auto* slot = static_cast<std::byte*>(data.ptr1);
    for (uint32_t k = 0; k < n; ++k, slot += payload_bytes_) {
      if (k == data.n1) slot = static_cast<std::byte*>(data.ptr2);
      do_one(slot);
    }
  }

  const uint32_t payload_bytes_;
  const RteRing ring_;
  const Messages messages_;
};

// The elements are the messages, copied in from a table of 32 and out again.
template <uint32_t kBytes>
class RteElementLane final : public Lane {
 public:
  explicit RteElementLane(uint32_t data_bytes)
      : ring_(kBytes, data_bytes), messages_(kBytes) {}

  void Produce(uint64_t packets) override {
    auto table = std::make_unique<Table>();
    for (uint64_t i = 0; i < packets;) {
      const auto wanted =
          static_cast<uint32_t>(std::min<uint64_t>(kBurst, packets - i));
      for (uint32_t k = 0; k < wanted; ++k) {
        ringbuffer::WideCopy((*table)[k].data(), messages_[i + k], kBytes);
      }
      for (uint32_t sent = 0; sent < wanted;) {
        const uint32_t n = rte_ring_sp_enqueue_burst_elem(
            ring_.get(), (*table)[sent].data(), kBytes, wanted - sent, nullptr);
        sent += n;
        if (n == 0) Pause();
      }
      i += wanted;
    }
  }

  void Consume(uint64_t packets) override {
    Reader reader(kBytes);
    auto table = std::make_unique<Table>();
    for (uint64_t i = 0; i < packets;) {
      const uint32_t n = rte_ring_sc_dequeue_burst_elem(
          ring_.get(), table->data(), kBytes, kBurst, nullptr);
      for (uint32_t k = 0; k < n; ++k) reader.Read((*table)[k].data(), kBytes);
      i += n;
    }
  }

 private:
  using Table = std::array<std::array<std::byte, kBytes>, kBurst>;
  const RteRing ring_;
  const Messages messages_;
};

// The elements are pointers to messages in a pool that goes round.
class RtePointerLane final : public Lane {
 public:
  RtePointerLane(uint32_t payload_bytes, uint32_t data_bytes)
      : payload_bytes_(payload_bytes),
        ring_(kPointerBytes, data_bytes / payload_bytes * kPointerBytes),
        // Those in the ring, and a burst in the hands of each side.
        slots_(rte_ring_get_size(ring_.get()) + 2 * kBurst),
        pool_(size_t{slots_} * payload_bytes),
        messages_(payload_bytes) {}

  void Produce(uint64_t packets) override {
    void* table[kBurst];
    for (uint64_t i = 0; i < packets;) {
      const auto wanted =
          static_cast<uint32_t>(std::min<uint64_t>(kBurst, packets - i));
      for (uint32_t k = 0; k < wanted; ++k) {
        std::byte* const slot = pool_.data() + next_ * payload_bytes_;
        if (++next_ == slots_) next_ = 0;
        ringbuffer::WideCopy(slot, messages_[i + k], payload_bytes_);
        table[k] = slot;
      }
      for (uint32_t sent = 0; sent < wanted;) {
        const uint32_t n = rte_ring_sp_enqueue_burst(ring_.get(), table + sent,
                                                     wanted - sent, nullptr);
        sent += n;
        if (n == 0) Pause();
      }
      i += wanted;
    }
  }

  void Consume(uint64_t packets) override {
    Reader reader(payload_bytes_);
    void* table[kBurst];
    for (uint64_t i = 0; i < packets;) {
      const uint32_t n =
          rte_ring_sc_dequeue_burst(ring_.get(), table, kBurst, nullptr);
      for (uint32_t k = 0; k < n; ++k) reader.Read(table[k], payload_bytes_);
      i += n;
    }
  }

 private:
  static constexpr uint32_t kPointerBytes = sizeof(void*);

  const uint32_t payload_bytes_;
  const RteRing ring_;
  const uint64_t slots_;
  uint64_t next_ = 0;
  std::vector<std::byte> pool_;
  const Messages messages_;
};

}  // namespace ferrybus::bench

#endif  // FERRYBUS_BENCH_DPDK_LANES_H_
