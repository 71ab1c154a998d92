// SPDX-License-Identifier: MIT

#include "ferrybus/ringbuffer/testing/mutating_access.h"

#include <iterator>

#include "ferrybus/ringbuffer/wire.h"

namespace ferrybus::ringbuffer::testing {

RingMutator::RingMutator(const RingView& view, uint64_t seed)
    : view_(view), scripted_(false), state_(seed * 2 + 1) {}

RingMutator::RingMutator(const RingView& view, absl::Span<const uint8_t> script)
    : view_(view), scripted_(true), script_(script), state_(0) {}

// One byte of the stream says what happens: 0-3 of its low three bits nothing,
// 4-6 a data byte changes, 7 a control word.
void RingMutator::BeforeFetch(const void* shared) {
  if (scripted_ && script_.empty()) return;
  const uint8_t choice = NextByte() % 8;
  const auto* const near = static_cast<const std::byte*>(shared);
  if (choice >= 4 && choice <= 6 && changes_data_) ChangeData(near);
  if (choice == 7 && changes_control_) ChangeControl();
}

uint8_t RingMutator::NextByte() {
  if (!scripted_) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint8_t>(state_ >> 56);
  }
  if (script_.empty()) return 0;
  const uint8_t byte = script_[0];
  script_.remove_prefix(1);
  return byte;
}

void RingMutator::ChangeData(const std::byte* near) {
  uint64_t at = NextByte();
  if (near >= view_.data &&
      near < view_.data + 2 * uint64_t{view_.data_bytes}) {
    // The 16 bytes before and the 16 after the fetch.
    at = static_cast<uint64_t>(near - view_.data) + view_.data_bytes - 16 +
         at % 32;
  } else {
    at = at * 256 + NextByte();
  }
  // Small numbers make plausible lengths and types.
  const uint8_t value = NextByte();
  view_.data[at % view_.data_bytes] =
      static_cast<std::byte>(value < 128 ? value % 16 : value);
  ++changes_;
}

void RingMutator::ChangeControl() {
  static constexpr uint32_t kWords[] = {
      kWriteIndexOffset, kReadIndexOffset, kInterruptMaskOffset,
      kPendingSendSizeOffset, kFeatureBitsOffset};
  const uint32_t offset = kWords[NextByte() % std::size(kWords)];
  const uint32_t low = NextByte();
  const uint32_t high = NextByte();
  uint32_t value = low * 256 + high;
  // Mostly valid indices: impossible ones end the ring at once.
  if (low < 240) value = value * 8 % view_.data_bytes;
  if (low == 255) value = 0xffffffffu - high;
  __atomic_store_n(view_.word(offset), value, __ATOMIC_RELEASE);
  ++changes_;
}

}  // namespace ferrybus::ringbuffer::testing
