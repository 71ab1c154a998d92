// SPDX-License-Identifier: MIT
//
// An endpoint's outgoing half: completions, sends, what waits for room.  All
// of it may run on any thread.

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/channel/packet_endpoint.h"
#include "ferrybus/ringbuffer/packet_ranges.h"

namespace ferrybus {

using ringbuffer::PacketHeader;
using ringbuffer::PacketRingBytes;
using ringbuffer::PacketType;
using ringbuffer::WriteResult;

// -- Ends of incoming packets ------------------------------------------------

// In all three, `this` may end in another thread once the lock is gone, unless
// Do() is still to come.

CompleteResult PacketEndpoint::CompletePacket(
    uint32_t slot_index, uint32_t generation,
    absl::Span<const std::byte> payload) {
  Unpin(slot_index, generation);
  Afterwards after;
  CompleteResult result = CompleteResult::kOk;
  {
    absl::MutexLock lock(&mu_);
    Slot& slot = slots_[slot_index];
    FERRYBUS_CHECK(slot.info.generation == generation,
                   "a packet was completed twice");
    if (slot.state == SlotState::kInFlight && owes()) {
      ReplyLocked(slot.info, payload);
      ReleaseSlotLocked(slot, &after);
      SettleLocked(&after);
    } else {
      ReleaseSlotLocked(slot, &after);
      result = CompleteResult::kGone;
    }
    LeaveLocked(&after);
  }
  if (after.leaving || after.end) Do(after);
  return result;
}

void PacketEndpoint::DropPacket(uint32_t slot_index, uint32_t generation) {
  Unpin(slot_index, generation);
  Afterwards after;
  {
    absl::MutexLock lock(&mu_);
    Slot& slot = slots_[slot_index];
    if (slot.info.generation != generation) return;
    // Frozen, too: neither this owner nor a later save knows of the packet.
    if (slot.state == SlotState::kInFlight && owes()) {
      FaultLocked("the device dropped a packet without completing it");
    }
    ReleaseSlotLocked(slot, &after);
    LeaveLocked(&after);
  }
  if (after.leaving || after.end) Do(after);
}

void PacketEndpoint::FailPacket(uint32_t slot_index, uint32_t generation,
                                std::string_view reason) {
  Unpin(slot_index, generation);
  Afterwards after;
  {
    absl::MutexLock lock(&mu_);
    Slot& slot = slots_[slot_index];
    if (slot.info.generation != generation) return;
    if (slot.state == SlotState::kInFlight && owes()) {
      FaultLocked(absl::StrCat("malformed packet: ", std::string(reason)));
    }
    ReleaseSlotLocked(slot, &after);
    LeaveLocked(&after);
  }
  if (after.leaving || after.end) Do(after);
}

void PacketEndpoint::ReleaseSlotLocked(Slot& slot, Afterwards* after) {
  const bool orphan = slot.state == SlotState::kOrphan;
  slot.state = SlotState::kFree;
  ++slot.info.generation;
  free_slots_.push_back(slot.info.slot);
  ++ended_;
  if (std::exchange(quota_blocked_, false)) after->work = true;
  if (orphan && OutstandingLocked() == 0) after->work = true;
  if (retired_) {
    after->work = false;
    after->end = OutstandingLocked() == 0;
  }
}

// -- Sends --------------------------------------------------------------------

void PacketEndpoint::ReplyLocked(const PacketInfo& info,
                                 absl::Span<const std::byte> payload) {
  if (!info.completion_requested) return;
  // Also before it is queued: a queued packet must fit, or it could be saved
  // and not restored.
  if (!FitsLocked(0, payload.size())) {
    FaultLocked(absl::StrCat("the device's completion of ", payload.size(),
                             " bytes does not fit into the ring"));
    return;
  }
  const PacketHeader header = {PacketType::kCompletion, 0, info.transaction_id};
  WriteResult result = WriteResult::kFull;
  if (queue_.empty() && flows()) result = outgoing_.Write(header, {}, payload);
  if (result == WriteResult::kOk) {
    CountSentLocked(payload.size());
  } else if (result == WriteResult::kFull) {
    PushQueueLocked(header, {}, payload);
  } else {
    FaultLocked(
        absl::StrCat("outgoing ring: ", RingFaultName(outgoing_.fault())));
  }
}

void PacketEndpoint::Flush() {
  Afterwards after;
  {
    absl::MutexLock lock(&mu_);
    SettleLocked(&after);
    LeaveLocked(&after);
  }
  Do(after);
}

// Publishes what is staged, then lets what waits follow, then asks the peer
// for a signal if something still waits: in this order, since a publication
// withdraws an earlier request for room, and since the peer can only make
// room by reading what it can see.
void PacketEndpoint::SettleLocked(Afterwards* after) {
  if (batches_ != 0 || !flows()) return;
  while (true) {
    if (outgoing_.Publish() && !std::exchange(after->ring, true)) {
      ++counters_.doorbells_rung;
    }
    const bool wrote = WriteQueueLocked(after);
    if (!flows()) return;
    if (wrote) continue;
    const uint64_t wanted = WantedRoomLocked();
    // Once the request stands, the peer signals; to write again here would
    // withdraw it.
    if (wanted == 0 || !outgoing_.ArmPendingSend(wanted)) return;
    if (outgoing_.fault() != ringbuffer::RingFault::kNone) break;
    if (queue_.empty()) {
      // A refused sender waits: it is told by the polling thread.
      after->room = true;
      return;
    }
  }
  FaultLocked(
      absl::StrCat("outgoing ring: ", RingFaultName(outgoing_.fault())));
}

// Ring bytes that the first waiter needs; 0 when nobody waits for room.
uint64_t PacketEndpoint::WantedRoomLocked() const {
  if (!queue_.empty()) {
    const QueuedPacket& next = queue_.front();
    return PacketRingBytes(ringbuffer::kDescriptorBytes + next.extension_bytes,
                           next.payload().size());
  }
  return awaiting_ < limits().max_awaiting ? wanted_room_ : 0;
}

// Stages packets from the queue; true if at least one.
bool PacketEndpoint::WriteQueueLocked(Afterwards* after) {
  bool wrote = false;
  while (!queue_.empty()) {
    const QueuedPacket& next = queue_.front();
    const WriteResult result =
        outgoing_.Write(next.header, next.extension(), next.payload());
    if (result == WriteResult::kFull) return wrote;
    if (result != WriteResult::kOk) {
      FaultLocked(
          absl::StrCat("outgoing ring: ", RingFaultName(outgoing_.fault())));
      return false;
    }
    CountSentLocked(next.bytes.size());
    if (next.header.type == PacketType::kCompletion) {
      --queued_replies_;
      if (std::exchange(quota_blocked_, false)) after->work = true;
    }
    NoteSentLocked(next.header, next.tag, next.wants_sent, next.reply, after);
    queue_.PopFront();
    wrote = true;
  }
  return wrote;
}

PacketEndpoint::BatchScope::BatchScope(PacketEndpoint& endpoint)
    : endpoint_(endpoint) {
  absl::MutexLock lock(&endpoint_.mu_);
  ++endpoint_.batches_;
}

PacketEndpoint::BatchScope::~BatchScope() {
  Afterwards after;
  {
    absl::MutexLock lock(&endpoint_.mu_);
    --endpoint_.batches_;
    endpoint_.SettleLocked(&after);
    endpoint_.LeaveLocked(&after);
  }
  endpoint_.Do(after);
}

// -- Faults -------------------------------------------------------------------

void PacketEndpoint::Fault(std::string_view reason) {
  absl::MutexLock lock(&mu_);
  if (state_ != EndpointRunState::kDetached) FaultLocked(reason);
}

void PacketEndpoint::FaultLocked(std::string_view reason) {
  if (state_ == EndpointRunState::kFaulted) return;
  state_ = EndpointRunState::kFaulted;
  fault_reason_ = std::string(reason.substr(0, kMaxFaultReasonBytes));
  is_fault_news_ = true;
  is_faulted_.set(true);
  ClearQueueLocked();
}

void PacketEndpoint::LeaveLocked(Afterwards* after) {
  if (std::exchange(is_fault_news_, false)) after->work = true;
  after->leaving = after->ring || after->work || after->room;
  if (after->leaving) ++leaving_;
}

void PacketEndpoint::AwaitLeaversLocked() {
  while (leaving_ != 0) left_.Wait(&mu_);
}

void PacketEndpoint::Do(const Afterwards& after) {
  if (after.ring) doorbell_->Ring(channel_id_);
  if (after.work || after.room) events_->OnWork();
  if (after.leaving) {
    absl::MutexLock lock(&mu_);
    if (--leaving_ == 0) left_.SignalAll();
  }
  if (after.end) delete this;
}

}  // namespace ferrybus
