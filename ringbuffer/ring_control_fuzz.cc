// SPDX-License-Identifier: MIT
//
// A producer and a consumer at work on one ring, and a peer that overwrites
// any control word, or packet bytes, between any two of their operations.
//
// What must hold, beside what testing/checked_ring.h compares in each call: an
// index that is published is a possible one; an operation changes no control
// word but its own; a fault stays; while nobody else acts, one crossing gives
// at most one signal.
//
// Input:
//   @0 u8   data pages - 1 (two bits)
//   @1 u8   largest packet / 64
//   @2 u16  write_index / 4, @4 u16 read_index / 4
//   then    instructions, a byte each, some with operands (Step)

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "ferrybus/ringbuffer/ring_index.h"
#include "ferrybus/ringbuffer/testing/checked_ring.h"
#include "ferrybus/ringbuffer/testing/fuzz_input.h"
#include "ferrybus/ringbuffer/testing/mutating_access.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "ferrybus/ringbuffer/wire.h"

namespace {

using ferrybus::ringbuffer::IsValidIndex;
using ferrybus::ringbuffer::kFeatureBitsOffset;
using ferrybus::ringbuffer::kInterruptMaskOffset;
using ferrybus::ringbuffer::kPendingSendSizeOffset;
using ferrybus::ringbuffer::kReadIndexOffset;
using ferrybus::ringbuffer::kWriteIndexOffset;
using ferrybus::ringbuffer::testing::Bytes;
using ferrybus::ringbuffer::testing::CheckedConsumer;
using ferrybus::ringbuffer::testing::CheckedProducer;
using ferrybus::ringbuffer::testing::FuzzInput;
using ferrybus::ringbuffer::testing::ModelPacket;
using ferrybus::ringbuffer::testing::Pattern;
using ferrybus::ringbuffer::testing::ReusedRing;
using ferrybus::ringbuffer::testing::RingMutator;
using ferrybus::ringbuffer::testing::TakeByte;
using ferrybus::ringbuffer::testing::TakeIndex;
using ferrybus::ringbuffer::testing::TakeShort;
using ferrybus::ringbuffer::testing::TestRing;

constexpr size_t kMaxInputBytes = 4096;
constexpr uint32_t kControlWords = 32;

void Require(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "ring_control_fuzz: %s\n", what);
  std::abort();
}

class Machine {
 public:
  Machine(TestRing* ring, uint32_t max_packet_bytes)
      : ring_(ring),
        max_packet_bytes_(max_packet_bytes),
        quiet_(ring->view(), FuzzInput()) {
    AttachProducer();
    AttachConsumer();
  }

  // One instruction.  A third of them are the peer's.
  void Step(FuzzInput* input) {
    const uint8_t code = TakeByte(input);
    switch (code % 16) {
      case 0:
      case 1:
      case 2:
        StormWord(input);
        break;
      case 3:
      case 4:
        StormData(input);
        break;
      case 5:
        AttachProducer();
        break;
      case 6:
        AttachConsumer();
        break;
      case 7:
      case 8:
        ProducerStep([&] { producer_->Write(TakePacket(input)); });
        break;
      case 9:
        ProducerStep([&] { producer_->Publish(); });
        break;
      case 10:
        if (producer_->has_unpublished()) break;
        ProducerStep([&] { producer_->Arm(TakeShort(input)); });
        break;
      case 11:
        ConsumerStep([&] { consumer_->Release(); });
        break;
      case 12:
        ConsumerStep([&] { consumer_->Unmask(); });
        break;
      case 13:
        ConsumerStep([&] { consumer_->Rollback(); });
        break;
      case 14:
        ConsumerStep([&] { consumer_->TakeBatch({.packets = 3}); });
        break;
      default:
        ConsumerStep([&] { consumer_->Next(); });
    }
  }

 private:
  // The peer stores a value into any of the first 32 words.
  void StormWord(FuzzInput* input) {
    const uint8_t where = TakeByte(input);
    static constexpr uint32_t kUsed[] = {
        kWriteIndexOffset, kReadIndexOffset, kInterruptMaskOffset,
        kPendingSendSizeOffset, kFeatureBitsOffset};
    // Half of the time one that is looked at.
    const uint32_t offset =
        where < 128 ? where % kControlWords * 4 : kUsed[where % 5];
    ring_->set_word(offset, TakeValue(input));
    producer_crossings_ = consumer_crossings_ = 0;
  }

  uint32_t TakeValue(FuzzInput* input) {
    const uint32_t size = ring_->data_bytes();
    switch (TakeByte(input) % 8) {
      case 0:
        return 0;
      case 1:
        return TakeByte(input) * 8u;
      case 2:
        return TakeIndex(input) * 2 % size;
      case 3:
        return TakeShort(input);
      case 4:
        return size - 8 + TakeByte(input) % 17;  // around the end
      case 5:
        return ~uint32_t{TakeByte(input)};
      case 6:
        return ring_->word(kWriteIndexOffset);
      default:
        return ring_->word(kReadIndexOffset);
    }
  }

  void StormData(FuzzInput* input) {
    // Most often where the consumer is about to read.
    const uint32_t at = ring_->word(kReadIndexOffset) + TakeByte(input);
    const std::byte value{TakeByte(input)};
    ring_->Write(at, {value});
  }

  static ModelPacket TakePacket(FuzzInput* input) {
    const uint8_t shape = TakeByte(input);
    const uint32_t payload_bytes = TakeByte(input) * (shape < 16 ? 20u : 1u);
    ModelPacket packet;
    packet.type = shape % 2 == 0 ? 6 : 9;
    packet.flags = shape / 2 % 2;
    packet.transaction_id = shape;
    packet.extension = Pattern(shape % 2 * (8 + shape / 4 % 8 * 8), shape);
    packet.payload = Pattern(payload_bytes, shape);
    return packet;
  }

  void AttachProducer() {
    producer_ = std::make_unique<CheckedProducer>(ring_, &quiet_);
    producer_crossings_ = consumer_crossings_ = 0;
    Require(producer_->error().empty(), producer_->error().c_str());
  }
  void AttachConsumer() {
    consumer_ =
        std::make_unique<CheckedConsumer>(ring_, &quiet_, max_packet_bytes_);
    producer_crossings_ = 0;
    Require(consumer_->error().empty(), consumer_->error().c_str());
  }

  template <class Call>
  void ProducerStep(Call call) {
    const Bytes before = ring_->ControlPage();
    const uint64_t signals = producer_->signals();
    const bool was_corrupt = producer_->corrupt();
    call();
    Require(producer_->error().empty(), producer_->error().c_str());
    Require(producer_->corrupt() || !was_corrupt, "a fault went away");
    if (ChangedOwn(before, kWriteIndexOffset, kPendingSendSizeOffset)) {
      consumer_crossings_ = 0;
    }
    producer_crossings_ += producer_->signals() - signals;
    Require(producer_crossings_ <= 1, "two signals for one empty ring");
  }

  template <class Call>
  void ConsumerStep(Call call) {
    const Bytes before = ring_->ControlPage();
    const uint64_t signals = consumer_->signals();
    const bool was_corrupt = consumer_->corrupt();
    call();
    Require(consumer_->error().empty(), consumer_->error().c_str());
    Require(consumer_->corrupt() || !was_corrupt, "a fault went away");
    if (ChangedOwn(before, kReadIndexOffset, kInterruptMaskOffset)) {
      producer_crossings_ = 0;
    }
    consumer_crossings_ += consumer_->signals() - signals;
    Require(consumer_crossings_ <= 1, "two signals for one crossing");
  }

  // Whether an operation changed the control page, which it may only in the
  // two words of its side, the index to a possible one.
  bool ChangedOwn(const Bytes& before, uint32_t index, uint32_t other) const {
    Bytes after = ring_->ControlPage();
    if (after == before) return false;
    const bool moved =
        !std::equal(&after[index], &after[index] + 4, &before[index]);
    Require(!moved || IsValidIndex(ring_->word(index), ring_->data_bytes()),
            "an impossible index was published");
    std::copy(&before[index], &before[index] + 4, &after[index]);
    std::copy(&before[other], &before[other] + 4, &after[other]);
    Require(after == before, "a foreign word was changed");
    return true;
  }

  TestRing* const ring_;
  const uint32_t max_packet_bytes_;
  RingMutator quiet_;  // within an operation nothing changes
  std::unique_ptr<CheckedProducer> producer_;
  std::unique_ptr<CheckedConsumer> consumer_;
  // Signals since the other side, or the peer, changed what they depend on.
  uint64_t producer_crossings_ = 0;
  uint64_t consumer_crossings_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  FuzzInput input(data,
                  size_bytes < kMaxInputBytes ? size_bytes : kMaxInputBytes);
  TestRing* const ring = ReusedRing(1 + TakeByte(&input) % 4);
  const uint32_t max_packet_bytes = TakeByte(&input) * 64u;
  const uint32_t write_index = TakeIndex(&input);
  const uint32_t read_index = TakeIndex(&input);
  ring->ZeroControlPage();
  ring->FillData(std::byte{0});
  ring->SetIndices(write_index, read_index);
  Machine machine(ring, max_packet_bytes);
  while (!input.empty()) machine.Step(&input);
  return 0;
}
