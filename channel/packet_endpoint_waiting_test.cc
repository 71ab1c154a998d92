// SPDX-License-Identifier: MIT
//
// Packets that wait for their receiver or for the channel, and what else a
// user of an endpoint may ask for.

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "ferrybus/channel/endpoint_test_util.h"
#include "ferrybus/channel/pipe_header.h"
#include "gtest/gtest.h"

namespace {

// Allocations of the whole program while counted.
std::atomic<bool> is_counting{false};
std::atomic<int> allocations{0};

}  // namespace

void* operator new(size_t bytes) {
  if (is_counting) ++allocations;
  void* const memory = std::malloc(bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace ferrybus {
namespace {

using ringbuffer::PacketType;
using testing::EndpointEnd;
using testing::EndpointPair;
using testing::Numbered;
using testing::NumberIn;
using testing::PageList;
using testing::RawGuest;
using testing::ToBytes;
using testing::ToString;

// Pins when it is told to.
class SlowPins final : public GuestPins {
 public:
  ExternalData Pin(absl::Span<const iovec> buffers, GuestAccess its_access,
                   PinDone done) override {
    ++pinned;
    access = its_access;
    bytes += buffers[0].iov_len;
    if (is_ready) return ExternalData::kReady;
    pending.push_back(done);
    return ExternalData::kPending;
  }
  void Unpin(absl::Span<const iovec> buffers, GuestAccess) override {
    --pinned;
    bytes -= buffers[0].iov_len;
    pending.clear();
  }

  bool is_ready = false;
  int pinned = 0;
  size_t bytes = 0;
  GuestAccess access = GuestAccess::kReadWrite;
  std::vector<PinDone> pending;
};

class WaitingTest : public ::testing::Test {
 protected:
  // A host with options of its own on the same rings.
  void MakeHost(const EndpointOptions& options, bool attach = true) {
    PacketEndpoint::Retire(std::move(pair_.host.endpoint));
    pair_.host.endpoint = std::make_unique<PacketEndpoint>(
        EndpointSide::kHost, options, pair_.memory.get(), &pair_.host.doorbell,
        static_cast<EndpointEvents*>(&pair_.host.events));
    if (!attach) return;
    ASSERT_TRUE(Attach().ok());
    pair_.host.endpoint->Start();
  }
  absl::Status Attach() {
    return pair_.host.endpoint->Attach(pair_.MapRings(),
                                       EndpointPair::kChannel);
  }
  EndpointEnd& host() { return pair_.host; }
  EndpointEnd& guest() { return pair_.guest; }
  // What the host's receiver saw, and what it did with the first of each.
  void DeferFirst() {
    host().events.on_packet = [this](IncomingPacket packet) {
      seen_.push_back(NumberIn(packet.payload()));
      may_block_.push_back(packet.may_block());
      if (!packet.may_block() && NumberIn(packet.payload()) == 1) {
        return packet.Defer();
      }
      packet.Complete(packet.payload());
    };
  }

  EndpointPair pair_;
  std::vector<uint64_t> seen_;
  std::vector<bool> may_block_;
};

// -- Given back --------------------------------------------------------------

// doc:KI4 promise:P2
TEST_F(WaitingTest, AGivenBackPacketComesAgainBeforeLaterOnes) {
  DeferFirst();
  for (uint64_t i = 0; i < 3; ++i) {
    ASSERT_EQ(guest().Request(Numbered(i), i), SendStatus::kOk);
  }
  guest().endpoint->Flush();
  host().PollDry();
  EXPECT_EQ(seen_, (std::vector<uint64_t>{0, 1, 1, 2}));
  EXPECT_EQ(may_block_, (std::vector<bool>{false, false, true, true}));
  EXPECT_EQ(host().events.batches, (std::vector<size_t>{2, 2}));
  pair_.Settle();
  EXPECT_EQ(guest().events.completions.size(), 3u);
}

// doc:KI4 promise:P2
TEST_F(WaitingTest, APacketGivenBackTwiceStaysFirst) {
  host().events.on_packet = [this](IncomingPacket packet) {
    seen_.push_back(NumberIn(packet.payload()));
    if (seen_.back() == 1 && seen_.size() < 4) return packet.Defer();
    packet.Complete();
  };
  for (uint64_t i = 1; i < 4; ++i) {
    ASSERT_EQ(guest().Request(Numbered(i), i), SendStatus::kOk);
  }
  guest().endpoint->Flush();
  pair_.Settle();
  EXPECT_EQ(seen_, (std::vector<uint64_t>{1, 1, 1, 1, 2, 3}));
}

// doc:ST7 doc:ST8
TEST_F(WaitingTest, AGivenBackPacketIsNotInTheReceiversHands) {
  host().events.on_packet = [this](IncomingPacket packet) {
    host().endpoint->Suspend();
    packet.Defer();
  };
  ASSERT_EQ(guest().Request(Numbered(1), 1), SendStatus::kOk);
  guest().endpoint->Flush();
  host().PollDry();
  EXPECT_EQ(host().endpoint->outstanding(), 1u);
  EXPECT_EQ(host().endpoint->held(), 0u);
  DeferFirst();
  host().PollDry();
  EXPECT_TRUE(seen_.empty()) << "while suspended";
  host().endpoint->Start();
  pair_.Settle();
  EXPECT_EQ(seen_, std::vector<uint64_t>{1});
  EXPECT_EQ(guest().events.completions.size(), 1u);
}

// promise:P1
TEST_F(WaitingTest, AGivenBackPacketMoves) {
  host().events.on_packet = [this](IncomingPacket packet) {
    if (NumberIn(packet.payload()) == 2) host().endpoint->Suspend();
    packet.Defer();
  };
  for (uint64_t i = 1; i < 4; ++i) {
    ASSERT_EQ(guest().Request(Numbered(i), i), SendStatus::kOk);
  }
  guest().endpoint->Flush();
  (void)host().endpoint->Poll(2);
  host().endpoint->Freeze();
  const auto no_blob = [](const PacketInfo*, uint64_t) {
    return absl::StatusOr<std::string>(absl::InternalError("asked"));
  };
  const auto state = host().endpoint->Save(no_blob);
  ASSERT_TRUE(state.ok()) << state.status();
  ASSERT_FALSE(state->incoming.empty());
  EXPECT_TRUE(state->incoming[0].is_waiting);
  pair_.ReplaceHost();
  DeferFirst();
  ASSERT_TRUE(host()
                  .endpoint
                  ->Restore(*state, pair_.MapRings(), EndpointPair::kChannel,
                            [](IncomingPacket, absl::Span<const std::byte>) {
                              return absl::InternalError("given at once");
                            })
                  .ok());
  host().endpoint->Thaw();
  pair_.Settle();
  EXPECT_EQ(seen_, (std::vector<uint64_t>{1, 2, 3}));
  EXPECT_EQ(guest().events.completions.size(), 3u);
}

TEST_F(WaitingTest, AGivenBackPacketEndsWithTheChannel) {
  SlowPins pins;
  EndpointOptions options;
  options.pins = &pins;
  MakeHost(options);
  host().events.on_packet = [](IncomingPacket packet) {
    EXPECT_EQ(*packet.PinGuestBuffers(), ExternalData::kPending);
    packet.Defer();
  };
  RawGuest raw(pair_);
  ASSERT_TRUE(raw.Write(PacketType::kDataUsingGpaDirect, 1, 7, PageList({3}),
                        Numbered(1)));
  host().PollDry();
  EXPECT_EQ(pins.pinned, 1);
  host().endpoint->Detach();
  EXPECT_EQ(host().endpoint->outstanding(), 0u);
  EXPECT_EQ(pins.pinned, 0);
}

// -- Guest memory that is not there yet --------------------------------------

// doc:KE2 doc:KI3 doc:KE1
TEST_F(WaitingTest, APacketComesAgainWhenItsMemoryIsThere) {
  SlowPins pins;
  EndpointOptions options;
  options.pins = &pins;
  MakeHost(options);
  int deliveries = 0;
  host().events.on_packet = [&](IncomingPacket packet) {
    ++deliveries;
    const auto pinned = packet.PinGuestBuffers();
    ASSERT_TRUE(pinned.ok());
    if (*pinned == ExternalData::kPending) return packet.Defer();
    EXPECT_EQ((*packet.guest_buffers())[0].iov_len, 2 * 4096u);
    host().events.held.push_back(std::move(packet));
  };
  RawGuest raw(pair_);
  ASSERT_TRUE(raw.Write(PacketType::kDataUsingGpaDirect, 1, 7, PageList({3, 4}),
                        Numbered(1)));
  host().PollDry();
  EXPECT_EQ(deliveries, 1);
  pins.is_ready = true;
  pins.pending[0]();
  EXPECT_GT(host().events.works, 0u);
  host().PollDry();
  EXPECT_EQ(deliveries, 2);
  EXPECT_EQ(pins.bytes, 2 * 4096u) << "pinned until it is completed";
  host().events.held[0].Complete();
  EXPECT_EQ(pins.pinned, 0);
  EXPECT_EQ(pins.bytes, 0u);
  host().events.held.clear();
}

// doc:KE3
TEST_F(WaitingTest, MemoryIsPinnedAsItWasAskedFor) {
  SlowPins pins;
  pins.is_ready = true;
  EndpointOptions options;
  options.pins = &pins;
  MakeHost(options);
  RawGuest raw(pair_);
  ASSERT_TRUE(raw.Write(PacketType::kDataUsingGpaDirect, 1, 7, PageList({3}),
                        Numbered(1)));
  host().PollDry();
  IncomingPacket& packet = host().events.held[0];
  EXPECT_EQ(*packet.PinGuestBuffers(GuestAccess::kReadOnly),
            ExternalData::kReady);
  EXPECT_EQ(pins.access, GuestAccess::kReadOnly);
  EXPECT_EQ(packet.PinGuestBuffers().status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pins.pinned, 1);
  packet.Fail("enough");
  EXPECT_EQ(pins.pinned, 0);
  host().events.held.clear();
}

// doc:KC2
TEST_F(WaitingTest, MoreExternalDataThanAgreedFaultsTheChannel) {
  EndpointOptions options;
  options.max_external_bytes = 4096;
  MakeHost(options);
  RawGuest raw(pair_);
  ASSERT_TRUE(raw.Write(PacketType::kDataUsingGpaDirect, 1, 7, PageList({3}),
                        Numbered(1)));
  ASSERT_TRUE(raw.Write(PacketType::kDataUsingGpaDirect, 1, 8, PageList({3, 4}),
                        Numbered(2)));
  host().PollDry();
  EXPECT_EQ(host().events.held.size(), 1u);
  EXPECT_EQ(host().endpoint->run_state(), EndpointRunState::kFaulted);
  host().events.held.clear();
}

// -- Quota -------------------------------------------------------------------

// doc:KC19
TEST_F(WaitingTest, RaisingTheQuotaDoesNotRestartACompletionDoes) {
  host().endpoint->SetQuota(2);
  for (uint64_t i = 0; i < 6; ++i) {
    ASSERT_EQ(guest().Request(Numbered(i), i), SendStatus::kOk);
  }
  guest().endpoint->Flush();
  host().PollDry();
  EXPECT_EQ(host().events.held.size(), 2u);
  host().endpoint->SetQuota(5);
  host().PollDry();
  EXPECT_EQ(host().events.held.size(), 2u);
  host().events.held[0].Complete();
  host().events.held.pop_front();
  host().PollDry();
  EXPECT_EQ(host().events.held.size(), 5u);
  for (IncomingPacket& each : host().events.held) each.Complete();
  host().events.held.clear();
}

// -- Sends before the opening, and taking them back --------------------------

// doc:KP18 doc:ST14
TEST_F(WaitingTest, WhatIsSentWhileClosedGoesOutWhenOpen) {
  MakeHost({}, /*attach=*/false);
  OutgoingPacket packet;
  const std::string payload = Numbered(7);
  packet.payload = ToBytes(payload);
  EXPECT_EQ(host().endpoint->Send(packet), SendStatus::kClosed);
  packet.may_queue = packet.may_wait_for_open = true;
  EXPECT_EQ(host().endpoint->Send(packet), SendStatus::kOk);
  EXPECT_EQ(host().endpoint->queued(), 1u);
  ASSERT_TRUE(Attach().ok());
  host().endpoint->Freeze();
  pair_.Settle();
  EXPECT_TRUE(guest().events.held.empty());
  // The opening comes to nothing: it waits for the next.
  host().endpoint->RollBack();
  EXPECT_EQ(host().endpoint->queued(), 1u);
  ASSERT_TRUE(Attach().ok());
  host().endpoint->Start();
  pair_.Settle();
  ASSERT_EQ(guest().events.held.size(), 1u);
  EXPECT_EQ(NumberIn(guest().events.held[0].payload()), 7u);
  guest().events.held.clear();
}

// doc:KC1 doc:KC2
TEST_F(WaitingTest, RingsThatCannotHoldTheGreatestPacketAreRefused) {
  EndpointOptions options;
  options.max_payload_bytes = 4096;  // the ring has one page
  MakeHost(options, /*attach=*/false);
  EXPECT_EQ(Attach().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(host().endpoint->run_state(), EndpointRunState::kDetached);
  options.max_payload_bytes = 1000;
  MakeHost(options);
  EXPECT_EQ(host().Send(std::string(1000, 'x')), SendStatus::kOk);
  EXPECT_EQ(host().Send(std::string(1001, 'x')), SendStatus::kTooLarge);
}

// doc:ST17
TEST_F(WaitingTest, ACancelledRequestKeepsItsIdUntilItsAnswerComes) {
  ASSERT_EQ(host().Request(Numbered(1), 11), SendStatus::kOk);
  host().endpoint->Flush();
  EXPECT_TRUE(host().endpoint->Cancel(11));
  EXPECT_FALSE(host().endpoint->Cancel(11)) << "twice";
  EXPECT_EQ(host().endpoint->awaiting(), 1u);
  // It is saved as what it is.
  host().endpoint->Freeze();
  const auto state = host().endpoint->Save([](const PacketInfo*, uint64_t) {
    return absl::StatusOr<std::string>(absl::InternalError("asked"));
  });
  ASSERT_TRUE(state.ok()) << state.status();
  ASSERT_EQ(state->awaiting.size(), 1u);
  EXPECT_TRUE(state->awaiting[0].is_cancelled);
  host().endpoint->Thaw();
  guest().events.on_packet = [](IncomingPacket packet) { packet.Complete(); };
  pair_.Settle();
  EXPECT_EQ(host().endpoint->awaiting(), 0u);
  EXPECT_TRUE(host().events.completions.empty());
  EXPECT_EQ(host().endpoint->counters().completions_unmatched, 0u);
}

// doc:KP22
TEST_F(WaitingTest, ACancelledPacketThatWaitsIsNotSent) {
  const std::string payload(1000, 'x');
  OutgoingPacket packet;
  packet.payload = ToBytes(payload);
  packet.may_queue = true;
  for (packet.tag = 1; packet.tag < 8; ++packet.tag) {
    ASSERT_EQ(host().endpoint->Send(packet), SendStatus::kOk);
  }
  const uint32_t queued = host().endpoint->queued();
  ASSERT_GT(queued, 2u);
  EXPECT_TRUE(host().endpoint->Cancel(6));
  EXPECT_FALSE(host().endpoint->Cancel(1)) << "in the ring";
  EXPECT_EQ(host().endpoint->queued(), queued - 1);
}

// doc:KP11
TEST_F(WaitingTest, ASenderHearsThatItsPacketIsInTheRing) {
  class SentEvents final : public EndpointEvents {
   public:
    void OnPacket(IncomingPacket packet) override { packet.Complete(); }
    void OnCompletion(uint64_t, absl::Span<const std::byte>) override {}
    void OnBatchEnd(size_t) override {}
    void OnRoom() override {}
    void OnWork() override {}
    void OnSent(uint64_t tag) override { sent.push_back(tag); }
    std::vector<uint64_t> sent;
  } events;
  PacketEndpoint::Retire(std::move(host().endpoint));
  host().endpoint = std::make_unique<PacketEndpoint>(
      EndpointSide::kHost, EndpointOptions(), pair_.memory.get(),
      &host().doorbell, &events);
  ASSERT_TRUE(Attach().ok());
  host().endpoint->Start();
  const std::string payload(1000, 'x');
  OutgoingPacket packet;
  packet.payload = ToBytes(payload);
  packet.may_queue = packet.wants_sent = true;
  for (packet.tag = 0; packet.tag < 8; ++packet.tag) {
    ASSERT_EQ(host().endpoint->Send(packet), SendStatus::kOk);
  }
  host().PollDry();
  const size_t in_ring = events.sent.size();
  EXPECT_EQ(in_ring, 8 - host().endpoint->queued());
  guest().events.on_packet = [](IncomingPacket each) { each.Complete(); };
  pair_.Settle();
  EXPECT_EQ(events.sent, (std::vector<uint64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  host().endpoint->Detach();
  PacketEndpoint::Retire(std::move(host().endpoint));
  host().Create(EndpointSide::kHost, EndpointLimits(), pair_.memory.get());
}

// -- Pipes -------------------------------------------------------------------

// doc:KC21
TEST_F(WaitingTest, WhatIsNoDatagramFaultsAPipe) {
  struct Case {
    PipeHeader header;
    size_t bytes;
    uint16_t flags;
    bool is_good;
  };
  for (const Case& each : {
           Case{{1, 5}, 16, 0, true},
           Case{{1, 0}, 8, 0, true},
           Case{{1, 8}, 16, 1, true},  // nobody completes it
           Case{{1, 9}, 16, 0, false},
           Case{{2, 5}, 16, 0, false},
           Case{{0, 0}, 16, 0, false},
           Case{{1, 16385}, 16, 0, false},
           Case{{1, 0xffffffff}, 16, 0, false},
           Case{{1, 0}, 0, 0, false},
       }) {
    SCOPED_TRACE(each.header.data_bytes);
    EndpointOptions options;
    options.is_pipe = true;
    MakeHost(options);
    std::string payload(each.bytes, 'd');
    std::memcpy(payload.data(), &each.header,
                std::min(sizeof(each.header), each.bytes));
    RawGuest raw(pair_);
    ASSERT_TRUE(raw.Write(PacketType::kDataInBand, each.flags, 1, "", payload));
    host().PollDry();
    ASSERT_EQ(host().events.held.size(), each.is_good ? 1u : 0u);
    if (each.is_good) {
      EXPECT_EQ(host().events.held[0].payload().size(), each.header.data_bytes);
      EXPECT_FALSE(host().events.held[0].completion_requested());
      host().events.held[0].Complete();
      host().events.held.clear();
      continue;
    }
    EXPECT_EQ(host().endpoint->fault_reason(),
              "malformed packet: not a pipe's datagram");
  }
}

// -- Cost --------------------------------------------------------------------

// doc:KP17
TEST_F(WaitingTest, NoAllocationForEachPacketAtAQueueDepthOf32) {
  guest().endpoint->Reserve(64);
  host().endpoint->Reserve(64);
  const std::string payload(100, 'x');
  uint64_t answered = 0;
  std::vector<IncomingPacket> held;
  held.reserve(64);
  host().events.batches.reserve(10000);
  guest().events.completions.reserve(100000);
  host().events.on_packet = [&held](IncomingPacket packet) {
    held.push_back(std::move(packet));
  };
  OutgoingPacket packet;
  packet.payload = ToBytes(payload);
  packet.wants_completion = packet.may_queue = true;
  uint32_t most_queued = 0;
  const auto round = [&] {
    for (int i = 0; i < 32; ++i) {
      ASSERT_EQ(guest().endpoint->Send(packet), SendStatus::kOk);
    }
    // More than one ring page: some wait.
    most_queued = std::max(most_queued, guest().endpoint->queued());
    guest().endpoint->Flush();
    for (int i = 0; i < 6; ++i) {
      (void)host().endpoint->Poll(64);
      for (IncomingPacket& each : held) {
        each.Complete(ToBytes("answered"));
        ++answered;
      }
      held.clear();
      (void)guest().endpoint->Poll(64);
    }
  };
  for (int i = 0; i < 4; ++i) round();  // warm
  is_counting = true;
  for (int i = 0; i < 100; ++i) round();
  is_counting = false;
  EXPECT_EQ(answered, 104u * 32);
  EXPECT_GT(most_queued, 0u);
  EXPECT_EQ(allocations, 0);
}

}  // namespace
}  // namespace ferrybus
