// SPDX-License-Identifier: MIT
//
// The time from a message to the answer to it: one message at a time, there
// through one queue and back through another.
//
//   ring_round_trip/<payload bytes>/<lane>
//
// Lanes that spin, and lanes whose sides sleep until they are woken; of those
// a bare eventfd in each direction is the bound.  Each trip is timed alone:
// the counters are percentiles in nanoseconds, one reading of the clock
// included.

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/lockfree/spsc_queue.hpp>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "ferrybus/bench/core_pair.h"
#include "ferrybus/bench/dpdk_lanes.h"
#include "ferrybus/bench/lane.h"
#include "ferrybus/bench/ring_lanes.h"
#include "ferrybus/ringbuffer/memory_access.h"
#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/sleepers.h"
#include "ferrybus/ringbuffer/waiting.h"

namespace ferrybus::bench {
namespace {

constexpr uint32_t kRingBytes = 1 << 20;

// A lane has, for each direction, Send(message) and Receive(reader); both wait
// as long as it takes.

// ---- our ring

// One direction; the reader spins.
template <uint32_t kLength, class Access>
class SpinningRing {
 public:
  SpinningRing() { consumer_.MaskSignals(); }

  void Send(const std::byte* message) {
    while (producer_.Write({ringbuffer::PacketType::kDataInBand, 0, 0}, {},
                           {message, kLength}) !=
           ringbuffer::WriteResult::kOk) {
    }
    signal_ = producer_.Publish();
  }

  void Receive(Reader& reader) {
    typename ringbuffer::BasicRingConsumer<Access>::PacketView packet;
    ringbuffer::ReadResult result;
    while ((result = consumer_.Next(&packet)) ==
           ringbuffer::ReadResult::kEmpty) {
    }
    if (result != ringbuffer::ReadResult::kOk) std::abort();
    const auto& payload = packet.payload;
    reader.Read(payload.size(),
                [&payload](uint32_t at) { return payload.Load64(at); });
    signal_room_ = consumer_.ReleaseIfDue({.bytes = 65536});
  }

 private:
  const MemfdRing ring_{kRingBytes};
  alignas(128) ringbuffer::BasicRingProducer<Access> producer_{ring_.view()};
  bool signal_ = false;
  alignas(128) ringbuffer::BasicRingConsumer<Access> consumer_{ring_.view(),
                                                               kRingBytes};
  bool signal_room_ = false;
};

// An eventfd that ends a sleep.
class Bell {
 public:
  Bell() : fd_(eventfd(0, EFD_CLOEXEC)) {
    if (fd_ < 0) std::abort();
  }
  ~Bell() { close(fd_); }
  Bell(const Bell&) = delete;
  Bell& operator=(const Bell&) = delete;

  int fd() const { return fd_; }
  void Ring() const {
    if (eventfd_write(fd_, 1) != 0) std::abort();
  }
  void Wait() const {
    eventfd_t rings;
    if (eventfd_read(fd_, &rings) != 0) std::abort();
  }

 private:
  const int fd_;
};

// One direction; the reader asks for a signal and sleeps on an eventfd.
template <uint32_t kLength>
class SleepingRing {
 public:
  void Send(const std::byte* message) {
    while (producer_.Write({ringbuffer::PacketType::kDataInBand, 0, 0}, {},
                           {message, kLength}) !=
           ringbuffer::WriteResult::kOk) {
    }
    if (producer_.Publish()) bell_.Ring();
  }

  void Receive(Reader& reader) {
    constexpr ringbuffer::WaitPolicy kAtOnce = {.spins = 0, .sleep = true};
    if (ringbuffer::WaitForPackets(consumer_, kAtOnce, *sleeper_) !=
        ringbuffer::WaitResult::kReady) {
      std::abort();
    }
    ringbuffer::PacketView packet;
    if (consumer_.Next(&packet) != ringbuffer::ReadResult::kOk) std::abort();
    const auto& payload = packet.payload;
    reader.Read(payload.size(),
                [&payload](uint32_t at) { return payload.Load64(at); });
    if (consumer_.Release()) std::abort();  // nobody waits for room
  }

 private:
  const MemfdRing ring_{kRingBytes};
  const Bell bell_;
  std::unique_ptr<ringbuffer::EventFdSleeper> sleeper_ =
      ringbuffer::EventFdSleeper::Create(bell_.fd()).value();
  alignas(128) ringbuffer::RingProducer producer_{ring_.view()};
  alignas(128) ringbuffer::RingConsumer consumer_{ring_.view(), kRingBytes};
};

// ---- others

template <uint32_t kLength>
class BoostQueue {
 public:
  void Send(const std::byte* message) {
    while (!queue_.push(*reinterpret_cast<const Slot*>(message))) {
    }
  }
  void Receive(Reader& reader) {
    while (queue_.read_available() == 0) {
    }
    reader.Read(&queue_.front(), kLength);
    queue_.pop();
  }

 private:
  using Slot = std::array<std::byte, kLength>;
  boost::lockfree::spsc_queue<Slot> queue_{kRingBytes / kLength};
};

template <uint32_t kLength>
class RteZeroCopyQueue {
 public:
  void Send(const std::byte* message) {
    rte_ring_zc_data room;
    while (rte_ring_enqueue_zc_burst_elem_start(ring_.get(), kLength, 1, &room,
                                                nullptr) == 0) {
    }
    ringbuffer::WideCopy(static_cast<std::byte*>(room.ptr1), message, kLength);
    rte_ring_enqueue_zc_elem_finish(ring_.get(), 1);
  }
  void Receive(Reader& reader) {
    rte_ring_zc_data there;
    while (rte_ring_dequeue_zc_burst_elem_start(ring_.get(), kLength, 1, &there,
                                                nullptr) == 0) {
    }
    reader.Read(there.ptr1, kLength);
    rte_ring_dequeue_zc_elem_finish(ring_.get(), 1);
  }

 private:
  const RteRing ring_{kLength, kRingBytes};
};

template <uint32_t kLength>
class DpdkVmbusQueue {
 public:
  void Send(const std::byte* message) { ends_.Send(message, kLength, 0); }
  void Receive(Reader& reader) {
    std::array<std::byte, kLength + 64> copy;
    reader.Read(copy.data(), ends_.Receive(absl::MakeSpan(copy)));
  }

 private:
  DpdkEnds ends_{kRingBytes};
};

// One message and a flag that says full or empty.
template <uint32_t kLength>
class ChunkFlag {
 public:
  void Send(const std::byte* message) {
    while (full_.load(std::memory_order_acquire)) {
    }
    ringbuffer::WideCopy(message_.data(), message, kLength);
    full_.store(true, std::memory_order_release);
  }
  void Receive(Reader& reader) {
    while (!full_.load(std::memory_order_acquire)) {
    }
    reader.Read(message_.data(), kLength);
    full_.store(false, std::memory_order_release);
  }

 private:
  alignas(64) std::atomic<bool> full_{false};
  alignas(64) std::array<std::byte, kLength> message_;
};

// No message: a signal alone.
class BareEventFd {
 public:
  void Send(const std::byte*) { bell_.Ring(); }
  void Receive(Reader&) { bell_.Wait(); }

 private:
  const Bell bell_;
};

// ---- measuring

// Nanoseconds of each trip.
template <class Lane>
void RunTrips(Lane& there, Lane& back, uint32_t length,
              std::vector<uint32_t>* nanoseconds) {
  using Clock = std::chrono::steady_clock;
  const Messages messages(length);
  const size_t trips = nanoseconds->size();
  CorePair::Get().Run(
      [&] {
        Reader reader(length);
        for (size_t i = 0; i < trips; ++i) {
          const Clock::time_point begin = Clock::now();
          there.Send(messages[i]);
          back.Receive(reader);
          (*nanoseconds)[i] =
              static_cast<uint32_t>((Clock::now() - begin).count());
        }
      },
      [&] {
        Reader reader(length);
        for (size_t i = 0; i < trips; ++i) {
          there.Receive(reader);
          back.Send(messages[i]);
        }
      });
}

template <class Lane>
void Register(const std::string& name, uint32_t length, size_t trips) {
  const auto body = [length, trips](benchmark::State& state) {
    const auto there = std::make_unique<Lane>();
    const auto back = std::make_unique<Lane>();
    std::vector<uint32_t> nanoseconds(trips);
    RunTrips(*there, *back, length, &nanoseconds);
    const Calibrated calibrated(state);
    std::vector<uint32_t> all;
    for (auto iteration : state) {
      RunTrips(*there, *back, length, &nanoseconds);
      all.insert(all.end(), nanoseconds.begin(), nanoseconds.end());
    }
    std::sort(all.begin(), all.end());
    const auto percentile = [&all](double p) {
      return all[static_cast<size_t>(p * static_cast<double>(all.size() - 1))];
    };
    state.counters["p50_ns"] = percentile(0.5);
    state.counters["p99_ns"] = percentile(0.99);
    state.counters["p999_ns"] = percentile(0.999);
  };
  benchmark::RegisterBenchmark(
      ("ring_round_trip/" + std::to_string(length) + "/" + name).c_str(), body)
      ->UseRealTime();
}

template <uint32_t kLength>
void RegisterLength() {
  constexpr size_t kSpinning = 20'000;
  constexpr size_t kSleeping = 2'000;
  Register<SpinningRing<kLength, ringbuffer::ProductionAccess>>(
      "ferrybus_spinning", kLength, kSpinning);
  Register<SpinningRing<kLength, NoFenceAccess>>("ferrybus_spinning_no_fence",
                                                 kLength, kSpinning);
  Register<BoostQueue<kLength>>("boost_spsc", kLength, kSpinning);
  Register<RteZeroCopyQueue<kLength>>("rte_ring_zero_copy", kLength, kSpinning);
  Register<DpdkVmbusQueue<kLength>>("dpdk_vmbus", kLength, kSpinning);
  Register<ChunkFlag<kLength>>("bound_chunk_flag", kLength, kSpinning);
  Register<SleepingRing<kLength>>("ferrybus_sleeping", kLength, kSleeping);
  Register<BareEventFd>("bound_eventfd", kLength, kSleeping);
}

}  // namespace
}  // namespace ferrybus::bench

int main(int argc, char** argv) {
  using namespace ferrybus::bench;  // NOLINT
  RegisterLength<64>();
  RegisterLength<1024>();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
