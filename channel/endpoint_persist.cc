// SPDX-License-Identifier: MIT

#include "ferrybus/channel/endpoint_persist.h"

#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/ringbuffer/packet_ranges.h"
#include "ferrybus/ringbuffer/ring_index.h"
#include "ferrybus/savestate/channel.pb.h"
#include "ferrybus/savestate/proto_limits.h"
#include "google/protobuf/arena.h"

namespace ferrybus {
namespace {

namespace proto = ::ferrybus::savestate::v1;
using ringbuffer::PacketType;

// Messages of many packets come from few blocks.
google::protobuf::ArenaOptions ArenaSettings() {
  google::protobuf::ArenaOptions options;
  options.max_block_size = 64 << 10;
  return options;
}

// -- Out ---------------------------------------------------------------------

void Fill(const ringbuffer::RingPosition& position, uint32_t data_bytes,
          proto::RingState* out) {
  out->set_own_index(position.own_index);
  out->set_peer_index(position.peer_index);
  out->set_data_bytes(data_bytes);
}

// Packets are moved, not copied: there may be many.
void Fill(EndpointState::Incoming& packet, proto::IncomingPacketState* out) {
  out->set_type(static_cast<uint32_t>(packet.type));
  out->set_completion_requested(packet.completion_requested);
  out->set_transaction_id(packet.transaction_id);
  out->set_extension(std::move(packet.extension));
  out->set_payload(std::move(packet.payload));
  out->set_device_blob(std::move(packet.blob));
  out->set_is_waiting(packet.is_waiting);
}

void Fill(EndpointState::Queued& packet, proto::QueuedPacketState* out) {
  out->set_type(static_cast<uint32_t>(packet.type));
  out->set_flags(packet.flags);
  out->set_transaction_id(packet.transaction_id);
  out->set_extension(std::move(packet.extension));
  out->set_payload(std::move(packet.payload));
  out->set_tag(packet.tag);
  out->set_wants_sent(packet.wants_sent);
}

// -- In, checked --------------------------------------------------------------

class Reader {
 public:
  Reader(const EndpointLimits& limits, const std::string& where)
      : limits_(limits), where_(where) {}

  // Takes the packets' bytes out of `in`.
  absl::StatusOr<EndpointState> Read(proto::EndpointState& in);

 private:
  template <typename... Parts>
  absl::Status Bad(const Parts&... parts) const {
    return absl::InvalidArgumentError(
        absl::StrCat(where_, ": ", absl::StrCat(parts...)));
  }
  absl::Status CheckCount(int count, uint32_t max, const char* what) const;
  absl::Status CheckRing(const proto::RingState& ring, const char* what) const;
  absl::Status CheckPacket(uint32_t type, const std::string& extension) const;
  absl::StatusOr<EndpointState::Incoming> ReadIncoming(
      proto::IncomingPacketState& in) const;
  absl::StatusOr<EndpointState::Queued> ReadQueued(proto::QueuedPacketState& in,
                                                   uint32_t data_bytes) const;

  const EndpointLimits& limits_;
  const std::string& where_;
};

absl::Status Reader::CheckCount(int count, uint32_t max,
                                const char* what) const {
  if (static_cast<uint64_t>(count) <= max) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(where_, ": ", count, " ", what, ", the limit is ", max));
}

absl::Status Reader::CheckRing(const proto::RingState& ring,
                               const char* what) const {
  if (!ringbuffer::IsValidDataSize(ring.data_bytes())) {
    return Bad(what, " ring of ", ring.data_bytes(), " data bytes");
  }
  if (!ringbuffer::IsValidIndex(ring.own_index(), ring.data_bytes()) ||
      !ringbuffer::IsValidIndex(ring.peer_index(), ring.data_bytes())) {
    return Bad(what, " ring indices ", ring.own_index(), " and ",
               ring.peer_index(), " are not multiples of 8 below ",
               ring.data_bytes());
  }
  return absl::OkStatus();
}

absl::Status Reader::CheckPacket(uint32_t type,
                                 const std::string& extension) const {
  switch (static_cast<PacketType>(type)) {
    case PacketType::kDataInBand:
    case PacketType::kDataUsingTransferPages:
    case PacketType::kDataUsingGpaDirect:
    case PacketType::kCompletion:
      break;
    default:
      return Bad("packet type ", type, " is none of 6, 7, 9, 11");
  }
  if (type > 0xffff || extension.size() % 8 != 0) {
    return Bad("packet of type ", type, " with ", extension.size(),
               " bytes of extension");
  }
  const ringbuffer::RangeResult ranges = ringbuffer::CheckRangeList(
      static_cast<PacketType>(type),
      absl::MakeConstSpan(reinterpret_cast<const std::byte*>(extension.data()),
                          extension.size()));
  if (ranges != ringbuffer::RangeResult::kOk) {
    return Bad("packet: ", RangeResultName(ranges));
  }
  return absl::OkStatus();
}

absl::StatusOr<EndpointState::Incoming> Reader::ReadIncoming(
    proto::IncomingPacketState& in) const {
  EndpointState::Incoming packet;
  packet.type = static_cast<PacketType>(in.type());
  packet.completion_requested = in.completion_requested();
  packet.transaction_id = in.transaction_id();
  if (packet.type == PacketType::kCompletion) {
    return Bad("packet ", in.transaction_id(), " in flight is a completion");
  }
  const absl::Status status = CheckPacket(in.type(), in.extension());
  if (!status.ok()) return status;
  const uint64_t bytes = uint64_t{ringbuffer::kDescriptorBytes} +
                         in.extension().size() + in.payload().size();
  if (bytes > limits_.max_packet_bytes) {
    return Bad("packet ", in.transaction_id(), " of ", bytes,
               " bytes in flight; the limit is ", limits_.max_packet_bytes);
  }
  packet.extension.swap(*in.mutable_extension());
  packet.payload.swap(*in.mutable_payload());
  packet.blob.swap(*in.mutable_device_blob());
  packet.is_waiting = in.is_waiting();
  if (packet.is_waiting && !packet.blob.empty()) {
    return Bad("packet ", in.transaction_id(),
               " waits for its device, but has a blob of it");
  }
  return packet;
}

absl::StatusOr<EndpointState::Queued> Reader::ReadQueued(
    proto::QueuedPacketState& in, uint32_t data_bytes) const {
  const absl::Status status = CheckPacket(in.type(), in.extension());
  if (!status.ok()) return status;
  const uint64_t ring_bytes = ringbuffer::PacketRingBytes(
      ringbuffer::kDescriptorBytes + in.extension().size(),
      in.payload().size());
  if (ring_bytes > ringbuffer::MaxSendRingBytes(data_bytes)) {
    return Bad("queued packet of ", ring_bytes, " bytes, more than a ring of ",
               data_bytes, " holds");
  }
  if ((in.flags() & ~uint32_t{ringbuffer::kFlagCompletionRequested}) != 0) {
    return Bad("queued packet with flags ", in.flags());
  }
  return EndpointState::Queued{static_cast<PacketType>(in.type()),
                               static_cast<uint16_t>(in.flags()),
                               in.transaction_id(),
                               std::move(*in.mutable_extension()),
                               std::move(*in.mutable_payload()),
                               in.tag(),
                               in.wants_sent()};
}

absl::StatusOr<EndpointState> Reader::Read(proto::EndpointState& in) {
  EndpointState out;
  out.fault_reason = in.fault_reason();
  if (out.fault_reason.size() > kMaxFaultReasonBytes) {
    return Bad("fault reason of ", out.fault_reason.size(), " bytes");
  }
  if (!out.fault_reason.empty()) return out;  // the rest is of no use
  absl::Status status = CheckRing(in.incoming_ring(), "incoming");
  if (status.ok()) status = CheckRing(in.outgoing_ring(), "outgoing");
  if (status.ok()) {
    status = CheckCount(in.incoming_size(), limits_.max_in_flight,
                        "packets in flight");
  }
  if (status.ok()) {
    // Completions may queue beyond what sends may.
    status =
        CheckCount(in.queued_size(), limits_.max_queued + limits_.max_in_flight,
                   "queued packets");
  }
  if (status.ok()) {
    status = CheckCount(in.awaiting_size(), limits_.max_awaiting,
                        "requests awaiting completion");
  }
  if (!status.ok()) return status;
  out.incoming_ring = {in.incoming_ring().own_index(),
                       in.incoming_ring().peer_index()};
  out.outgoing_ring = {in.outgoing_ring().own_index(),
                       in.outgoing_ring().peer_index()};
  out.incoming_data_bytes = in.incoming_ring().data_bytes();
  out.outgoing_data_bytes = in.outgoing_ring().data_bytes();
  out.incoming.reserve(in.incoming_size());
  for (proto::IncomingPacketState& packet : *in.mutable_incoming()) {
    absl::StatusOr<EndpointState::Incoming> read = ReadIncoming(packet);
    if (!read.ok()) return read.status();
    out.incoming.push_back(*std::move(read));
  }
  for (proto::QueuedPacketState& packet : *in.mutable_queued()) {
    absl::StatusOr<EndpointState::Queued> read =
        ReadQueued(packet, out.outgoing_data_bytes);
    if (!read.ok()) return read.status();
    out.queued.push_back(*std::move(read));
  }
  std::set<uint64_t> slots;
  for (const proto::AwaitingPacketState& packet : in.awaiting()) {
    const uint64_t index = (packet.transaction_id() & 0xffffffff) - 1;
    if (index >= limits_.max_awaiting || !slots.insert(index).second) {
      return Bad("transaction id ", packet.transaction_id(),
                 " is out of range or taken");
    }
    out.awaiting.push_back({packet.transaction_id(), packet.tag(),
                            packet.device_blob(), packet.is_cancelled()});
  }
  return out;
}

}  // namespace

std::string SaveChannelSnapshot(ChannelSnapshot snapshot) {
  google::protobuf::Arena arena(ArenaSettings());
  auto& channel =
      *google::protobuf::Arena::CreateMessage<proto::ChannelState>(&arena);
  proto::EndpointState* const out = channel.mutable_endpoint();
  EndpointState& state = snapshot.endpoint;
  channel.set_device_state(std::move(snapshot.device_state));
  out->set_fault_reason(state.fault_reason);
  Fill(state.incoming_ring, state.incoming_data_bytes,
       out->mutable_incoming_ring());
  Fill(state.outgoing_ring, state.outgoing_data_bytes,
       out->mutable_outgoing_ring());
  for (EndpointState::Incoming& packet : state.incoming) {
    Fill(packet, out->add_incoming());
  }
  for (EndpointState::Queued& packet : state.queued) {
    Fill(packet, out->add_queued());
  }
  for (const EndpointState::Awaiting& packet : state.awaiting) {
    proto::AwaitingPacketState* const awaiting = out->add_awaiting();
    awaiting->set_transaction_id(packet.transaction_id);
    awaiting->set_tag(packet.tag);
    awaiting->set_device_blob(packet.blob);
    awaiting->set_is_cancelled(packet.is_cancelled);
  }
  snapshot = ChannelSnapshot();  // its memory, before more is taken
  return savestate::SerializeDeterministic(channel);
}

absl::StatusOr<ChannelSnapshot> ParseChannelSnapshot(
    absl::Span<const std::byte> bytes, const EndpointLimits& limits,
    const std::string& where) {
  google::protobuf::Arena arena(ArenaSettings());
  auto& channel =
      *google::protobuf::Arena::CreateMessage<proto::ChannelState>(&arena);
  const absl::Status parsed =
      savestate::ParseBounded(bytes, savestate::ProtoLimits(), &channel, where);
  if (!parsed.ok()) return parsed;
  absl::StatusOr<EndpointState> endpoint =
      Reader(limits, where).Read(*channel.mutable_endpoint());
  if (!endpoint.ok()) return endpoint.status();
  return ChannelSnapshot{*std::move(endpoint), channel.device_state()};
}

}  // namespace ferrybus
