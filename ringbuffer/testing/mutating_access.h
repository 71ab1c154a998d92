// SPDX-License-Identifier: MIT
//
// An access policy with a hostile peer inside: before every fetch it may
// change any shared byte, most often those that were just fetched or are
// about to be.
//
// What it is: RingMutator decides what to change, from a seed or from a
// fuzzer's bytes; MutatingAccess<Inner> calls it before each load and each 8
// copied bytes, then lets Inner do the access.  With CountingAccess inside,
// the recorder also holds exactly what the code under test has seen.
//
// Ownership: the mutator outlives every handle that points to it.
// Thread safety: one thread at a time: the interleavings are chosen, not left
// to the machine.

#ifndef FERRYBUS_RINGBUFFER_TESTING_MUTATING_ACCESS_H_
#define FERRYBUS_RINGBUFFER_TESTING_MUTATING_ACCESS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "ferrybus/ringbuffer/memory_access.h"
#include "ferrybus/ringbuffer/ring_view.h"

namespace ferrybus::ringbuffer::testing {

class RingMutator {
 public:
  // An endless stream of changes from `seed`.
  RingMutator(const RingView& view, uint64_t seed);
  // Changes as `script` says (see Mutate); none once it is used up.
  RingMutator(const RingView& view, absl::Span<const uint8_t> script);

  // Which parts the peer attacks; all at first.
  void set_changes_control(bool on) { changes_control_ = on; }
  void set_changes_data(bool on) { changes_data_ = on; }

  // The moment before `shared` is fetched.
  void BeforeFetch(const void* shared);

  uint64_t changes() const { return changes_; }

 private:
  uint8_t NextByte();
  void ChangeData(const std::byte* near);
  void ChangeControl();

  const RingView view_;
  const bool scripted_;
  absl::Span<const uint8_t> script_;
  uint64_t state_;
  bool changes_control_ = true;
  bool changes_data_ = true;
  uint64_t changes_ = 0;
};

template <class Inner = ProductionAccess>
class MutatingAccess {
 public:
  MutatingAccess() = default;
  explicit MutatingAccess(RingMutator* mutator, Inner inner = Inner())
      : mutator_(mutator), inner_(inner) {}

  uint32_t LoadRelaxed(const uint32_t* word) const {
    mutator_->BeforeFetch(word);
    return inner_.LoadRelaxed(word);
  }
  uint32_t LoadAcquire(const uint32_t* word) const {
    mutator_->BeforeFetch(word);
    return inner_.LoadAcquire(word);
  }
  void StoreRelaxed(uint32_t* word, uint32_t value) const {
    inner_.StoreRelaxed(word, value);
  }
  void StoreRelease(uint32_t* word, uint32_t value) const {
    inner_.StoreRelease(word, value);
  }
  static constexpr bool kInPlace = true;
  void SleepFence() const { FullFence(); }
  void FullFence() const { inner_.FullFence(); }
  void CopyFrom(void* to, const std::byte* shared, size_t bytes) const {
    // In pieces, so that the peer strikes in the middle of a copy as well.
    for (size_t at = 0; at < bytes; at += 8) {
      mutator_->BeforeFetch(shared + at);
      inner_.CopyFrom(static_cast<std::byte*>(to) + at, shared + at,
                      std::min<size_t>(8, bytes - at));
    }
  }
  void CopyTo(std::byte* shared, const void* from, size_t bytes) const {
    inner_.CopyTo(shared, from, bytes);
  }
  void PrefetchForRead(const std::byte* shared) const {
    inner_.PrefetchForRead(shared);
  }
  void PrefetchForWrite(const std::byte* shared) const {
    inner_.PrefetchForWrite(shared);
  }

 private:
  RingMutator* mutator_ = nullptr;
  Inner inner_;
};

}  // namespace ferrybus::ringbuffer::testing

#endif  // FERRYBUS_RINGBUFFER_TESTING_MUTATING_ACCESS_H_
