// SPDX-License-Identifier: MIT
//
// Saved channels: what ParseChannelSnapshot lets through is restored onto
// rings that agree with it, run, and saved again.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ferrybus/channel/check.h"
#include "ferrybus/channel/endpoint_persist.h"
#include "ferrybus/channel/endpoint_test_util.h"

namespace {

using ferrybus::ChannelSnapshot;
using ferrybus::EndpointLimits;
using ferrybus::EndpointState;
using ferrybus::IncomingPacket;
using ferrybus::PacketInfo;
using ferrybus::testing::EndpointPair;
using ferrybus::testing::EndpointPairOptions;

constexpr uint32_t kDataPagesMax = 4;

absl::StatusOr<std::string> NoBlob(const PacketInfo*, uint64_t) {
  return std::string();
}

// The rings' words as the saved state has them.
void Agree(const EndpointState& state, EndpointPair* pair) {
  using ferrybus::ringbuffer::kReadIndexOffset;
  using ferrybus::ringbuffer::kWriteIndexOffset;
  pair->GuestToHostWord(kReadIndexOffset) = state.incoming_ring.own_index;
  pair->GuestToHostWord(kWriteIndexOffset) = state.incoming_ring.peer_index;
  pair->HostToGuestWord(kWriteIndexOffset) = state.outgoing_ring.own_index;
  pair->HostToGuestWord(kReadIndexOffset) = state.outgoing_ring.peer_index;
}

void RestoreAndRun(const ChannelSnapshot& snapshot) {
  const EndpointState& state = snapshot.endpoint;
  const uint32_t pages = state.incoming_data_bytes / 4096;
  if (pages > kDataPagesMax) return;
  EndpointPairOptions options;
  options.data_pages = pages == 0 ? 1 : pages;
  EndpointPair pair(options);
  pair.ReplaceHost();
  Agree(state, &pair);
  std::vector<IncomingPacket> held;
  const absl::Status status = pair.host.endpoint->Restore(
      state, pair.MapRings(), EndpointPair::kChannel,
      [&held](IncomingPacket packet, absl::Span<const std::byte>) {
        (void)packet.guest_buffers();
        held.push_back(std::move(packet));
        return absl::OkStatus();
      });
  if (!status.ok()) {
    FERRYBUS_CHECK(pair.host.endpoint->run_state() ==
                       ferrybus::EndpointRunState::kDetached,
                   "a refused restore left something behind");
    held.clear();
    FERRYBUS_CHECK(pair.host.endpoint->outstanding() == 0, "packets left");
    return;
  }
  const absl::StatusOr<EndpointState> again = pair.host.endpoint->Save(NoBlob);
  FERRYBUS_CHECK(again.ok(), "a restored endpoint cannot be saved");
  const std::string bytes = ferrybus::SaveChannelSnapshot({*again, ""});
  FERRYBUS_CHECK(
      ferrybus::ParseChannelSnapshot(ferrybus::testing::ToBytes(bytes),
                                     EndpointLimits(), "again")
          .ok(),
      "a restored endpoint saves what cannot be restored");
  pair.host.endpoint->Thaw();
  for (IncomingPacket& packet : held) packet.Complete(packet.payload());
  for (int i = 0; i < 8 && pair.host.endpoint->Poll(64); ++i) {
  }
  while (!pair.host.events.held.empty()) {
    pair.host.events.held.back().Complete();
    pair.host.events.held.pop_back();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  const absl::StatusOr<ChannelSnapshot> snapshot =
      ferrybus::ParseChannelSnapshot(
          {reinterpret_cast<const std::byte*>(data), size_bytes},
          EndpointLimits(), "fuzz");
  if (snapshot.ok()) RestoreAndRun(*snapshot);
  return 0;
}
