// SPDX-License-Identifier: MIT
//
// Spreads requests over the channels of one device: the primary channel and
// its sub-channels.
//
// What it is: two ways to pick.  By a hint, where the order within a flow
// matters: the same hint always gives the same channel, however full it is.  A
// caller that is told kFull waits for that channel; a second choice would let
// later requests of the flow overtake earlier ones.  Or the least loaded, for
// requests that have no order among them.
//
// Ownership: borrows the channels.  Their number is fixed: a device that gains
// or loses a sub-channel gets a new spreader, once its flows are answered.
//
// Thread safety: any thread.  The channels have rules of their own.
//
// Cost: no lock, no allocation.  A pick by hint is a few instructions and
// touches no shared line; PickLeastLoaded looks at each count.
//
//   const size_t pick = spreader.PickForCpu(cpu);
//   if (spreader.channel(pick).Send(request) == SendResult::kOk) {
//     spreader.OnSent(pick);
//   }

#ifndef FERRYBUS_VSC_CHANNEL_SPREADER_H_
#define FERRYBUS_VSC_CHANNEL_SPREADER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/channel/check.h"

namespace ferrybus::vsc {

template <class Channel>
class ChannelSpreader {
 public:
  // REQUIRES: at least one channel, the primary first.
  explicit ChannelSpreader(absl::Span<Channel* const> channels)
      : lanes_(channels.size()) {
    FERRYBUS_CHECK(!channels.empty(), "a spreader needs a channel");
    for (size_t i = 0; i < channels.size(); ++i) {
      lanes_[i].channel = channels[i];
    }
  }

  size_t size() const { return lanes_.size(); }
  Channel& channel(size_t pick) const { return *lanes_[pick].channel; }

  // Processors take turns: neighbours get different channels, and each channel
  // the same number of processors, give or take one.
  size_t PickForCpu(uint32_t cpu) const { return cpu % lanes_.size(); }

  // Any flow hash, also one that differs in few bits.
  size_t PickForFlow(uint64_t hash) const {
    // Fibonacci hashing: the upper half depends on all bits, and is a fraction.
    const uint64_t mixed = hash * 0x9e3779b97f4a7c15 >> 32;
    return mixed * lanes_.size() >> 32;
  }

  // A channel with the fewest requests between OnSent and OnCompleted; equals
  // take turns.  Other threads may send meanwhile: a good choice, not a
  // promise.
  size_t PickLeastLoaded() {
    // Relaxed here and below: numbers that order nothing.
    const size_t first = turn_.fetch_add(1, std::memory_order_relaxed);
    size_t best = first % lanes_.size();
    uint32_t fewest = outstanding(best);
    for (size_t i = 1; i < lanes_.size() && fewest != 0; ++i) {
      const size_t pick = (first + i) % lanes_.size();
      const uint32_t load = outstanding(pick);
      if (load >= fewest) continue;
      best = pick;
      fewest = load;
    }
    return best;
  }

  // A request went out on this channel, however it was picked.
  void OnSent(size_t pick) {
    lanes_[pick].outstanding.fetch_add(1, std::memory_order_relaxed);
  }
  // It was answered, or its channel closed.  Once for each OnSent.
  void OnCompleted(size_t pick) {
    lanes_[pick].outstanding.fetch_sub(1, std::memory_order_relaxed);
  }
  uint32_t outstanding(size_t pick) const {
    return lanes_[pick].outstanding.load(std::memory_order_relaxed);
  }

 private:
  // A line of its own: counted by different processors.
  struct alignas(64) Lane {
    Channel* channel = nullptr;
    std::atomic<uint32_t> outstanding{0};
  };

  std::vector<Lane> lanes_;
  std::atomic<uint32_t> turn_{0};
};

}  // namespace ferrybus::vsc

#endif  // FERRYBUS_VSC_CHANNEL_SPREADER_H_
