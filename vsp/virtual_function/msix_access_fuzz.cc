// SPDX-License-Identifier: MIT

// Any accesses, interrupts and moves: the table does what the model does, and
// the device is called only when it must be.
//
// Input: u8 which size; then records of u8 what (modulo 16), and
//   0-4: a write: u16 offset in units of 4, u8 how to make the value, u8 of it
//   5:   a write or read of any size: u32 offset, u8 size, u8
//   6:   a read: u16 offset in units of 8
//   7:   u8 the control word's top bits
//   8-10: u16 vector: an interrupt
//   11:  u16 vector: withdrawn
//   12:  pause; 13: resume; 14: moved; 15: u8: reset or rewritten

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "ferrybus/ringbuffer/testing/fuzz_input.h"
#include "ferrybus/vsp/virtual_function/msix_world.h"

namespace {

using ferrybus::ringbuffer::testing::FuzzInput;
using ferrybus::ringbuffer::testing::TakeByte;
using ferrybus::ringbuffer::testing::TakeIndex;
using ferrybus::ringbuffer::testing::TakeShort;
using ferrybus::vsp::kInterruptRange;
using ferrybus::vsp::MsixOp;
using ferrybus::vsp::MsixWorld;
using Kind = MsixOp::Kind;

constexpr uint32_t kSizes[] = {1, 2, 5, 64, 65, 130};
constexpr int kStepsMax = 100;
constexpr int kMovesMax = 3;

uint64_t TakeValue(FuzzInput* input) {
  const uint8_t how = TakeByte(input);
  const uint64_t byte = TakeByte(input);
  switch (how % 4) {
    case 0:
      return kInterruptRange + byte * 16;
    case 1:
      return byte % 2;  // as vector control: masks or unmasks
    case 2:
      return byte << (how / 4);
    default:
      return ~(byte << (how / 4));
  }
}

MsixOp TakeWrite(FuzzInput* input, uint32_t vectors) {
  const uint64_t offset = TakeIndex(input) % (vectors * 16 + 16);
  const uint32_t size = offset % 8 == 0 && TakeByte(input) % 2 == 0 ? 8 : 4;
  return {Kind::kWrite, offset, size, TakeValue(input)};
}

MsixOp TakeOddAccess(FuzzInput* input) {
  const uint64_t low = TakeShort(input);
  const uint64_t high = TakeShort(input);
  const uint8_t size = TakeByte(input);
  const uint8_t what = TakeByte(input);
  return {what % 2 == 0 ? Kind::kRead : Kind::kWrite,
          (low | high << 16) << (what & 32), size, what};
}

MsixOp TakeOp(FuzzInput* input, uint32_t vectors) {
  const uint8_t what = TakeByte(input) % 16;
  if (what < 5) return TakeWrite(input, vectors);
  switch (what) {
    case 5:
      return TakeOddAccess(input);
    case 6:
      return {Kind::kRead, TakeShort(input) * 8 % (vectors * 16 + 16), 8, 0};
    case 7:
      return {Kind::kControl, 0, 0, uint64_t{TakeByte(input)} << 8};
    case 11:
      return {Kind::kWithdraw, TakeShort(input), 0, 0};
    case 12:
      return {Kind::kPause, 0, 0, 0};
    case 13:
      return {Kind::kResume, 0, 0, 0};
    case 14:
      return {Kind::kMove, 0, 0, 0};
    case 15:
      return {TakeByte(input) % 2 == 0 ? Kind::kReset : Kind::kRewrite, 0, 0,
              0};
    default:
      return {Kind::kRaise, TakeShort(input), 0, 0};
  }
}

void FailIf(const std::string& wrong, int step) {
  if (wrong.empty()) return;
  std::fprintf(stderr, "step %d: %s\n", step, wrong.c_str());
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  FuzzInput input(data, size_bytes);
  const uint32_t vectors = kSizes[TakeByte(&input) % std::size(kSizes)];
  MsixWorld world(vectors);
  int moves = 0;
  for (int step = 0; step < kStepsMax && !input.empty(); ++step) {
    const MsixOp op = TakeOp(&input, vectors);
    if (op.kind == Kind::kMove && ++moves > kMovesMax) continue;
    FailIf(world.Step(op), step);
  }
  FailIf(world.CheckAll(), kStepsMax);
  return 0;
}
