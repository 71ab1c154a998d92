// SPDX-License-Identifier: MIT

#include "ferrybus/ringbuffer/testing/allocation_count.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<bool> is_counting{true};
std::atomic<uint64_t> allocations{0};
// Below 0 when uncounted memory was freed.
std::atomic<int64_t> bytes_in_use{0};
std::atomic<int64_t> bytes_peak{0};

void* Count(void* memory) {
  if (memory == nullptr) std::abort();
  if (!is_counting.load(std::memory_order_relaxed)) return memory;
  ++allocations;
  const int64_t in_use = bytes_in_use += malloc_usable_size(memory);
  int64_t peak = bytes_peak;
  while (in_use > peak && !bytes_peak.compare_exchange_weak(peak, in_use)) {
  }
  return memory;
}

void Free(void* memory) {
  if (memory == nullptr) return;
  if (!is_counting.load(std::memory_order_relaxed)) return std::free(memory);
  bytes_in_use -= malloc_usable_size(memory);
  std::free(memory);
}

}  // namespace

void* operator new(size_t bytes) { return Count(std::malloc(bytes)); }
void* operator new(size_t bytes, std::align_val_t align) {
  const size_t unit = static_cast<size_t>(align);
  return Count(std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit));
}
void operator delete(void* memory) noexcept { Free(memory); }
void operator delete(void* memory, size_t) noexcept { Free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { Free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  Free(memory);
}

namespace ferrybus::ringbuffer::testing {

void SetCounting(bool on) { is_counting = on; }
uint64_t AllocationCount() { return allocations; }
int64_t AllocatedBytes() { return bytes_in_use; }
int64_t AllocatedBytesPeak() { return bytes_peak; }
void ResetPeak() { bytes_peak = bytes_in_use.load(); }

}  // namespace ferrybus::ringbuffer::testing
