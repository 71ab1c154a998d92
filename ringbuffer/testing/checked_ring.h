// SPDX-License-Identifier: MIT
//
// A consumer and a producer that check themselves against a peer which changes
// memory between any two fetches.
//
// What it is: the real BasicRingConsumer or BasicRingProducer under
// MutatingAccess<CountingAccess>.  After each call the outcome is computed a
// second time, naively, from the values that the recorder saw go by.  If both
// agree, what the code did is what it would have done on one snapshot of the
// memory that never changed.  Random tests and fuzzers drive it.
//
// Ownership: borrows the ring and the mutator.
// Thread safety: one thread at a time.

#ifndef FERRYBUS_RINGBUFFER_TESTING_CHECKED_RING_H_
#define FERRYBUS_RINGBUFFER_TESTING_CHECKED_RING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/testing/counting_access.h"
#include "ferrybus/ringbuffer/testing/model_ring.h"
#include "ferrybus/ringbuffer/testing/mutating_access.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"

namespace ferrybus::ringbuffer::testing {

using HostileAccess = MutatingAccess<CountingAccess>;

class CheckedConsumer {
 public:
  CheckedConsumer(TestRing* ring, RingMutator* mutator,
                  uint32_t max_packet_bytes);

  // Each returns false when the ring is corrupt or error() is set.
  bool Next();
  bool TakeBatch(const BatchBound& bound);
  bool Release();
  bool Rollback();
  bool Unmask();

  // The first disagreement, or "".
  const std::string& error() const { return error_; }
  bool corrupt() const { return consumer_.fault() != RingFault::kNone; }
  uint64_t packets() const { return packets_; }
  // How often the peer was to be signalled.
  uint64_t signals() const { return signals_; }

 private:
  // Whether the write index that the last call loaded, if it did, is one that
  // an honest peer can have; takes it over.
  bool TakeWriteIndex();
  uint64_t Distance(uint64_t from, uint64_t to) const;
  bool Check(bool good, const char* what);
  bool Finish();
  // Whether what Next() or TakeBatch() ended with is right.
  bool CheckEnd(ReadResult result);
  bool NextIsPacket(const BasicPacketView<HostileAccess>& view);

  TestRing* const ring_;
  const uint32_t max_packet_bytes_;
  FetchRecorder recorder_;
  BasicRingConsumer<HostileAccess> consumer_;
  size_t write_loads_ = 0;
  uint64_t read_ = 0;
  uint64_t published_ = 0;
  uint64_t write_ = 0;
  uint64_t packets_ = 0;
  uint64_t signals_ = 0;
  std::string error_;
};

class CheckedProducer {
 public:
  CheckedProducer(TestRing* ring, RingMutator* mutator);

  // Each returns false when the ring is corrupt or error() is set.
  bool Write(const ModelPacket& packet);
  bool WriteBatch(const std::vector<ModelPacket>& packets,
                  const BatchBound& bound);
  bool Publish();
  // Only when nothing is staged.
  bool Arm(uint64_t ring_bytes);

  const std::string& error() const { return error_; }
  bool corrupt() const { return producer_.fault() != RingFault::kNone; }
  bool has_unpublished() const { return producer_.has_unpublished(); }
  uint64_t packets() const { return packets_; }
  // How often the peer was to be signalled.
  uint64_t signals() const { return signals_; }

 private:
  bool TakeReadIndex();
  uint64_t Distance(uint64_t from, uint64_t to) const;
  uint64_t Free() const;
  bool Check(bool good, const char* what);
  bool Finish();
  WriteResult ExpectedResult(uint64_t ring_bytes);

  TestRing* const ring_;
  FetchRecorder recorder_;
  BasicRingProducer<HostileAccess> producer_;
  size_t read_loads_ = 0;
  uint64_t write_ = 0;
  uint64_t published_ = 0;
  uint64_t read_ = 0;
  uint64_t packets_ = 0;
  uint64_t signals_ = 0;
  std::string error_;
};

}  // namespace ferrybus::ringbuffer::testing

#endif  // FERRYBUS_RINGBUFFER_TESTING_CHECKED_RING_H_
