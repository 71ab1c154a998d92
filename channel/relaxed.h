// SPDX-License-Identifier: MIT
//
// A number or flag that one thread at a time writes and any thread may read:
// whole, but in no order with other memory.
//
// Cost: a plain load or store.

#ifndef FERRYBUS_CHANNEL_RELAXED_H_
#define FERRYBUS_CHANNEL_RELAXED_H_

#include <atomic>

namespace ferrybus {

template <typename T>
class Relaxed {
 public:
  explicit Relaxed(T value) : value_(value) {}
  // [L1] relaxed: who needs an order has a lock beside it.
  T get() const { return value_.load(std::memory_order_relaxed); }
  // [L1] relaxed: as above.
  void set(T value) { value_.store(value, std::memory_order_relaxed); }
  // The writer's.
  void add(T more) { set(get() + more); }

 private:
  std::atomic<T> value_;
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_RELAXED_H_
