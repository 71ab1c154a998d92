// SPDX-License-Identifier: MIT

#include "ferrybus/vsc/bus.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/ring_pair.h"
#include "ferrybus/ringbuffer/wire.h"

namespace ferrybus::vsc {

Bus::Bus(const BusOptions& options, const GuestMemory* memory,
         GuestPages* pages, Doorbell* doorbell)
    : options_(options),
      memory_(memory),
      pages_(pages),
      doorbell_(doorbell),
      connection_(options.connection, this) {}

Bus::~Bus() = default;

void Bus::AddDriver(const Guid& interface_type, Driver* driver,
                    const DriverSettings& settings) {
  drivers_.push_back({interface_type, driver, settings});
  OpenOffered(drivers_.back(), /*only_free=*/false);
}

void Bus::RemoveDriver(Driver* driver) {
  RingChannel* const its = channel(driver);
  if (its != nullptr) {
    // Also when the driver has not heard that it is open.
    (void)connection_.Close(its->id());
    StartClose(*its);
  }
  const auto end = std::remove_if(
      drivers_.begin(), drivers_.end(), [this, driver](Registration& each) {
        if (each.driver != driver) return false;
        if (each.is_connecting) {
          (void)connection_.AbandonTlConnect(*each.settings.instance,
                                             each.interface_type);
        }
        return true;
      });
  drivers_.erase(end, drivers_.end());
}

// -- Sockets -----------------------------------------------------------------

absl::Status Bus::ConnectSocket(const Guid& service, const Guid& endpoint,
                                Driver* driver,
                                const DriverSettings& settings) {
  const absl::Status status = connection_.TlConnect(endpoint, service);
  if (!status.ok()) return status;
  Registration connecting = {service, driver, settings};
  connecting.settings.instance = endpoint;
  connecting.is_connecting = true;
  // Before a driver that takes any connection of the service.
  drivers_.insert(drivers_.begin(), connecting);
  return absl::OkStatus();
}

void Bus::OnTlConnectResult(const Guid& endpoint, const Guid& service,
                            uint32_t status) {
  const auto found = std::find_if(drivers_.begin(), drivers_.end(),
                                  [&](const Registration& each) {
                                    return each.IsConnect(endpoint, service);
                                  });
  if (found == drivers_.end()) return;
  found->is_connecting = false;
  if (status == 0) return;  // and it was offered
  Driver* const driver = found->driver;
  drivers_.erase(found);
  driver->OnOpenFailed(absl::UnavailableError(absl::StrCat(
      "the host refused the socket, status 0x", absl::Hex(status))));
}

// The connection that was to answer them has ended.
void Bus::FailConnects() {
  std::vector<Driver*> failed;
  const auto end = std::remove_if(drivers_.begin(), drivers_.end(),
                                  [&failed](const Registration& each) {
                                    if (!each.is_connecting) return false;
                                    failed.push_back(each.driver);
                                    return true;
                                  });
  drivers_.erase(end, drivers_.end());
  for (Driver* const driver : failed) {
    driver->OnOpenFailed(absl::UnavailableError(
        "the connection ended before the host answered"));
  }
}

RingChannel* Bus::channel(const Driver* driver) const {
  for (const auto& [id, channel] : channels_) {
    if (channel->driver_ == driver) return channel.get();
  }
  return nullptr;
}

EndpointCounters Bus::counters(const Driver* driver) const {
  const RingChannel* const its = channel(driver);
  return its == nullptr ? EndpointCounters() : its->endpoint().counters();
}

void Bus::Note(const absl::Status& status) {
  if (status_.ok()) status_ = status;
}

RingChannel* Bus::Find(ChannelId channel) const {
  const auto found = channels_.find(channel);
  return found == channels_.end() ? nullptr : found->second.get();
}

// -- Opening -----------------------------------------------------------------

void Bus::OnVersion(const ClientVersion& version) {
  FailConnects();
  if (!version.accepted) {
    Note(absl::UnimplementedError(
        absl::StrCat("the host refused every version; the last tried was 0x",
                     absl::Hex(static_cast<uint32_t>(version.version)))));
    return;
  }
  Note(connection_.RequestOffers());
}

void Bus::OnOffer(const ClientOffer& offer) {
  if (offer.sub_channel_index != 0) return;
  offers_[offer.channel_id] = {offer};
  Bind(offer);
}

// Opens an offer for the first driver that wants it.
void Bus::Bind(const ClientOffer& offer) {
  for (Registration& each : drivers_) {
    if (each.Wants(offer)) return OpenFor(each, offer);
  }
}

void Bus::OpenOffered(Registration& registration, bool only_free) {
  for (const auto& [id, offered] : offers_) {
    if (Find(id) != nullptr || (only_free && !offered.is_free)) continue;
    if (registration.Wants(offered.offer)) {
      return OpenFor(registration, offered.offer);
    }
  }
}

bool Bus::Registration::Wants(const ClientOffer& offer) const {
  // Only what the host calls an answer to a connection is one.
  return !is_bound && interface_type == offer.interface_type &&
         settings.instance.value_or(offer.interface_instance) ==
             offer.interface_instance &&
         (!is_connecting || (offer.flags & kOfferTlnpiProvider) != 0);
}

void Bus::OpenFor(Registration& registration, const ClientOffer& offer) {
  std::unique_ptr<RingChannel> channel = MakeChannel(registration, offer);
  const absl::Status status = StartOpen(*channel);
  Note(status);
  if (!status.ok()) return registration.driver->OnOpenFailed(status);
  registration.is_bound = true;
  registration.channel = offer.channel_id;
  channels_[offer.channel_id] = std::move(channel);
  offers_[offer.channel_id].is_free = false;
}

std::unique_ptr<RingChannel> Bus::MakeChannel(const Registration& registration,
                                              const ClientOffer& offer) {
  EndpointOptions endpoint = options_.endpoint;
  if (registration.settings.endpoint.has_value()) {
    endpoint = *registration.settings.endpoint;
  }
  endpoint.is_pipe = (offer.flags & kOfferNamedPipeMode) != 0;
  const RingChannel::Shared shared = {memory_, doorbell_, &ready_, &connection_,
                                      &post_started_};
  return std::make_unique<RingChannel>(offer, registration.driver,
                                       registration.settings, endpoint, shared);
}

// Data pages: as asked for, and enough for the greatest packet.
void Bus::RingSizes(const RingChannel& channel, uint32_t* outgoing_pages,
                    uint32_t* incoming_pages) const {
  const DriverSettings& settings = channel.settings_;
  const EndpointOptions& endpoint = channel.endpoint().options();
  const uint64_t pages = endpoint.max_external_bytes / 4096 +
                         uint64_t{2} * endpoint.max_external_ranges;
  const uint64_t most = ringbuffer::PacketRingBytes(
      ringbuffer::kDescriptorBytes + 8 + 8 * endpoint.max_external_ranges +
          8 * pages,
      endpoint.max_payload_bytes + sizeof(uint64_t));
  const uint32_t least = static_cast<uint32_t>(most / 4096 + 1);
  const auto or_default = [this](uint32_t asked) {
    return asked != 0 ? asked : options_.ring_data_pages;
  };
  *outgoing_pages = std::max(or_default(settings.outgoing_ring_pages), least);
  *incoming_pages = std::max(or_default(settings.incoming_ring_pages), least);
}

absl::Status Bus::StartOpen(RingChannel& channel) {
  uint32_t outgoing;
  uint32_t incoming;
  RingSizes(channel, &outgoing, &incoming);
  const uint32_t pages = outgoing + incoming + 2;  // a control page for each
  absl::StatusOr<PageRun> run = pages_->Allocate(pages);
  if (!run.ok()) return run.status();
  const absl::StatusOr<GpadlId> gpadl = connection_.CreateGpadl(
      channel.id(), run->page_numbers(), pages * 4096, 0);
  if (!gpadl.ok()) {
    pages_->Free(*run);
    return gpadl.status();
  }
  channel.ring_ = *run;
  channel.downstream_page_ = outgoing + 1;
  channel.ring_gpadl_ = *gpadl;
  return absl::OkStatus();
}

void Bus::OnGpadlCreated(ChannelId id, GpadlId gpadl, uint32_t status) {
  RingChannel* const channel = Find(id);
  if (channel == nullptr) return;
  if (channel->ring_gpadl_ != gpadl) {
    return OnDeviceGpadlCreated(*channel, gpadl, status);
  }
  channel->has_ring_gpadl_ = status == 0;
  if (channel->is_closing_) {
    // Taken back before the host had answered.
    if (status == 0) {
      Note(connection_.TeardownGpadl(gpadl));
    } else {
      Forget(id);
    }
    return;
  }
  const absl::Status result =
      status == 0 ? AttachAndOpen(*channel)
                  : absl::UnavailableError(absl::StrCat(
                        "channel ", static_cast<uint32_t>(id),
                        ": the host refused the ring buffer, status 0x",
                        absl::Hex(status)));
  if (!result.ok()) OpenFailed(*channel, result);
  // There is nothing to tear down, so no answer will follow.
  if (status != 0) Forget(id);
}

void Bus::OnDeviceGpadlCreated(RingChannel& channel, GpadlId gpadl,
                               uint32_t status) {
  const auto found = channel.gpadls_.find(gpadl);
  if (found == channel.gpadls_.end()) return;
  const GpadlHandle handle = found->second;
  if (status != 0) channel.gpadls_.erase(found);
  if (!channel.is_closing_) {
    return channel.driver_->OnGpadlCreated(handle, status == 0);
  }
  if (status == 0) {
    Note(connection_.TeardownGpadl(gpadl));
  } else if (!channel.HasGpadls()) {
    Forget(channel.id());
  }
}

void Bus::OpenFailed(RingChannel& channel, const absl::Status& status) {
  Note(status);
  Driver* const driver = channel.driver_;
  StartClose(channel);
  driver->OnOpenFailed(status);
}

// The rings are initialised before the host may look at them, which it does at
// OPEN.
absl::Status Bus::AttachAndOpen(RingChannel& channel) {
  absl::StatusOr<RingPair> rings = RingPair::Map(
      *memory_, channel.ring_.page_numbers(), channel.downstream_page_);
  if (!rings.ok()) return rings.status();
  const absl::Status status = channel.endpoint_->Attach(
      *std::move(rings), static_cast<uint32_t>(channel.id()));
  if (!status.ok()) return status;
  OpenParams params;
  params.ring_gpadl = channel.ring_gpadl_;
  params.downstream_page_offset = channel.downstream_page_;
  params.user_data = channel.settings_.open_user_data;
  return connection_.Open(channel.id(), params);
}

void Bus::OnOpenResult(ChannelId id, uint32_t status) {
  RingChannel* const channel = Find(id);
  if (channel == nullptr) return;
  if (channel->is_closing_) {
    if (status == 0) (void)connection_.Close(id);
    if (channel->awaits_open_result_) TearDown(*channel);
    return;
  }
  if (status != 0) {
    return OpenFailed(*channel, absl::UnavailableError(absl::StrCat(
                                    "channel ", static_cast<uint32_t>(id),
                                    ": the host refused to open it, status 0x",
                                    absl::Hex(status))));
  }
  opened_.push_back(id);
}

// -- Closing -----------------------------------------------------------------

absl::Status Bus::Close(Driver* driver) {
  RingChannel* const its = channel(driver);
  if (its == nullptr || !its->life_.is_up()) {
    return absl::NotFoundError("the driver has no open channel");
  }
  const absl::Status status = connection_.Close(its->id());
  if (status.ok()) StartClose(*its);
  return status;
}

absl::Status Bus::Unload() {
  for (const auto& [id, channel] : channels_) {
    if (connection_.Close(id).ok()) StartClose(*channel);
  }
  return connection_.Unload();
}

void Bus::StartClose(RingChannel& channel) {
  if (std::exchange(channel.is_closing_, true)) return;
  channel.life_.Close(ChannelLink::kDisabled);
  // The next channel may have its number.
  for (std::vector<ChannelId>* const due : {&opened_, &post_started_}) {
    due->erase(std::remove(due->begin(), due->end(), channel.id()), due->end());
  }
  // A channel that the host may be opening is closed first, when it has.
  channel.awaits_open_result_ =
      connection_.channel_state(channel.id()) == ClientChannelState::kOpening;
  if (!channel.awaits_open_result_) TearDown(channel);
}

void Bus::TearDown(RingChannel& channel) {
  channel.awaits_open_result_ = false;
  // Those that the host has not confirmed follow when it has.
  for (const auto& [gpadl, handle] : channel.gpadls_) {
    (void)connection_.TeardownGpadl(gpadl);
  }
  if (channel.has_ring_gpadl_) {
    Note(connection_.TeardownGpadl(channel.ring_gpadl_));
  }
}

void Bus::OnGpadlTorndown(ChannelId id, GpadlId gpadl) {
  RingChannel* const channel = Find(id);
  if (channel == nullptr) return;
  if (channel->ring_gpadl_ == gpadl) {
    channel->has_ring_gpadl_ = false;
  } else {
    const auto found = channel->gpadls_.find(gpadl);
    if (found == channel->gpadls_.end()) return;
    const GpadlHandle handle = found->second;
    channel->gpadls_.erase(found);
    if (!channel->is_closing_) return channel->driver_->OnGpadlDeleted(handle);
  }
  if (channel->is_closing_ && !channel->HasGpadls()) Forget(id);
}

void Bus::OnRescind(ChannelId id) {
  offers_.erase(id);
  RingChannel* const channel = Find(id);
  if (channel == nullptr) {
    Note(connection_.ReleaseRelid(id));
    // Its driver had closed it, and may have the next one now.
    for (Registration& each : drivers_) {
      if (!each.is_bound && each.channel == id) {
        return OpenOffered(each, /*only_free=*/true);
      }
    }
    return;
  }
  channel->is_rescinded_ = true;
  StartClose(*channel);
  if (channel->awaits_open_result_) TearDown(*channel);
}

void Bus::OnUnloaded() {
  // The host has forgotten its numbers already.
  offers_.clear();
  for (const auto& [id, channel] : channels_) channel->is_rescinded_ = false;
  while (!channels_.empty()) Forget(channels_.begin()->first);
  FailConnects();
}

// The host has let go of the ring: its pages are ours again.
void Bus::Forget(ChannelId id) {
  const auto found = channels_.find(id);
  if (found == channels_.end()) return;
  dead_.push_back(std::move(found->second));
  RingChannel& channel = *dead_.back();
  channels_.erase(found);
  channel.life_.Close(ChannelLink::kDisabled);
  pages_->Free(channel.ring_);
  if (channel.is_rescinded_) Note(connection_.ReleaseRelid(id));
  const auto had_it = std::find_if(drivers_.begin(), drivers_.end(),
                                   [id](const Registration& each) {
                                     return each.is_bound && each.channel == id;
                                   });
  if (had_it != drivers_.end()) {
    had_it->is_bound = false;
    // The host may have offered another one while this one was closing.
    if (channel.is_rescinded_) OpenOffered(*had_it, /*only_free=*/true);
    return;
  }
  // Its driver was removed: another one may be waiting for what it had.
  const auto offered = offers_.find(id);
  if (offered == offers_.end()) return;
  offered->second.is_free = true;
  Bind(offered->second.offer);
}

// Nobody is inside a channel now, but who waits for an answer.
void Bus::BuryDead() {
  dead_.erase(std::remove_if(dead_.begin(), dead_.end(),
                             [](const std::unique_ptr<RingChannel>& channel) {
                               return channel->waiters_ == 0;
                             }),
              dead_.end());
}

// -- Polling ------------------------------------------------------------------

bool Bus::Poll() {
  if (poll_depth_ == 0) BuryDead();
  ++poll_depth_;
  bool more = false;
  ready_.Take([this, &more](uint32_t channel_id) {
    if (PollChannel(channel_id)) {
      ready_.Set(channel_id);
      more = true;
    }
  });
  RunDue();
  --poll_depth_;
  return more || ready_.Any();
}

// Here, where no packet and no message is being handled, drivers may wait.
void Bus::RunDue() {
  while (!opened_.empty()) {
    RingChannel* const opened = Find(opened_.front());
    opened_.erase(opened_.begin());
    if (opened == nullptr || opened->is_closing_) continue;
    (void)opened->life_.Opened();
    opened->life_.Resume();
  }
  while (!post_started_.empty()) {
    RingChannel* const started = Find(post_started_.front());
    post_started_.erase(post_started_.begin());
    if (started != nullptr) (void)started->life_.RunPostStarted();
  }
}

bool Bus::PollChannel(uint32_t channel_id) {
  RingChannel* const channel = Find(ChannelId{channel_id});
  if (channel == nullptr || !channel->life_.is_up()) return false;
  const bool more = channel->endpoint_->Poll(options_.poll_budget);
  if (channel->endpoint_->run_state() == EndpointRunState::kFaulted) {
    Note(absl::DataLossError(absl::StrCat("channel ", channel_id, ": ",
                                          channel->endpoint_->fault_reason())));
    if (connection_.Close(channel->id()).ok()) StartClose(*channel);
    return false;
  }
  return more;
}

}  // namespace ferrybus::vsc
