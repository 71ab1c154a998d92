// SPDX-License-Identifier: MIT
//
// An access policy that proves "one fetch": it remembers every shared byte
// that is touched and reports the first that is touched against the rules.
//
// What it is: FetchRecorder holds the state; CountingAccess is a pointer to
// it, to be given to BasicRingProducer or BasicRingConsumer.  The rules:
//
//   packet bytes    fetched (consumer) or stored (producer) at most once in a
//                   batch; never the other way round.  Publishing the own
//                   index ends a batch.
//   control words   each is fetched at most once in an operation, and only the
//                   peer's words; the own index once, when attaching.  Stored
//                   only by their owner.
//   addresses       inside the control page or the twice mapped data area.
//
// Ownership: the recorder outlives every handle that points to it.
// Thread safety: one thread at a time.
//
//   FetchRecorder recorder(ring.view(), RingRole::kConsumer);
//   BasicRingConsumer<CountingAccess> consumer(ring.view(), 4096, {&recorder});
//   recorder.BeginOperation();
//   consumer.Next(&packet);
//   EXPECT_EQ(recorder.violation(), "");

#ifndef FERRYBUS_RINGBUFFER_TESTING_COUNTING_ACCESS_H_
#define FERRYBUS_RINGBUFFER_TESTING_COUNTING_ACCESS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ferrybus/ringbuffer/memory_access.h"
#include "ferrybus/ringbuffer/ring_view.h"
#include "ferrybus/ringbuffer/wire.h"

namespace ferrybus::ringbuffer::testing {

enum class RingRole { kProducer, kConsumer };

class FetchRecorder {
 public:
  FetchRecorder(const RingView& view, RingRole role);

  // From here each of the peer's control words may be fetched once.  Call it
  // before every call of the producer or consumer.
  void BeginOperation() { loads_in_operation_.clear(); }
  // From here packet bytes may be touched again, as after a rollback.
  void BeginBatch();
  // Another handle attaches: it may load its own index once.
  void BeginAttach();

  // The first broken rule, or "".
  const std::string& violation() const { return violation_; }

  // Since construction, by control word offset.
  uint32_t loads(uint32_t offset) const;
  uint32_t stores(uint32_t offset) const;
  uint32_t fences() const { return fences_; }
  // Packet bytes copied out since construction.
  uint64_t bytes_fetched() const { return bytes_fetched_; }

  // What the batch has seen: the fetched value of a data byte, or the value in
  // `otherwise` if it was not fetched.
  std::byte Seen(uint64_t index, std::byte otherwise) const;
  // The values that the last load of a control word gave, in order.
  const std::vector<uint32_t>& loaded_values(uint32_t offset);

  // For the policy.
  void OnLoad(const uint32_t* word, uint32_t value);
  void OnStore(const uint32_t* word);
  void OnFence() { ++fences_; }
  void OnFetch(const std::byte* shared, const void* copy, size_t bytes);
  void OnWrite(const std::byte* shared, size_t bytes);
  bool InData(const std::byte* shared, size_t bytes);

 private:
  void Violation(const std::string& what);
  // The word's offset, or kPageBytes after a violation.
  uint32_t ControlOffset(const uint32_t* word);
  uint32_t own_index_offset() const;
  bool IsOwnWord(uint32_t offset) const;
  void Touch(const std::byte* shared, size_t bytes, const char* what);

  const RingView view_;
  const RingRole role_;
  bool attaching_ = true;
  std::string violation_;
  std::map<uint32_t, uint32_t> loads_in_operation_;
  std::map<uint32_t, std::vector<uint32_t>> loads_;
  std::map<uint32_t, uint32_t> stores_;
  uint32_t fences_ = 0;
  uint64_t bytes_fetched_ = 0;
  // By data index, in units of the current batch: a byte was touched if its
  // number is batch_.
  std::vector<uint32_t> touched_in_batch_;
  std::vector<std::byte> seen_;
  uint32_t batch_ = 1;
};

class CountingAccess {
 public:
  CountingAccess() = default;
  CountingAccess(FetchRecorder* recorder)  // NOLINT: reads as a conversion
      : recorder_(recorder) {}

  uint32_t LoadRelaxed(const uint32_t* word) const {
    return Loaded(word, memory_.LoadRelaxed(word));
  }
  uint32_t LoadAcquire(const uint32_t* word) const {
    return Loaded(word, memory_.LoadAcquire(word));
  }
  void StoreRelaxed(uint32_t* word, uint32_t value) const {
    recorder_->OnStore(word);
    memory_.StoreRelaxed(word, value);
  }
  void StoreRelease(uint32_t* word, uint32_t value) const {
    recorder_->OnStore(word);
    memory_.StoreRelease(word, value);
  }
  static constexpr bool kInPlace = true;
  void SleepFence() const { FullFence(); }
  void FullFence() const {
    recorder_->OnFence();
    memory_.FullFence();
  }
  void CopyFrom(void* to, const std::byte* shared, size_t bytes) const {
    memory_.CopyFrom(to, shared, bytes);
    recorder_->OnFetch(shared, to, bytes);
  }
  void CopyTo(std::byte* shared, const void* from, size_t bytes) const {
    recorder_->OnWrite(shared, bytes);
    memory_.CopyTo(shared, from, bytes);
  }
  void PrefetchForRead(const std::byte*) const {}
  void PrefetchForWrite(const std::byte*) const {}

 private:
  uint32_t Loaded(const uint32_t* word, uint32_t value) const {
    recorder_->OnLoad(word, value);
    return value;
  }

  FetchRecorder* recorder_ = nullptr;
  ProductionAccess memory_;
};

}  // namespace ferrybus::ringbuffer::testing

#endif  // FERRYBUS_RINGBUFFER_TESTING_COUNTING_ACCESS_H_
