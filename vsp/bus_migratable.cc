// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/bus_migratable.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "ferrybus/vsp/bus_immutable_persist.h"

namespace ferrybus::vsp {
namespace {

savestate::SizeAnswer Give(const std::string& bytes,
                           absl::Span<std::byte> out) {
  if (out.size() < bytes.size()) {
    return savestate::SizeAnswer::TooSmall(bytes.size());
  }
  if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return savestate::SizeAnswer::Ok(bytes.size());
}

BusImmutable Describe(const BusMigratableOptions& options) {
  BusImmutable immutable = {.guest_pages = options.guest_pages, .offers = {}};
  for (const OfferParams& offer : options.offers) {
    immutable.offers.push_back({.interface_type = offer.interface_type,
                                .interface_instance = offer.interface_instance,
                                .sub_channel_index = offer.sub_channel_index});
  }
  return immutable;
}

std::string OfferText(const BusImmutable& immutable, size_t index) {
  if (index >= immutable.offers.size()) return "none";
  const OfferIdentity& offer = immutable.offers[index];
  return absl::StrCat(offer.interface_type.ToString(), " ",
                      offer.interface_instance.ToString(), " sub-channel ",
                      offer.sub_channel_index);
}

absl::Status Mismatch(absl::string_view field, absl::string_view there,
                      absl::string_view here) {
  return absl::FailedPreconditionError(absl::StrCat(
      field, ": the source has ", there, ", this host has ", here));
}

}  // namespace

absl::Status BusMigratable::Prepare(migration::Role role) {
  absl::MutexLock lock(mutex_);
  const bool has_bus = owner_->bus() != nullptr;
  if (has_bus != (role == migration::Role::kSource)) {
    return absl::FailedPreconditionError(has_bus ? "a target has a bus already"
                                                 : "there is no bus to move");
  }
  role_ = role;
  return absl::OkStatus();
}

savestate::SizeAnswer BusMigratable::SaveImmutable(absl::Span<std::byte> out) {
  return Give(SerializeBusImmutable(Describe(options_)), out);
}

absl::Status BusMigratable::RestoreImmutable(absl::Span<const std::byte> data) {
  absl::StatusOr<BusImmutable> there = ParseBusImmutable(data);
  if (!there.ok()) return there.status();
  const BusImmutable here = Describe(options_);
  if (there->guest_pages != here.guest_pages) {
    return Mismatch("pages of guest memory", absl::StrCat(there->guest_pages),
                    absl::StrCat(here.guest_pages));
  }
  const size_t offers = std::max(there->offers.size(), here.offers.size());
  for (size_t i = 0; i < offers; ++i) {
    const std::string its = OfferText(*there, i);
    const std::string ours = OfferText(here, i);
    if (its != ours) return Mismatch(absl::StrCat("offer ", i), its, ours);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> BusMigratable::Pause() {
  absl::MutexLock lock(mutex_);
  if (is_frozen_) return true;
  if (owner_->bus() == nullptr) {
    return absl::FailedPreconditionError("there is no bus to pause");
  }
  owner_->Serve();
  if (!is_suspended_) {
    owner_->bus()->Suspend();
    is_suspended_ = true;
  }
  if (!owner_->bus()->IsQuiescent()) return false;
  owner_->bus()->Freeze();
  is_frozen_ = true;
  // Now, before the last memory is sent: what a device completes from here on
  // may have put its data where it was sent already.  To the next owner that
  // packet is in flight.
  absl::StatusOr<std::string> saved = owner_->bus()->Save();
  if (!saved.ok()) return saved.status();
  saved_ = *std::move(saved);
  return true;
}

savestate::SizeAnswer BusMigratable::SaveMutable(absl::Span<std::byte> out) {
  absl::MutexLock lock(mutex_);
  if (!is_frozen_) {
    return savestate::SizeAnswer::Failed(
        absl::FailedPreconditionError("only while paused"));
  }
  return Give(saved_, out);
}

absl::Status BusMigratable::RestoreMutable(absl::Span<const std::byte> data) {
  absl::MutexLock lock(mutex_);
  if (role_ != migration::Role::kTarget || owner_->bus() != nullptr) {
    return absl::FailedPreconditionError("not a target without a bus");
  }
  return owner_->RestoreBus(data);
}

void BusMigratable::Retire() {
  absl::MutexLock lock(mutex_);
  owner_->DropBus();
}

void BusMigratable::Resume() {
  absl::MutexLock lock(mutex_);
  if (owner_->bus() == nullptr) return;
  if (role_ == migration::Role::kTarget) {
    owner_->bus()->Start();
  } else if (is_suspended_) {
    owner_->bus()->Thaw();
  }
  is_suspended_ = is_frozen_ = false;
  saved_.clear();
}

}  // namespace ferrybus::vsp
