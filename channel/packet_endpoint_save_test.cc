// SPDX-License-Identifier: MIT

#include <map>
#include <optional>

#include "absl/status/status.h"
#include "ferrybus/channel/endpoint_test_util.h"
#include "ferrybus/channel/packet_endpoint.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

using testing::EndpointEnd;
using testing::EndpointPair;
using testing::EndpointPairOptions;
using testing::Numbered;
using testing::NumberIn;
using testing::ToBytes;
using testing::ToString;

// Blobs as a device would write them: of what they belong to.
absl::StatusOr<std::string> BlobOf(const PacketInfo* packet, uint64_t tag) {
  return packet != nullptr ? "packet " + ToString(packet->payload)
                           : "tag " + std::to_string(tag);
}

EndpointState Save(EndpointEnd& end) {
  absl::StatusOr<EndpointState> state = end.endpoint->Save(BlobOf);
  EXPECT_TRUE(state.ok()) << state.status().ToString();
  return state.ok() ? *state : EndpointState();
}

absl::Status Restore(EndpointPair& pair, const EndpointState& state) {
  return pair.host.endpoint->Restore(
      state, pair.MapRings(), EndpointPair::kChannel,
      [&pair](IncomingPacket packet, absl::Span<const std::byte> blob) {
        EXPECT_EQ(ToString(blob), "packet " + ToString(packet.payload()));
        pair.host.events.held.push_back(std::move(packet));
        return absl::OkStatus();
      });
}

// Another owner, on the state of this one.
void Move(EndpointPair& pair) {
  pair.host.endpoint->Freeze();
  const EndpointState state = Save(pair.host);
  pair.ReplaceHost();
  const absl::Status status = Restore(pair, state);
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kFrozen)
      << pair.host.endpoint->fault_reason();
}

// What the guest got from the host, in order: numbers of packets, and the
// numbers in completions.
std::vector<uint64_t>* RecordArrivals(EndpointPair& pair) {
  static std::vector<uint64_t> arrived;
  arrived.clear();
  pair.guest.events.on_packet = [](IncomingPacket packet) {
    arrived.push_back(NumberIn(packet.payload()));
    packet.Complete();
  };
  pair.guest.events.on_completion = [&pair] {
    arrived.push_back(
        NumberIn(ToBytes(pair.guest.events.completions.back().second)));
  };
  return &arrived;
}

void GuestRequests(EndpointPair& pair, uint64_t first, uint64_t count) {
  for (uint64_t i = first; i < first + count; ++i) {
    ASSERT_EQ(pair.guest.Request(Numbered(i), i), SendStatus::kOk);
  }
  pair.guest.endpoint->Flush();
}

void HostAnswers(EndpointPair& pair, size_t index) {
  const std::string reply =
      Numbered(NumberIn(pair.host.events.held[index].payload()));
  EXPECT_EQ(pair.host.events.held[index].Complete(ToBytes(reply)),
            CompleteResult::kOk);
}

// promise:P2 promise:P7 doc:SR17
TEST(PacketEndpointSaveTest, ThawSendsWhatWasHeldBackInOrder) {
  EndpointPair pair;
  std::vector<uint64_t>* const arrived = RecordArrivals(pair);
  GuestRequests(pair, 1, 3);
  pair.host.PollDry();
  pair.host.endpoint->Freeze();
  const uint64_t rings = pair.host.doorbell.rings;
  HostAnswers(pair, 2);
  ASSERT_EQ(pair.host.Send(Numbered(50)), SendStatus::kOk);
  HostAnswers(pair, 0);
  pair.host.endpoint->Flush();
  pair.Settle();
  EXPECT_TRUE(arrived->empty());
  EXPECT_EQ(pair.host.doorbell.rings, rings);
  pair.host.endpoint->Thaw();
  EXPECT_EQ(pair.host.doorbell.rings, rings + 1);
  HostAnswers(pair, 1);
  pair.Settle();
  EXPECT_EQ(*arrived, (std::vector<uint64_t>{3, 50, 1, 2}));
}

// promise:P1 promise:P2
TEST(PacketEndpointSaveTest, WhatWasHeldBackMovesInOrder) {
  EndpointPair pair;
  std::vector<uint64_t>* const arrived = RecordArrivals(pair);
  GuestRequests(pair, 1, 3);
  pair.host.PollDry();
  pair.host.endpoint->Freeze();
  HostAnswers(pair, 2);
  ASSERT_EQ(pair.host.Send(Numbered(50)), SendStatus::kOk);
  HostAnswers(pair, 0);
  Move(pair);
  ASSERT_EQ(pair.host.events.held.size(), 1u);
  pair.host.endpoint->Thaw();
  HostAnswers(pair, 0);
  pair.Settle();
  EXPECT_EQ(*arrived, (std::vector<uint64_t>{3, 50, 1, 2}));
}

// doc:SR8 bad:R26
TEST(PacketEndpointSaveTest, PacketsThatWaitForRoomAreSentByTheNextOwner) {
  EndpointPair pair;
  std::vector<uint64_t>* const arrived = RecordArrivals(pair);
  for (uint64_t i = 0; i < 100; ++i) {
    ASSERT_EQ(pair.host.Send(Numbered(i) + std::string(192, 'x')),
              SendStatus::kOk);
  }
  pair.host.endpoint->Flush();
  const uint32_t queued = pair.host.endpoint->queued();
  ASSERT_GT(queued, 50u);
  Move(pair);
  EXPECT_EQ(pair.host.endpoint->queued(), queued);
  pair.host.endpoint->Thaw();
  pair.Settle();
  ASSERT_EQ(arrived->size(), 100u);
  for (uint64_t i = 0; i < 100; ++i) EXPECT_EQ((*arrived)[i], i);
}

// The guest drains while nobody serves, and does not ring again.
// doc:SR8 promise:P3
TEST(PacketEndpointSaveTest, AGuestThatDrainedMeanwhileGetsTheRest) {
  EndpointPair pair;
  std::vector<uint64_t>* const arrived = RecordArrivals(pair);
  for (uint64_t i = 0; i < 40; ++i) {
    ASSERT_EQ(pair.host.Send(Numbered(i) + std::string(192, 'x')),
              SendStatus::kOk);
  }
  pair.host.endpoint->Flush();
  pair.host.endpoint->Freeze();
  const EndpointState state = Save(pair.host);
  pair.guest.PollDry();
  EXPECT_LT(arrived->size(), 40u);
  pair.ReplaceHost();
  ASSERT_TRUE(Restore(pair, state).ok());
  pair.host.endpoint->Thaw();
  for (int i = 0; i < 40; ++i) {
    pair.guest.PollDry();
    pair.host.PollDry();
  }
  EXPECT_EQ(arrived->size(), 40u);
}

// doc:SR8 doc:SR9 doc:SR14
TEST(PacketEndpointSaveTest, RequestsOfTheHostAreAnsweredToTheNextOwner) {
  EndpointPair pair;
  for (uint64_t i = 0; i < 60; ++i) {
    ASSERT_EQ(pair.host.Request(Numbered(i) + std::string(192, 'x'), 1000 + i),
              SendStatus::kOk);
  }
  pair.host.endpoint->Flush();
  ASSERT_GT(pair.host.endpoint->queued(), 10u);
  // Some have been answered, some taken, some are in the ring, some queued.
  (void)pair.guest.endpoint->Poll(10);
  for (int i = 0; i < 5; ++i) {
    pair.guest.events.held[i].Complete(
        pair.guest.events.held[i].payload().first(8));
  }
  pair.host.PollDry();
  ASSERT_EQ(pair.host.events.completions.size(), 5u);
  pair.host.endpoint->Freeze();
  const EndpointState state = Save(pair.host);
  EXPECT_EQ(state.awaiting.size(), 55u);
  for (const EndpointState::Awaiting& awaiting : state.awaiting) {
    EXPECT_EQ(awaiting.blob, "tag " + std::to_string(awaiting.tag));
  }
  pair.ReplaceHost();
  ASSERT_TRUE(Restore(pair, state).ok());
  EXPECT_EQ(pair.host.endpoint->awaiting(), 55u);
  // The new owner's own ids do not meet the saved ones.
  ASSERT_EQ(pair.host.Request(Numbered(60), 1060), SendStatus::kOk);
  pair.host.endpoint->Thaw();
  for (int round = 0; round < 100; ++round) {
    pair.Settle();
    for (IncomingPacket& packet : pair.guest.events.held) {
      if (packet) packet.Complete(packet.payload().first(8));
    }
    pair.guest.events.held.clear();
  }
  std::map<uint64_t, int> answers;
  for (const auto& [tag, reply] : pair.host.events.completions) {
    EXPECT_EQ(NumberIn(ToBytes(reply)) + 1000, tag);
    ++answers[tag];
  }
  EXPECT_EQ(answers.size(), 61u);
  for (const auto& [tag, count] : answers) EXPECT_EQ(count, 1) << tag;
  EXPECT_EQ(pair.host.endpoint->counters().completions_unmatched, 0u);
}

// doc:SR5 doc:SR12
TEST(PacketEndpointSaveTest, EachPacketInFlightComesBackWithItsBlob) {
  EndpointPair pair;
  GuestRequests(pair, 0, 20);
  pair.host.PollDry();
  HostAnswers(pair, 4);
  Move(pair);
  ASSERT_EQ(pair.host.events.held.size(), 19u);
  for (uint64_t i = 0; i < 19; ++i) {
    EXPECT_EQ(NumberIn(pair.host.events.held[i].payload()), i < 4 ? i : i + 1);
  }
  pair.host.endpoint->Thaw();
  for (size_t i = 0; i < 19; ++i) HostAnswers(pair, i);
  pair.Settle();
  EXPECT_EQ(pair.guest.events.completions.size(), 20u);
}

// promise:P2
TEST(PacketEndpointSaveTest, APacketThatWantsNoCompletionMovesToo) {
  EndpointPair pair;
  ASSERT_EQ(pair.guest.Send(Numbered(7)), SendStatus::kOk);
  pair.guest.endpoint->Flush();
  pair.host.PollDry();
  ASSERT_EQ(pair.host.events.held.size(), 1u);
  Move(pair);
  ASSERT_EQ(pair.host.events.held.size(), 1u);
  EXPECT_EQ(NumberIn(pair.host.events.held[0].payload()), 7u);
  EXPECT_FALSE(pair.host.events.held[0].info().completion_requested);
}

// bad:S15
TEST(PacketEndpointSaveTest, PacketsThatStayedInTheRingAreTakenOnce) {
  EndpointPair pair;
  GuestRequests(pair, 0, 10);
  (void)pair.host.endpoint->Poll(4);
  pair.host.endpoint->Freeze();
  const EndpointState state = Save(pair.host);
  GuestRequests(pair, 10, 5);
  pair.ReplaceHost();
  ASSERT_TRUE(Restore(pair, state).ok());
  pair.host.endpoint->Thaw();
  pair.host.PollDry();
  ASSERT_EQ(pair.host.events.held.size(), 15u);
  for (uint64_t i = 0; i < 15; ++i) {
    EXPECT_EQ(NumberIn(pair.host.events.held[i].payload()), i);
    HostAnswers(pair, i);
  }
}

// promise:P3
TEST(PacketEndpointSaveTest, AFrozenEndpointHearsEverySignal) {
  EndpointPair pair;
  GuestRequests(pair, 0, 1);
  (void)pair.host.endpoint->Poll(1);  // not dry: signals are masked
  EXPECT_EQ(pair.GuestToHostWord(ringbuffer::kInterruptMaskOffset), 1u);
  pair.host.endpoint->Freeze();
  EXPECT_EQ(pair.GuestToHostWord(ringbuffer::kInterruptMaskOffset), 0u);
  const uint64_t rings = pair.guest.doorbell.rings;
  GuestRequests(pair, 1, 1);
  EXPECT_EQ(pair.guest.doorbell.rings, rings + 1);
  HostAnswers(pair, 0);
}

// promise:P1
TEST(PacketEndpointSaveTest, AHandleDroppedWhileFrozenIsNotLostInSilence) {
  EndpointPair pair;
  GuestRequests(pair, 0, 2);
  pair.host.PollDry();
  pair.host.endpoint->Freeze();
  pair.host.events.held.pop_back();
  pair.host.endpoint->Thaw();
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kFaulted);
  EXPECT_NE(pair.host.endpoint->fault_reason().find("dropped"),
            std::string::npos);
}

// A worker's batch may be open when the owner freezes.
// doc:SR17
TEST(PacketEndpointSaveTest, FreezeWithinABatchPublishesWhatIsStaged) {
  EndpointPair pair;
  GuestRequests(pair, 0, 2);
  pair.host.PollDry();
  {
    PacketEndpoint::BatchScope scope(*pair.host.endpoint);
    HostAnswers(pair, 0);
    pair.host.endpoint->Freeze();
    HostAnswers(pair, 1);
    EXPECT_TRUE(Save(pair.host).incoming.empty());
  }
  pair.guest.PollDry();
  EXPECT_EQ(pair.guest.events.completions.size(), 1u);
  pair.host.endpoint->Thaw();
  pair.guest.PollDry();
  EXPECT_EQ(pair.guest.events.completions.size(), 2u);
}

// The device may complete, from another thread, what it is asked to save.
// promise:P1
TEST(PacketEndpointSaveTest, ACompletionDuringTheSaveBelongsToOneOwner) {
  for (const bool move : {false, true}) {
    EndpointPair pair;
    GuestRequests(pair, 0, 3);
    pair.host.PollDry();
    pair.host.endpoint->Freeze();
    bool done = false;
    const absl::StatusOr<EndpointState> state =
        pair.host.endpoint->Save([&](const PacketInfo* packet, uint64_t tag) {
          if (!std::exchange(done, true)) HostAnswers(pair, 1);
          return BlobOf(packet, tag);
        });
    ASSERT_TRUE(state.ok());
    EXPECT_EQ(state->incoming.size(), 3u);
    if (move) {
      pair.ReplaceHost();
      ASSERT_TRUE(Restore(pair, *state).ok());
    }
    pair.host.endpoint->Thaw();
    for (size_t i = 0; i < 3; ++i) {
      if (pair.host.events.held[i]) HostAnswers(pair, i);
    }
    pair.guest.PollDry();
    EXPECT_EQ(pair.guest.events.completions.size(), 3u);
    EXPECT_EQ(pair.guest.endpoint->counters().completions_unmatched, 0u);
  }
}

// bad:K12
TEST(PacketEndpointSaveTest, AFaultedEndpointIsSavedAndRestoredAsFaulted) {
  EndpointPair pair;
  GuestRequests(pair, 0, 2);
  pair.host.PollDry();
  const std::string reason = std::string("bad byte \xff") + '\0' + "end";
  pair.host.events.held[0].Fail(reason);
  const EndpointState state = Save(pair.host);
  EXPECT_EQ(state.fault_reason, "malformed packet: " + reason);
  pair.ReplaceHost();
  ASSERT_TRUE(Restore(pair, state).ok());
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kFaulted);
  EXPECT_EQ(pair.host.endpoint->fault_reason(), state.fault_reason);
  pair.host.endpoint->Thaw();
  EXPECT_FALSE(pair.host.endpoint->Poll(64));
  EXPECT_EQ(Save(pair.host).fault_reason, state.fault_reason);
}

// promise:P9
TEST(PacketEndpointSaveTest, AFaultReasonIsShort) {
  EndpointPair pair;
  pair.host.endpoint->Fault(std::string(100000, 'x'));
  EXPECT_LE(pair.host.endpoint->fault_reason().size(), kMaxFaultReasonBytes);
}

// bad:S23 promise:P11
TEST(PacketEndpointSaveTest, SavingAndRestoringChangesNothing) {
  EndpointPair pair;
  GuestRequests(pair, 0, 9);
  pair.host.PollDry();
  for (uint64_t i = 0; i < 30; ++i) {
    ASSERT_EQ(pair.host.Request(Numbered(i) + std::string(192, 'x'), i),
              SendStatus::kOk);
  }
  HostAnswers(pair, 3);
  const auto text = [](const EndpointState& state) {
    std::string all;
    for (const auto& each : state.incoming) all += each.payload + each.blob;
    for (const auto& each : state.queued) {
      all += std::to_string(each.transaction_id) + each.payload;
    }
    for (const auto& each : state.awaiting) {
      all += std::to_string(each.transaction_id) + each.blob;
    }
    return all;
  };
  pair.host.endpoint->Freeze();
  const std::string first = text(Save(pair.host));
  EXPECT_EQ(first, text(Save(pair.host)));
  Move(pair);
  EXPECT_EQ(first, text(Save(pair.host)));
  for (IncomingPacket& packet : pair.host.events.held) packet.Complete();
}

}  // namespace
}  // namespace ferrybus
