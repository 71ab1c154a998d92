// SPDX-License-Identifier: MIT
//
// The producer against a peer that changes the control page between any two
// fetches.  Each call's outcome, and each packet's bytes, are compared with
// the model (testing/checked_ring.h).
//
// Input:
//   @0 u8   data pages - 1 (two bits)
//   @1 u16  write_index / 4, @3 u16 read_index / 4
//   @5      the peer's script, with a length byte before it
//   then    calls, a byte each, some with operands

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "ferrybus/ringbuffer/testing/checked_ring.h"
#include "ferrybus/ringbuffer/testing/fuzz_input.h"
#include "ferrybus/ringbuffer/testing/mutating_access.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"
#include "ferrybus/ringbuffer/wire.h"

namespace {

using ferrybus::ringbuffer::kReadIndexOffset;
using ferrybus::ringbuffer::kWriteIndexOffset;
using ferrybus::ringbuffer::testing::CheckedProducer;
using ferrybus::ringbuffer::testing::FuzzInput;
using ferrybus::ringbuffer::testing::ModelPacket;
using ferrybus::ringbuffer::testing::Pattern;
using ferrybus::ringbuffer::testing::ReusedRing;
using ferrybus::ringbuffer::testing::RingMutator;
using ferrybus::ringbuffer::testing::TakeBlock;
using ferrybus::ringbuffer::testing::TakeByte;
using ferrybus::ringbuffer::testing::TakeIndex;
using ferrybus::ringbuffer::testing::TestRing;

// One packet, its parts chosen by two bytes.
ModelPacket TakePacket(uint8_t call, FuzzInput* input) {
  const uint8_t shape = TakeByte(input);
  ModelPacket packet;
  packet.type = shape % 2 == 0 ? 6 : 9;
  packet.flags = shape / 2 % 2;
  packet.transaction_id = shape;
  packet.extension = Pattern(shape % 2 * (8 + shape / 4 % 8 * 8), shape);
  packet.payload = Pattern(size_t{call} * (shape < 8 ? 20 : 1), call);
  return packet;
}

void Run(FuzzInput input, TestRing* ring, CheckedProducer* producer) {
  while (!input.empty() && producer->error().empty()) {
    const uint8_t call = TakeByte(&input);
    switch (call % 8) {
      case 0:
        producer->Publish();
        break;
      case 1:
        if (!producer->has_unpublished()) {
          producer->Arm(TakeIndex(&input));
        }
        break;
      case 2:
        // The peer reads everything.
        ring->set_word(kReadIndexOffset, ring->word(kWriteIndexOffset));
        break;
      case 3: {
        std::vector<ModelPacket> batch(call / 8 % 8);
        for (ModelPacket& packet : batch) packet = TakePacket(call, &input);
        producer->WriteBatch(batch, {.packets = TakeByte(&input)});
        break;
      }
      default:
        producer->Write(TakePacket(call, &input));
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  FuzzInput input(data, size_bytes);
  TestRing* const ring = ReusedRing(1 + TakeByte(&input) % 4);
  const uint32_t write_index = TakeIndex(&input);
  const uint32_t read_index = TakeIndex(&input);
  ring->ZeroControlPage();
  ring->SetIndices(write_index, read_index);
  const FuzzInput script = TakeBlock(&input);
  RingMutator mutator(ring->view(), script);
  mutator.set_changes_data(false);
  CheckedProducer producer(ring, &mutator);
  Run(input.subspan(0, 4096), ring, &producer);
  if (!producer.error().empty()) {
    std::fprintf(stderr, "ring_out_fuzz: %s\n", producer.error().c_str());
    std::abort();
  }
  return 0;
}
