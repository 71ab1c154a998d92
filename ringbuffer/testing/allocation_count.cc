// SPDX-License-Identifier: MIT

#include "ferrybus/ringbuffer/testing/allocation_count.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<uint64_t> allocations{0};
std::atomic<uint64_t> bytes_in_use{0};

void* Count(void* memory) {
  if (memory == nullptr) std::abort();
  ++allocations;
  bytes_in_use += malloc_usable_size(memory);
  return memory;
}

void Free(void* memory) {
  if (memory == nullptr) return;
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

uint64_t AllocationCount() { return allocations; }
uint64_t AllocatedBytes() { return bytes_in_use; }

}  // namespace ferrybus::ringbuffer::testing
