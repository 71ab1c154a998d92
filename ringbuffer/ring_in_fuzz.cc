// SPDX-License-Identifier: MIT
//
// The consumer over arbitrary ring bytes, with a peer that changes them
// between any two fetches.  Each call's outcome is compared with the model
// (testing/checked_ring.h).
//
// Input:
//   @0 u8   data pages - 1 (two bits), whether the peer acts (bit 2)
//   @1 u8   largest packet / 64
//   @2 u16  write_index / 4, @4 u16 read_index / 4
//   @6 u8   what to call: count of calls, then a byte for each; then, with a
//           length byte before each, the peer's script and the ring's bytes
//           from the read index on

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "absl/types/span.h"
#include "ferrybus/ringbuffer/testing/checked_ring.h"
#include "ferrybus/ringbuffer/testing/fuzz_input.h"
#include "ferrybus/ringbuffer/testing/mutating_access.h"
#include "ferrybus/ringbuffer/testing/test_ring.h"

namespace {

using ferrybus::ringbuffer::testing::CheckedConsumer;
using ferrybus::ringbuffer::testing::FuzzInput;
using ferrybus::ringbuffer::testing::ReusedRing;
using ferrybus::ringbuffer::testing::RingMutator;
using ferrybus::ringbuffer::testing::TakeBlock;
using ferrybus::ringbuffer::testing::TakeByte;
using ferrybus::ringbuffer::testing::TakeIndex;
using ferrybus::ringbuffer::testing::TestRing;

void Run(FuzzInput calls, CheckedConsumer* consumer) {
  for (uint8_t call : calls) {
    switch (call % 8) {
      case 0:
        consumer->Release();
        break;
      case 1:
        consumer->Rollback();
        break;
      case 2:
        consumer->Unmask();
        break;
      case 3:
        consumer->TakeBatch({.packets = call / 8u});
        break;
      default:
        consumer->Next();
    }
    if (!consumer->error().empty()) break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  FuzzInput input(data, size_bytes);
  const uint8_t shape = TakeByte(&input);
  TestRing* const ring = ReusedRing(1 + shape % 4);
  const uint32_t max_packet_bytes = TakeByte(&input) * 64u;
  const uint32_t write_index = TakeIndex(&input);
  const uint32_t read_index = TakeIndex(&input);
  const FuzzInput calls = TakeBlock(&input);
  const FuzzInput script = (shape & 4) != 0 ? TakeBlock(&input) : FuzzInput();
  ring->ZeroControlPage();
  ring->FillData(std::byte{0});
  ring->SetIndices(write_index, read_index);
  if (input.size() > ring->data_bytes()) {
    input = input.subspan(0, ring->data_bytes());
  }
  ring->Write(read_index, absl::MakeConstSpan(
                              reinterpret_cast<const std::byte*>(input.data()),
                              input.size()));
  RingMutator mutator(ring->view(), script);
  CheckedConsumer consumer(ring, &mutator, max_packet_bytes);
  Run(calls, &consumer);
  if (!consumer.error().empty()) {
    std::fprintf(stderr, "ring_in_fuzz: %s\n", consumer.error().c_str());
    std::abort();
  }
  return 0;
}
