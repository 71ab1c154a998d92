// SPDX-License-Identifier: MIT

#include "ferrybus/tests/interleaving/shared_program.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>

#include "ferrybus/ringbuffer/ring_index.h"
#include "ferrybus/ringbuffer/shared_producer.h"
#include "ferrybus/tests/interleaving/packet_bytes.h"

namespace ferrybus::interleaving {
namespace {

using ringbuffer::ClaimedPacket;
using ringbuffer::PacketType;
using ringbuffer::Published;
using ringbuffer::RingFault;
using ringbuffer::WriteResult;

// Two claims at once, so that three threads run out of them.
using Producer = ringbuffer::BasicSharedProducer<ExploredAccess, 2>;

constexpr uint32_t kThreadsMax = 3;

class Threads {
 public:
  Threads(const RingScene& scene, const Variant& variant, Actor& actor,
          ExploredAccess access)
      : scene_(scene),
        variant_(variant),
        actor_(actor),
        access_(access),
        producer_(ExploredAccess::View(), access) {
    access.Begin();
  }

  void Run() {
    for (;;) {
      uint32_t ready[kThreadsMax];
      uint32_t count = 0;
      for (uint32_t i = 0; i < scene_.threads; ++i) {
        if (CanGoOn(threads_[i])) ready[count++] = i;
      }
      if (count == 0 && !AnySleeps()) break;
      if (count == 0) {
        actor_.Sleep();
        WakeAll();
        continue;
      }
      const uint64_t chosen =
          count == 1
              ? 0
              : actor_.Perform({.kind = StepKind::kChoose, .value = count});
      GoOn(&threads_[ready[chosen]]);
    }
    if (producer_.fault() != RingFault::kNone) {
      actor_.Fail("the producer has faulted");
    }
  }

 private:
  struct Thread {
    bool claimed = false;
    bool sleeps = false;
    uint32_t packet = 0;
    ClaimedPacket claim;
  };

  bool CanGoOn(const Thread& thread) const {
    return !thread.sleeps && (thread.claimed || packets_ < scene_.packets);
  }
  bool AnySleeps() const {
    return std::any_of(std::begin(threads_), std::end(threads_),
                       [](const Thread& thread) { return thread.sleeps; });
  }
  void WakeAll() {
    for (Thread& thread : threads_) thread.sleeps = false;
  }

  void GoOn(Thread* thread) {
    if (thread->claimed) {
      FillAndCommit(thread);
    } else {
      Claim(thread);
    }
  }

  void Claim(Thread* thread) {
    thread->claim = producer_.Claim({PacketType::kDataInBand, 0, packets_}, 0,
                                    scene_.payload_bytes);
    if (thread->claim.result == WriteResult::kOk) {
      thread->claimed = true;
      thread->packet = packets_++;
      return;
    }
    if (thread->claim.result != WriteResult::kFull) {
      actor_.Fail("the producer finds its ring corrupt");
    }
    // Others may have gone on between the two calls: to claim again is as good.
    thread->sleeps = !producer_.ArmPendingSend(ringbuffer::PacketRingBytes(
        ringbuffer::kDescriptorBytes, scene_.payload_bytes));
  }

  void FillAndCommit(Thread* thread) {
    Payload payload;
    access_.CopyTo(
        thread->claim.payload,
        PayloadOf(scene_.payload_bytes, thread->packet, &payload).data(),
        scene_.payload_bytes);
    thread->claimed = false;
    const Published published = producer_.Commit(thread->claim.ticket);
    if (published.signal_peer) actor_.Ring();
    if (published.wake_waiters && !variant_.threads_do_not_wake) WakeAll();
  }

  const RingScene& scene_;
  const Variant& variant_;
  Actor& actor_;
  const ExploredAccess access_;
  Producer producer_;
  std::array<Thread, kThreadsMax> threads_;
  uint32_t packets_ = 0;  // claimed so far
};

}  // namespace

void ProduceShared(const RingScene& scene, const Variant& variant, Actor& actor,
                   ExploredAccess access) {
  Threads(scene, variant, actor, access).Run();
}

}  // namespace ferrybus::interleaving
