// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/bus.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/channel/ring_pair.h"

namespace ferrybus::vsp {
namespace {

// What Windows calls unsuccessful; any non-zero value refuses an open.
constexpr uint32_t kStatusUnsuccessful = 0x8000ffff;

ServerConnectionOptions ConnectionOptions(const BusOptions& options,
                                          const GuestMemory& memory) {
  ServerConnectionOptions connection = options.connection;
  connection.ram_page_count = memory.page_count();
  return connection;
}

}  // namespace

Bus::Bus(const BusOptions& options, const GuestMemory* memory,
         Doorbell* doorbell, BusObserver* observer)
    : options_(options),
      memory_(memory),
      doorbell_(doorbell),
      observer_(observer),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  FERRYBUS_CHECK(wake_.valid(), "no eventfd to be had");
  options_.connection = ConnectionOptions(options, *memory);
  connection_ = std::make_unique<ServerConnection>(
      options_.connection, static_cast<ServerEvents*>(this));
}

Bus::~Bus() = default;

absl::StatusOr<OfferId> Bus::Offer(const OfferParams& params, Device* device) {
  const absl::StatusOr<OfferId> offer = connection_->AddOffer(params);
  if (offer.ok()) AddChannel(*offer, device);
  return offer;
}

void Bus::AddChannel(OfferId offer, Device* device) {
  const ChannelId channel_id = connection_->FindOffer(offer)->channel_id;
  auto channel = std::make_unique<ServerChannel>(
      offer, channel_id, device, options_.endpoint, memory_, doorbell_,
      static_cast<ServerChannel::Wake*>(this));
  channels_by_id_[static_cast<uint32_t>(channel_id)] = channel.get();
  channels_[offer] = std::move(channel);
}

absl::Status Bus::Rescind(OfferId offer) {
  const absl::Status status = connection_->RescindOffer(offer);
  if (!status.ok()) return status;
  rescinding_.push_back(offer);
  WakeUp();
  return status;
}

// Channels of rescinded offers end here: never within an event of their own.
void Bus::DropRescinded() {
  const auto is_gone = [this](OfferId offer) {
    ServerChannel* const channel = Find(offer);
    const std::optional<OfferInfo> info = connection_->FindOffer(offer);
    if (info.has_value() && IsActive(info->state)) return false;
    const auto by_id =
        channels_by_id_.find(static_cast<uint32_t>(channel->channel_id_));
    // The number may be another offer's by now.
    if (by_id != channels_by_id_.end() && by_id->second == channel) {
      channels_by_id_.erase(by_id);
    }
    channels_.erase(offer);
    return true;
  };
  rescinding_.erase(
      std::remove_if(rescinding_.begin(), rescinding_.end(), is_gone),
      rescinding_.end());
}

absl::Status Bus::HandleMessage(absl::Span<const std::byte> payload,
                                uint32_t message_connection) {
  if (frozen_) return absl::UnavailableError("the bus is frozen");
  return connection_->HandleMessage(payload, message_connection);
}

// -- Channels open and close -------------------------------------------------

void Bus::OnConnected(const Contact& contact) { (void)contact; }

void Bus::OnDisconnected() {}

void Bus::OnOpenRequested(OfferId offer, const OpenRequest& request,
                          const GpadlView& ring) {
  ServerChannel* const channel = Find(offer);
  const absl::Status opened = channel == nullptr
                                  ? absl::NotFoundError("no such offer")
                                  : OpenChannel(*channel, request, ring);
  (void)connection_->OpenCompleted(offer,
                                   opened.ok() ? 0 : kStatusUnsuccessful);
  // The device may have closed the channel from inside OnOpened.
  if (!opened.ok() || !channel->is_up_) return;
  if (!suspended_) StartDevice(*channel);
}

void Bus::StartDevice(ServerChannel& channel) {
  if (!std::exchange(channel.is_started_, true)) channel.device_->OnStarted();
  channel.endpoint_->Thaw();
  channel.endpoint_->Start();
  Reissue(channel);
}

// Not before the restore is final: until then the old owner may go on, and
// what a device begins cannot be taken back.
void Bus::Reissue(ServerChannel& channel) {
  if (channel.reissue_.empty()) return;
  std::vector<IncomingPacket> packets = std::exchange(channel.reissue_, {});
  const ServerChannel::BatchScope batch(channel);
  for (IncomingPacket& packet : packets) {
    channel.device_->ProcessPacket(std::move(packet));
  }
  channel.device_->ProcessingComplete(packets.size());
}

void Bus::StopDevice(ServerChannel& channel) {
  if (std::exchange(channel.is_started_, false)) channel.device_->OnSuspend();
}

// The channel is no longer there for its device.
void Bus::TakeDown(ServerChannel& channel) {
  if (channel.is_up_) StopDevice(channel);
  channel.endpoint_->Detach();
  channel.reissue_.clear();
  if (std::exchange(channel.is_up_, false)) channel.device_->OnClosed();
}

absl::Status Bus::OpenChannel(ServerChannel& channel,
                              const OpenRequest& request,
                              const GpadlView& ring) {
  absl::StatusOr<RingPair> rings =
      RingPair::Map(*memory_, ring.pages, request.downstream_page_offset);
  if (!rings.ok()) return rings.status();
  absl::Status status = channel.endpoint_->Attach(
      *std::move(rings), static_cast<uint32_t>(channel.channel_id_));
  if (!status.ok()) return status;
  channel.fault_reported_ = false;
  status = channel.device_->OnOpened(channel, request.user_data);
  if (status.ok()) {
    channel.is_up_ = true;
  } else {
    channel.endpoint_->Detach();
  }
  return status;
}

void Bus::OnCloseRequested(OfferId offer) {
  ServerChannel* const channel = Find(offer);
  if (channel == nullptr) {
    (void)connection_->CloseCompleted(offer);
    return;
  }
  TakeDown(*channel);
  channel->closing_ = true;
  FinishClose(*channel);
}

// The guest takes its memory back when it hears that the channel is closed, so
// that waits for the last packet that may still be using it.
void Bus::FinishClose(ServerChannel& channel) {
  if (!channel.closing_ || channel.endpoint_->outstanding() != 0) return;
  channel.closing_ = false;
  (void)connection_->CloseCompleted(channel.offer_);
}

bool Bus::OnModifyRequested(OfferId offer, uint32_t target_vp) {
  // The doorbell finds the virtual processor by itself.
  (void)offer, (void)target_vp;
  return true;
}

void Bus::OnGpadlTeardownRequested(OfferId offer, GpadlId gpadl) {
  // Only rings are pinned, and those by the connection itself.
  (void)offer, (void)gpadl;
}

// -- Polling -----------------------------------------------------------------

void Bus::OnChannelWork(ServerChannel& channel) {
  ready_.Set(static_cast<uint32_t>(channel.channel_id_));
  WakeUp();
}

void Bus::WakeUp() {
  const uint64_t one = 1;
  // A full counter is as good as a write.
  (void)!write(wake_.get(), &one, sizeof(one));
}

bool Bus::Poll() {
  uint64_t count;
  (void)!read(wake_.get(), &count, sizeof(count));
  if (frozen_) return false;
  if (!rescinding_.empty()) DropRescinded();
  bool more = false;
  ready_.Take([this, &more](uint32_t channel_id) {
    if (PollChannel(channel_id)) {
      ready_.Set(channel_id);
      more = true;
    }
  });
  return more;
}

bool Bus::PollChannel(uint32_t channel_id) {
  const auto found = channels_by_id_.find(channel_id);
  if (found == channels_by_id_.end()) return false;
  ServerChannel& channel = *found->second;
  FinishClose(channel);
  const bool more = channel.endpoint_->Poll(options_.poll_budget);
  if (!channel.fault_reported_ &&
      channel.endpoint_->run_state() == EndpointRunState::kFaulted) {
    channel.fault_reported_ = true;
    if (observer_ != nullptr) {
      observer_->OnChannelFault(channel, channel.endpoint_->fault_reason());
    }
  }
  return more;
}

// -- Moving
// --------------------------------------------------------------------

void Bus::Suspend() {
  suspended_ = true;
  for (const auto& [offer, channel] : channels_) {
    if (channel->endpoint_->run_state() != EndpointRunState::kActive) continue;
    channel->endpoint_->Suspend();
    StopDevice(*channel);
  }
}

bool Bus::IsQuiescent() const {
  for (const auto& [offer, channel] : channels_) {
    const bool drains =
        channel->closing_ ||
        (IsOpen(*channel) &&
         channel->device_->incoming_policy() == IncomingPolicy::kDrain);
    if (drains && channel->endpoint_->outstanding() != 0) return false;
  }
  return true;
}

bool Bus::IsOpen(const ServerChannel& channel) const {
  const std::optional<OfferInfo> info = connection_->FindOffer(channel.offer_);
  return info.has_value() && info->state == ServerChannelState::kOpen;
}

void Bus::Freeze() {
  frozen_ = true;
  for (const auto& [offer, channel] : channels_) channel->endpoint_->Freeze();
}

void Bus::Thaw() {
  if (!frozen_ && !suspended_) return;
  frozen_ = false;
  suspended_ = false;
  for (const auto& [offer, channel] : channels_) {
    if (channel->endpoint_->run_state() != EndpointRunState::kFrozen &&
        channel->endpoint_->run_state() != EndpointRunState::kSuspended) {
      continue;
    }
    StartDevice(*channel);
    ready_.Set(static_cast<uint32_t>(channel->channel_id_));
  }
  // Also without a channel: messages may wait for the guest.
  WakeUp();
}

void Bus::Start() {
  connection_->FinishRestore();
  Thaw();
  // A signal sent while nobody served may be lost, in either direction; one
  // too many is allowed.
  for (const auto& [offer, channel] : channels_) {
    switch (channel->endpoint_->run_state()) {
      case EndpointRunState::kActive:
        doorbell_->Ring(static_cast<uint32_t>(channel->channel_id_));
        break;
      case EndpointRunState::kFaulted:  // is reported at the next Poll()
        ready_.Set(static_cast<uint32_t>(channel->channel_id_));
        break;
      default:
        break;
    }
  }
}

// -- Looking -----------------------------------------------------------------

ServerChannel* Bus::Find(OfferId offer) const {
  const auto found = channels_.find(offer);
  return found == channels_.end() ? nullptr : found->second.get();
}

const ServerChannel* Bus::channel(OfferId offer) const { return Find(offer); }

InFlightCount Bus::in_flight() const {
  InFlightCount count;
  for (const auto& [offer, channel] : channels_) {
    count.incoming += channel->endpoint_->outstanding();
    count.awaiting += channel->endpoint_->awaiting();
    count.queued += channel->endpoint_->queued();
  }
  return count;
}

}  // namespace ferrybus::vsp
