// SPDX-License-Identifier: MIT
//
// How ring code touches memory that it shares with a peer.
//
// What it is: every load, store and fence on a shared ring goes through an
// access policy, a class with the functions below.  ProductionAccess turns
// them into the plain machine instructions; the policies in ringbuffer/testing
// count the fetches or change the bytes between two of them.  RingProducer and
// RingConsumer take the policy as a template argument, so production code pays
// nothing for it.
//
// Memory ordering: the names say it.  Control words are 32-bit atomics on
// 4-byte aligned memory; packet bytes are ordinary memory ordered by them.
//
// Trust: the peer may write any shared byte at any time.  CopyFrom is written
// so that the compiler cannot fetch a byte a second time after the call.

#ifndef FERRYBUS_RINGBUFFER_MEMORY_ACCESS_H_
#define FERRYBUS_RINGBUFFER_MEMORY_ACCESS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ferrybus/ringbuffer/wide_copy.h"

namespace ferrybus::ringbuffer {

class ProductionAccess {
 public:
  uint32_t LoadRelaxed(const uint32_t* word) const {
    // [L0] relaxed: a hint that is checked, or ordered by FullFence.
    return __atomic_load_n(word, __ATOMIC_RELAXED);
  }
  uint32_t LoadAcquire(const uint32_t* word) const {
    // [R1] acquire: pairs with [W1], the peer's StoreRelease of its index.
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
  }
  void StoreRelaxed(uint32_t* word, uint32_t value) const {
    // [S0] relaxed: ordered by FullFence where the order matters.
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
  }
  void StoreRelease(uint32_t* word, uint32_t value) const {
    // [W1] release: pairs with [R1], the peer's LoadAcquire of the index.
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
  }

  // Whether ring bytes lie in a row in this address space, so that packets can
  // be filled in place (BasicRingProducer::Reserve).
  static constexpr bool kInPlace = true;

  // The fence of the side that is about to sleep or to wait for room.  Rare,
  // so that a policy may let this side pay for both (see FullFence).
  void SleepFence() const { FullFence(); }
  // Orders earlier stores before later loads: the middle of the two Dekker
  // handshakes (write index / interrupt mask, read index / pending size).
  void FullFence() const {
#if defined(__SANITIZE_THREAD__)
    // The thread sanitizer does not model fences.
    static std::atomic<uint32_t> fence{0};
    // [F1] seq_cst read-modify-write: pairs with [F1] on the peer's side.
    fence.fetch_add(1, std::memory_order_seq_cst);
#elif defined(__x86_64__)
    // [F1] pairs with [F1] on the peer's side.  A locked instruction on our
    // own stack line orders like mfence and takes about half the time.
    asm volatile("lock; addl $0, -4(%%rsp)" ::: "memory", "cc");
#else
    // [F1] pairs with [F1] on the peer's side.
    std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
  }

  // Out of shared memory, into private memory.  Each byte is fetched once: the
  // compiler can neither repeat the loads nor move them behind the call.
  void CopyFrom(void* to, const std::byte* shared, size_t bytes) const {
    if (__builtin_constant_p(bytes) && bytes % 8 == 0 && bytes <= 16) {
      for (size_t at = 0; at < bytes; at += 8) {
        const uint64_t word =
            *reinterpret_cast<const volatile uint64_t*>(shared + at);
        std::memcpy(static_cast<std::byte*>(to) + at, &word, sizeof(word));
      }
      return;
    }
    // The tail of WideCopy may overlap: exact pieces here.
    std::memcpy(to, shared, bytes);
    asm volatile("" ::: "memory");
  }
  // Into shared memory.
  void CopyTo(std::byte* shared, const void* from, size_t bytes) const {
    if (__builtin_constant_p(bytes) && bytes % 8 == 0 && bytes <= 16) {
      // Word by word: the words stay in registers on their way.
      for (size_t at = 0; at < bytes; at += 8) {
        uint64_t word;
        std::memcpy(&word, static_cast<const std::byte*>(from) + at, 8);
        std::memcpy(shared + at, &word, 8);
      }
      return;
    }
    WideCopy(shared, static_cast<const std::byte*>(from), bytes);
  }
  // The line is about to be read: fetch it from the other core already.
  void PrefetchForRead(const std::byte* shared) const {
#if defined(__x86_64__)
    // gcc takes a function that only has the builtin for one without effect,
    // and drops its calls.
    asm volatile("prefetcht0 %0" : : "m"(*shared));
#else
    __builtin_prefetch(shared, 0);
#endif
  }
  // The line is about to be written: take it from the other core already.
  void PrefetchForWrite(const std::byte* shared) const {
#if defined(__x86_64__)
    // Without -mprfchw the compiler's builtin fetches for reading.
    asm volatile("prefetchw %0" : : "m"(*shared));
#else
    __builtin_prefetch(shared, 1);
#endif
  }
};

}  // namespace ferrybus::ringbuffer

#endif  // FERRYBUS_RINGBUFFER_MEMORY_ACCESS_H_
