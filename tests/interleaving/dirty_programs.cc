// SPDX-License-Identifier: MIT

#include "ferrybus/tests/interleaving/dirty_programs.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "ferrybus/savestate/migration/dirty_words.h"
#include "ferrybus/tests/interleaving/actor.h"
#include "ferrybus/tests/interleaving/memory.h"

namespace ferrybus::interleaving {
namespace {

using migration::MarkBits;
using migration::PlanesToMark;
using migration::TakeBits;
using migration::TrackPlane;

constexpr Location kTracked = 0;
constexpr Location kBits = 1;
constexpr Location kFirstPage = 2;
constexpr uint32_t kPages = 2;
// The memory of the plane itself: allocated before it is tracked.
constexpr Location kPlane = kDataLocation;

Order OrderOf(std::memory_order order) {
  switch (order) {
    case std::memory_order_relaxed:
      return Order::kRelaxed;
    case std::memory_order_release:
      return Order::kRelease;
    case std::memory_order_acq_rel:
    case std::memory_order_seq_cst:
      return Order::kAcqRel;
    default:
      return Order::kAcquire;
  }
}

// In place of std::atomic<uint64_t>: each operation is a step.
class ExploredWord {
 public:
  ExploredWord(Actor* actor, Location location, const DirtyWeakening* weakened)
      : actor_(actor), location_(location), weakened_(weakened) {}

  uint64_t load(std::memory_order order) {
    return actor_->Perform(
        {StepKind::kLoad, Weak(DirtyCall::kLoad, OrderOf(order)), location_});
  }
  void store(uint64_t value, std::memory_order order) {
    (void)actor_->Perform({StepKind::kStore, OrderOf(order), location_, value});
  }
  uint64_t fetch_add(uint64_t value, std::memory_order order) {
    if (value != 0) actor_->Fail("an addition that is not modelled");
    return Update(DirtyCall::kAdd, ~uint64_t{0}, 0, order);
  }
  uint64_t fetch_or(uint64_t value, std::memory_order order) {
    return Update(DirtyCall::kOr, ~value, value, order);
  }
  uint64_t fetch_and(uint64_t value, std::memory_order order) {
    return Update(DirtyCall::kAnd, value, 0, order);
  }
  uint64_t exchange(uint64_t value, std::memory_order order) {
    return Update(DirtyCall::kExchange, 0, value, order);
  }

 private:
  bool IsWeak(DirtyCall call, Without without) const {
    return weakened_ != nullptr && weakened_->call == call &&
           weakened_->of_tracked == (location_ == kTracked) &&
           weakened_->without == without;
  }
  Order Weak(DirtyCall call, Order order) const {
    const bool acquires = Acquires(order) && !IsWeak(call, Without::kAcquire);
    const bool releases = Releases(order) && !IsWeak(call, Without::kRelease);
    if (acquires && releases) return Order::kAcqRel;
    if (acquires) return Order::kAcquire;
    return releases ? Order::kRelease : Order::kRelaxed;
  }
  // Stores (old & keep) ^ value.
  uint64_t Update(DirtyCall call, uint64_t keep, uint64_t value,
                  std::memory_order memory_order) {
    const Order order = Weak(call, OrderOf(memory_order));
    if (!IsWeak(call, Without::kAtomicity)) {
      return actor_->Perform(
          {StepKind::kUpdate, order, location_, value, keep});
    }
    const uint64_t old = actor_->Perform(
        {StepKind::kLoad, Acquires(order) ? Order::kAcquire : Order::kRelaxed,
         location_});
    if (call == DirtyCall::kAdd) return old;
    (void)actor_->Perform({StepKind::kStore,
                           Releases(order) ? Order::kRelease : Order::kRelaxed,
                           location_, (old & keep) ^ value});
    return old;
  }

  Actor* actor_;
  Location location_;
  const DirtyWeakening* weakened_;
};

struct Words {
  Words(Actor* actor, const DirtyWeakening* weakened)
      : tracked(actor, kTracked, weakened), bits(actor, kBits, weakened) {}
  ExploredWord tracked;
  ExploredWord bits;
};

void WritePage(Actor& actor, Words& words, uint32_t page, uint64_t value) {
  (void)actor.Perform({StepKind::kStore, Order::kRelaxed,
                       static_cast<Location>(kFirstPage + page), value});
  if (PlanesToMark(words.tracked) == 0) return;
  (void)actor.Perform({StepKind::kLoad, Order::kPlain, kPlane});
  MarkBits(words.bits, uint64_t{1} << page);
}

void Device(const DirtyScene& scene, Actor& actor, Words words) {
  uint64_t value = 0;
  for (const uint32_t page : scene.writes) {
    WritePage(actor, words, page, ++value);
  }
  actor.Ring();  // It is paused.
}

using Copies = std::array<uint64_t, kPages>;

uint64_t CopyPage(Actor& actor, uint32_t page) {
  return actor.Perform({StepKind::kLoad, Order::kRelaxed,
                        static_cast<Location>(kFirstPage + page)});
}

void TakeAndCopy(const DirtyScene& scene, Actor& actor, Words& words,
                 bool clear, Copies* copies) {
  const uint64_t mask = scene.whole_word ? ~uint64_t{0} : (1 << kPages) - 1;
  const uint64_t bits = TakeBits(words.bits, mask, clear);
  for (uint32_t page = 0; page < kPages; ++page) {
    if ((bits >> page & 1) == 0) continue;
    (*copies)[page] = CopyPage(actor, page);
    if ((*copies)[page] == 0) actor.Fail("has the bit, and not the write");
  }
}

void Source(const DirtyScene& scene, Actor& actor, Words words) {
  Copies copies = {};
  if (!scene.is_tracked) {
    (void)actor.Perform({StepKind::kStore, Order::kPlain, kPlane, 1});
    TrackPlane(words.tracked, 0, &words.bits, 1);
    for (uint32_t page = 0; page < kPages; ++page) {
      copies[page] = CopyPage(actor, page);
    }
  }
  for (int round = 0; round < scene.rounds; ++round) {
    TakeAndCopy(scene, actor, words, scene.clears, &copies);
  }
  actor.Sleep();
  TakeAndCopy(scene, actor, words, /*clear=*/true, &copies);
  for (uint32_t page = 0; page < kPages; ++page) {
    uint64_t written = 0;
    for (size_t i = 0; i < scene.writes.size(); ++i) {
      if (scene.writes[i] == page) written = i + 1;
    }
    if (copies[page] != written) actor.Fail("a write does not reach the copy");
  }
}

void SecondDevice(const DirtyScene& scene, Actor& actor, Words words) {
  WritePage(actor, words, 1, 100);
  actor.Sleep();
  Copies copies = {};
  TakeAndCopy(scene, actor, words, /*clear=*/true, &copies);
  if (copies[0] != scene.writes.size() || copies[1] != 100) {
    actor.Fail("a mark is lost to another");
  }
}

}  // namespace

absl::Span<const DirtyScene> AllDirtyScenes() {
  static constexpr uint32_t kOne[] = {0};
  static constexpr uint32_t kTwice[] = {0, 0};
  static constexpr uint32_t kBoth[] = {0, 1};
  static constexpr uint32_t kThree[] = {0, 1, 0};
  static const auto* const kScenes = new std::vector<DirtyScene>{
      {"one write, tracked late", kOne},
      {"two writes of a page", kTwice, true, 2},
      {"two pages", kBoth, true, 2},
      {"two pages, a part of a word", kBoth, true, 2, true, false},
      {"two writes, tracked late", kTwice, false, 2},
      {"looked at, not cleared", kBoth, true, 1, false},
      {"two devices", kOne, true, 0, true, true, true},
      {"three writes, tracked late", kThree, false, 3, true, false},
  };
  return *kScenes;
}

absl::Span<const DirtyWeakening> AllDirtyWeakenings() {
  using C = DirtyCall;
  using W = Without;
  static constexpr DirtyWeakening kAll[] = {
      {"PlanesToMark: a load only", C::kAdd, true, W::kAtomicity, true},
      {"PlanesToMark: acquire", C::kAdd, true, W::kAcquire},
      {"PlanesToMark: release", C::kAdd, true, W::kRelease},
      {"MarkBits: in one", C::kOr, false, W::kAtomicity, true},
      {"MarkBits: release", C::kOr, false, W::kRelease},
      {"TakeBits: acquire of the look", C::kLoad, false, W::kAcquire},
      {"TakeBits, a word: in one", C::kExchange, false, W::kAtomicity, true},
      {"TakeBits, a word: acquire", C::kExchange, false, W::kAcquire},
      {"TakeBits, a part: in one", C::kAnd, false, W::kAtomicity, true},
      {"TakeBits, a part: acquire", C::kAnd, false, W::kAcquire},
      {"TrackPlane: in one", C::kOr, true, W::kAtomicity, true},
      {"TrackPlane: acquire", C::kOr, true, W::kAcquire},
      {"TrackPlane: release", C::kOr, true, W::kRelease},
  };
  return kAll;
}

Exploration ExploreDirty(const DirtyScene& scene, Model model,
                         const DirtyWeakening* weakened,
                         const ExploreOptions& options) {
  ExploreOptions with_labels = options;
  with_labels.labels = {{"device", scene.two_devices ? "device" : "source"},
                        {"tracked", "bits", "page 0", "page 1", "?"}};
  const std::unique_ptr<Memory> memory = MakeMemory(model, true);
  memory->Initialize(kTracked, scene.is_tracked ? 1 : 0);
  return Explore(
      [&](Actor& actor) { Device(scene, actor, Words(&actor, weakened)); },
      [&](Actor& actor) {
        const Words words(&actor, weakened);
        if (scene.two_devices) {
          SecondDevice(scene, actor, words);
        } else {
          Source(scene, actor, words);
        }
      },
      *memory, with_labels);
}

}  // namespace ferrybus::interleaving
