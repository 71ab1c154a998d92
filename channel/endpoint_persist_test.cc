// SPDX-License-Identifier: MIT

#include "ferrybus/channel/endpoint_persist.h"

#include "absl/status/status.h"
#include "ferrybus/channel/endpoint_test_util.h"
#include "ferrybus/savestate/channel.pb.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

using ringbuffer::PacketType;
using testing::EndpointPair;
using testing::EndpointPairOptions;
using testing::Numbered;
using testing::PageList;
using testing::ToBytes;

ChannelSnapshot Example() {
  ChannelSnapshot snapshot;
  snapshot.device_state = "device";
  EndpointState& state = snapshot.endpoint;
  state.incoming_ring = {128, 256};
  state.outgoing_ring = {64, 4088};
  state.incoming_data_bytes = 4096;
  state.outgoing_data_bytes = 8192;
  state.incoming.push_back(
      {PacketType::kDataUsingGpaDirect, true, 7, PageList({3, 4}), "pay", "b"});
  state.incoming.push_back({PacketType::kDataInBand, false, 7, "", "", ""});
  state.queued.push_back({PacketType::kCompletion, 0, 9, "", "reply"});
  state.queued.push_back({PacketType::kDataInBand, 1, 0x100000002, "", "x"});
  state.awaiting.push_back({0x100000002, 55, "mine"});
  return snapshot;
}

absl::StatusOr<ChannelSnapshot> Parse(const std::string& bytes,
                                      const EndpointLimits& limits = {}) {
  return ParseChannelSnapshot(ToBytes(bytes), limits, "section 3");
}

// What Parse says about Example() after `change`.
template <typename Change>
absl::Status Changed(Change change) {
  ChannelSnapshot snapshot = Example();
  change(snapshot.endpoint);
  return Parse(SaveChannelSnapshot(snapshot)).status();
}

// bad:S23 promise:P11
TEST(EndpointPersistTest, WhatIsReadIsWhatWasWritten) {
  const std::string bytes = SaveChannelSnapshot(Example());
  EXPECT_EQ(bytes, SaveChannelSnapshot(Example()));
  const absl::StatusOr<ChannelSnapshot> parsed = Parse(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  EXPECT_EQ(parsed->device_state, "device");
  const EndpointState& state = parsed->endpoint;
  EXPECT_EQ(state.outgoing_ring, (ringbuffer::RingPosition{64, 4088}));
  ASSERT_EQ(state.incoming.size(), 2u);
  EXPECT_EQ(state.incoming[0].type, PacketType::kDataUsingGpaDirect);
  EXPECT_EQ(state.incoming[0].extension, PageList({3, 4}));
  EXPECT_EQ(state.incoming[0].blob, "b");
  ASSERT_EQ(state.queued.size(), 2u);
  EXPECT_EQ(state.queued[1].transaction_id, 0x100000002u);
  EXPECT_EQ(state.queued[1].flags, 1);
  ASSERT_EQ(state.awaiting.size(), 1u);
  EXPECT_EQ(state.awaiting[0].tag, 55u);
  EXPECT_EQ(state.awaiting[0].blob, "mine");
  EXPECT_EQ(SaveChannelSnapshot(*parsed), bytes);
}

// A reason may quote the peer.
// bad:K12
TEST(EndpointPersistTest, AFaultReasonMayHoldAnyBytes) {
  ChannelSnapshot snapshot;
  snapshot.endpoint.fault_reason = std::string("\xff\xfe\0\x80", 4);
  const absl::StatusOr<ChannelSnapshot> parsed =
      Parse(SaveChannelSnapshot(snapshot));
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  EXPECT_EQ(parsed->endpoint.fault_reason, snapshot.endpoint.fault_reason);
}

// promise:P9
TEST(EndpointPersistTest, ALongFaultReasonIsRefused) {
  ChannelSnapshot snapshot;
  snapshot.endpoint.fault_reason = std::string(kMaxFaultReasonBytes, 'x');
  EXPECT_TRUE(Parse(SaveChannelSnapshot(snapshot)).ok());
  snapshot.endpoint.fault_reason += "x";
  EXPECT_FALSE(Parse(SaveChannelSnapshot(snapshot)).ok());
}

// What Send() and Complete() take can be saved, so it must be readable.
// doc:SR8
TEST(EndpointPersistTest, EveryPacketThatCanWaitCanBeRestored) {
  EndpointPairOptions options;
  options.data_pages = 64;
  EndpointPair pair(options);
  ASSERT_EQ(pair.guest.Request(Numbered(1), 1), SendStatus::kOk);
  pair.guest.endpoint->Flush();
  pair.host.PollDry();
  const std::string most(64 * 4096 - 16 - 16 - 8, 'x');
  ASSERT_EQ(pair.host.Send(most), SendStatus::kOk);
  ASSERT_EQ(pair.host.Send(most), SendStatus::kOk);
  pair.host.events.held[0].Complete(ToBytes(most));
  ASSERT_EQ(pair.host.endpoint->queued(), 2u);
  pair.host.endpoint->Freeze();
  const absl::StatusOr<EndpointState> state = pair.host.endpoint->Save(
      [](const PacketInfo*, uint64_t) -> absl::StatusOr<std::string> {
        return std::string();
      });
  ASSERT_TRUE(state.ok());
  const absl::StatusOr<ChannelSnapshot> parsed =
      Parse(SaveChannelSnapshot({*state, ""}));
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  pair.ReplaceHost();
  ASSERT_TRUE(pair.host.endpoint
                  ->Restore(parsed->endpoint, pair.MapRings(), 3,
                            [](IncomingPacket, absl::Span<const std::byte>) {
                              return absl::OkStatus();
                            })
                  .ok());
  pair.host.endpoint->Thaw();
  pair.guest.events.on_packet = [](IncomingPacket packet) {
    packet.Complete();
  };
  // The guest's own limit is below these packets.
  pair.guest.PollDry();
  EXPECT_EQ(pair.host.endpoint->fault_reason(), "");
}

// bad:S12 bad:S14
TEST(EndpointPersistTest, RingsThatCannotBeAreRefused) {
  for (const uint32_t bytes : {0u, 4095u, 4104u, 0x40001000u, 0xffffffffu}) {
    EXPECT_EQ(Changed([&](auto& s) { s.incoming_data_bytes = bytes; }).code(),
              absl::StatusCode::kInvalidArgument);
  }
  for (const uint32_t index : {1u, 4095u, 4096u, 0xfffffff8u}) {
    EXPECT_FALSE(
        Changed([&](auto& s) { s.incoming_ring.own_index = index; }).ok());
    EXPECT_FALSE(
        Changed([&](auto& s) { s.incoming_ring.peer_index = index; }).ok());
  }
}

// bad:S10
TEST(EndpointPersistTest, TransactionIdsMustBeInRangeAndSingle) {
  for (const uint64_t id :
       {uint64_t{0}, uint64_t{257}, uint64_t{0x500000000}, ~uint64_t{0}}) {
    EXPECT_FALSE(
        Changed([&](auto& s) { s.awaiting[0].transaction_id = id; }).ok());
  }
  EXPECT_TRUE(
      Changed([](auto& s) { s.awaiting[0].transaction_id = 256; }).ok());
  // Another generation of one slot.
  EXPECT_FALSE(Changed([](auto& s) { s.awaiting.push_back({2, 1, ""}); }).ok());
  EXPECT_TRUE(Changed([](auto& s) { s.awaiting.push_back({1, 1, ""}); }).ok());
}

// bad:S16
TEST(EndpointPersistTest, MoreThanTheLimitsIsRefused) {
  const std::string bytes = SaveChannelSnapshot(Example());
  EndpointLimits limits;
  limits.max_in_flight = 1;
  EXPECT_EQ(Parse(bytes, limits).status().code(),
            absl::StatusCode::kResourceExhausted);
  limits = EndpointLimits();
  limits.max_awaiting = 0;
  EXPECT_EQ(Parse(bytes, limits).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Changed([](auto& s) { s.queued.resize(513, s.queued[0]); }).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(Changed([](auto& s) { s.queued.resize(512, s.queued[0]); }).ok());
}

// bad:S3 bad:R13 bad:R15 bad:R16
TEST(EndpointPersistTest, PacketsThatTheRingCouldNotHoldAreRefused) {
  const auto incoming = [](auto change) {
    return Changed([&](auto& s) { change(s.incoming[0]); });
  };
  const auto queued = [](auto change) {
    return Changed([&](auto& s) { change(s.queued[1]); });
  };
  EXPECT_TRUE(incoming([](auto&) {}).ok());
  for (const int type : {0, 5, 8, 10, 12, 0xffff}) {
    EXPECT_FALSE(incoming([&](auto& p) { p.type = PacketType(type); }).ok());
    EXPECT_FALSE(queued([&](auto& p) { p.type = PacketType(type); }).ok());
  }
  EXPECT_FALSE(incoming([](auto& p) { p.type = PacketType::kCompletion; }).ok())
      << "a completion is never in flight";
  EXPECT_FALSE(incoming([](auto& p) { p.extension = ""; }).ok());
  EXPECT_FALSE(incoming([](auto& p) { p.extension += "x"; }).ok());
  EXPECT_FALSE(incoming([](auto& p) { p.extension[4] = 9; }).ok());
  EXPECT_FALSE(queued([](auto& p) { p.flags = 2; }).ok());
  EXPECT_FALSE(queued([](auto& p) { p.extension = "12345"; }).ok());
  const size_t list = PageList({3, 4}).size();
  EXPECT_TRUE(incoming([&](auto& p) {
                p.payload = std::string(32 * 1024 - 16 - list, 'x');
              }).ok());
  EXPECT_FALSE(incoming([&](auto& p) {
                 p.payload = std::string(32 * 1024 - 16 - list + 1, 'x');
               }).ok());
  EXPECT_TRUE(
      queued([](auto& p) { p.payload = std::string(8192 - 40, 'x'); }).ok());
  EXPECT_FALSE(
      queued([](auto& p) { p.payload = std::string(8192 - 39, 'x'); }).ok());
}

// Values that would be cut to valid ones by a narrowing.
// bad:S3
TEST(EndpointPersistTest, WideValuesAreNotCut) {
  savestate::v1::ChannelState channel;
  ASSERT_TRUE(channel.ParseFromString(SaveChannelSnapshot(Example())));
  auto* const endpoint = channel.mutable_endpoint();
  endpoint->mutable_incoming(1)->set_type(0x10006);
  EXPECT_FALSE(Parse(channel.SerializeAsString()).ok());
  endpoint->mutable_incoming(1)->set_type(6);
  EXPECT_TRUE(Parse(channel.SerializeAsString()).ok());
  endpoint->mutable_queued(1)->set_flags(0x10001);
  EXPECT_FALSE(Parse(channel.SerializeAsString()).ok());
}

// bad:S1 bad:S3 promise:P8
TEST(EndpointPersistTest, EveryPrefixAndBitFlipIsReadOrRefused) {
  const std::string bytes = SaveChannelSnapshot(Example());
  for (size_t size = 0; size < bytes.size(); ++size) {
    (void)Parse(bytes.substr(0, size));
  }
  size_t read = 0;
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    const absl::StatusOr<ChannelSnapshot> parsed = Parse(flipped);
    if (!parsed.ok()) {
      EXPECT_NE(parsed.status().message().find("section 3"), std::string::npos);
      continue;
    }
    ++read;
    // What was read is a state like any other.
    EXPECT_TRUE(Parse(SaveChannelSnapshot(*parsed)).ok());
  }
  EXPECT_GT(read, 100u);
}

}  // namespace
}  // namespace ferrybus
