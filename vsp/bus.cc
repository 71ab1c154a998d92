// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/bus.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/monitor_page.h"
#include "ferrybus/channel/ring_pair.h"
#include "ferrybus/savestate/fault_points.h"

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
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      wake_status_(wake_.valid() ? absl::OkStatus()
                                 : absl::ErrnoToStatus(errno, "bus: eventfd")) {
  options_.connection = ConnectionOptions(options, *memory);
  if (options.counters != nullptr) signals_in_.resize(kMaxChannelId + 1);
  connection_ = std::make_unique<ServerConnection>(
      options_.connection, static_cast<ServerEvents*>(this));
}

Bus::~Bus() = default;

absl::StatusOr<OfferId> Bus::Offer(const OfferParams& params, Device* device) {
  return Offer(params, device, {.endpoint = options_.endpoint});
}

absl::StatusOr<OfferId> Bus::Offer(const OfferParams& params, Device* device,
                                   const ChannelSettings& settings) {
  if (!wake_status_.ok()) return wake_status_;
  if (settings.force_new_channel) connection_->AbandonSaved(params);
  const absl::StatusOr<OfferId> offer = connection_->AddOffer(params);
  if (!offer.ok()) return offer;
  ChannelSettings its = settings;
  its.endpoint.is_pipe = (params.flags & kOfferNamedPipeMode) != 0;
  AddChannel(*offer, device, its);
  return offer;
}

void Bus::AddChannel(OfferId offer, Device* device,
                     const ChannelSettings& settings) {
  const ChannelId channel_id = connection_->FindOffer(offer)->channel_id;
  auto channel = std::make_unique<ServerChannel>(
      offer, channel_id, device, settings, memory_,
      settings.dedicated_doorbell != nullptr ? settings.dedicated_doorbell
                                             : doorbell_,
      static_cast<ServerChannel::Host*>(this));
  if (suspended_) channel->life_.Hold();
  channels_by_id_[static_cast<uint32_t>(channel_id)] = channel.get();
  if (options_.counters != nullptr) WriteCounters(*channel);
  channels_[offer] = std::move(channel);
}

absl::Status Bus::Rescind(OfferId offer) {
  ServerChannel* const its = channel(offer);
  if (its != nullptr) its->is_rescinding_ = true;
  const absl::Status status = connection_->RescindOffer(offer);
  if (!status.ok()) {
    if (its != nullptr) its->is_rescinding_ = false;
    return status;
  }
  if (its == nullptr) return status;  // saved, and never claimed
  // Else it was, or will be, closed.
  if (!its->life_.is_up()) its->life_.Close(ChannelLink::kDisabled);
  rescinding_.push_back(offer);
  WakeUp();
  return status;
}

// Channels of rescinded offers end here: never within an event of their own.
void Bus::DropRescinded() {
  const auto is_gone = [this](OfferId offer) {
    ServerChannel* const its = channel(offer);
    const std::optional<OfferInfo> info = connection_->FindOffer(offer);
    if (info.has_value() && IsActive(info->state)) return false;
    const auto by_id =
        channels_by_id_.find(static_cast<uint32_t>(its->channel_id_));
    // The number may be another offer's by now.
    if (by_id != channels_by_id_.end() && by_id->second == its) {
      if (options_.counters != nullptr) options_.counters->Clear(by_id->first);
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
  ServerChannel* const its = channel(offer);
  const absl::Status opened = its == nullptr
                                  ? absl::NotFoundError("no such offer")
                                  : OpenChannel(*its, request, ring);
  (void)connection_->OpenCompleted(offer,
                                   opened.ok() ? 0 : kStatusUnsuccessful);
  // Nothing if the device has closed the channel from inside OnOpened.
  if (opened.ok()) {
    its->life_.Resume();
  } else if (its != nullptr && observer_ != nullptr) {
    observer_->OnOpenRefused(*its, opened);
  }
}

absl::Status Bus::OpenChannel(ServerChannel& channel,
                              const OpenRequest& request,
                              const GpadlView& ring) {
  absl::StatusOr<RingPair> rings =
      RingPair::Map(*memory_, ring.pages, request.downstream_page_offset);
  if (!rings.ok()) return rings.status();
  const absl::Status status = channel.life_.Attach(
      *std::move(rings), static_cast<uint32_t>(channel.channel_id_));
  if (!status.ok()) return status;
  channel.fault_reported_ = false;
  if (!signals_in_.empty()) {
    signals_in_[static_cast<uint32_t>(channel.channel_id_)] = 0;
  }
  channel.open_user_data_ = request.user_data;
  return channel.life_.Opened();
}

void Bus::OnCloseRequested(OfferId offer) {
  ServerChannel* const its = channel(offer);
  if (its == nullptr) {
    (void)connection_->CloseCompleted(offer);
    return;
  }
  its->life_.Close(its->is_rescinding_ ? ChannelLink::kDisabled
                                       : ChannelLink::kClosed);
  its->closing_ = true;
  FinishClose(*its);
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

bool Bus::OnTlConnectRequested(const TlConnectRequest& request) {
  return observer_ != nullptr && observer_->OnTlConnectRequested(request);
}

// -- Polling -----------------------------------------------------------------

void Bus::OnChannelWork(ServerChannel& channel) {
  ready_.Set(static_cast<uint32_t>(channel.channel_id_));
  WakeUp();
}

void Bus::OnChannelStarted(ServerChannel& channel) {
  post_started_.push_back(channel.offer_);
  WakeUp();
}

absl::StatusOr<GpadlView> Bus::AcquireGpadl(ServerChannel& channel,
                                            GpadlId gpadl) {
  return connection_->AcquireGpadl(channel.offer_, gpadl);
}

void Bus::ReleaseGpadl(ServerChannel& channel, GpadlId gpadl) {
  (void)connection_->ReleaseGpadl(channel.offer_, gpadl);
}

void Bus::WakeUp() {
  const uint64_t one = 1;
  // A full counter is as good as a write.
  (void)!write(wake_.get(), &one, sizeof(one));
  // After the write: whoever takes the flag finds the write, and a write whose
  // flag is still to come wakes the poller once more.
  is_awake_.store(true, std::memory_order_release);
}

void Bus::SignalAll() {
  for (const auto& [channel_id, channel] : channels_by_id_) {
    ready_.Set(channel_id);
  }
}

bool Bus::Poll() {
  if (is_awake_.load(std::memory_order_relaxed) &&
      is_awake_.exchange(false, std::memory_order_acquire)) {
    uint64_t count;
    (void)!read(wake_.get(), &count, sizeof(count));
  }
  if (frozen_) return false;
  // A device that polls is still inside its channel.
  if (poll_depth_ == 0 && !rescinding_.empty()) DropRescinded();
  ++poll_depth_;
  bool more = false;
  ready_.Take([this, &more](uint32_t channel_id) {
    if (PollChannel(channel_id)) {
      ready_.Set(channel_id);
      more = true;
    }
  });
  RunPostStarted();
  --poll_depth_;
  return more;
}

bool Bus::PollMonitors() {
  if (frozen_ || connection_->phase() != ConnectionPhase::kConnected) {
    return false;
  }
  const MonitorPages pages = connection_->contact().monitor_pages();
  if (pages == MonitorPages{}) return false;
  return TakeMonitorTriggers(
      *memory_, pages.child_to_parent, [this](uint8_t monitor_id) {
        const auto offer = connection_->FindOfferByMonitorId(monitor_id);
        ServerChannel* const its =
            offer.has_value() ? channel(*offer) : nullptr;
        if (its != nullptr) Signal(static_cast<uint32_t>(its->channel_id_));
      });
}

// Here, where no packet and no message is being handled, devices may wait.
void Bus::RunPostStarted() {
  while (!post_started_.empty() && !frozen_) {
    ServerChannel* const started = channel(post_started_.front());
    post_started_.erase(post_started_.begin());
    if (started != nullptr) (void)started->life_.RunPostStarted();
  }
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
    ++channel.faults_;
    if (observer_ != nullptr) {
      observer_->OnChannelFault(channel, channel.endpoint_->fault_reason());
    }
  }
  if (options_.counters != nullptr) WriteCounters(channel);
  return more;
}

// -- Moving ------------------------------------------------------------------

void Bus::Suspend() {
  suspended_ = true;
  for (const auto& [offer, channel] : channels_) channel->life_.Hold();
}

bool Bus::IsQuiescent() const {
  for (const auto& [offer, channel] : channels_) {
    const bool drains =
        channel->closing_ ||
        (IsOpen(*channel) &&
         channel->device_->incoming_policy() == IncomingPolicy::kDrain);
    if (drains && channel->endpoint_->held() != 0) return false;
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
    channel->life_.Release();
    if (!channel->life_.is_up()) continue;
    ready_.Set(static_cast<uint32_t>(channel->channel_id_));
  }
  // Also without a channel: messages may wait for the guest.
  WakeUp();
}

void Bus::Start() {
  savestate::MarkFaultPoint(savestate::FaultPoint::kRestoreStart);
  connection_->FinishRestore();
  for (const auto& [offer, channel] : channels_) {
    // Its owner did not restore it: the guest opens it anew.
    if (IsOpen(*channel) && !channel->life_.is_up()) (void)Rescind(offer);
  }
  Thaw();
  // A signal sent while nobody served may be lost, in either direction; one
  // too many is allowed.
  for (const auto& [offer, channel] : channels_) {
    switch (channel->endpoint_->run_state()) {
      case EndpointRunState::kActive:
        channel->doorbell_->Ring(static_cast<uint32_t>(channel->channel_id_));
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

std::optional<OfferId> Bus::FindOffer(const Device& device) const {
  std::optional<OfferId> found;
  for (const auto& [offer, channel] : channels_) {
    if (channel->device_ == &device) found = offer;
  }
  return found;
}

ServerChannel* Bus::channel(OfferId offer) const {
  const auto found = channels_.find(offer);
  return found == channels_.end() ? nullptr : found->second.get();
}

void Bus::PublishCounters() const {
  if (options_.counters == nullptr) return;
  for (const auto& [id, channel] : channels_by_id_) WriteCounters(*channel);
}

void Bus::WriteCounters(const ServerChannel& channel) const {
  const EndpointLoad load = channel.endpoint_->load();
  const uint32_t id = static_cast<uint32_t>(channel.channel_id_);
  ChannelCounters counters;
  counters.packets_in = load.counters.packets_received;
  counters.packets_out = load.counters.packets_sent;
  counters.bytes_in = load.counters.bytes_received;
  counters.bytes_out = load.counters.bytes_sent;
  counters.completions_in = load.counters.completions_received;
  counters.completions_unmatched = load.counters.completions_unmatched;
  counters.faults = channel.faults_;
  counters.signals_in = signals_in_[id];
  counters.signals_out = load.counters.doorbells_rung;
  counters.in_flight = load.outstanding;
  counters.awaiting = load.awaiting;
  counters.queued = load.queued;
  options_.counters->Write(id, counters);
}

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
