// SPDX-License-Identifier: MIT
//
// An endpoint's packets that wait for their receiver, and the guest memory
// that packets describe.

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/packet_endpoint.h"
#include "ferrybus/ringbuffer/packet_ranges.h"

namespace ferrybus {

using ringbuffer::PacketType;

// -- Packets in line ---------------------------------------------------------

// In order of arrival: what was given back comes before what came later.
void PacketEndpoint::WaitLocked(Slot& slot) {
  auto at = waiting_.end();
  while (at != waiting_.begin() && slots_[*(at - 1)].sequence > slot.sequence) {
    --at;
  }
  waiting_.insert(at, slot.info.slot);
  has_waiting_.set(true);
}

void PacketEndpoint::DeferPacket(uint32_t slot_index, uint32_t generation) {
  Afterwards after;
  bool waits;
  {
    absl::MutexLock lock(&mu_);
    Slot& slot = slots_[slot_index];
    waits = slot.state == SlotState::kInFlight && owes();
    if (waits) {
      WaitLocked(slot);
      after.work = true;
      LeaveLocked(&after);
    }
  }
  if (!waits) {
    Unpin(slot_index, generation);
    absl::MutexLock lock(&mu_);
    ReleaseSlotLocked(slots_[slot_index], &after);
    LeaveLocked(&after);
  }
  if (after.leaving || after.end) Do(after);
}

PacketEndpoint::Slot* PacketEndpoint::NextWaiting() {
  absl::MutexLock lock(&mu_);
  if (state_ != EndpointRunState::kActive || waiting_.empty()) return nullptr;
  Slot& slot = slots_[waiting_.front()];
  if (slot.pin == PinState::kPending) return nullptr;
  waiting_.erase(waiting_.begin());
  has_waiting_.set(!waiting_.empty());
  return &slot;
}

// True: the budget ended first.
bool PacketEndpoint::DeliverWaiting(uint32_t budget) {
  if (delivering_) return false;
  delivering_ = true;
  uint32_t delivered = 0;
  while (delivered < budget) {
    Slot* const slot = NextWaiting();
    if (slot == nullptr) break;
    ++delivered;
    slot->info.may_block = true;
    events_->OnPacket(IncomingPacket(this, &slot->info));
  }
  delivering_ = false;
  if (delivered != 0 && is_attached()) events_->OnBatchEnd(delivered);
  return delivered == budget;
}

// The channel closes: nobody else knows of these packets.
void PacketEndpoint::DropWaiting() {
  std::vector<uint32_t> waiting;
  {
    absl::MutexLock lock(&mu_);
    waiting.swap(waiting_);
    has_waiting_.set(false);
  }
  for (const uint32_t index : waiting) {
    Unpin(index, SlotOf(index)->info.generation);
    Afterwards after;
    absl::MutexLock lock(&mu_);
    ReleaseSlotLocked(slots_[index], &after);
  }
}

void PacketEndpoint::ReportSent() {
  std::vector<uint64_t> tags;
  {
    absl::MutexLock lock(&mu_);
    if (sent_tags_.empty()) return;
    tags.swap(sent_tags_);
  }
  for (const uint64_t tag : tags) events_->OnSent(tag);
  tags.clear();
  absl::MutexLock lock(&mu_);
  // Its memory is used again.
  if (sent_tags_.empty()) tags.swap(sent_tags_);
}

// -- Guest memory ------------------------------------------------------------

PacketEndpoint::Slot* PacketEndpoint::SlotOf(uint32_t index) {
  absl::MutexLock lock(&mu_);
  return &slots_[index];
}

absl::StatusOr<absl::Span<const iovec>> PacketEndpoint::MapGuestBuffers(
    uint32_t slot_index) {
  // The slot belongs to the handle's holder now.
  Slot* const slot = SlotOf(slot_index);
  const absl::Status status = FillBuffers(*slot);
  if (!status.ok()) return status;
  return absl::Span<const iovec>(slot->buffers);
}

absl::StatusOr<ExternalData> PacketEndpoint::PinGuestBuffers(
    uint32_t slot_index, GuestAccess access) {
  Slot* const slot = SlotOf(slot_index);
  GuestPins* const pins = options_.pins;
  {
    absl::MutexLock lock(&mu_);
    if (slot->pin != PinState::kNone) {
      if (access == GuestAccess::kReadWrite &&
          slot->access == GuestAccess::kReadOnly) {
        return absl::InvalidArgumentError(
            "external data was asked for read-only before");
      }
      return slot->pin == PinState::kPinned ? ExternalData::kReady
                                            : ExternalData::kPending;
    }
  }
  const absl::Status status = FillBuffers(*slot);
  if (!status.ok()) return status;
  if (pins == nullptr || slot->buffers.empty()) return ExternalData::kReady;
  {
    absl::MutexLock lock(&mu_);
    slot->pin = PinState::kPending;
    slot->access = access;
  }
  const ExternalData pinned = pins->Pin(
      slot->buffers, access,
      PinDone(static_cast<PinOwner*>(this), slot_index, slot->info.generation));
  absl::MutexLock lock(&mu_);
  if (pinned == ExternalData::kReady) slot->pin = PinState::kPinned;
  return slot->pin == PinState::kPinned ? ExternalData::kReady
                                        : ExternalData::kPending;
}

void PacketEndpoint::OnPinned(uint32_t slot_index, uint32_t generation) {
  Afterwards after;
  {
    absl::MutexLock lock(&mu_);
    Slot& slot = slots_[slot_index];
    if (slot.info.generation != generation || slot.pin != PinState::kPending) {
      return;
    }
    slot.pin = PinState::kPinned;
    after.work = !retired_;
    LeaveLocked(&after);
  }
  if (after.leaving) Do(after);
}

void PacketEndpoint::Unpin(uint32_t slot_index, uint32_t generation) {
  if (options_.pins == nullptr) return;
  Slot* const slot = SlotOf(slot_index);
  {
    absl::MutexLock lock(&mu_);
    if (slot->info.generation != generation || slot->pin == PinState::kNone) {
      return;
    }
  }
  options_.pins->Unpin(slot->buffers, slot->access);
  absl::MutexLock lock(&mu_);
  slot->pin = PinState::kNone;
}

// The packet's ranges as host memory, adjacent pages joined.
absl::Status PacketEndpoint::FillBuffers(Slot& slot) const {
  slot.buffers.clear();
  if (slot.info.extension.empty()) return absl::OkStatus();
  if (slot.info.type != PacketType::kDataUsingGpaDirect || memory_ == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("packet ", slot.info.transaction_id,
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
      if (!slot.buffers.empty()) {
        iovec& last = slot.buffers.back();
        if (static_cast<std::byte*>(last.iov_base) + last.iov_len ==
            host.data()) {
          last.iov_len += host.size();
          continue;
        }
      }
      slot.buffers.push_back({host.data(), host.size()});
    }
    return true;
  };
  const ringbuffer::RangeResult result =
      ringbuffer::ForEachGpaRange(slot.info.extension, add_range);
  if (outside) {
    slot.buffers.clear();
    return absl::OutOfRangeError(absl::StrCat(
        "packet ", slot.info.transaction_id, ": page frame ", bad_page,
        " is outside guest RAM of ", memory_->page_count(), " pages"));
  }
  if (result != ringbuffer::RangeResult::kOk) {
    slot.buffers.clear();
    return absl::InvalidArgumentError(absl::StrCat(
        "packet ", slot.info.transaction_id, ": ", RangeResultName(result)));
  }
  return absl::OkStatus();
}

}  // namespace ferrybus
