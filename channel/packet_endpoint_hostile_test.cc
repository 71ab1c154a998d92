// SPDX-License-Identifier: MIT
//
// Peers that break rules, and how packets and endpoints end.

#include "ferrybus/channel/endpoint_test_util.h"
#include "ferrybus/channel/packet_endpoint.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

using ringbuffer::PacketType;
using testing::EndpointPair;
using testing::EndpointPairOptions;
using testing::Numbered;
using testing::NumberIn;
using testing::PageList;
using testing::RawGuest;
using testing::ToBytes;

EndpointPairOptions WithHost(const EndpointLimits& limits) {
  EndpointPairOptions options;
  options.host = limits;
  return options;
}

// -- A peer that breaks rules ------------------------------------------------

// bad:R29
TEST(PacketEndpointHostileTest, StrayCompletionsAreCountedThenFault) {
  EndpointLimits limits;
  limits.max_bad_completions = 3;
  EndpointPair pair(WithHost(limits));
  ASSERT_EQ(pair.host.Request(Numbered(1), 11), SendStatus::kOk);
  RawGuest guest(pair);
  const uint64_t real = 1;  // slot 0, first use
  ASSERT_TRUE(guest.Write(PacketType::kCompletion, 0, 0, "", ""));
  ASSERT_TRUE(guest.Write(PacketType::kCompletion, 0, ~uint64_t{0}, "", ""));
  ASSERT_TRUE(guest.Write(PacketType::kCompletion, 0, real, "", ""));
  pair.host.PollDry();
  EXPECT_EQ(pair.host.endpoint->counters().completions_unmatched, 2u);
  ASSERT_EQ(pair.host.events.completions.size(), 1u);
  EXPECT_EQ(pair.host.events.completions[0].first, 11u);
  ASSERT_TRUE(guest.Write(PacketType::kCompletion, 0, real, "", ""));
  pair.host.PollDry();
  EXPECT_EQ(pair.host.events.completions.size(), 1u) << "answered twice";
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kActive);
  ASSERT_TRUE(guest.Write(PacketType::kCompletion, 0, 0x100000001, "", ""));
  pair.host.PollDry();
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kFaulted);
  EXPECT_NE(pair.host.endpoint->fault_reason().find("4294967297"),
            std::string::npos)
      << pair.host.endpoint->fault_reason();
}

// bad:R29
TEST(PacketEndpointHostileTest, ALateAnswerIsNotThatOfTheNextRequest) {
  EndpointPair pair;
  RawGuest guest(pair);
  const uint64_t first = 1;  // slot 0, first use
  ASSERT_EQ(pair.host.Request(Numbered(1), 11), SendStatus::kOk);
  ASSERT_TRUE(guest.Write(PacketType::kCompletion, 0, first, "", ""));
  pair.host.PollDry();
  ASSERT_EQ(pair.host.Request(Numbered(2), 12), SendStatus::kOk);
  ASSERT_TRUE(guest.Write(PacketType::kCompletion, 0, first, "", ""));
  pair.host.PollDry();
  EXPECT_EQ(pair.host.events.completions.size(), 1u);
  EXPECT_EQ(pair.host.endpoint->counters().completions_unmatched, 1u);
  ASSERT_TRUE(guest.Write(PacketType::kCompletion, 0, 0x100000001, "", ""));
  pair.host.PollDry();
  ASSERT_EQ(pair.host.events.completions.size(), 2u);
  EXPECT_EQ(pair.host.events.completions[1].first, 12u);
}

// bad:R30
TEST(PacketEndpointHostileTest, OneTransactionIdTwiceInFlightIsTwoPackets) {
  EndpointPair pair;
  RawGuest guest(pair);
  ASSERT_TRUE(guest.Request(5, Numbered(1)));
  ASSERT_TRUE(guest.Request(5, Numbered(2)));
  pair.host.PollDry();
  ASSERT_EQ(pair.host.events.held.size(), 2u);
  EXPECT_NE(pair.host.events.held[0].info().slot,
            pair.host.events.held[1].info().slot);
  pair.host.events.held[1].Complete(ToBytes(Numbered(2)));
  EXPECT_EQ(NumberIn(pair.host.events.held[0].payload()), 1u);
  pair.host.events.held[0].Complete(ToBytes(Numbered(1)));
  pair.guest.PollDry();
  EXPECT_EQ(pair.host.endpoint->counters().packets_sent, 2u);
  EXPECT_EQ(pair.guest.endpoint->counters().completions_unmatched, 2u);
}

// bad:R15
TEST(PacketEndpointHostileTest, AnUnsoundRangeListFaultsBeforeTheDeviceSeesIt) {
  EndpointPair pair;
  RawGuest guest(pair);
  ASSERT_TRUE(guest.Write(PacketType::kDataUsingGpaDirect, 1, 1,
                          std::string(24, '\0'), Numbered(1)));
  pair.host.PollDry();
  EXPECT_TRUE(pair.host.events.held.empty());
  EXPECT_EQ(pair.host.endpoint->outstanding(), 0u);
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kFaulted);
  EXPECT_NE(pair.host.endpoint->fault_reason().find("range count is 0"),
            std::string::npos);
}

// bad:R17
TEST(PacketEndpointHostileTest, PagesOutsideRamConcernOnlyTheirPacket) {
  EndpointPair pair;
  RawGuest guest(pair);
  const uint64_t count = pair.memory->page_count();
  for (const uint64_t page :
       {count, count + 1, uint64_t{1} << 40, uint64_t{1} << 52,
        (uint64_t{1} << 52) + 1, ~uint64_t{0}}) {
    ASSERT_TRUE(guest.Write(PacketType::kDataUsingGpaDirect, 1, page,
                            PageList({1, page}), Numbered(1)));
    pair.host.PollDry();
    ASSERT_EQ(pair.host.events.held.size(), 1u);
    EXPECT_EQ(pair.host.events.held[0].info().external_bytes, 8192u);
    EXPECT_EQ(pair.host.events.held[0].guest_buffers().status().code(),
              absl::StatusCode::kOutOfRange);
    EXPECT_EQ(pair.host.events.held[0].Complete(), CompleteResult::kOk);
    pair.host.events.held.clear();
  }
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kActive);
}

TEST(PacketEndpointHostileTest, AdjacentPagesAreJoined) {
  EndpointPair pair;
  RawGuest guest(pair);
  ASSERT_TRUE(guest.Write(PacketType::kDataUsingGpaDirect, 1, 1,
                          PageList({8, 9, 7, 7}), Numbered(1)));
  pair.host.PollDry();
  const auto buffers = pair.host.events.held[0].guest_buffers();
  ASSERT_TRUE(buffers.ok());
  ASSERT_EQ(buffers->size(), 3u);
  EXPECT_EQ((*buffers)[0].iov_base, pair.memory->Translate(8 * 4096, 1).data());
  EXPECT_EQ((*buffers)[0].iov_len, 8192u);
  EXPECT_EQ((*buffers)[1].iov_base, (*buffers)[2].iov_base);
  pair.host.events.held[0].Complete();
}

// bad:R16
TEST(PacketEndpointHostileTest, AnUnsoundRangeConcernsOnlyItsPacket) {
  EndpointPair pair;
  RawGuest guest(pair);
  std::string list = PageList({8});
  list[9] = 0x7f;  // more bytes than pages
  ASSERT_TRUE(guest.Write(PacketType::kDataUsingGpaDirect, 1, 1, list, ""));
  pair.host.PollDry();
  ASSERT_EQ(pair.host.events.held.size(), 1u);
  EXPECT_EQ(pair.host.events.held[0].guest_buffers().status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pair.host.events.held[0].Complete(), CompleteResult::kOk);
}

// bad:R18
TEST(PacketEndpointHostileTest, AnUnknownTransferPageSetConcernsOnlyItsPacket) {
  EndpointPair pair;
  RawGuest guest(pair);
  const uint32_t list[6] = {0xcafe, 2, 100, 0, 100, 50};  // they overlap
  ASSERT_TRUE(guest.Write(PacketType::kDataUsingTransferPages, 1, 1,
                          {reinterpret_cast<const char*>(list), sizeof(list)},
                          Numbered(1)));
  pair.host.PollDry();
  ASSERT_EQ(pair.host.events.held.size(), 1u);
  EXPECT_EQ(pair.host.events.held[0].guest_buffers().status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(pair.host.events.held[0].Complete(), CompleteResult::kOk);
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kActive);
}

// bad:R3
TEST(PacketEndpointHostileTest, OwnIndicesInSharedMemoryAreNotReadBack) {
  EndpointPair pair;
  pair.host.events.on_packet = [](IncomingPacket packet) { packet.Complete(); };
  ASSERT_EQ(pair.guest.Request(Numbered(1), 1), SendStatus::kOk);
  pair.guest.endpoint->Flush();
  pair.GuestToHostWord(ringbuffer::kReadIndexOffset) = 4000;
  pair.HostToGuestWord(ringbuffer::kWriteIndexOffset) = 4000;
  pair.host.PollDry();
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kActive);
  EXPECT_EQ(pair.GuestToHostWord(ringbuffer::kReadIndexOffset), 32u);
  pair.guest.PollDry();
  EXPECT_EQ(pair.guest.events.completions.size(), 1u);
}

TEST(PacketEndpointHostileTest, AttachRefusesImpossibleRings) {
  EndpointPair pair;
  pair.host.endpoint->Detach();
  pair.HostToGuestWord(ringbuffer::kReadIndexOffset) = 4096;
  const absl::Status status =
      pair.host.endpoint->Attach(pair.MapRings(), EndpointPair::kChannel);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status.ToString();
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kDetached);
}

// -- Ends --------------------------------------------------------------------

TEST(PacketEndpointHostileTest, ADroppedHandleFaultsTheChannel) {
  EndpointPair pair;
  ASSERT_EQ(pair.guest.Request(Numbered(1), 1), SendStatus::kOk);
  pair.guest.endpoint->Flush();
  pair.host.PollDry();
  pair.host.events.held.clear();
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kFaulted);
  EXPECT_EQ(pair.host.endpoint->outstanding(), 0u);
}

TEST(PacketEndpointHostileTest, AFaultedEndpointTakesAndSendsNothing) {
  EndpointPair pair;
  ASSERT_EQ(pair.guest.Request(Numbered(1), 1), SendStatus::kOk);
  ASSERT_EQ(pair.guest.Request(Numbered(2), 2), SendStatus::kOk);
  pair.guest.endpoint->Flush();
  EXPECT_TRUE(pair.host.endpoint->Poll(1));
  pair.host.endpoint->Fault("told to");
  EXPECT_FALSE(pair.host.endpoint->Poll(64));
  EXPECT_EQ(pair.host.Send("x"), SendStatus::kClosed);
  EXPECT_EQ(pair.host.events.held[0].Complete(), CompleteResult::kGone);
  EXPECT_EQ(pair.host.endpoint->fault_reason(), "told to");
  EXPECT_EQ(pair.host.endpoint->counters().packets_received, 1u);
  pair.host.endpoint->Detach();
  EXPECT_EQ(pair.host.endpoint->fault_reason(), "");
}

// bad:C6
TEST(PacketEndpointHostileTest, PacketsOfAClosedChannelEndOnceAndSendNothing) {
  EndpointPair pair;
  for (uint64_t i = 0; i < 3; ++i) {
    ASSERT_EQ(pair.guest.Request(Numbered(i), i), SendStatus::kOk);
  }
  pair.guest.endpoint->Flush();
  pair.host.PollDry();
  pair.host.endpoint->Detach();
  EXPECT_EQ(pair.host.endpoint->outstanding(), 3u);
  EXPECT_EQ(NumberIn(pair.host.events.held[2].payload()), 2u);
  EXPECT_EQ(pair.host.events.held[0].Complete(), CompleteResult::kGone);
  pair.host.events.held[1].Fail("late");
  const uint64_t works = pair.host.events.works;
  pair.host.events.held.clear();
  EXPECT_EQ(pair.host.events.works, works + 1) << "the last one is waited for";
  EXPECT_EQ(pair.host.endpoint->outstanding(), 0u);
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kDetached);
}

// A handle of an earlier opening says nothing about the present one.
TEST(PacketEndpointHostileTest, AnOrphanDoesNotFaultTheNextOpening) {
  EndpointPair pair;
  for (uint64_t i = 0; i < 3; ++i) {
    ASSERT_EQ(pair.guest.Request(Numbered(i), i), SendStatus::kOk);
  }
  pair.guest.endpoint->Flush();
  pair.host.PollDry();
  pair.host.endpoint->Detach();
  ASSERT_TRUE(
      pair.host.endpoint->Attach(pair.MapRings(), EndpointPair::kChannel).ok());
  pair.host.endpoint->Start();
  EXPECT_EQ(pair.host.events.held[0].Complete(), CompleteResult::kGone);
  pair.host.events.held[1].Fail("late");
  pair.host.events.held.clear();
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kActive)
      << pair.host.endpoint->fault_reason();
}

// A driver may close its channel when the last answer is in.
TEST(PacketEndpointHostileTest, AnEventMayCloseTheChannel) {
  EndpointPair pair;
  for (uint64_t i = 0; i < 3; ++i) {
    ASSERT_EQ(pair.guest.Request(Numbered(i), i), SendStatus::kOk);
    ASSERT_EQ(pair.host.Send(Numbered(i)), SendStatus::kOk);
  }
  pair.guest.endpoint->Flush();
  pair.host.PollDry();
  for (IncomingPacket& packet : pair.host.events.held) packet.Complete();
  pair.guest.events.on_completion = [&] { pair.guest.endpoint->Detach(); };
  pair.guest.events.on_packet = [](IncomingPacket packet) {
    packet.Complete();
  };
  EXPECT_FALSE(pair.guest.endpoint->Poll(64));
  EXPECT_EQ(pair.guest.events.completions.size(), 1u);
  EXPECT_EQ(pair.guest.endpoint->run_state(), EndpointRunState::kDetached);

  pair.host.events.on_packet = [&](IncomingPacket packet) {
    pair.host.endpoint->Detach();
    EXPECT_EQ(packet.Complete(), CompleteResult::kGone);
  };
  RawGuest guest(pair);
  ASSERT_TRUE(guest.Request(1, "") && guest.Request(2, ""));
  EXPECT_FALSE(pair.host.endpoint->Poll(64));
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kDetached);
}

TEST(PacketEndpointHostileTest, ARetiredEndpointLivesUntilItsLastHandleEnds) {
  EndpointPair pair;
  for (uint64_t i = 0; i < 3; ++i) {
    ASSERT_EQ(pair.guest.Request(Numbered(i), i), SendStatus::kOk);
  }
  pair.guest.endpoint->Flush();
  pair.host.PollDry();
  PacketEndpoint::Retire(std::move(pair.host.endpoint));
  const uint64_t works = pair.host.events.works;
  EXPECT_EQ(NumberIn(pair.host.events.held[1].payload()), 1u);
  EXPECT_EQ(pair.host.events.held[1].Complete(), CompleteResult::kGone);
  pair.host.events.held[0].Fail("late");
  pair.host.events.held.clear();
  EXPECT_EQ(pair.host.events.works, works) << "events of a retired endpoint";
}

TEST(PacketEndpointHostileTest, OnBatchEndComesOnceForEachBatch) {
  EndpointPair pair;
  for (uint64_t i = 0; i < 5; ++i) {
    ASSERT_EQ(pair.guest.Request(Numbered(i), i), SendStatus::kOk);
  }
  pair.guest.endpoint->Flush();
  EXPECT_TRUE(pair.host.endpoint->Poll(3));
  EXPECT_FALSE(pair.host.endpoint->Poll(3));
  EXPECT_FALSE(pair.host.endpoint->Poll(3));
  EXPECT_EQ(pair.host.events.batches, (std::vector<size_t>{3, 2}));
  for (IncomingPacket& packet : pair.host.events.held) packet.Complete();
}

TEST(PacketEndpointHostileTest, ABatchScopeRingsOnce) {
  EndpointPair pair;
  for (uint64_t i = 0; i < 5; ++i) {
    ASSERT_EQ(pair.guest.Request(Numbered(i), i), SendStatus::kOk);
  }
  pair.guest.endpoint->Flush();
  pair.host.PollDry();
  {
    PacketEndpoint::BatchScope outer(*pair.host.endpoint);
    PacketEndpoint::BatchScope inner(*pair.host.endpoint);
    for (IncomingPacket& packet : pair.host.events.held) packet.Complete();
    EXPECT_EQ(pair.host.doorbell.rings, 0u);
  }
  EXPECT_EQ(pair.host.doorbell.rings, 1u);
  pair.guest.PollDry();
  EXPECT_EQ(pair.guest.events.completions.size(), 5u);
}

// doc:ST8
TEST(PacketEndpointHostileTest, ASuspendedEndpointTakesNothingButAnswers) {
  EndpointPair pair;
  ASSERT_EQ(pair.guest.Request(Numbered(1), 1), SendStatus::kOk);
  pair.guest.endpoint->Flush();
  pair.host.PollDry();
  pair.host.endpoint->Suspend();
  ASSERT_EQ(pair.guest.Request(Numbered(2), 2), SendStatus::kOk);
  pair.guest.endpoint->Flush();
  pair.host.PollDry();
  EXPECT_EQ(pair.host.events.held.size(), 1u);
  pair.host.events.held[0].Complete();
  pair.guest.PollDry();
  EXPECT_EQ(pair.guest.events.completions.size(), 1u);
  pair.host.endpoint->Start();
  pair.host.PollDry();
  ASSERT_EQ(pair.host.events.held.size(), 2u);
  pair.host.events.held[1].Complete();
}

}  // namespace
}  // namespace ferrybus
