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

absl::StatusOr<absl::Span<const iovec>> PacketEndpoint::MapGuestBuffers(
    uint32_t slot_index) {
  Slot* slot;
  {
    absl::MutexLock lock(&mu_);
    slot = &slots_[slot_index];
  }
  // The slot belongs to the handle's holder now.
  slot->buffers.clear();
  if (slot->info.extension.empty()) {
    return absl::Span<const iovec>(slot->buffers);
  }
  if (slot->info.type != PacketType::kDataUsingGpaDirect ||
      memory_ == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("packet ", slot->info.transaction_id,
                     " names a transfer page set that was never established"));
  }
  uint64_t bad_page = 0;
  bool outside = false;
  const auto add_range = [&](const ringbuffer::GpaRange& range) {
    uint64_t left = range.byte_count;
    uint64_t offset = range.byte_offset;
    for (uint32_t i = 0; i < range.page_count; ++i, offset = 0) {
      const uint64_t page = range.page_number(i);
      const uint64_t bytes =
          std::min<uint64_t>(left, ringbuffer::kPageBytes - offset);
      // Page numbers whose address would overflow are outside, too.
      const absl::Span<std::byte> host =
          page < memory_->page_count()
              ? memory_->Translate(page * ringbuffer::kPageBytes + offset,
                                   bytes)
              : absl::Span<std::byte>();
      if (host.empty()) {
        outside = true;
        bad_page = page;
        return false;
      }
      left -= bytes;
      if (!slot->buffers.empty()) {
        iovec& last = slot->buffers.back();
        if (static_cast<std::byte*>(last.iov_base) + last.iov_len ==
            host.data()) {
          last.iov_len += host.size();
          continue;
        }
      }
      slot->buffers.push_back({host.data(), host.size()});
    }
    return true;
  };
  const ringbuffer::RangeResult result =
      ringbuffer::ForEachGpaRange(slot->info.extension, add_range);
  if (outside) {
    slot->buffers.clear();
    return absl::OutOfRangeError(absl::StrCat(
        "packet ", slot->info.transaction_id, ": page frame ", bad_page,
        " is outside guest RAM of ", memory_->page_count(), " pages"));
  }
  if (result != ringbuffer::RangeResult::kOk) {
    slot->buffers.clear();
    return absl::InvalidArgumentError(absl::StrCat(
        "packet ", slot->info.transaction_id, ": ", RangeResultName(result)));
  }
  return absl::Span<const iovec>(slot->buffers);
}

void PacketEndpoint::ReleaseSlotLocked(Slot& slot, Afterwards* after) {
  const bool orphan = slot.state == SlotState::kOrphan;
  slot.state = SlotState::kFree;
  ++slot.info.generation;
  free_slots_.push_back(slot.info.slot);
  --outstanding_;
  if (std::exchange(quota_blocked_, false)) after->work = true;
  if (orphan && outstanding_ == 0) after->work = true;
  if (retired_) {
    after->work = false;
    after->end = outstanding_ == 0;
  }
}

// -- Sends
// ---------------------------------------------------------------------

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
    ++counters_.packets_sent;
  } else if (result == WriteResult::kFull) {
    PushQueueLocked(header, {}, payload);
  } else {
    FaultLocked(
        absl::StrCat("outgoing ring: ", RingFaultName(outgoing_.fault())));
  }
}

// Whether a packet fits into the empty ring and into its 16-bit lengths.
bool PacketEndpoint::FitsLocked(size_t extension_bytes,
                                size_t payload_bytes) const {
  const uint64_t total = PacketRingBytes(
      ringbuffer::kDescriptorBytes + extension_bytes, payload_bytes);
  return extension_bytes % 8 == 0 &&
         total <= ringbuffer::MaxSendRingBytes(outgoing_.ring().data_bytes) &&
         (total - ringbuffer::kTrailerBytes) / 8 <= 0xffff;
}

void PacketEndpoint::PushQueueLocked(const PacketHeader& header,
                                     absl::Span<const std::byte> extension,
                                     absl::Span<const std::byte> payload) {
  queue_.push_back({header,
                    {extension.begin(), extension.end()},
                    {payload.begin(), payload.end()}});
  if (header.type == PacketType::kCompletion) ++queued_replies_;
}

void PacketEndpoint::ClearQueueLocked() {
  queue_.clear();
  queued_replies_ = 0;
}

SendStatus PacketEndpoint::Send(const OutgoingPacket& packet) {
  absl::MutexLock lock(&mu_);
  if (state_ == EndpointRunState::kDetached ||
      state_ == EndpointRunState::kFaulted) {
    return SendStatus::kClosed;
  }
  if (!FitsLocked(packet.extension.size(), packet.payload.size())) {
    return SendStatus::kTooLarge;
  }
  const uint64_t total =
      PacketRingBytes(ringbuffer::kDescriptorBytes + packet.extension.size(),
                      packet.payload.size());
  PacketHeader header;
  header.type = packet.type;
  if (packet.wants_completion) {
    header.flags = ringbuffer::kFlagCompletionRequested;
    if (!AllocateTransactionLocked(packet.tag, &header.transaction_id)) {
      wanted_room_ = total;
      return SendStatus::kFull;
    }
  }
  WriteResult result = WriteResult::kFull;
  if (queue_.empty() && flows()) {
    result = outgoing_.Write(header, packet.extension, packet.payload);
  }
  if (result == WriteResult::kOk) {
    ++counters_.packets_sent;
    return SendStatus::kOk;
  }
  if (result == WriteResult::kFull && packet.may_queue &&
      queue_.size() < limits_.max_queued) {
    PushQueueLocked(header, packet.extension, packet.payload);
    return SendStatus::kOk;
  }
  uint64_t tag;
  if (packet.wants_completion) {
    (void)FreeTransactionLocked(header.transaction_id, &tag);
  }
  if (result == WriteResult::kCorrupt) {
    FaultLocked(
        absl::StrCat("outgoing ring: ", RingFaultName(outgoing_.fault())));
    return SendStatus::kClosed;
  }
  if (result == WriteResult::kTooLarge) return SendStatus::kTooLarge;
  wanted_room_ = total;
  return SendStatus::kFull;
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
    return PacketRingBytes(ringbuffer::kDescriptorBytes + next.extension.size(),
                           next.payload.size());
  }
  return awaiting_ < limits_.max_awaiting ? wanted_room_ : 0;
}

// Stages packets from the queue; true if at least one.
bool PacketEndpoint::WriteQueueLocked(Afterwards* after) {
  bool wrote = false;
  while (!queue_.empty()) {
    const QueuedPacket& next = queue_.front();
    const WriteResult result =
        outgoing_.Write(next.header, next.extension, next.payload);
    if (result == WriteResult::kFull) return wrote;
    if (result != WriteResult::kOk) {
      FaultLocked(
          absl::StrCat("outgoing ring: ", RingFaultName(outgoing_.fault())));
      return false;
    }
    ++counters_.packets_sent;
    if (next.header.type == PacketType::kCompletion) {
      --queued_replies_;
      if (std::exchange(quota_blocked_, false)) after->work = true;
    }
    queue_.pop_front();
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

// -- Transactions
// --------------------------------------------------------------

// Ids are index + 1 with a generation above, so that a late or repeated
// completion matches nothing.
bool PacketEndpoint::AllocateTransactionLocked(uint64_t tag, uint64_t* id) {
  if (free_transactions_.empty()) {
    if (transactions_.size() >= limits_.max_awaiting) return false;
    free_transactions_.push_back(static_cast<uint32_t>(transactions_.size()));
    transactions_.emplace_back();
  }
  const uint32_t index = free_transactions_.back();
  free_transactions_.pop_back();
  Transaction& transaction = transactions_[index];
  transaction.awaiting = true;
  transaction.tag = tag;
  ++awaiting_;
  *id = (uint64_t{transaction.generation} << 32) | (index + 1);
  return true;
}

bool PacketEndpoint::FreeTransactionLocked(uint64_t id, uint64_t* tag) {
  const uint64_t index = (id & 0xffffffff) - 1;
  if (index >= transactions_.size()) return false;
  Transaction& transaction = transactions_[index];
  if (!transaction.awaiting || transaction.generation != id >> 32) {
    return false;
  }
  transaction.awaiting = false;
  ++transaction.generation;
  --awaiting_;
  *tag = transaction.tag;
  free_transactions_.push_back(static_cast<uint32_t>(index));
  return true;
}

// -- Faults
// ----------------------------------------------------------------------

void PacketEndpoint::Fault(std::string_view reason) {
  absl::MutexLock lock(&mu_);
  if (state_ != EndpointRunState::kDetached) FaultLocked(reason);
}

void PacketEndpoint::FaultLocked(std::string_view reason) {
  if (state_ == EndpointRunState::kFaulted) return;
  state_ = EndpointRunState::kFaulted;
  fault_reason_ = std::string(reason.substr(0, kMaxFaultReasonBytes));
  is_fault_news_ = true;
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
