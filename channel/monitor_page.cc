// SPDX-License-Identifier: MIT

#include "ferrybus/channel/monitor_page.h"

#include <bit>
#include <cstddef>

#include "absl/types/span.h"

namespace ferrybus {
namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr uint32_t kGroupBits = 32;
// struct { u32 trigger_state, u32 reserved, { u32 pending, u32 armed }[4] }
constexpr size_t kGroupsOffset = 8;
constexpr size_t kGroupBytes = 8;

uint32_t* PendingWords(const GuestMemory& memory, uint64_t page_address) {
  if (page_address % kPageBytes != 0) return nullptr;
  const absl::Span<std::byte> page = memory.Translate(page_address, kPageBytes);
  if (page.empty()) return nullptr;
  return reinterpret_cast<uint32_t*>(page.data() + kGroupsOffset);
}

uint32_t* PendingWord(uint32_t* words, uint32_t group) {
  return words + group * (kGroupBytes / sizeof(uint32_t));
}

}  // namespace

bool TakeMonitorTriggers(
    const GuestMemory& memory, uint64_t page_address,
    absl::FunctionRef<void(uint8_t monitor_id)> triggered) {
  uint32_t* const words = PendingWords(memory, page_address);
  if (words == nullptr) return false;
  for (uint32_t group = 0; group < kMonitorCount / kGroupBits; ++group) {
    uint32_t* const pending = PendingWord(words, group);
    // [L1] relaxed: a look; the exchange below decides.
    if (__atomic_load_n(pending, __ATOMIC_RELAXED) == 0) continue;
    // [R7] acquire: pairs with [W7] in SetMonitorTrigger().
    uint32_t bits = __atomic_exchange_n(pending, 0, __ATOMIC_ACQ_REL);
    for (; bits != 0; bits &= bits - 1) {
      triggered(static_cast<uint8_t>(
          group * kGroupBits + static_cast<uint32_t>(std::countr_zero(bits))));
    }
  }
  return true;
}

bool SetMonitorTrigger(const GuestMemory& memory, uint64_t page_address,
                       uint8_t monitor_id) {
  uint32_t* const words = PendingWords(memory, page_address);
  if (words == nullptr || monitor_id >= kMonitorCount) return false;
  // [W7] release: pairs with [R7] in TakeMonitorTriggers(); what the ring
  // holds is visible to whoever takes the bit.
  __atomic_fetch_or(PendingWord(words, monitor_id / kGroupBits),
                    uint32_t{1} << (monitor_id % kGroupBits), __ATOMIC_ACQ_REL);
  return true;
}

}  // namespace ferrybus
