// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/bus_migratable.h"

#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/proto_limits.h"
#include "ferrybus/vsp/bus_immutable.pb.h"

namespace ferrybus::vsp {
namespace {

constexpr uint32_t kImmutableVersion = 1;
constexpr uint64_t kImmutableBytesMax = uint64_t{1} << 20;

savestate::SizeAnswer Give(const std::string& bytes,
                           absl::Span<std::byte> out) {
  if (out.size() < bytes.size()) {
    return savestate::SizeAnswer::TooSmall(bytes.size());
  }
  if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return savestate::SizeAnswer::Ok(bytes.size());
}

std::string Bytes(const Guid& guid) {
  return std::string(reinterpret_cast<const char*>(guid.bytes.data()),
                     guid.bytes.size());
}

v1::BusImmutable Describe(const BusMigratableOptions& options) {
  v1::BusImmutable message;
  message.set_version(kImmutableVersion);
  message.set_guest_pages(options.guest_pages);
  for (const OfferParams& offer : options.offers) {
    v1::OfferIdentity* added = message.add_offers();
    added->set_interface_type(Bytes(offer.interface_type));
    added->set_interface_instance(Bytes(offer.interface_instance));
    added->set_sub_channel_index(offer.sub_channel_index);
  }
  return message;
}

std::string Text(const v1::OfferIdentity& offer) {
  return absl::StrCat(absl::BytesToHexString(offer.interface_type()), " ",
                      absl::BytesToHexString(offer.interface_instance()),
                      " sub-channel ", offer.sub_channel_index());
}

std::string OfferText(const v1::BusImmutable& message, int index) {
  return index < message.offers_size() ? Text(message.offers(index)) : "none";
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
  return Give(savestate::SerializeDeterministic(Describe(options_)), out);
}

absl::Status BusMigratable::RestoreImmutable(absl::Span<const std::byte> data) {
  v1::BusImmutable there;
  savestate::ProtoLimits limits;
  limits.bytes_max = kImmutableBytesMax;
  absl::Status status =
      savestate::ParseBounded(data, limits, &there, "immutable data of a bus");
  if (!status.ok()) return status;
  const v1::BusImmutable here = Describe(options_);
  if (there.version() != here.version()) {
    return Mismatch("format version", absl::StrCat(there.version()),
                    absl::StrCat(here.version()));
  }
  if (there.guest_pages() != here.guest_pages()) {
    return Mismatch("pages of guest memory", absl::StrCat(there.guest_pages()),
                    absl::StrCat(here.guest_pages()));
  }
  for (int i = 0; i < std::max(there.offers_size(), here.offers_size()); ++i) {
    const std::string its = OfferText(there, i);
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
  return true;
}

savestate::SizeAnswer BusMigratable::SaveMutable(absl::Span<std::byte> out) {
  absl::MutexLock lock(mutex_);
  if (!is_frozen_) {
    return savestate::SizeAnswer::Failed(
        absl::FailedPreconditionError("only while paused"));
  }
  if (out.empty()) {
    absl::StatusOr<std::string> saved = owner_->bus()->Save();
    if (!saved.ok()) return savestate::SizeAnswer::Failed(saved.status());
    saved_ = *std::move(saved);
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
}

}  // namespace ferrybus::vsp
