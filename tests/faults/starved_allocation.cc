// SPDX-License-Identifier: MIT

#include "ferrybus/tests/faults/starved_allocation.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace ferrybus::testing {
namespace {

std::atomic<bool> is_starved = false;
thread_local void (*thread_failure)() = nullptr;

// Ends the program where it cannot: nothing here catches an exception.
void* Allocate(size_t size, size_t alignment) {
  if (is_starved) std::abort();
  if (auto* const fail = thread_failure; fail != nullptr) {
    thread_failure = nullptr;
    fail();
  }
  if (size == 0) size = 1;
  void* const memory =
      alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__
          ? std::malloc(size)
          : std::aligned_alloc(alignment, (size + alignment - 1) & -alignment);
  if (memory == nullptr) std::abort();
  return memory;
}

}  // namespace

void StarveAllocation() { is_starved = true; }

void StarveThread(void (*at_failure)()) { thread_failure = at_failure; }

}  // namespace ferrybus::testing

void* operator new(size_t size) { return ferrybus::testing::Allocate(size, 1); }
void* operator new[](size_t size) {
  return ferrybus::testing::Allocate(size, 1);
}
void* operator new(size_t size, std::align_val_t alignment) {
  return ferrybus::testing::Allocate(size, static_cast<size_t>(alignment));
}
void* operator new[](size_t size, std::align_val_t alignment) {
  return ferrybus::testing::Allocate(size, static_cast<size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, size_t, std::align_val_t) noexcept {
  std::free(memory);
}
