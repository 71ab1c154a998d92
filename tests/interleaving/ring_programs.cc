// SPDX-License-Identifier: MIT

#include "ferrybus/tests/interleaving/ring_programs.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/ringbuffer/paged_ring.h"
#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_index.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/waiting.h"
#include "ferrybus/tests/interleaving/packet_bytes.h"
#include "ferrybus/tests/interleaving/shared_program.h"

namespace ferrybus::interleaving {
namespace {

using ringbuffer::BatchBound;
using ringbuffer::PacketType;
using ringbuffer::ReadResult;
using ringbuffer::RingFault;
using ringbuffer::WaitPolicy;
using ringbuffer::WaitResult;
using ringbuffer::WriteResult;

using PagedAccess = ringbuffer::BasicPagedAccess<ExploredAccess>;

// Looks once, then sleeps.
constexpr WaitPolicy kSleepAtOnce = {.sleep = true};
// A batch of one packet.
constexpr BatchBound kOnePacket = {.packets = 1};

struct Bell {
  Actor* actor;

  WaitResult Check(int64_t /*deadline_ns*/) { return WaitResult::kReady; }
  void Sleep(int64_t /*deadline_ns*/) { actor->Sleep(); }
};

template <class Producer>
void Publish(Actor& actor, Producer& producer) {
  if (producer.Publish()) actor.Ring();
}

// Writes packets from `*packet` on until there is no room.
template <class Producer>
WriteResult WriteSome(const RingScene& scene, Actor& actor, Producer& producer,
                      uint32_t* packet) {
  Payload payload;
  if (scene.sending == Sending::kBatch) {
    const auto packet_at = [&](uint32_t i) -> ringbuffer::OutgoingPacket {
      return {{PacketType::kDataInBand, 0, *packet + i},
              {},
              PayloadOf(scene.payload_bytes, *packet + i, &payload)};
    };
    const ringbuffer::BatchResult batch =
        producer.WriteBatch(scene.packets - *packet, {}, packet_at);
    *packet += batch.packets;
    return batch.result;
  }
  while (*packet < scene.packets) {
    const WriteResult result =
        producer.Write({PacketType::kDataInBand, 0, *packet}, {},
                       PayloadOf(scene.payload_bytes, *packet, &payload));
    if (result != WriteResult::kOk) return result;
    ++*packet;
    if (scene.sending == Sending::kEach) Publish(actor, producer);
    if (scene.sending == Sending::kIfDue &&
        producer.PublishIfDue({.packets = 2})) {
      actor.Ring();
    }
  }
  return WriteResult::kOk;
}

template <class Access>
void Produce(const RingScene& scene, Actor& actor, Access access) {
  ringbuffer::BasicRingProducer<Access> producer(ExploredAccess::View(),
                                                 access);
  access.Begin();
  Bell bell{&actor};
  const uint64_t ring_bytes = ringbuffer::PacketRingBytes(
      ringbuffer::kDescriptorBytes, scene.payload_bytes);
  uint32_t packet = 0;
  for (;;) {
    const WriteResult result = WriteSome(scene, actor, producer, &packet);
    if (result != WriteResult::kOk && result != WriteResult::kFull) {
      actor.Fail("the producer finds its ring corrupt");
    }
    Publish(actor, producer);
    if (result == WriteResult::kOk) break;
    if constexpr (Access::kInPlace) {
      (void)WaitForRoom(producer, ring_bytes, kSleepAtOnce, bell);
    } else if (!producer.ArmPendingSend(ring_bytes)) {
      actor.Sleep();
    }
  }
  if (producer.fault() != RingFault::kNone) {
    actor.Fail("the producer has faulted");
  }
}

template <class PacketView>
void CheckPacket(const RingScene& scene, Actor& actor, const PacketView& packet,
                 uint32_t* taken) {
  if (*taken == scene.packets) actor.Fail("a packet comes again");
  if (packet.transaction_id != *taken) actor.Fail("the wrong packet comes");
  if (packet.payload.size() != scene.payload_bytes ||
      packet.payload.Load64(0) != PayloadWord(*taken) ||
      packet.payload.Load64(scene.payload_bytes - 8) != PayloadWord(*taken)) {
    actor.Fail("a packet has the wrong bytes");
  }
  ++*taken;
}

// Takes what there is, and gives it back.
template <class Access>
void Drain(const RingScene& scene, Actor& actor,
           ringbuffer::BasicRingConsumer<Access>& consumer, uint32_t* taken) {
  using PacketView = ringbuffer::BasicPacketView<Access>;
  ReadResult result = ReadResult::kOk;
  if (scene.receiving == Receiving::kBatch) {
    do {
      result = consumer.TakeBatch({}, [&](const PacketView& packet) {
        CheckPacket(scene, actor, packet, taken);
      });
      if (consumer.ReleaseIfDue(kOnePacket)) actor.Ring();
    } while (result == ReadResult::kOk);
  } else {
    PacketView packet;
    while ((result = consumer.Next(&packet)) == ReadResult::kOk) {
      CheckPacket(scene, actor, packet, taken);
    }
  }
  if (result == ReadResult::kCorrupt) {
    actor.Fail(ringbuffer::RingFaultName(consumer.fault()));
  }
  if (consumer.Release()) actor.Ring();
}

template <class Access>
void Consume(const RingScene& scene, Actor& actor, Access access) {
  using Consumer = ringbuffer::BasicRingConsumer<Access>;
  Consumer consumer(ExploredAccess::View(), kDataBytes, access);
  access.Begin();
  Bell bell{&actor};
  uint32_t taken = 0;
  while (taken < scene.packets) {
    if (scene.receiving == Receiving::kWait) {
      (void)WaitForPackets(consumer, kSleepAtOnce, bell);
      Drain(scene, actor, consumer, &taken);
      continue;
    }
    Drain(scene, actor, consumer, &taken);
    if (taken == scene.packets) break;
    if (!consumer.UnmaskSignals()) actor.Sleep();
    consumer.MaskSignals();
    if (scene.receiving == Receiving::kSuccessor) {
      consumer = Consumer(ExploredAccess::View(), kDataBytes, access);
    }
  }
  Drain(scene, actor, consumer, &taken);
}

}  // namespace

absl::Span<const RingScene> AllScenes() {
  // A payload of 1336 bytes takes 1360 of the ring: three packets fill it.
  // Of 2008, 2032: two fit.  Of 2024, 2048: two would make a full ring look
  // empty.  Of 4056, 4080: the longest there is.
  static const auto* const kScenes = new std::vector<RingScene>{
      {"one packet", 1},
      {"one packet, drain and sleep", 1, 8, 0, Sending::kEach,
       Receiving::kUnmask},
      {"two packets", 2},
      {"two packets, drain and sleep", 2, 8, 0, Sending::kEach,
       Receiving::kUnmask},
      {"two packets in one publish", 2, 8, 0, Sending::kTogether},
      {"two packets in batches", 2, 8, 0, Sending::kBatch, Receiving::kBatch},
      {"two packets over the end", 2, 8, 4064, Sending::kEach,
       Receiving::kUnmask},
      {"two packets, published if due", 2, 8, 0, Sending::kIfDue,
       Receiving::kUnmask},
      {"two packets, a successor", 2, 8, 0, Sending::kEach,
       Receiving::kSuccessor},
      {"full: two longest", 2, 4056, 0},
      {"full: two halves, drain and sleep", 2, 2024, 2048, Sending::kEach,
       Receiving::kUnmask},
      {"full: three halves", 3, 2008, 4000, Sending::kTogether,
       Receiving::kUnmask},
      {"full: three in batches", 3, 2008, 0, Sending::kBatch,
       Receiving::kBatch},
      {"full: read in batches", 3, 2008, 0, Sending::kEach, Receiving::kBatch},
      {"three packets", 3, 8, 4080, Sending::kEach, Receiving::kUnmask, true},
      {"full: three halves one by one", 3, 2008, 0, Sending::kEach,
       Receiving::kWait, true},
      {"full: four thirds", 4, 1336, 4000, Sending::kTogether,
       Receiving::kUnmask, true},
      {"full: three longest", 3, 4056, 0, Sending::kEach, Receiving::kUnmask,
       true},
      {"full: four halves, a successor", 4, 2008, 0, Sending::kTogether,
       Receiving::kSuccessor, true},
      {.name = "paged: two packets over the end",
       .packets = 2,
       .start_index = 4064,
       .paged = true},
      {.name = "paged: full, two halves",
       .packets = 2,
       .payload_bytes = 2024,
       .start_index = 2048,
       .sending = Sending::kTogether,
       .receiving = Receiving::kBatch,
       .paged = true},
      {.name = "shared: two threads",
       .packets = 2,
       .receiving = Receiving::kUnmask,
       .threads = 2},
      {.name = "shared: full, two longest",
       .packets = 2,
       .payload_bytes = 4056,
       .receiving = Receiving::kUnmask,
       .threads = 2},
  };
  return *kScenes;
}

const char* ModelName(Model model) {
  switch (model) {
    case Model::kInOrder:
      return "in order";
    case Model::kOutOfOrder:
      return "out of order";
    case Model::kCpp:
      return "C++";
  }
  return "";
}

std::unique_ptr<Memory> MakeMemory(Model model, bool bell_orders) {
  switch (model) {
    case Model::kInOrder:
      return MakeStoreBufferMemory({true, bell_orders});
    case Model::kOutOfOrder:
      return MakeStoreBufferMemory({false, bell_orders});
    case Model::kCpp:
      break;
  }
  return MakeViewMemory({bell_orders});
}

Exploration ExploreRing(const RingScene& scene, Model model,
                        const Variant& variant, const ExploreOptions& options) {
  const auto program = [&scene, &variant](auto body) {
    return [&scene, &variant, body](Actor& actor) {
      Scene at = {&actor, variant.fences, variant.weakened,
                  variant.keeps_own_fence, scene.start_index};
      const ExploredAccess access(&at);
      if (scene.paged) {
        body(scene, actor,
             PagedAccess(ExploredAccess::View(), ExploredAccess::DataPages(),
                         access));
      } else {
        body(scene, actor, access);
      }
    };
  };
  const Program produce =
      program([](const RingScene& s, Actor& actor, auto access) {
        Produce(s, actor, access);
      });
  const Program produce_shared = [&](Actor& actor) {
    Scene at = {&actor, variant.fences, variant.weakened,
                variant.keeps_own_fence, scene.start_index};
    ProduceShared(scene, variant, actor, ExploredAccess(&at));
  };
  const Program consume =
      program([](const RingScene& s, Actor& actor, auto access) {
        Consume(s, actor, access);
      });
  const std::unique_ptr<Memory> memory = MakeMemory(model, variant.bell_orders);
  memory->Initialize(ringbuffer::kWriteIndexOffset / 4, scene.start_index);
  memory->Initialize(ringbuffer::kReadIndexOffset / 4, scene.start_index);
  return Explore(scene.threads > 1 ? produce_shared : produce, consume, *memory,
                 options);
}

}  // namespace ferrybus::interleaving
