// SPDX-License-Identifier: MIT
//
// The client's end of a channel of the C interface: a driver.

#include <map>
#include <utility>

#include "ferrybus/channel/check.h"
#include "ferrybus/kmcl/channel.h"

namespace ferrybus::kmcl {
namespace {

SendStatus ToSendStatus(vsc::SendResult result) {
  switch (result) {
    case vsc::SendResult::kOk:
      return SendStatus::kOk;
    case vsc::SendResult::kFull:
      return SendStatus::kFull;
    case vsc::SendResult::kTooLarge:
      return SendStatus::kTooLarge;
    case vsc::SendResult::kNotSupported:
      return SendStatus::kNotSupported;
    case vsc::SendResult::kClosed:
      break;
  }
  return SendStatus::kClosed;
}

class ClientSide final : public Side, public vsc::Driver {
 public:
  explicit ClientSide(FerrybusChannel* channel)
      : channel_(channel), bus_(*channel->world->client) {}

  void Register();
  vsc::RingChannel* channel() const { return bus_.channel(this); }
  GpadlAnswer AnswerOf(GpadlHandle gpadl) const {
    const auto found = gpadls_.find(gpadl);
    return found == gpadls_.end() ? GpadlAnswer::kPending : found->second;
  }

  // Side.
  void Disable() override;
  void SetRun(ChannelRun run) override;
  SendStatus Send(absl::Span<const std::byte> payload, const External& external,
                  bool waits, uint64_t tag) override;
  void SetQuota(uint32_t quota) override {
    if (channel() != nullptr) channel()->SetQuota(quota);
  }
  void SetWantsBlocking(bool wants) override {
    if (channel() != nullptr) channel()->SetWantsBlocking(wants);
  }
  Guid instance() const override { return offer_.interface_instance; }
  const std::byte* peer_user_data() const override {
    return offer_.user_data.data();
  }
  uint64_t mmio_bytes() const override {
    return (uint64_t{offer_.mmio_megabytes} + offer_.mmio_megabytes_optional)
           << 20;
  }
  bool is_gone() const override { return channel() == nullptr; }
  void Abandon() override {}

  // vsc::Driver.
  void OnOpened(vsc::ClientChannel&) override;
  void OnStarted() override { channel_->OnStarted(); }
  void OnPostStarted() override { channel_->OnPostStarted(); }
  void OnSuspend() override { channel_->OnSuspend(); }
  void OnClosed() override;
  void OnPacket(IncomingPacket packet) override {
    channel_->OnPacket(std::move(packet));
  }
  void ProcessingComplete(size_t count) override {
    channel_->OnBatchEnd(count);
  }
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override {
    channel_->OnCompletion(tag, reply);
  }
  void OnSent(uint64_t tag) override { channel_->OnSent(tag); }
  void OnOpenFailed(const absl::Status&) override { channel_->OnOpenFailed(); }
  void OnGpadlCreated(GpadlHandle gpadl, bool accepted) override {
    gpadls_[gpadl] = accepted ? GpadlAnswer::kCreated : GpadlAnswer::kRefused;
  }
  void OnGpadlDeleted(GpadlHandle gpadl) override {
    gpadls_[gpadl] = GpadlAnswer::kDeleted;
  }

 private:
  FerrybusChannel* const channel_;
  vsc::Bus& bus_;
  ClientOffer offer_;
  std::map<GpadlHandle, GpadlAnswer> gpadls_;
};

void ClientSide::Register() {
  const Settings& settings = channel_->settings;
  vsc::DriverSettings its;
  its.instance = settings.instance;
  its.outgoing_ring_pages = settings.outgoing_pages;
  its.incoming_ring_pages = settings.incoming_pages;
  its.open_user_data = settings.user_data;
  its.run = channel_->run;
  EndpointOptions endpoint;
  endpoint.limits.max_in_flight = settings.packet_count_max;
  // Besides packets: synchronous requests, also those that were cancelled.
  endpoint.limits.max_awaiting = settings.packet_count_max + 256;
  endpoint.limits.max_queued = settings.packet_count_max + 256;
  endpoint.max_payload_bytes = settings.packet_bytes_max;
  endpoint.max_external_bytes = settings.external_bytes_max;
  endpoint.max_external_ranges = settings.external_ranges_max;
  endpoint.wants_blocking = channel_->at_passive;
  its.endpoint = endpoint;
  bus_.AddDriver(settings.type, this, its);
}

void ClientSide::Disable() {
  bus_.RemoveDriver(this);
  (void)PumpUntil(*channel_->world, absl::InfiniteFuture(),
                  [this] { return channel() == nullptr; });
}

void ClientSide::SetRun(ChannelRun run) {
  vsc::RingChannel* its = channel();
  if (its == nullptr) {
    // No offer yet; the next one is taken with the new setting.
    bus_.RemoveDriver(this);
    return Register();
  }
  if (run == ChannelRun::kActive) return its->Start();
  its->Pause();
  (void)PumpUntil(*channel_->world, absl::InfiniteFuture(), [this] {
    return channel() == nullptr || channel()->IsDrained();
  });
}

SendStatus ClientSide::Send(absl::Span<const std::byte> payload,
                            const External& external, bool waits,
                            uint64_t tag) {
  vsc::RingChannel* const its = channel();
  if (its == nullptr) return SendStatus::kClosed;
  vsc::Request request;
  request.payload = payload;
  request.buffers = external.buffers;
  request.page_numbers = external.pages;
  request.tag = tag;
  request.wants_completion = waits;
  request.wants_sent = !waits;
  request.may_queue = true;
  const SendStatus status = ToSendStatus(its->Send(request));
  its->Flush();
  return status;
}

void ClientSide::OnOpened(vsc::ClientChannel&) {
  vsc::RingChannel& its = *channel();
  offer_ = its.offer();
  its.Reserve(channel_->settings.packet_count_max);
  if (!NT_SUCCESS(channel_->OnOpened())) bus_.RemoveDriver(this);
}

// A client that was closed, by whomever, is disabled.
void ClientSide::OnClosed() {
  channel_->OnClosed();
  channel_->has_ended = true;
  bus_.RemoveDriver(this);
}

}  // namespace

NTSTATUS EnableClient(FerrybusChannel* channel) {
  auto side = std::make_unique<ClientSide>(channel);
  ClientSide* const its = side.get();
  channel->side = std::move(side);  // its callbacks may come at once
  its->Register();
  return STATUS_SUCCESS;
}

vsc::RingChannel* ClientChannelOf(const FerrybusChannel& channel) {
  return static_cast<ClientSide*>(channel.side.get())->channel();
}

GpadlAnswer GpadlAnswerOf(const FerrybusChannel& channel, GpadlHandle gpadl) {
  return static_cast<ClientSide*>(channel.side.get())->AnswerOf(gpadl);
}

}  // namespace ferrybus::kmcl
