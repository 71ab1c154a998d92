// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/virtual_function/msix_table.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"

namespace ferrybus::vsp {
namespace {

constexpr uint64_t kEntryBytes = sizeof(MsixEntry);
constexpr uint64_t kAddressReservedBits = 3;

// Aligned accesses of 4 or 8 bytes lie within one entry.
MsixAccess Check(uint64_t offset, uint64_t size_bytes, uint64_t region_bytes) {
  if (size_bytes != 4 && size_bytes != 8) return MsixAccess::kBadSize;
  if (offset % size_bytes != 0) return MsixAccess::kBadSize;
  if (offset >= region_bytes) return MsixAccess::kOutside;
  return MsixAccess::kDone;
}

bool HasReservedBits(const MsixEntry& entry, uint32_t data_bits) {
  return (entry.address & kAddressReservedBits) != 0 ||
         (entry.data & ~data_bits) != 0;
}

absl::Status RetiredError() {
  return absl::FailedPreconditionError(
      "interrupt table: retired: its state has moved, use the other one");
}

absl::Status CheckState(const MsixTableState& state,
                        const MsixOptions& options) {
  if (state.entries.size() != options.vectors) {
    return absl::InvalidArgumentError(absl::StrCat(
        "interrupt table: the state has ", state.entries.size(),
        " vectors, the device ", options.vectors, ": make the device alike"));
  }
  for (uint32_t i = 0; i < options.vectors; ++i) {
    const MsixEntry& entry = state.entries[i];
    if (!HasReservedBits(entry, options.data_bits)) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "interrupt table: vector ", i, ": address is 0x",
        absl::Hex(entry.address), ", data 0x", absl::Hex(entry.data),
        ", must be a multiple of 4, and within 0x",
        absl::Hex(options.data_bits), ": the saved state is corrupt"));
  }
  if (const uint32_t beyond = state.pending.Next(options.vectors);
      beyond != kMsixVectorsMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "interrupt table: vector ", beyond, " is pending, must be below ",
        options.vectors, ": the saved state is corrupt"));
  }
  return absl::OkStatus();
}

}  // namespace

MsixTable::MsixTable(const MsixOptions& options, MsixHost* host,
                     MsixDevice* device)
    : options_(options), host_(host), device_(device) {
  FERRYBUS_CHECK(options.vectors >= 1 && options.vectors <= kMsixVectorsMax,
                 "a table has 1 to 2,048 vectors");
  FERRYBUS_CHECK(host != nullptr && device != nullptr,
                 "a table needs a host and a device");
  shadow_.resize(options.vectors);
  given_.resize(options.vectors);
}

// -- The guest ----------------------------------------------------------------

MsixAccess MsixTable::Refuse(MsixAccess why) {
  ++counters_.refused_accesses;
  return why;
}

MsixAccess MsixTable::ReadTable(uint64_t offset, absl::Span<std::byte> out) {
  absl::MutexLock lock(&state_mu_);
  const MsixAccess access = Check(offset, out.size(), table_size_bytes());
  if (access != MsixAccess::kDone) {
    std::fill(out.begin(), out.end(), std::byte{0xff});
    return Refuse(access);
  }
  const auto* entry =
      reinterpret_cast<const std::byte*>(&shadow_[offset / kEntryBytes]);
  std::memcpy(out.data(), entry + offset % kEntryBytes, out.size());
  return MsixAccess::kDone;
}

MsixAccess MsixTable::WriteTable(uint64_t offset,
                                 absl::Span<const std::byte> bytes) {
  {
    absl::MutexLock lock(&state_mu_);
    const MsixAccess access = Check(offset, bytes.size(), table_size_bytes());
    if (access != MsixAccess::kDone) return Refuse(access);
    if (is_retired_) return Refuse(MsixAccess::kRetired);
    const MsixAccess changed =
        Change(static_cast<uint32_t>(offset / kEntryBytes),
               static_cast<uint32_t>(offset % kEntryBytes), bytes);
    if (changed != MsixAccess::kDone) return Refuse(changed);
  }
  DeliverAfterChange();
  return MsixAccess::kDone;
}

MsixAccess MsixTable::Change(uint32_t vector, uint32_t at,
                             absl::Span<const std::byte> bytes) {
  MsixEntry entry = shadow_[vector];
  std::memcpy(reinterpret_cast<std::byte*>(&entry) + at, bytes.data(),
              bytes.size());
  if (HasReservedBits(entry, options_.data_bits)) {
    if (options_.reserved_bits == MsixReservedBits::kRefuse) {
      return MsixAccess::kReservedBits;
    }
    entry.address &= ~kAddressReservedBits;
    entry.data &= options_.data_bits;
  }
  ++counters_.guest_writes;
  is_new_ = false;
  if (entry != shadow_[vector]) {
    shadow_[vector] = entry;
    stale_.Set(vector);
    is_saved_ = false;
  } else if (failed_.Test(vector) || options_.deliver_every_write) {
    stale_.Set(vector);
  }
  return MsixAccess::kDone;
}

MsixAccess MsixTable::ReadPending(uint64_t offset, absl::Span<std::byte> out) {
  absl::MutexLock lock(&state_mu_);
  const MsixAccess access = Check(offset, out.size(), pending_size_bytes());
  if (access != MsixAccess::kDone) {
    std::fill(out.begin(), out.end(), std::byte{0xff});
    return Refuse(access);
  }
  const uint64_t word = pending_.word(static_cast<uint32_t>(offset / 8));
  std::memcpy(out.data(),
              reinterpret_cast<const std::byte*>(&word) + offset % 8,
              out.size());
  return MsixAccess::kDone;
}

MsixAccess MsixTable::WritePending(uint64_t offset,
                                   absl::Span<const std::byte> bytes) {
  absl::MutexLock lock(&state_mu_);
  const MsixAccess access = Check(offset, bytes.size(), pending_size_bytes());
  if (access != MsixAccess::kDone) return Refuse(access);
  return MsixAccess::kReadOnly;
}

uint16_t MsixTable::ReadControl() const {
  absl::MutexLock lock(&state_mu_);
  uint32_t word = vectors() - 1;
  if (is_enabled_) word |= kEnable;
  if (is_function_masked_) word |= kFunctionMask;
  return static_cast<uint16_t>(word);
}

MsixAccess MsixTable::WriteControl(uint16_t value) {
  {
    absl::MutexLock lock(&state_mu_);
    if (is_retired_) return Refuse(MsixAccess::kRetired);
    const bool is_enabled = (value & kEnable) != 0;
    const bool is_masked = (value & kFunctionMask) != 0;
    ++counters_.guest_writes;
    is_new_ = false;
    if (is_enabled != is_enabled_ || is_masked != is_function_masked_) {
      is_saved_ = false;
    }
    is_enabled_ = is_enabled;
    is_function_masked_ = is_masked;
    SendPending();
  }
  DeliverAfterChange();
  return MsixAccess::kDone;
}

void MsixTable::Reset() {
  absl::MutexLock lock(&state_mu_);
  if (is_retired_) return;
  for (uint32_t i = 0; i < vectors(); ++i) {
    if (shadow_[i] == MsixEntry()) continue;
    shadow_[i] = MsixEntry();
    stale_.Set(i);
  }
  pending_ = MsixBits();
  is_enabled_ = false;
  is_function_masked_ = false;
  is_new_ = false;
  is_saved_ = false;
}

// -- The device ---------------------------------------------------------------

bool MsixTable::CanSend(uint32_t vector) const {
  return IsFunctionOn() && !is_paused_ && !shadow_[vector].is_masked() &&
         !stale_.Test(vector) && !failed_.Test(vector);
}

void MsixTable::Send(uint32_t vector) {
  pending_.Clear(vector);
  ++counters_.messages_sent;
  const MsixEntry& entry = given_[vector];
  host_->SendMessage(vector, {entry.address, entry.data});
}

void MsixTable::SendPending() {
  for (uint32_t i = pending_.Next(0); i != kMsixVectorsMax;
       i = pending_.Next(i + 1)) {
    if (CanSend(i)) Send(i);
  }
}

MsixRaise MsixTable::Raise(uint32_t vector) {
  if (vector >= vectors()) return MsixRaise::kNoSuchVector;
  absl::MutexLock lock(&state_mu_);
  if (is_retired_) return MsixRaise::kRetired;
  if (CanSend(vector)) {
    Send(vector);
    return MsixRaise::kSent;
  }
  if (!pending_.Test(vector)) {
    pending_.Set(vector);
    is_saved_ = false;
  }
  return MsixRaise::kPending;
}

void MsixTable::Withdraw(uint32_t vector) {
  if (vector >= vectors()) return;
  absl::MutexLock lock(&state_mu_);
  if (is_retired_ || !pending_.Test(vector)) return;
  pending_.Clear(vector);
  is_saved_ = false;
}

// -- Deliveries ---------------------------------------------------------------

bool MsixTable::MustDeliver(uint32_t vector) const {
  if (unknown_.Test(vector) || options_.deliver_every_write) return true;
  return IsFunctionOn() &&
         !(shadow_[vector].is_masked() && given_[vector].is_masked());
}

uint32_t MsixTable::NextToDeliver(uint32_t vector) const {
  for (uint32_t i = stale_.Next(vector); i != kMsixVectorsMax;
       i = stale_.Next(i + 1)) {
    if (MustDeliver(i)) return i;
  }
  return kMsixVectorsMax;
}

void MsixTable::DeliverAfterChange() {
  {
    absl::MutexLock lock(&state_mu_);
    if (is_paused_ || NextToDeliver(0) == kMsixVectorsMax) return;
  }
  // Whoever holds this delivers for all that wait here: the last value once.
  absl::MutexLock delivery(&delivery_mu_);
  (void)DeliverPass(/*even_if_paused=*/false);
}

MsixTable::Failures MsixTable::DeliverPass(bool even_if_paused) {
  Failures failures;
  std::optional<Delivery> delivery = Begin(0, even_if_paused);
  while (delivery.has_value()) {
    Deliver(*delivery, &failures);
    delivery = Begin(delivery->vector + 1, even_if_paused);
  }
  return failures;
}

std::optional<MsixTable::Delivery> MsixTable::Begin(uint32_t from,
                                                    bool even_if_paused) {
  absl::MutexLock lock(&state_mu_);
  if (is_paused_ && !even_if_paused) return std::nullopt;
  const uint32_t vector = NextToDeliver(from);
  if (vector == kMsixVectorsMax) return std::nullopt;
  const Delivery delivery = {vector, shadow_[vector], given_[vector],
                             !unknown_.Test(vector)};
  // Until this has ended: a change of the entry meanwhile must follow, also if
  // it takes the entry back to what the device had.
  unknown_.Set(vector);
  return delivery;
}

void MsixTable::Deliver(const Delivery& delivery, Failures* failures) {
  const uint32_t vector = delivery.vector;
  const MsixEntry& guest = delivery.guest;
  MsixEntry entry = guest;
  absl::Status unmapped;
  if (const auto message = host_->MapMessage({guest.address, guest.data});
      message.ok()) {
    entry.address = message->address;
    entry.data = message->data;
  } else {
    entry.address = 0;
    entry.vector_control |= MsixEntry::kMasked;
    if (!guest.is_masked()) unmapped = message.status();
  }
  const bool is_needed = !delivery.is_given_known || entry != delivery.given ||
                         options_.deliver_every_write;
  absl::Status refused;
  if (is_needed) refused = device_->WriteVirtualizedInterrupt(vector, entry);

  absl::MutexLock lock(&state_mu_);
  if (is_needed) ++counters_.device_writes;
  if (refused.ok()) {
    given_[vector] = entry;
    unknown_.Clear(vector);
  }
  if (shadow_[vector] == guest) stale_.Clear(vector);
  failed_.Clear(vector);
  if (!unmapped.ok() || !refused.ok()) {
    failed_.Set(vector);
    const bool is_refused = !refused.ok();
    ++(is_refused ? counters_.device_refusals : counters_.unmapped_messages);
    ++(is_refused ? failures->refused : failures->unmapped);
    last_failure_ = absl::Status(
        is_refused ? absl::StatusCode::kUnavailable
                   : absl::StatusCode::kNotFound,
        absl::StrCat("interrupt table: vector ", vector, ", guest address 0x",
                     absl::Hex(guest.address),
                     is_refused ? ": the device refused the entry: "
                                : ": this host has no message for it: ",
                     (is_refused ? refused : unmapped).message()));
    if (failures->first.ok()) failures->first = last_failure_;
  }
  if (pending_.Test(vector) && CanSend(vector)) Send(vector);
}

// -- Moving -------------------------------------------------------------------

void MsixTable::Pause() {
  absl::MutexLock delivery(&delivery_mu_);
  absl::MutexLock lock(&state_mu_);
  is_paused_ = true;
}

absl::Status MsixTable::Resume() {
  absl::MutexLock delivery(&delivery_mu_);
  {
    absl::MutexLock lock(&state_mu_);
    if (is_retired_) return RetiredError();
    if (!is_paused_) return absl::OkStatus();
  }
  // Nothing is sent before the device has its table.
  (void)DeliverPass(/*even_if_paused=*/true);
  {
    absl::MutexLock lock(&state_mu_);
    is_paused_ = false;
    is_new_ = false;
    is_saved_ = false;
    SendPending();
  }
  // What the guest wrote behind the first pass.
  (void)DeliverPass(/*even_if_paused=*/false);
  return absl::OkStatus();
}

absl::StatusOr<MsixTableState> MsixTable::Save() {
  absl::MutexLock lock(&state_mu_);
  if (is_retired_) return RetiredError();
  if (!is_paused_) {
    return absl::FailedPreconditionError(
        "interrupt table: saved while it runs: pause it first");
  }
  is_saved_ = true;
  return MsixTableState{is_enabled_, is_function_masked_, shadow_, pending_};
}

bool MsixTable::IsAsSaved() const {
  absl::MutexLock lock(&state_mu_);
  return is_paused_ && is_saved_ && !is_retired_;
}

absl::Status MsixTable::Retire() {
  absl::MutexLock delivery(&delivery_mu_);
  absl::MutexLock lock(&state_mu_);
  if (is_retired_) return RetiredError();
  if (!is_paused_ || !is_saved_) {
    return absl::FailedPreconditionError(
        "interrupt table: runs, or has changed since it was saved: pause it, "
        "and save it again");
  }
  is_retired_ = true;
  return absl::OkStatus();
}

void MsixTable::MarkAllStale() {
  stale_.SetFirst(vectors());
  unknown_.SetFirst(vectors());
}

absl::Status MsixTable::Restore(const MsixTableState& state) {
  if (absl::Status status = CheckState(state, options_); !status.ok()) {
    return status;
  }
  absl::MutexLock lock(&state_mu_);
  if (!is_new_) {
    return absl::FailedPreconditionError(
        "interrupt table: restored after it was used: make a new one");
  }
  is_new_ = false;
  is_enabled_ = state.is_enabled;
  is_function_masked_ = state.is_function_masked;
  shadow_ = state.entries;
  pending_.Add(state.pending);
  is_saved_ = false;
  MarkAllStale();
  return absl::OkStatus();
}

absl::Status MsixTable::Rewrite() {
  absl::MutexLock delivery(&delivery_mu_);
  {
    absl::MutexLock lock(&state_mu_);
    if (is_retired_) return RetiredError();
    MarkAllStale();
  }
  const Failures failures = DeliverPass(/*even_if_paused=*/true);
  if (failures.first.ok()) return absl::OkStatus();
  return absl::Status(
      failures.refused > 0 ? absl::StatusCode::kUnavailable
                           : absl::StatusCode::kNotFound,
      absl::StrCat("interrupt table: of ", vectors(), " entries the device ",
                   "refused ", failures.refused, ", and ", failures.unmapped,
                   " have no message; the first: ", failures.first.message()));
}

MsixCounters MsixTable::counters() const {
  absl::MutexLock lock(&state_mu_);
  return counters_;
}

absl::Status MsixTable::last_failure() const {
  absl::MutexLock lock(&state_mu_);
  return last_failure_;
}

}  // namespace ferrybus::vsp
