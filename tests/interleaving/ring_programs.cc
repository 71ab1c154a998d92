// SPDX-License-Identifier: MIT

#include "ferrybus/tests/interleaving/ring_programs.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/ringbuffer/ring_consumer.h"
#include "ferrybus/ringbuffer/ring_index.h"
#include "ferrybus/ringbuffer/ring_producer.h"
#include "ferrybus/ringbuffer/waiting.h"

namespace ferrybus::interleaving {
namespace {

using ringbuffer::BatchBound;
using ringbuffer::PacketType;
using ringbuffer::ReadResult;
using ringbuffer::RingFault;
using ringbuffer::WaitPolicy;
using ringbuffer::WaitResult;
using ringbuffer::WriteResult;

using Producer = ringbuffer::BasicRingProducer<ExploredAccess>;
using Consumer = ringbuffer::BasicRingConsumer<ExploredAccess>;
using PacketView = ringbuffer::BasicPacketView<ExploredAccess>;

// Looks once, then sleeps.
constexpr WaitPolicy kSleepAtOnce = {.sleep = true};
// A batch of one packet.
constexpr BatchBound kOnePacket = {.packets = 1};

struct Bell {
  Actor* actor;

  WaitResult Check(int64_t /*deadline_ns*/) { return WaitResult::kReady; }
  void Sleep(int64_t /*deadline_ns*/) { actor->Sleep(); }
};

using Payload = std::array<uint64_t, kDataBytes / 8>;

uint64_t PayloadWord(uint32_t packet) { return 0x5a00 + packet; }

absl::Span<const std::byte> PayloadOf(const RingScene& scene, uint32_t packet,
                                      Payload* payload) {
  payload->fill(PayloadWord(packet));
  return {reinterpret_cast<const std::byte*>(payload->data()),
          scene.payload_bytes};
}

void Publish(Actor& actor, Producer& producer) {
  if (producer.Publish()) actor.Ring();
}

// Writes packets from `*packet` on until there is no room.
WriteResult WriteSome(const RingScene& scene, Actor& actor, Producer& producer,
                      uint32_t* packet) {
  Payload payload;
  if (scene.sending == Sending::kBatch) {
    const auto packet_at = [&](uint32_t i) -> ringbuffer::OutgoingPacket {
      return {{PacketType::kDataInBand, 0, *packet + i},
              {},
              PayloadOf(scene, *packet + i, &payload)};
    };
    const ringbuffer::BatchResult batch =
        producer.WriteBatch(scene.packets - *packet, {}, packet_at);
    *packet += batch.packets;
    return batch.result;
  }
  while (*packet < scene.packets) {
    const WriteResult result =
        producer.Write({PacketType::kDataInBand, 0, *packet}, {},
                       PayloadOf(scene, *packet, &payload));
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

void Produce(const RingScene& scene, Actor& actor, ExploredAccess access) {
  Producer producer(ExploredAccess::View(), access);
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
    (void)WaitForRoom(producer, ring_bytes, kSleepAtOnce, bell);
  }
  if (producer.fault() != RingFault::kNone) {
    actor.Fail("the producer has faulted");
  }
}

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
void Drain(const RingScene& scene, Actor& actor, Consumer& consumer,
           uint32_t* taken) {
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

void Consume(const RingScene& scene, Actor& actor, ExploredAccess access) {
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

Exploration ExploreRing(const RingScene& scene, Model model,
                        const Variant& variant, const ExploreOptions& options) {
  const auto program = [&scene, &variant](auto body) {
    return [&scene, &variant, body](Actor& actor) {
      Scene at = {&actor, variant.fences, variant.weakened,
                  variant.keeps_own_fence, scene.start_index};
      body(scene, actor, ExploredAccess(&at));
    };
  };
  const std::unique_ptr<Memory> memory = MakeMemory(model, variant.bell_orders);
  memory->Initialize(ringbuffer::kWriteIndexOffset / 4, scene.start_index);
  memory->Initialize(ringbuffer::kReadIndexOffset / 4, scene.start_index);
  return Explore(program(Produce), program(Consume), *memory, options);
}

}  // namespace ferrybus::interleaving
