// SPDX-License-Identifier: MIT

#include "ferrybus/examples/hypervisor/synic.h"

#include <atomic>
#include <cstring>
#include <utility>

#include "ferrybus/examples/hypervisor/hyperv.h"

namespace ferrybus::hypervisor {
namespace {

// In either page each SINT has 256 bytes.
constexpr uint64_t kSintAreaBytes = 256;
constexpr uint32_t kFlagCount = kSintAreaBytes * 8;

constexpr uint32_t kMessageTypeNone = 0;
constexpr uint32_t kMessageTypeChannel = 1;
constexpr uint8_t kMessagePending = 1;  // flags: there is another one

// A slot of the message page.
struct MessageSlot {
  uint32_t type;
  uint8_t payload_bytes;
  uint8_t flags;
  uint16_t reserved;
  uint64_t sender;
  std::byte payload[240];
};
static_assert(sizeof(MessageSlot) == kSintAreaBytes);

}  // namespace

Synic::Synic(const GuestMemory* memory, uint32_t vp_count, Interrupt interrupt)
    : memory_(memory), interrupt_(std::move(interrupt)), vps_(vp_count) {
  for (Vp& vp : vps_) vp.is.sints.fill(kSintMasked);
}

bool Synic::ReadMsr(uint32_t vp, uint32_t msr, uint64_t* value) const {
  const Vp& state = vps_[vp];
  const std::lock_guard lock(state.mutex);
  if (msr >= kMsrSint0 && msr < kMsrSint0 + kSintCount) {
    *value = state.is.sints[msr - kMsrSint0];
    return true;
  }
  switch (msr) {
    case kMsrSynicControl:
      *value = state.is.control;
      return true;
    case kMsrSynicVersion:
      *value = 1;
      return true;
    case kMsrEventFlagsPage:
      *value = state.is.event_flags_page;
      return true;
    case kMsrMessagePage:
      *value = state.is.message_page;
      return true;
    case kMsrEndOfMessage:
      *value = 0;
      return true;
    default:
      return false;
  }
}

bool Synic::WriteMsr(uint32_t vp, uint32_t msr, uint64_t value) {
  Vp& state = vps_[vp];
  const std::lock_guard lock(state.mutex);
  if (msr >= kMsrSint0 && msr < kMsrSint0 + kSintCount) {
    state.is.sints[msr - kMsrSint0] = value;
    return true;
  }
  switch (msr) {
    case kMsrSynicControl:
      state.is.control = value;
      return true;
    case kMsrEventFlagsPage:
      state.is.event_flags_page = value;
      return true;
    case kMsrMessagePage:
      state.is.message_page = value;
      return true;
    case kMsrEndOfMessage:
      // The bridge looks again by itself (BusBridge).
      return true;
    default:
      return false;
  }
}

SynicVpState Synic::Save(uint32_t vp) const {
  const std::lock_guard lock(vps_[vp].mutex);
  return vps_[vp].is;
}

void Synic::Load(uint32_t vp, const SynicVpState& state) {
  const std::lock_guard lock(vps_[vp].mutex);
  vps_[vp].is = state;
}

absl::Span<std::byte> Synic::SintArea(const SynicVpState& vp,
                                      uint64_t page) const {
  if ((vp.control & kPageEnable) == 0 || (page & kPageEnable) == 0) return {};
  return memory_->Translate((page & kPageAddress) + kVmbusSint * kSintAreaBytes,
                            kSintAreaBytes);
}

Synic::Delivery Synic::PostMessage(uint32_t vp,
                                   absl::Span<const std::byte> payload) {
  if (vp >= vps_.size()) return Delivery::kDropped;
  Vp& state = vps_[vp];
  const std::lock_guard lock(state.mutex);
  const absl::Span<std::byte> area = SintArea(state.is, state.is.message_page);
  if (area.empty()) return Delivery::kDropped;
  auto* const slot = reinterpret_cast<MessageSlot*>(area.data());
  // Pairs with the guest's exchange that empties the slot.
  std::atomic_ref<uint32_t> type(slot->type);
  if (type.load(std::memory_order_acquire) != kMessageTypeNone) {
    std::atomic_ref<uint8_t>(slot->flags).fetch_or(kMessagePending);
    return Delivery::kSlotBusy;
  }
  slot->payload_bytes = static_cast<uint8_t>(payload.size());
  slot->flags = 0;
  slot->reserved = 0;
  slot->sender = 0;
  std::memcpy(slot->payload, payload.data(), payload.size());
  // The guest reads the rest after it has seen the type.
  type.store(kMessageTypeChannel, std::memory_order_release);
  interrupt_(vp, state.is.sints[kVmbusSint]);
  return Delivery::kDelivered;
}

void Synic::SetEventFlag(uint32_t vp, uint32_t flag) {
  if (vp >= vps_.size() || flag >= kFlagCount) return;
  Vp& state = vps_[vp];
  const std::lock_guard lock(state.mutex);
  const absl::Span<std::byte> area =
      SintArea(state.is, state.is.event_flags_page);
  if (area.empty()) return;
  auto* const words = reinterpret_cast<uint32_t*>(area.data());
  const uint32_t bit = uint32_t{1} << (flag % 32);
  // What the channel's ring got before is visible to who sees the flag.
  std::atomic_ref<uint32_t> word(words[flag / 32]);
  if ((word.fetch_or(bit, std::memory_order_acq_rel) & bit) == 0) {
    interrupt_(vp, state.is.sints[kVmbusSint]);
  }
}

}  // namespace ferrybus::hypervisor
