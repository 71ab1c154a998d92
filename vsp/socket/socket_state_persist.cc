// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/socket/socket_state_persist.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/pipe_header.h"
#include "ferrybus/vsp/socket/socket_state.pb.h"

namespace ferrybus::vsp {
namespace {

namespace pb = ::ferrybus::vsp::socket::v1;

absl::Status Corrupt(absl::string_view what) {
  return absl::DataLossError(
      absl::StrCat("socket state: ", what, ": the saved state is corrupt"));
}

}  // namespace

std::string SerializeSocketState(const SocketDeviceState& state) {
  pb::SocketState message;
  message.set_front_bytes_read(state.stream.front_bytes_read);
  message.set_peer_ended(state.stream.peer_ended);
  message.set_is_read_shut(state.stream.is_read_shut);
  message.set_is_write_shut(state.stream.is_write_shut);
  message.set_is_end_due(state.stream.is_end_due);
  message.set_queued_tag(state.queued_tag);
  return message.SerializeAsString();
}

absl::StatusOr<SocketDeviceState> ParseSocketState(
    absl::Span<const std::byte> bytes) {
  if (bytes.size() > kSocketStateBytesMax) {
    return Corrupt(absl::StrCat("size is ", bytes.size(),
                                " bytes, must be at most ",
                                kSocketStateBytesMax));
  }
  pb::SocketState message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return Corrupt("not a valid message");
  }
  if (message.front_bytes_read() >= kMaxPipeDataBytes) {
    return Corrupt(absl::StrCat("front_bytes_read is ",
                                message.front_bytes_read(), ", must be below ",
                                kMaxPipeDataBytes));
  }
  if (message.is_read_shut() && message.front_bytes_read() != 0) {
    return Corrupt("front_bytes_read is set, must be 0 with is_read_shut");
  }
  if (message.is_end_due() && !message.is_write_shut()) {
    return Corrupt("is_end_due is true, must be false without is_write_shut");
  }
  SocketDeviceState state;
  state.stream.front_bytes_read = message.front_bytes_read();
  state.stream.peer_ended = message.peer_ended();
  state.stream.is_read_shut = message.is_read_shut();
  state.stream.is_write_shut = message.is_write_shut();
  state.stream.is_end_due = message.is_end_due();
  state.queued_tag = message.queued_tag();
  return state;
}

}  // namespace ferrybus::vsp
