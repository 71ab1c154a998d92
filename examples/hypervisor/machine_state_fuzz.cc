// SPDX-License-Identifier: MIT
//
// Hostile bytes as the state of a machine, of its channels, and as a snapshot's
// description.  The first byte says which; the frame's checksums are made
// right, as a hostile author would.
//
// Checked: what is accepted is within its bounds, and gives the same bytes
// again.

#include <algorithm>
#include <cstdint>
#include <string>

#include "ferrybus/channel/check.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/examples/hypervisor/machine_state.h"
#include "ferrybus/savestate/frame_fixup.h"

namespace ferrybus::hypervisor {
namespace {

constexpr uint32_t kVpCount = 2;

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

void TryMachine(const std::string& bytes) {
  const auto state = ParseMachineState(AsBytes(bytes), kVpCount);
  if (!state.ok()) return;
  FERRYBUS_CHECK(state->vcpus.size() == kVpCount, "processors");
  FERRYBUS_CHECK(state->serial_input.size() <= kSerialInputMax, "input");
  for (const VcpuState& vcpu : state->vcpus) {
    FERRYBUS_CHECK(vcpu.msrs.size() <= SavedMsrs().size(), "registers");
  }
  const auto again = SerializeMachineState(*state);
  FERRYBUS_CHECK(again.ok(), "serialise");
  FERRYBUS_CHECK(ParseMachineState(AsBytes(*again), kVpCount).ok(), "again");
}

void TryChannels(const std::string& bytes) {
  const auto state = ParseChannelsState(AsBytes(bytes));
  if (!state.ok()) return;
  for (const auto* messages : {&state->port.to_guest, &state->port.to_host}) {
    for (const SocketMessage& message : *messages) {
      FERRYBUS_CHECK(message.payload().size() <= kMaxMessageBytes, "message");
    }
  }
  for (const uint32_t channel_id : state->port.signals) {
    FERRYBUS_CHECK(channel_id <= kMaxChannelId, "channel");
  }
  const auto again = SerializeChannelsState(*state);
  FERRYBUS_CHECK(again.ok(), "serialise");
  FERRYBUS_CHECK(ParseChannelsState(AsBytes(*again)).ok(), "again");
}

}  // namespace
}  // namespace ferrybus::hypervisor

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  ferrybus::savestate::FixChecksums(&bytes);
  if (data[0] % 2 == 0) {
    ferrybus::hypervisor::TryMachine(bytes);
  } else {
    ferrybus::hypervisor::TryChannels(bytes);
  }
  return 0;
}
