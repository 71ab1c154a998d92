// SPDX-License-Identifier: MIT

#include "ferrybus/channel/packet_endpoint.h"

#include "ferrybus/channel/endpoint_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

using testing::EndpointPair;
using testing::EndpointPairOptions;
using testing::Numbered;
using testing::NumberIn;
using testing::RawGuest;
using testing::ToBytes;
using testing::ToString;

EndpointPairOptions WithHost(const EndpointLimits& limits) {
  EndpointPairOptions options;
  options.host = limits;
  return options;
}

// doc:KP10
TEST(PacketEndpointTest, RequestIsAnsweredWithItsTag) {
  EndpointPair pair;
  ASSERT_EQ(pair.guest.Request(Numbered(7), 70), SendStatus::kOk);
  pair.guest.endpoint->Flush();
  EXPECT_EQ(pair.guest.doorbell.rings, 1u);
  EXPECT_EQ(pair.guest.doorbell.last_channel, EndpointPair::kChannel);
  pair.host.PollDry();
  ASSERT_EQ(pair.host.events.held.size(), 1u);
  EXPECT_EQ(NumberIn(pair.host.events.held[0].payload()), 7u);
  EXPECT_TRUE(pair.host.events.held[0].completion_requested());
  EXPECT_EQ(pair.host.events.held[0].Complete(ToBytes(Numbered(8))),
            CompleteResult::kOk);
  pair.guest.PollDry();
  ASSERT_EQ(pair.guest.events.completions.size(), 1u);
  EXPECT_EQ(pair.guest.events.completions[0].first, 70u);
  EXPECT_EQ(pair.guest.events.completions[0].second, Numbered(8));
  EXPECT_EQ(pair.guest.endpoint->awaiting(), 0u);
  EXPECT_EQ(pair.host.endpoint->outstanding(), 0u);
}

TEST(PacketEndpointTest, APacketThatWantsNoCompletionGetsNone) {
  EndpointPair pair;
  ASSERT_EQ(pair.guest.Send(Numbered(1)), SendStatus::kOk);
  pair.guest.endpoint->Flush();
  pair.host.PollDry();
  ASSERT_EQ(pair.host.events.held.size(), 1u);
  EXPECT_EQ(pair.host.events.held[0].Complete(), CompleteResult::kOk);
  EXPECT_EQ(pair.host.endpoint->counters().packets_sent, 0u);
}

// One Poll() may have two reasons to ring: completions to read, room to write.
TEST(PacketEndpointTest, APollRingsAtMostOnce) {
  EndpointPair pair;
  pair.host.events.on_packet = [](IncomingPacket packet) { packet.Complete(); };
  OutgoingPacket packet;
  packet.wants_completion = true;
  while (pair.guest.endpoint->Send(packet) == SendStatus::kOk) {
  }
  pair.guest.endpoint->Flush();
  ASSERT_TRUE(pair.host.endpoint->Poll(1000) || true);
  EXPECT_EQ(pair.host.doorbell.rings, 1u);
  EXPECT_EQ(pair.host.endpoint->counters().doorbells_rung, 1u);
}

// The guest's request for room is the only reason to ring.
TEST(PacketEndpointTest, DoorbellsForRoomAreCounted) {
  EndpointPair pair;
  pair.host.events.on_packet = [](IncomingPacket packet) { packet.Complete(); };
  OutgoingPacket packet;
  while (pair.guest.endpoint->Send(packet) == SendStatus::kOk) {
  }
  pair.guest.endpoint->Flush();
  pair.host.PollDry();
  EXPECT_EQ(pair.host.doorbell.rings, 1u);
  EXPECT_EQ(pair.host.endpoint->counters().doorbells_rung, 1u);
  pair.guest.PollDry();
  EXPECT_EQ(pair.guest.events.rooms, 1);
}

// -- Quota -------------------------------------------------------------------

// bad:P7
TEST(PacketEndpointTest, PacketsAboveTheQuotaStayInTheRing) {
  EndpointLimits limits;
  limits.max_in_flight = 4;
  EndpointPair pair(WithHost(limits));
  for (uint64_t i = 0; i < 10; ++i) {
    ASSERT_EQ(pair.guest.Request(Numbered(i), i), SendStatus::kOk);
  }
  pair.guest.endpoint->Flush();
  EXPECT_FALSE(pair.host.endpoint->Poll(64));
  EXPECT_EQ(pair.host.endpoint->outstanding(), 4u);
  const uint64_t works = pair.host.events.works;
  pair.host.events.held.front().Complete();
  pair.host.events.held.pop_front();
  EXPECT_EQ(pair.host.events.works, works + 1) << "nobody was told";
  EXPECT_FALSE(pair.host.endpoint->Poll(64));
  EXPECT_EQ(pair.host.endpoint->outstanding(), 4u);
  EXPECT_EQ(NumberIn(pair.host.events.held.back().payload()), 4u);
}

// bad:R26 promise:P9
TEST(PacketEndpointTest, AGuestThatReadsNothingIsNotGivenMoreToSend) {
  EndpointLimits limits;
  limits.max_in_flight = 16;
  EndpointPair pair(WithHost(limits));
  pair.host.events.on_packet = [](IncomingPacket packet) {
    packet.Complete(ToBytes(std::string(512, 'x')));
  };
  RawGuest guest(pair);
  uint64_t written = 0;
  for (int round = 0; round < 2000; ++round) {
    while (guest.Request(written, Numbered(written))) ++written;
    pair.host.PollDry();
  }
  EXPECT_LE(pair.host.endpoint->queued(), 16u);
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kActive);
  // The ring holds seven of the answers, the queue 16.
  EXPECT_LE(pair.host.endpoint->counters().packets_received, 24u);
}

// bad:R26 promise:P2
TEST(PacketEndpointTest, AGuestThatReadsAgainGetsEverythingInOrder) {
  EndpointLimits limits;
  limits.max_in_flight = 600;
  EndpointPairOptions options = WithHost(limits);
  options.guest.max_awaiting = 600;
  EndpointPair pair(options);
  uint64_t sent = 0;
  while (sent < 500) {
    while (sent < 500 &&
           pair.guest.Request(Numbered(sent), sent) == SendStatus::kOk &&
           pair.guest.endpoint->queued() == 0) {
      ++sent;
    }
    pair.guest.endpoint->Flush();
    pair.host.PollDry();
    if (pair.guest.endpoint->queued() != 0) ++sent;
    pair.guest.endpoint->Flush();
  }
  pair.host.PollDry();
  ASSERT_EQ(pair.host.events.held.size(), 500u);
  for (IncomingPacket& packet : pair.host.events.held) {
    const std::string reply = Numbered(NumberIn(packet.payload()));
    EXPECT_EQ(packet.Complete(ToBytes(reply)), CompleteResult::kOk);
  }
  EXPECT_GT(pair.host.endpoint->queued(), 100u);
  // Only what a signal asks for, as a sleeping guest and host would.
  uint64_t guest_rings = pair.guest.doorbell.rings;
  for (int i = 0; i < 1000; ++i) {
    if (!pair.guest.endpoint->Poll(5) &&
        std::exchange(guest_rings, pair.guest.doorbell.rings) ==
            pair.guest.doorbell.rings) {
      break;
    }
    pair.host.PollDry();
  }
  ASSERT_EQ(pair.guest.events.completions.size(), 500u);
  for (uint64_t i = 0; i < 500; ++i) {
    EXPECT_EQ(pair.guest.events.completions[i].first, i);
  }
}

// A queue that drains gives quota back; the peer will not ring for that.
// bad:R26 promise:P3
TEST(PacketEndpointTest, ADrainedQueueLetsMorePacketsIn) {
  EndpointLimits limits;
  limits.max_in_flight = 8;
  EndpointPair pair(WithHost(limits));
  pair.host.events.on_packet = [](IncomingPacket packet) {
    packet.Complete(ToBytes(std::string(1000, 'x')));
  };
  for (uint64_t i = 0; i < 60; ++i) {
    ASSERT_EQ(pair.guest.Request(Numbered(i), i), SendStatus::kOk);
  }
  pair.guest.endpoint->Flush();
  pair.host.PollDry();
  ASSERT_LT(pair.host.endpoint->counters().packets_received, 60u);
  // Each side polls only when it was signalled, or said that it must.
  uint64_t host_rings = 0;
  uint64_t guest_rings = pair.guest.doorbell.rings;
  for (int i = 0; i < 200; ++i) {
    if (std::exchange(host_rings, pair.host.doorbell.rings) !=
        pair.host.doorbell.rings) {
      pair.guest.PollDry();
    }
    if (std::exchange(guest_rings, pair.guest.doorbell.rings) !=
        pair.guest.doorbell.rings) {
      pair.host.PollDry();
    }
  }
  EXPECT_EQ(pair.guest.events.completions.size(), 60u);
}

// -- Sending -----------------------------------------------------------------

TEST(PacketEndpointTest, SendsAndCompletionsKeepTheirOrderBehindAFullRing) {
  EndpointPair pair;
  ASSERT_EQ(pair.guest.Request(Numbered(1), 1), SendStatus::kOk);
  pair.guest.endpoint->Flush();
  pair.host.PollDry();
  std::vector<std::string> arrived;
  pair.guest.events.on_packet = [&arrived](IncomingPacket packet) {
    arrived.push_back(ToString(packet.payload().first(8)));
    packet.Complete();
  };
  pair.guest.events.on_completion = [&arrived] { arrived.push_back("done"); };
  const std::string large = Numbered(100) + std::string(2092, 'x');
  ASSERT_EQ(pair.host.Send(large), SendStatus::kOk);
  ASSERT_EQ(pair.host.Send(large), SendStatus::kOk);  // does not fit
  pair.host.events.held.front().Complete();
  ASSERT_EQ(pair.host.Send(Numbered(101)), SendStatus::kOk);  // would fit
  EXPECT_EQ(pair.host.endpoint->queued(), 3u);
  pair.host.endpoint->Flush();
  pair.Settle();
  ASSERT_EQ(arrived.size(), 4u);
  EXPECT_EQ(arrived[1], Numbered(100));
  EXPECT_EQ(arrived[2], "done");
  EXPECT_EQ(arrived[3], Numbered(101));
}

TEST(PacketEndpointTest, APacketThatCannotFitIsRefusedAtOnce) {
  EndpointPair pair;
  EXPECT_EQ(pair.host.Send(std::string(4096 - 16 - 16 - 8, 'x')),
            SendStatus::kOk);
  EXPECT_EQ(pair.host.Send(std::string(4096 - 16 - 16, 'x')),
            SendStatus::kTooLarge);
  OutgoingPacket packet;
  const std::string extension(12, '\0');
  packet.extension = ToBytes(extension);
  EXPECT_EQ(pair.host.endpoint->Send(packet), SendStatus::kTooLarge);
}

// Above 512 KiB the 16-bit lengths are the limit, also for what is queued.
TEST(PacketEndpointTest, APacketBeyondTheLengthFieldsIsNotQueued) {
  EndpointPairOptions options;
  options.data_pages = 256;
  EndpointPair pair(options);
  const std::string most(0xffff * 8 - 16, 'x');
  EXPECT_EQ(pair.host.Send(most + "x"), SendStatus::kTooLarge);
  ASSERT_EQ(pair.host.Send(most), SendStatus::kOk);
  ASSERT_EQ(pair.host.Send(most), SendStatus::kOk);  // queued
  EXPECT_EQ(pair.host.endpoint->queued(), 1u);
  EXPECT_EQ(pair.host.Send(most + "x"), SendStatus::kTooLarge);
}

TEST(PacketEndpointTest, ARefusedSenderIsToldOfRoom) {
  EndpointPair pair;
  OutgoingPacket packet;
  const std::string payload = Numbered(1) + std::string(992, 'x');
  packet.payload = ToBytes(payload);
  while (pair.guest.endpoint->Send(packet) == SendStatus::kOk) {
  }
  pair.guest.endpoint->Flush();
  pair.guest.PollDry();
  EXPECT_EQ(pair.guest.events.rooms, 0);
  pair.host.events.on_packet = [](IncomingPacket in) { in.Complete(); };
  const uint64_t rings = pair.host.doorbell.rings;
  pair.host.PollDry();
  EXPECT_EQ(pair.host.doorbell.rings, rings + 1);
  pair.guest.PollDry();
  EXPECT_EQ(pair.guest.events.rooms, 1);
}

// Nobody else would publish what a driver sends when it is told of room.
// promise:P3
TEST(PacketEndpointTest, WhatIsSentFromOnRoomIsPublished) {
  EndpointPair pair;
  OutgoingPacket packet;
  const std::string payload(1000, 'x');
  packet.payload = ToBytes(payload);
  while (pair.guest.endpoint->Send(packet) == SendStatus::kOk) {
  }
  pair.guest.endpoint->Flush();
  int received = 0;
  pair.host.events.on_packet = [&received](IncomingPacket in) {
    ++received;
    in.Complete();
  };
  pair.guest.events.on_room = [&] {
    EXPECT_EQ(pair.guest.endpoint->Send(packet), SendStatus::kOk);
  };
  pair.host.PollDry();
  received = 0;
  pair.guest.PollDry();
  ASSERT_EQ(pair.guest.events.rooms, 1);
  pair.host.PollDry();
  EXPECT_EQ(received, 1);
}

TEST(PacketEndpointTest, TransactionTableIsTheLimitAndACompletionMakesRoom) {
  EndpointPairOptions options;
  options.guest.max_awaiting = 2;
  EndpointPair pair(options);
  EXPECT_EQ(pair.guest.Request("", 1), SendStatus::kOk);
  EXPECT_EQ(pair.guest.Request("", 2), SendStatus::kOk);
  EXPECT_EQ(pair.guest.Request("", 3), SendStatus::kFull);
  pair.guest.endpoint->Flush();
  pair.host.PollDry();
  pair.host.events.held[1].Complete();
  pair.guest.PollDry();
  EXPECT_EQ(pair.guest.events.rooms, 1);
  EXPECT_EQ(pair.guest.Request("", 3), SendStatus::kOk);
}

// bad:R26
TEST(PacketEndpointTest, OwnPacketsThatWaitAreBounded) {
  EndpointLimits limits;
  limits.max_queued = 5;
  EndpointPair pair(WithHost(limits));
  const std::string payload(2100, 'x');
  int accepted = 0;
  while (accepted < 100 && pair.host.Send(payload) == SendStatus::kOk) {
    ++accepted;
  }
  EXPECT_EQ(accepted, 6);  // one in the ring
  EXPECT_EQ(pair.host.Send(payload), SendStatus::kFull);
}

}  // namespace
}  // namespace ferrybus
