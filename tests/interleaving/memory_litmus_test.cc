// SPDX-License-Identifier: MIT
//
// The memory models against the well-known small programs: what each must
// allow and what it must forbid.  An explorer over a model that is too strong
// would find nothing.

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>

#include "ferrybus/tests/interleaving/explorer.h"
#include "ferrybus/tests/interleaving/memory.h"

namespace ferrybus::interleaving {
namespace {

constexpr Location kX = 0;
constexpr Location kY = 1;
constexpr Location kData = kDataLocation;
constexpr char kSeen[] = "seen";

uint64_t Load(Actor& actor, Location location, Order order) {
  return actor.Perform({StepKind::kLoad, order, location});
}

void Store(Actor& actor, Location location, Order order, uint64_t value = 1) {
  (void)actor.Perform({StepKind::kStore, order, location, value});
}

void Fence(Actor& actor) { (void)actor.Perform({StepKind::kFence}); }

std::unique_ptr<Memory> InOrder() { return MakeStoreBufferMemory({}); }
std::unique_ptr<Memory> OutOfOrder() {
  return MakeStoreBufferMemory({.in_order = false});
}
std::unique_ptr<Memory> Cpp() { return MakeViewMemory({}); }

// Whether some interleaving reaches Fail(), or breaks a rule.
bool Happens(const Program& producer, const Program& consumer,
             const Memory& memory) {
  const Exploration reduced = Explore(producer, consumer, memory, {});
  const Exploration full =
      Explore(producer, consumer, memory, {.reduce = false});
  EXPECT_EQ(reduced.violation, full.violation);
  EXPECT_TRUE(reduced.complete);
  return reduced.violation != nullptr;
}

// Message passing: the flag is seen, what was stored before it is not.
bool MessageIsLate(Order store, Order load, const Memory& memory) {
  return Happens(
      [=](Actor& actor) {
        Store(actor, kX, Order::kRelaxed);
        Store(actor, kY, store);
      },
      [=](Actor& actor) {
        const uint64_t flag = Load(actor, kY, load);
        const uint64_t message = Load(actor, kX, Order::kRelaxed);
        if (flag == 1 && message == 0) actor.Fail(kSeen);
      },
      memory);
}

TEST(MemoryLitmusTest, MessagePassing) {
  EXPECT_FALSE(MessageIsLate(Order::kRelaxed, Order::kRelaxed, *InOrder()));
  EXPECT_TRUE(MessageIsLate(Order::kRelaxed, Order::kRelaxed, *OutOfOrder()));
  EXPECT_FALSE(MessageIsLate(Order::kRelease, Order::kRelaxed, *OutOfOrder()));
  EXPECT_TRUE(MessageIsLate(Order::kRelaxed, Order::kAcquire, *Cpp()));
  EXPECT_TRUE(MessageIsLate(Order::kRelease, Order::kRelaxed, *Cpp()));
  EXPECT_FALSE(MessageIsLate(Order::kRelease, Order::kAcquire, *Cpp()));
}

// Store buffering, the core of Dekker's handshake: neither sees the other.
// The views are passed through the sleeping bell: a side that saw nothing
// sleeps, one that saw something rings.
bool BothMiss(bool producer_fence, bool consumer_fence, bool heavy,
              const Memory& memory) {
  const auto side = [heavy](Location own, Location other, bool fence) {
    return [=](Actor& actor) {
      Store(actor, own, Order::kRelaxed);
      if (fence && heavy) {
        (void)actor.Perform({StepKind::kHeavyFence});
      } else if (fence) {
        Fence(actor);
      }
      if (Load(actor, other, Order::kRelaxed) == 0) {
        actor.Sleep();
      } else {
        actor.Ring();
      }
    };
  };
  // Lost: both sleep.  If just one does, the other one rings.
  return Happens(side(kX, kY, producer_fence), side(kY, kX, consumer_fence),
                 memory);
}

TEST(MemoryLitmusTest, StoreBuffering) {
  for (const auto& memory : {InOrder(), OutOfOrder(), Cpp()}) {
    EXPECT_TRUE(BothMiss(false, false, false, *memory));
    EXPECT_TRUE(BothMiss(true, false, false, *memory));
    EXPECT_TRUE(BothMiss(false, true, false, *memory));
    EXPECT_FALSE(BothMiss(true, true, false, *memory));
    // A heavy fence on one side is enough.
    EXPECT_FALSE(BothMiss(false, true, true, *memory));
    EXPECT_FALSE(BothMiss(true, false, true, *memory));
  }
}

// Two loads of one word: the second is not older than the first.
TEST(MemoryLitmusTest, LoadsOfOneWordDoNotGoBack) {
  for (const auto& memory : {InOrder(), OutOfOrder(), Cpp()}) {
    EXPECT_FALSE(Happens(
        [](Actor& actor) {
          Store(actor, kX, Order::kRelaxed, 1);
          Store(actor, kX, Order::kRelaxed, 2);
        },
        [](Actor& actor) {
          const uint64_t first = Load(actor, kX, Order::kRelaxed);
          if (Load(actor, kX, Order::kRelaxed) < first) actor.Fail(kSeen);
        },
        *memory));
  }
}

// Fences around relaxed accesses are as good as release and acquire.
TEST(MemoryLitmusTest, FencesOrderRelaxedAccesses) {
  const auto late = [](bool store_fence, bool load_fence) {
    return Happens(
        [=](Actor& actor) {
          Store(actor, kX, Order::kRelaxed);
          if (store_fence) Fence(actor);
          Store(actor, kY, Order::kRelaxed);
        },
        [=](Actor& actor) {
          const uint64_t flag = Load(actor, kY, Order::kRelaxed);
          if (load_fence) Fence(actor);
          const uint64_t message = Load(actor, kX, Order::kRelaxed);
          if (flag == 1 && message == 0) actor.Fail(kSeen);
        },
        *Cpp());
  };
  EXPECT_FALSE(late(true, true));
  EXPECT_TRUE(late(true, false));
  EXPECT_TRUE(late(false, true));
}

// Ordinary memory: what nothing orders is a race, in whichever order it ran.
TEST(MemoryLitmusTest, DataRaces) {
  const auto races = [](Order store, Order load) {
    return Happens(
        [=](Actor& actor) {
          Store(actor, kData, Order::kPlain);
          Store(actor, kY, store);
        },
        [=](Actor& actor) {
          if (Load(actor, kY, load) == 1) {
            (void)Load(actor, kData, Order::kPlain);
          }
        },
        *Cpp());
  };
  EXPECT_FALSE(races(Order::kRelease, Order::kAcquire));
  EXPECT_TRUE(races(Order::kRelaxed, Order::kAcquire));
  EXPECT_TRUE(races(Order::kRelease, Order::kRelaxed));

  // A load that a later store of the other side might overtake.
  const auto overwrites = [](Order store, Order load) {
    return Happens(
        [=](Actor& actor) {
          if (Load(actor, kY, load) == 1) {
            Store(actor, kData, Order::kPlain);
          }
        },
        [=](Actor& actor) {
          (void)Load(actor, kData, Order::kPlain);
          Store(actor, kY, store);
        },
        *Cpp());
  };
  EXPECT_FALSE(overwrites(Order::kRelease, Order::kAcquire));
  EXPECT_TRUE(overwrites(Order::kRelaxed, Order::kAcquire));
  EXPECT_TRUE(overwrites(Order::kRelease, Order::kRelaxed));
}

TEST(MemoryLitmusTest, BellOrdersIfToldSo) {
  for (const bool orders : {false, true}) {
    const auto late = [](const Memory& memory) {
      return Happens(
          [](Actor& actor) {
            Store(actor, kX, Order::kRelaxed);
            actor.Ring();
          },
          [](Actor& actor) {
            actor.Sleep();
            if (Load(actor, kX, Order::kRelaxed) == 0) actor.Fail(kSeen);
          },
          memory);
    };
    EXPECT_EQ(late(*MakeStoreBufferMemory({.bell_orders = orders})), !orders);
    EXPECT_EQ(late(*MakeViewMemory({.bell_orders = orders})), !orders);
  }
}

uint64_t Exchange(Actor& actor, Location location, Order order,
                  uint64_t value) {
  return actor.Perform({StepKind::kUpdate, order, location, value, /*keep=*/0});
}

// An update reads the newest value, and nothing comes between.
TEST(UpdateTest, OfTwoExchangesOneIsFirst) {
  const Program first = [](Actor& actor) {
    if (Exchange(actor, kX, Order::kRelaxed, 1) == 0) {
      Store(actor, kY, Order::kRelaxed);
    }
  };
  const Program second = [](Actor& actor) {
    if (Exchange(actor, kX, Order::kRelaxed, 2) != 0) return;
    // It was first: nobody else found 0.
    if (Load(actor, kY, Order::kRelaxed) == 1) actor.Fail(kSeen);
  };
  for (const auto& memory : {InOrder(), OutOfOrder(), Cpp()}) {
    EXPECT_FALSE(Happens(first, second, *memory));
  }
}

// Who acquires an update knows what the release store before it carried.
TEST(UpdateTest, GoesOnWithAReleaseSequence) {
  const auto late = [](Order update, const Memory& memory) {
    return Happens(
        [=](Actor& actor) {
          Store(actor, kX, Order::kRelaxed);
          Store(actor, kY, Order::kRelease);
          (void)Exchange(actor, kY, update, 2);
        },
        [](Actor& actor) {
          const uint64_t flag = Load(actor, kY, Order::kAcquire);
          const uint64_t message = Load(actor, kX, Order::kRelaxed);
          if (flag == 2 && message == 0) actor.Fail(kSeen);
        },
        memory);
  };
  EXPECT_FALSE(late(Order::kRelaxed, *Cpp()));
  EXPECT_FALSE(late(Order::kRelease, *Cpp()));
  EXPECT_FALSE(late(Order::kRelaxed, *InOrder()));
}

// A relaxed update publishes nothing; a locked instruction does.
TEST(UpdateTest, RelaxedDoesNotRelease) {
  const auto late = [](Order update, const Memory& memory) {
    return Happens(
        [=](Actor& actor) {
          Store(actor, kX, Order::kRelaxed);
          (void)Exchange(actor, kY, update, 1);
        },
        [](Actor& actor) {
          const uint64_t flag = Exchange(actor, kY, Order::kAcquire, 2);
          const uint64_t message = Load(actor, kX, Order::kRelaxed);
          if (flag == 1 && message == 0) actor.Fail(kSeen);
        },
        memory);
  };
  EXPECT_TRUE(late(Order::kRelaxed, *Cpp()));
  EXPECT_FALSE(late(Order::kRelease, *Cpp()));
  EXPECT_TRUE(late(Order::kRelaxed, *OutOfOrder()));
  EXPECT_FALSE(late(Order::kRelease, *OutOfOrder()));
  EXPECT_FALSE(late(Order::kRelaxed, *InOrder()));
}

// Of two programs of two steps each there are six schedules.
TEST(ExplorerTest, CountsSchedules) {
  const Program loads = [](Actor& actor) {
    (void)Load(actor, kX, Order::kRelaxed);
    (void)Load(actor, kX, Order::kRelaxed);
  };
  const Exploration found = Explore(loads, loads, *Cpp(), {.reduce = false});
  EXPECT_EQ(found.schedules, 6);
  EXPECT_EQ(found.states, 9u);
}

TEST(ExplorerTest, PrintsTheShortestScheduleOfTwoColumns) {
  const Exploration found = Explore([](Actor& actor) { actor.Ring(); },
                                    [](Actor& actor) {
                                      actor.Sleep();
                                      actor.Sleep();
                                    },
                                    *InOrder(), {});
  EXPECT_EQ(found.schedule,
            "    producer                              | consumer\n"
            "    ring                                  |\n"
            "                                          | sleeps, is woken\n"
            "                                          | sleeps\n"
            "    ==> lost wake-up: who sleeps is never rung for\n");
}

TEST(ExplorerTest, ProgramWithoutEndIsAViolation) {
  const Exploration found =
      Explore([](Actor&) {},
              [](Actor& actor) {
                while (Load(actor, kX, Order::kRelaxed) == 0) {
                }
              },
              *InOrder(), {});
  EXPECT_STREQ(found.violation, "the program does not end");
}

}  // namespace
}  // namespace ferrybus::interleaving
