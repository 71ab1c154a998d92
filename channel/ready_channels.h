// SPDX-License-Identifier: MIT
//
// Which channels want to be polled: a bit per channel id, set from any thread
// and taken by the polling one.  Idle channels cost nothing.
//
// Thread safety: Set() from any thread, Take() from one.

#ifndef FERRYBUS_CHANNEL_READY_CHANNELS_H_
#define FERRYBUS_CHANNEL_READY_CHANNELS_H_

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

#include "absl/functional/function_ref.h"

namespace ferrybus {

class ReadyChannels {
 public:
  static constexpr uint32_t kChannels = 2048;

  void Set(uint32_t channel_id) {
    if (channel_id >= kChannels) return;
    // [W4] release: pairs with [R4] in Take().
    words_[channel_id / 64].fetch_or(uint64_t{1} << (channel_id % 64),
                                     std::memory_order_release);
  }

  bool Any() const {
    for (const std::atomic<uint64_t>& word : words_) {
      // [L1] relaxed: a hint; Take() decides.
      if (word.load(std::memory_order_relaxed) != 0) return true;
    }
    return false;
  }

  // Calls `each` for every channel set before the call, and clears it first:
  // what `each` sets stays for the next time.
  void Take(absl::FunctionRef<void(uint32_t channel_id)> each) {
    for (uint32_t i = 0; i < words_.size(); ++i) {
      // [L1] relaxed: a look; the exchange below decides.
      if (words_[i].load(std::memory_order_relaxed) == 0) continue;
      // [R4] acquire: pairs with [W4] in Set().
      uint64_t bits = words_[i].exchange(0, std::memory_order_acquire);
      for (; bits != 0; bits &= bits - 1) {
        each(i * 64 + static_cast<uint32_t>(std::countr_zero(bits)));
      }
    }
  }

 private:
  std::array<std::atomic<uint64_t>, kChannels / 64> words_{};
};

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_READY_CHANNELS_H_
