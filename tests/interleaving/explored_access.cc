// SPDX-License-Identifier: MIT

#include "ferrybus/tests/interleaving/explored_access.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace ferrybus::interleaving {
namespace {

using ringbuffer::kInterruptMaskOffset;
using ringbuffer::kPageBytes;
using ringbuffer::kPendingSendSizeOffset;
using ringbuffer::kReadIndexOffset;
using ringbuffer::kWriteIndexOffset;

// Control page, and the data area twice in a row.
alignas(kPageBytes) std::byte g_addresses[kPageBytes + 2 * kDataBytes];

uint32_t OffsetOf(const uint32_t* word) {
  return static_cast<uint32_t>(reinterpret_cast<const std::byte*>(word) -
                               g_addresses);
}

Location DataLocation(const std::byte* shared) {
  const auto offset = static_cast<size_t>(shared - (g_addresses + kPageBytes));
  return static_cast<Location>(kDataLocation + offset % kDataBytes / 8);
}

// Calls `visit(at)` for the pieces of eight bytes that are modelled.
template <typename Visit>
void ForEachPiece(size_t bytes, Visit visit) {
  if (bytes <= 16) {
    for (size_t at = 0; at < bytes; at += 8) visit(at);
  } else {
    visit(0);
    visit(bytes - 8);
  }
}

constexpr Ordering kOrderings[] = {
    {"[W1] Publish: release of write_index", kProducer, Call::kStoreRelease,
     kWriteIndexOffset},
    {"[R1] RefreshWriteIndex: acquire of write_index", kConsumer,
     Call::kLoadAcquire, kWriteIndexOffset},
    {"[W2] Release: release of read_index", kConsumer, Call::kStoreRelease,
     kReadIndexOffset},
    {"[R2] RefreshReadIndex: acquire of read_index", kProducer,
     Call::kLoadAcquire, kReadIndexOffset},
    {"[F1] Publish: full fence", kProducer, Call::kFullFence, 0},
    {"[F1] UnmaskSignals: sleep fence", kConsumer, Call::kSleepFence, 0},
    {"[F1] Release: full fence", kConsumer, Call::kFullFence, 0},
    {"[F1] ArmPendingSend: sleep fence", kProducer, Call::kSleepFence, 0},
    {"Publish: acquire of interrupt_mask", kProducer, Call::kLoadAcquire,
     kInterruptMaskOffset,
     "the mask is stored relaxed, and the fences on both sides order it with "
     "the indices"},
    {"Release: acquire of pending_send_size", kConsumer, Call::kLoadAcquire,
     kPendingSendSizeOffset,
     "the size is stored relaxed, and the fences on both sides order it with "
     "the indices"},
};

}  // namespace

absl::Span<const Ordering> AllOrderings() { return kOrderings; }

ringbuffer::RingView ExploredAccess::View() {
  return {g_addresses, g_addresses + kPageBytes, kDataBytes};
}

std::byte* const* ExploredAccess::DataPages() {
  static_assert(kDataBytes == kPageBytes);
  static std::byte* const pages[] = {g_addresses + kPageBytes};
  return pages;
}

void ExploredAccess::FullFence() const {
  if (Weak(Call::kFullFence, nullptr) ||
      scene_->fences == Fences::kAsymmetric) {
    return;
  }
  (void)scene_->actor->Perform({StepKind::kFence});
}

void ExploredAccess::SleepFence() const {
  const bool weak = Weak(Call::kSleepFence, nullptr);
  if (weak && !scene_->keeps_own_fence) return;
  const bool heavy = scene_->fences == Fences::kAsymmetric && !weak;
  (void)scene_->actor->Perform(
      {heavy ? StepKind::kHeavyFence : StepKind::kFence});
}

void ExploredAccess::CopyFrom(void* to, const std::byte* shared,
                              size_t bytes) const {
  if (bytes % 8 != 0) scene_->actor->Fail("a copy of a part of a word");
  std::memset(to, 0, bytes);
  ForEachPiece(bytes, [&](size_t at) {
    const uint64_t value = scene_->actor->Perform(
        {StepKind::kLoad, Order::kPlain, DataLocation(shared + at)});
    std::memcpy(static_cast<std::byte*>(to) + at, &value, sizeof(value));
  });
}

void ExploredAccess::CopyTo(std::byte* shared, const void* from,
                            size_t bytes) const {
  if (bytes % 8 != 0) scene_->actor->Fail("a copy of a part of a word");
  ForEachPiece(bytes, [&](size_t at) {
    uint64_t value;
    std::memcpy(&value, static_cast<const std::byte*>(from) + at,
                sizeof(value));
    (void)scene_->actor->Perform(
        {StepKind::kStore, Order::kPlain, DataLocation(shared + at), value});
  });
}

uint32_t ExploredAccess::Load(const uint32_t* word, Order order) const {
  const uint32_t offset = OffsetOf(word);
  if (!scene_->begun) {
    return offset <= kReadIndexOffset ? scene_->start_index : 0;
  }
  return static_cast<uint32_t>(scene_->actor->Perform(
      {StepKind::kLoad, order, static_cast<Location>(offset / 4)}));
}

void ExploredAccess::Store(uint32_t* word, uint32_t value, Order order) const {
  if (!scene_->begun) return;
  (void)scene_->actor->Perform({StepKind::kStore, order,
                                static_cast<Location>(OffsetOf(word) / 4),
                                value});
}

// Whether this is the ordering to be weakened.
bool ExploredAccess::Weak(Call call, const uint32_t* word) const {
  const uint32_t offset = word == nullptr ? 0 : OffsetOf(word);
  for (const Ordering& ordering : kOrderings) {
    if (ordering.actor == scene_->actor->index() && ordering.call == call &&
        ordering.word == offset) {
      return scene_->weakened == &ordering;
    }
  }
  // The constructors' are not in the list: nobody runs beside them.
  if (scene_->begun) scene_->actor->Fail("an ordering that the list lacks");
  return false;
}

}  // namespace ferrybus::interleaving
