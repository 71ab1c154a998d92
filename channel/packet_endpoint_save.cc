// SPDX-License-Identifier: MIT
//
// An endpoint's packets out to plain data, and back in.

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/channel/packet_endpoint.h"
#include "ferrybus/ringbuffer/packet_ranges.h"
#include "ferrybus/ringbuffer/ring_index.h"

namespace ferrybus {
namespace {

using ringbuffer::RingPosition;
using ringbuffer::UsedBytes;

std::string ToString(absl::Span<const std::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

absl::Span<const std::byte> AsBytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// What is wrong with the rings' indices if they were `state`'s.  Own indices
// must be the same: a ring that moved on since then would give packets twice or
// not at all.  The peer's may have moved, within the room they had.
std::string IndexFault(const EndpointState& state, const RingPosition& in,
                       const RingPosition& out) {
  const RingPosition& saved_in = state.incoming_ring;
  const RingPosition& saved_out = state.outgoing_ring;
  const uint32_t in_bytes = state.incoming_data_bytes;
  const uint32_t out_bytes = state.outgoing_data_bytes;
  if (in.own_index != saved_in.own_index ||
      out.own_index != saved_out.own_index) {
    return absl::StrCat(
        "the rings stand at read index ", in.own_index, " and write index ",
        out.own_index, ", the saved state says ", saved_in.own_index, " and ",
        saved_out.own_index,
        ": they are of different moments; use the newest checkpoint");
  }
  const bool in_moved_back =
      UsedBytes(in.peer_index, in.own_index, in_bytes) <
      UsedBytes(saved_in.peer_index, in.own_index, in_bytes);
  const bool out_moved_back =
      UsedBytes(out.own_index, out.peer_index, out_bytes) >
      UsedBytes(out.own_index, saved_out.peer_index, out_bytes);
  if (in_moved_back || out_moved_back) {
    return absl::StrCat("the peer's indices are ", in.peer_index, " and ",
                        out.peer_index, ", behind the saved ",
                        saved_in.peer_index, " and ", saved_out.peer_index);
  }
  return std::string();
}

}  // namespace

absl::StatusOr<EndpointState> PacketEndpoint::Save(SaveBlob save_blob) {
  EndpointState state;
  std::vector<PacketInfo> in_flight;
  {
    absl::MutexLock lock(&mu_);
    FERRYBUS_CHECK(state_ == EndpointRunState::kFrozen ||
                       state_ == EndpointRunState::kFaulted,
                   "Save of an endpoint that is not frozen");
    SaveLocked(&state, &in_flight);
  }
  // The device is asked without the lock, so that it may complete packets
  // meanwhile; such a completion is queued and never published by this owner
  // unless it thaws.  No slot is used again while frozen, so the bytes stay.
  for (size_t i = 0; i < in_flight.size(); ++i) {
    if (state.incoming[i].is_waiting) continue;
    absl::StatusOr<std::string> blob = save_blob(&in_flight[i], 0);
    if (!blob.ok()) {
      return absl::Status(
          blob.status().code(),
          absl::StrCat("channel ", channel_id_, ", packet with transaction ",
                       state.incoming[i].transaction_id, ": ",
                       blob.status().message()));
    }
    state.incoming[i].blob = *std::move(blob);
  }
  for (EndpointState::Awaiting& awaiting : state.awaiting) {
    if (awaiting.is_cancelled) continue;
    absl::StatusOr<std::string> blob = save_blob(nullptr, awaiting.tag);
    if (!blob.ok()) return blob.status();
    awaiting.blob = *std::move(blob);
  }
  return state;
}

void PacketEndpoint::SaveLocked(EndpointState* state,
                                std::vector<PacketInfo>* in_flight) {
  state->fault_reason = fault_reason_;
  if (state_ == EndpointRunState::kFaulted) return;
  state->incoming_ring = incoming_.position();
  state->outgoing_ring = outgoing_.position();
  state->incoming_data_bytes = incoming_.ring().data_bytes;
  state->outgoing_data_bytes = outgoing_.ring().data_bytes;
  // The peer's indices as they stand now, if they moved as they may: the next
  // owner sees them so, and saves the same bytes.  Looked at only: a new handle
  // on the rings would write.
  const ringbuffer::ProductionAccess access;
  RingPosition in = state->incoming_ring;
  RingPosition out = state->outgoing_ring;
  in.peer_index =
      access.LoadAcquire(incoming_.ring().word(ringbuffer::kWriteIndexOffset));
  out.peer_index =
      access.LoadAcquire(outgoing_.ring().word(ringbuffer::kReadIndexOffset));
  if (ringbuffer::IsValidIndex(in.peer_index, state->incoming_data_bytes) &&
      ringbuffer::IsValidIndex(out.peer_index, state->outgoing_data_bytes) &&
      IndexFault(*state, in, out).empty()) {
    state->incoming_ring = in;
    state->outgoing_ring = out;
  }
  std::vector<const Slot*> slots;
  for (const Slot& slot : slots_) {
    if (slot.state == SlotState::kInFlight) slots.push_back(&slot);
  }
  std::sort(slots.begin(), slots.end(), [](const Slot* a, const Slot* b) {
    return a->sequence < b->sequence;
  });
  for (const Slot* slot : slots) {
    EndpointState::Incoming packet;
    packet.type = slot->info.type;
    packet.completion_requested = slot->info.completion_requested;
    packet.transaction_id = slot->info.transaction_id;
    packet.extension = ToString(slot->info.extension);
    packet.payload = ToString(slot->info.payload);
    packet.is_waiting = std::find(waiting_.begin(), waiting_.end(),
                                  slot->info.slot) != waiting_.end();
    state->incoming.push_back(std::move(packet));
    in_flight->push_back(slot->info);
  }
  for (uint32_t i = 0; i < queue_.size(); ++i) {
    const QueuedPacket& queued = queue_.at(i);
    state->queued.push_back(
        {queued.header.type, queued.header.flags, queued.header.transaction_id,
         ToString(queued.extension()), ToString(queued.payload()), queued.tag,
         queued.wants_sent});
  }
  for (size_t i = 0; i < transactions_.size(); ++i) {
    if (!transactions_[i].awaiting) continue;
    state->awaiting.push_back({IdOf(i, transactions_[i]), transactions_[i].tag,
                               std::string(), transactions_[i].cancelled});
  }
}

absl::Status PacketEndpoint::Restore(const EndpointState& state, RingPair rings,
                                     uint32_t channel_id,
                                     RestoreBlob restore_blob) {
  const absl::Status attached = Attach(std::move(rings), channel_id);
  std::string fault = state.fault_reason;
  if (fault.empty() && !attached.ok()) fault = std::string(attached.message());
  if (fault.empty()) fault = CompareRings(state);
  if (!fault.empty()) {
    absl::MutexLock lock(&mu_);
    channel_id_ = channel_id;
    state_ = EndpointRunState::kSuspended;
    FaultLocked(fault);
    return absl::OkStatus();
  }
  absl::Status status;
  {
    absl::MutexLock lock(&mu_);
    state_ = EndpointRunState::kFrozen;
    status = RestoreOutgoingLocked(state);
  }
  for (const EndpointState::Incoming& packet : state.incoming) {
    if (status.ok()) status = RestoreIncoming(packet, restore_blob);
  }
  if (!status.ok()) Detach();
  return status;
}

std::string PacketEndpoint::CompareRings(const EndpointState& state) {
  absl::MutexLock lock(&mu_);
  const uint32_t in_bytes = incoming_.ring().data_bytes;
  const uint32_t out_bytes = outgoing_.ring().data_bytes;
  if (in_bytes != state.incoming_data_bytes ||
      out_bytes != state.outgoing_data_bytes) {
    return absl::StrCat("the rings have ", in_bytes, " and ", out_bytes,
                        " data bytes, the saved state says ",
                        state.incoming_data_bytes, " and ",
                        state.outgoing_data_bytes);
  }
  return IndexFault(state, incoming_.position(), outgoing_.position());
}

absl::Status PacketEndpoint::RestoreIncoming(
    const EndpointState::Incoming& saved, RestoreBlob restore_blob) {
  Slot* slot;
  {
    absl::MutexLock lock(&mu_);
    if (OutstandingLocked() >= limits().max_in_flight) {
      return absl::ResourceExhaustedError(
          absl::StrCat("channel ", channel_id_,
                       ": more packets in flight than the limit of ",
                       limits().max_in_flight));
    }
    slot = FreeSlotLocked();
    UseSlot(*slot);
    slot->info.type = saved.type;
    slot->info.completion_requested = saved.completion_requested;
    slot->info.transaction_id = saved.transaction_id;
    const size_t extension = saved.extension.size();
    slot->bytes.resize(extension + saved.payload.size());
    std::byte* const bytes = slot->bytes.data();
    std::copy_n(AsBytes(saved.extension).begin(), extension, bytes);
    std::copy_n(AsBytes(saved.payload).begin(), saved.payload.size(),
                bytes + extension);
    slot->info.extension = {bytes, extension};
    slot->info.payload = {bytes + extension, saved.payload.size()};
    slot->info.may_block = false;
    CountExternal(&slot->info);
  }
  IncomingPacket packet(this, &slot->info);
  const ringbuffer::RangeResult ranges =
      ringbuffer::CheckRangeList(slot->info.type, slot->info.extension);
  if (ranges != ringbuffer::RangeResult::kOk) {
    return absl::InvalidArgumentError(
        absl::StrCat("channel ", channel_id_, ", packet with transaction ",
                     saved.transaction_id, ": ", RangeResultName(ranges)));
  }
  if (saved.is_waiting) {
    packet.Defer();
    return absl::OkStatus();
  }
  return restore_blob(std::move(packet), AsBytes(saved.blob));
}

absl::Status PacketEndpoint::RestoreOutgoingLocked(const EndpointState& state) {
  for (const EndpointState::Awaiting& awaiting : state.awaiting) {
    const uint64_t index = (awaiting.transaction_id & 0xffffffff) - 1;
    if (index >= limits().max_awaiting) {
      return absl::InvalidArgumentError(absl::StrCat(
          "channel ", channel_id_, ": transaction id ", awaiting.transaction_id,
          " is beyond the limit of ", limits().max_awaiting, " requests"));
    }
    if (index >= transactions_.size()) transactions_.resize(index + 1);
    if (transactions_[index].awaiting) {
      return absl::InvalidArgumentError(
          absl::StrCat("channel ", channel_id_, ": transaction id ",
                       awaiting.transaction_id, " occurs twice"));
    }
    transactions_[index] = {
        true, awaiting.is_cancelled,
        static_cast<uint32_t>(awaiting.transaction_id >> 32), awaiting.tag,
        nullptr};
    ++awaiting_;
  }
  for (size_t i = transactions_.size(); i-- > 0;) {
    if (!transactions_[i].awaiting) {
      free_transactions_.push_back(static_cast<uint32_t>(i));
    }
  }
  for (const EndpointState::Queued& queued : state.queued) {
    if (!FitsLocked(queued.extension.size(), queued.payload.size())) {
      return absl::InvalidArgumentError(
          absl::StrCat("channel ", channel_id_, ": a queued packet of ",
                       queued.extension.size() + queued.payload.size(),
                       " bytes does not fit into the ring of ",
                       outgoing_.ring().data_bytes));
    }
    QueuedPacket& packet =
        PushQueueLocked({queued.type, queued.flags, queued.transaction_id},
                        AsBytes(queued.extension), AsBytes(queued.payload));
    packet.tag = queued.tag;
    packet.wants_sent = queued.wants_sent;
  }
  return absl::OkStatus();
}

}  // namespace ferrybus
