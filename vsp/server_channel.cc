// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/server_channel.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace ferrybus::vsp {

ServerChannel::ServerChannel(OfferId offer, ChannelId channel_id,
                             Device* device, const ChannelSettings& settings,
                             const GuestMemory* memory, Doorbell* doorbell,
                             Host* host)
    : offer_(offer),
      channel_id_(channel_id),
      device_(device),
      memory_(memory),
      doorbell_(doorbell),
      host_(host),
      endpoint_(std::make_unique<PacketEndpoint>(
          EndpointSide::kHost, settings.endpoint, memory, doorbell,
          static_cast<EndpointEvents*>(this))),
      life_(endpoint_.get(), static_cast<ChannelLifeEvents*>(this),
            settings.run) {
  life_.Enable();
}

ServerChannel::~ServerChannel() {
  PacketEndpoint::Retire(std::move(endpoint_));
}

SendStatus ServerChannel::SendNow(const OutgoingPacket& packet) {
  if (packet.wants_completion) return SendStatus::kNotSupported;
  OutgoingPacket now = packet;
  now.may_queue = false;
  const SendStatus status = endpoint_->Send(now);
  endpoint_->Flush();
  return status;
}

absl::StatusOr<EndpointState> ServerChannel::BeginSave() {
  if (!life_.is_up() || life_.is_started() || !IsDrained()) {
    return absl::FailedPreconditionError(
        "pause the channel, and let the device complete its packets");
  }
  endpoint_->Freeze();
  return endpoint_->Save([](const PacketInfo*, uint64_t) { return ""; });
}

absl::Status ServerChannel::OnLifeOpened() {
  const absl::Status status = device_->OnOpened(*this, open_user_data_);
  if (!status.ok()) UnmapAll();
  return status;
}

void ServerChannel::OnLifeStarted() {
  device_->OnStarted();
  host_->OnChannelStarted(*this);
}

void ServerChannel::OnLifeClosed() {
  device_->OnClosed();
  UnmapAll();
}

// -- GPADLs ------------------------------------------------------------------

absl::StatusOr<absl::Span<const iovec>> ServerChannel::MapGpadl(
    GpadlHandle handle, GuestAccess access) {
  const GpadlId id = IdOf(handle);
  if (mappings_.count(id) != 0) {
    return absl::AlreadyExistsError(
        absl::StrCat("GPADL 0x", absl::Hex(static_cast<uint32_t>(id)),
                     " is mapped; UnmapGpadl() it first"));
  }
  if (access == GuestAccess::kReadWrite &&
      AccessOf(handle) == GuestAccess::kReadOnly) {
    return absl::PermissionDeniedError(
        absl::StrCat("GPADL 0x", absl::Hex(static_cast<uint32_t>(id)),
                     " was made read-only"));
  }
  const absl::StatusOr<GpadlView> view = host_->AcquireGpadl(*this, id);
  if (!view.ok()) return view.status();
  std::vector<iovec> buffers;
  uint64_t left = view->byte_count;
  uint64_t offset = view->byte_offset;
  for (const uint64_t page : view->pages) {
    const uint64_t bytes = std::min<uint64_t>(left, 4096 - offset);
    const absl::Span<std::byte> host =
        memory_->Translate(page * 4096 + offset, bytes);
    if (host.empty()) {
      host_->ReleaseGpadl(*this, id);
      return absl::NotFoundError(
          absl::StrCat("page frame ", page, " is not guest RAM"));
    }
    buffers.push_back({host.data(), host.size()});
    left -= bytes;
    offset = 0;
  }
  return absl::Span<const iovec>(mappings_[id] = std::move(buffers));
}

bool ServerChannel::UnmapGpadl(GpadlHandle handle) {
  if (mappings_.erase(IdOf(handle)) == 0) return false;
  host_->ReleaseGpadl(*this, IdOf(handle));
  return true;
}

void ServerChannel::UnmapAll() {
  while (!mappings_.empty()) {
    (void)UnmapGpadl(
        MakeGpadlHandle(mappings_.begin()->first, GuestAccess::kReadWrite));
  }
}

}  // namespace ferrybus::vsp
