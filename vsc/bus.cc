// SPDX-License-Identifier: MIT

#include "ferrybus/vsc/bus.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/ring_pair.h"

namespace ferrybus::vsc {

Bus::Bus(const BusOptions& options, const GuestMemory* memory,
         GuestPages* pages, Doorbell* doorbell)
    : options_(options),
      memory_(memory),
      pages_(pages),
      doorbell_(doorbell),
      connection_(options.connection, this) {}

Bus::~Bus() = default;

void Bus::AddDriver(const Guid& interface_type, Driver* driver) {
  drivers_.push_back({interface_type, driver});
}

EndpointCounters Bus::counters(const Driver* driver) const {
  for (const auto& [id, channel] : channels_) {
    if (&channel->driver() == driver) return channel->endpoint().counters();
  }
  return EndpointCounters();
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
  for (Registration& each : drivers_) {
    if (each.is_bound || each.interface_type != offer.interface_type) continue;
    each.is_bound = true;
    each.channel = offer.channel_id;
    auto channel = std::make_unique<RingChannel>(offer.channel_id, each.driver,
                                                 options_.endpoint, memory_,
                                                 doorbell_, &ready_);
    const absl::Status status = StartOpen(*channel);
    Note(status);
    if (status.ok()) {
      channels_[offer.channel_id] = std::move(channel);
    } else {
      each.is_bound = false;
    }
    return;
  }
}

absl::Status Bus::StartOpen(RingChannel& channel) {
  const uint32_t pages = 2 * (options_.ring_data_pages + 1);
  absl::StatusOr<PageRun> run = pages_->Allocate(pages);
  if (!run.ok()) return run.status();
  const absl::StatusOr<GpadlId> gpadl = connection_.CreateGpadl(
      channel.id(), run->page_numbers(), pages * 4096, 0);
  if (!gpadl.ok()) {
    pages_->Free(*run);
    return gpadl.status();
  }
  channel.ring = *run;
  channel.ring_gpadl = *gpadl;
  return absl::OkStatus();
}

void Bus::OnGpadlCreated(ChannelId id, GpadlId gpadl, uint32_t status) {
  RingChannel* const channel = Find(id);
  if (channel == nullptr || channel->ring_gpadl != gpadl) return;
  channel->has_gpadl = status == 0;
  if (channel->is_closing) {
    // Taken back before the host had answered.
    if (status == 0) {
      Note(connection_.TeardownGpadl(gpadl));
    } else {
      Forget(id);
    }
    return;
  }
  absl::Status result =
      status == 0 ? AttachAndOpen(*channel)
                  : absl::UnavailableError(absl::StrCat(
                        "channel ", static_cast<uint32_t>(id),
                        ": the host refused the ring buffer, status 0x",
                        absl::Hex(status)));
  if (result.ok()) return;
  Note(result);
  if (status == 0) {
    StartClose(*channel);
  } else {
    Forget(id);
  }
}

// The rings are initialised before the host may look at them, which it does at
// OPEN.
absl::Status Bus::AttachAndOpen(RingChannel& channel) {
  const uint32_t downstream = options_.ring_data_pages + 1;
  absl::StatusOr<RingPair> rings =
      RingPair::Map(*memory_, channel.ring.page_numbers(), downstream);
  if (!rings.ok()) return rings.status();
  const absl::Status status = channel.endpoint().Attach(
      *std::move(rings), static_cast<uint32_t>(channel.id()));
  if (!status.ok()) return status;
  OpenParams params;
  params.ring_gpadl = channel.ring_gpadl;
  params.downstream_page_offset = downstream;
  return connection_.Open(channel.id(), params);
}

void Bus::OnOpenResult(ChannelId id, uint32_t status) {
  RingChannel* const channel = Find(id);
  if (channel == nullptr || channel->is_closing) return;
  if (status != 0) {
    Note(absl::UnavailableError(absl::StrCat(
        "channel ", static_cast<uint32_t>(id),
        ": the host refused to open it, status 0x", absl::Hex(status))));
    StartClose(*channel);
    return;
  }
  channel->is_open = true;
  channel->endpoint().Start();
  channel->driver().OnOpened(*channel);
}

// -- Closing
// -------------------------------------------------------------------

absl::Status Bus::Close(Driver* driver) {
  for (const auto& [id, channel] : channels_) {
    if (&channel->driver() != driver || !channel->is_open) continue;
    const absl::Status status = connection_.Close(id);
    if (status.ok()) StartClose(*channel);
    return status;
  }
  return absl::NotFoundError("the driver has no open channel");
}

absl::Status Bus::Unload() {
  for (const auto& [id, channel] : channels_) {
    if (channel->is_open && !channel->is_closing &&
        connection_.Close(id).ok()) {
      StartClose(*channel);
    }
  }
  return connection_.Unload();
}

void Bus::StartClose(RingChannel& channel) {
  if (std::exchange(channel.is_closing, true)) return;
  channel.endpoint().Detach();
  if (std::exchange(channel.is_open, false)) channel.driver().OnClosed();
  // Else it follows in OnGpadlCreated.
  if (channel.has_gpadl) Note(connection_.TeardownGpadl(channel.ring_gpadl));
}

void Bus::OnGpadlTorndown(ChannelId id, GpadlId gpadl) {
  RingChannel* const channel = Find(id);
  if (channel == nullptr || channel->ring_gpadl != gpadl) return;
  Forget(id);
}

void Bus::OnRescind(ChannelId id) {
  RingChannel* const channel = Find(id);
  if (channel == nullptr) {
    Note(connection_.ReleaseRelid(id));
    return;
  }
  channel->is_rescinded = true;
  StartClose(*channel);
}

void Bus::OnUnloaded() {
  // The host has forgotten its numbers already.
  for (const auto& [id, channel] : channels_) channel->is_rescinded = false;
  while (!channels_.empty()) Forget(channels_.begin()->first);
}

// The host has let go of the ring: its pages are ours again.
void Bus::Forget(ChannelId id) {
  const auto found = channels_.find(id);
  if (found == channels_.end()) return;
  const std::unique_ptr<RingChannel> channel = std::move(found->second);
  channels_.erase(found);
  channel->endpoint().Detach();
  if (std::exchange(channel->is_open, false)) channel->driver().OnClosed();
  pages_->Free(channel->ring);
  if (channel->is_rescinded) Note(connection_.ReleaseRelid(id));
  for (Registration& each : drivers_) {
    if (each.is_bound && each.channel == id) each.is_bound = false;
  }
}

// -- Polling
// -------------------------------------------------------------------

bool Bus::Poll() {
  bool more = false;
  ready_.Take([this, &more](uint32_t channel_id) {
    if (PollChannel(channel_id)) {
      ready_.Set(channel_id);
      more = true;
    }
  });
  return more || ready_.Any();
}

bool Bus::PollChannel(uint32_t channel_id) {
  RingChannel* const channel = Find(ChannelId{channel_id});
  if (channel == nullptr || !channel->is_open) return false;
  const bool more = channel->endpoint().Poll(options_.poll_budget);
  if (channel->endpoint().run_state() == EndpointRunState::kFaulted) {
    Note(absl::DataLossError(absl::StrCat("channel ", channel_id, ": ",
                                          channel->endpoint().fault_reason())));
    if (connection_.Close(channel->id()).ok()) StartClose(*channel);
    return false;
  }
  return more;
}

}  // namespace ferrybus::vsc
