// SPDX-License-Identifier: MIT
//
// States that do not fit the rings, the device or the limits.

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

struct IndexCase {
  const char* name;
  bool guest_to_host;
  uint32_t offset;
  uint32_t value;
  const char* reason;  // empty: the restore goes well
};

class RestoreIndexTest : public ::testing::TestWithParam<IndexCase> {};

// bad:S14 bad:R1 bad:R2 bad:R3
TEST_P(RestoreIndexTest, IndicesInMemoryAreComparedWithTheSavedOnes) {
  EndpointPair pair;
  // Guest to host stands at 128 (taken) of 192, host to guest at 192 of 256.
  GuestRequests(pair, 0, 4);
  pair.host.PollDry();
  for (uint64_t i = 0; i < 4; ++i) {
    ASSERT_EQ(pair.host.Send(Numbered(i)), SendStatus::kOk);
  }
  for (uint64_t i = 0; i < 4; ++i) HostAnswers(pair, i);
  pair.host.endpoint->Flush();
  (void)pair.guest.endpoint->Poll(6);
  pair.host.events.held.clear();
  GuestRequests(pair, 4, 2);
  pair.host.endpoint->Suspend();
  pair.host.endpoint->Freeze();
  const EndpointState state = Save(pair.host);
  ASSERT_EQ(state.incoming_ring.own_index, 128u);
  ASSERT_EQ(state.outgoing_ring.own_index, 256u);
  pair.ReplaceHost();
  const IndexCase& test = GetParam();
  (test.guest_to_host ? pair.GuestToHostWord(test.offset)
                      : pair.HostToGuestWord(test.offset)) = test.value;
  ASSERT_TRUE(Restore(pair, state).ok());
  const std::string reason = pair.host.endpoint->fault_reason();
  if (*test.reason == '\0') {
    EXPECT_EQ(reason, "");
    EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kFrozen);
  } else {
    EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kFaulted);
    EXPECT_NE(reason.find(test.reason), std::string::npos) << reason;
  }
  for (IncomingPacket& packet : pair.guest.events.held) {
    if (packet) packet.Complete();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Words, RestoreIndexTest,
    ::testing::Values(
        IndexCase{"Untouched", true, ringbuffer::kInterruptMaskOffset, 7, ""},
        IndexCase{"OwnReadBack", true, ringbuffer::kReadIndexOffset, 96,
                  "read index 96 and write index 256, the saved state says 128 "
                  "and 256"},
        IndexCase{"OwnReadForward", true, ringbuffer::kReadIndexOffset, 160,
                  "read index 160"},
        IndexCase{"OwnReadOutside", true, ringbuffer::kReadIndexOffset, 4096,
                  "beyond the data area"},
        IndexCase{"OwnWriteBack", false, ringbuffer::kWriteIndexOffset, 224,
                  "write index 224, the saved state says 128 and 256"},
        IndexCase{"OwnWriteForward", false, ringbuffer::kWriteIndexOffset, 288,
                  "write index 288"},
        IndexCase{"OwnWriteUnaligned", false, ringbuffer::kWriteIndexOffset,
                  257, "multiple of 8"},
        IndexCase{"PeerWrote", true, ringbuffer::kWriteIndexOffset, 1000, ""},
        IndexCase{"PeerWroteOutside", true, ringbuffer::kWriteIndexOffset,
                  0xffffffff, "beyond the data area"},
        IndexCase{"PeerWroteBack", true, ringbuffer::kWriteIndexOffset, 160,
                  "behind the saved"},
        IndexCase{"PeerRead", false, ringbuffer::kReadIndexOffset, 256, ""},
        IndexCase{"PeerReadPastUs", false, ringbuffer::kReadIndexOffset, 264,
                  "behind the saved"}),
    [](const ::testing::TestParamInfo<IndexCase>& info) {
      return std::string(info.param.name);
    });

// bad:S14
TEST(PacketEndpointRestoreTest, RingsOfAnotherSizeRestoreAsFaulted) {
  EndpointPair pair;
  pair.host.endpoint->Freeze();
  EndpointState state = Save(pair.host);
  state.outgoing_data_bytes = 8192;
  pair.ReplaceHost();
  ASSERT_TRUE(Restore(pair, state).ok());
  EXPECT_EQ(pair.host.endpoint->fault_reason(),
            "the rings have 4096 and 4096 data bytes, the saved state says "
            "4096 and 8192");
}

// bad:S18 promise:P4
TEST(PacketEndpointRestoreTest, ARefusedPacketTakesEverythingBack) {
  EndpointPair pair;
  GuestRequests(pair, 0, 5);
  pair.host.PollDry();
  ASSERT_EQ(pair.host.Request(Numbered(9), 9), SendStatus::kOk);
  pair.host.endpoint->Freeze();
  const EndpointState state = Save(pair.host);
  pair.ReplaceHost();
  for (int k = 1; k <= 5; ++k) {
    std::vector<IncomingPacket> held;
    const absl::Status status = pair.host.endpoint->Restore(
        state, pair.MapRings(), EndpointPair::kChannel,
        [&](IncomingPacket packet, absl::Span<const std::byte>) {
          if (static_cast<int>(held.size()) + 1 == k) {
            return absl::InternalError("no");
          }
          held.push_back(std::move(packet));
          return absl::OkStatus();
        });
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kDetached);
    for (IncomingPacket& packet : held) {
      EXPECT_EQ(packet.Complete(), CompleteResult::kGone);
    }
    EXPECT_EQ(pair.host.endpoint->outstanding(), 0u);
    EXPECT_EQ(pair.host.endpoint->awaiting(), 0u);
  }
  ASSERT_TRUE(Restore(pair, state).ok());
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kFrozen);
  pair.host.endpoint->Thaw();
  for (size_t i = 0; i < 5; ++i) HostAnswers(pair, i);
  pair.Settle();
  EXPECT_EQ(pair.guest.events.completions.size(), 5u);
}

// bad:S16
TEST(PacketEndpointRestoreTest, MoreThanTheLimitsIsRefused) {
  EndpointPair pair;
  GuestRequests(pair, 0, 5);
  pair.host.PollDry();
  pair.host.endpoint->Freeze();
  const EndpointState state = Save(pair.host);
  pair.options.host.max_in_flight = 4;
  pair.ReplaceHost();
  EXPECT_EQ(Restore(pair, state).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(pair.host.endpoint->run_state(), EndpointRunState::kDetached);
  pair.host.events.held.clear();
  pair.options.host.max_in_flight = 5;
  pair.ReplaceHost();
  EXPECT_TRUE(Restore(pair, state).ok());
  for (size_t i = 0; i < 5; ++i) HostAnswers(pair, i);
}

// bad:S10
TEST(PacketEndpointRestoreTest, TransactionIdsMustBeOursAndSingle) {
  EndpointPair pair;
  pair.host.endpoint->Freeze();
  EndpointState state = Save(pair.host);
  for (const std::vector<uint64_t>& ids :
       {std::vector<uint64_t>{1, 0x100000001}, std::vector<uint64_t>{0},
        std::vector<uint64_t>{257}, std::vector<uint64_t>{~uint64_t{0}}}) {
    state.awaiting.clear();
    for (const uint64_t id : ids) state.awaiting.push_back({id, id, ""});
    pair.ReplaceHost();
    EXPECT_EQ(Restore(pair, state).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(pair.host.endpoint->awaiting(), 0u);
  }
}

}  // namespace
}  // namespace ferrybus
