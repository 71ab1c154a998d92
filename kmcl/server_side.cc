// SPDX-License-Identifier: MIT
//
// The server's end of a channel of the C interface: a device and its offer.

#include <algorithm>
#include <utility>

#include "ferrybus/channel/check.h"
#include "ferrybus/kmcl/channel.h"

namespace ferrybus::kmcl {
namespace {

constexpr uint16_t kOfferLoopback = 0x100;

class ServerSide final : public Side, public vsp::Device {
 public:
  explicit ServerSide(FerrybusChannel* channel) : channel_(channel) {}

  absl::Status Offer();
  vsp::ServerChannel* channel() const { return its_; }

  // Side.
  void Disable() override;
  void SetRun(ChannelRun run) override;
  SendStatus Send(absl::Span<const std::byte> payload, const External& external,
                  bool waits, uint64_t tag) override;
  void SetQuota(uint32_t quota) override {
    if (its_ != nullptr) its_->SetQuota(quota);
  }
  void SetWantsBlocking(bool wants) override {
    if (its_ != nullptr) its_->SetWantsBlocking(wants);
  }
  Guid instance() const override {
    return channel_->settings.instance.value_or(Guid());
  }
  const std::byte* peer_user_data() const override {
    return peer_user_data_.data();
  }
  uint64_t mmio_bytes() const override {
    const Settings& settings = channel_->settings;
    return (uint64_t{settings.mmio_megabytes} +
            settings.mmio_megabytes_optional)
           << 20;
  }
  bool is_gone() const override { return its_ == nullptr; }
  void Abandon() override { its_ = nullptr; }

  // vsp::Device.
  absl::Status OnOpened(vsp::ServerChannel&,
                        absl::Span<const std::byte> user_data) override {
    std::copy_n(user_data.begin(),
                std::min(user_data.size(), peer_user_data_.size()),
                peer_user_data_.begin());
    return NT_SUCCESS(channel_->OnOpened())
               ? absl::OkStatus()
               : absl::CancelledError("EvtChannelOpened refused");
  }
  absl::Status OnRestored(vsp::ServerChannel&,
                          absl::Span<const std::byte>) override {
    return NT_SUCCESS(channel_->OnOpened())
               ? absl::OkStatus()
               : absl::CancelledError("EvtChannelOpened refused");
  }
  void OnStarted() override { channel_->OnStarted(); }
  void OnPostStarted() override { channel_->OnPostStarted(); }
  void OnSuspend() override { channel_->OnSuspend(); }
  void OnClosed() override { channel_->OnClosed(); }
  void ProcessPacket(IncomingPacket packet) override {
    channel_->OnPacket(std::move(packet));
  }
  void ProcessingComplete(size_t count) override {
    channel_->OnBatchEnd(count);
  }
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override {
    channel_->OnCompletion(tag, reply);
  }
  void OnSent(uint64_t tag) override { channel_->OnSent(tag); }

 private:
  FerrybusChannel* const channel_;
  OfferId offer_{};
  // Null: not offered, since it is for another trust level than the guest's.
  vsp::ServerChannel* its_ = nullptr;
  std::array<std::byte, kUserDataSizeBytes> peer_user_data_{};
};

absl::Status ServerSide::Offer() {
  const Settings& settings = channel_->settings;
  if (settings.vtl != 0) return absl::OkStatus();
  OfferParams params;
  params.interface_type = settings.type;
  params.interface_instance = instance();
  params.flags = OfferFlags(settings);
  params.mmio_megabytes = settings.mmio_megabytes;
  params.mmio_megabytes_optional = settings.mmio_megabytes_optional;
  params.user_data = settings.user_data;
  vsp::ChannelSettings its;
  EndpointOptions& endpoint = its.endpoint;
  endpoint.limits.max_in_flight = settings.packet_count_max;
  endpoint.limits.max_awaiting = settings.packet_count_max;
  endpoint.limits.max_queued = settings.packet_count_max;
  endpoint.max_payload_bytes = settings.packet_bytes_max;
  endpoint.max_external_bytes = settings.external_bytes_max;
  endpoint.max_external_ranges = settings.external_ranges_max;
  endpoint.wants_blocking = channel_->at_passive;
  endpoint.pins = channel_->world->pins;
  its.run = channel_->run;
  its.force_new_channel = channel_->is_forced_new();
  vsp::Bus& bus = *channel_->world->server;
  const absl::StatusOr<OfferId> offer = bus.Offer(params, this, its);
  if (!offer.ok()) return offer.status();
  offer_ = *offer;
  its_ = bus.channel(offer_);
  its_->Reserve(settings.packet_count_max);
  return absl::OkStatus();
}

void ServerSide::Disable() {
  if (its_ == nullptr) return;
  World& world = *channel_->world;
  (void)world.server->Rescind(offer_);
  (void)PumpUntil(world, absl::InfiniteFuture(),
                  [&] { return world.server->channel(offer_) == nullptr; });
  its_ = nullptr;
}

void ServerSide::SetRun(ChannelRun run) {
  if (its_ == nullptr) return;
  if (run == ChannelRun::kActive) return its_->Start();
  its_->Pause();
  (void)PumpUntil(*channel_->world, absl::InfiniteFuture(),
                  [this] { return its_->IsDrained(); });
}

SendStatus ServerSide::Send(absl::Span<const std::byte> payload,
                            const External& external, bool waits,
                            uint64_t tag) {
  if (!external.empty()) return SendStatus::kNotSupported;
  OutgoingPacket packet;
  packet.payload = payload;
  packet.wants_completion = waits;
  packet.wants_sent = !waits;
  packet.tag = tag;
  const SendStatus status = its_->Send(packet);
  its_->Flush();
  return status;
}

}  // namespace

uint16_t OfferFlags(const Settings& settings) {
  const struct {
    uint32_t init;
    uint16_t offer;
  } kFlags[] = {
      {VMBUS_SERVER_CHANNEL_INIT_FLAG_LOOPBACK_OFFER, kOfferLoopback},
      {VMBUS_SERVER_CHANNEL_INIT_FLAG_ENUMERATE_DEVICE_INTERFACE,
       kOfferEnumerateDeviceInterface},
      {VMBUS_SERVER_CHANNEL_INIT_FLAG_OFFER_AS_PIPE, kOfferNamedPipeMode},
      {VMBUS_SERVER_CHANNEL_INIT_FLAG_TLNPI_PROVIDER_OFFER,
       kOfferTlnpiProvider},
  };
  uint16_t flags = settings.is_pipe ? kOfferNamedPipeMode : 0;
  for (const auto& each : kFlags) {
    if (settings.server_flags & each.init) {
      flags = static_cast<uint16_t>(flags | each.offer);
    }
  }
  return flags;
}

std::unique_ptr<Side> EnableServer(FerrybusChannel* channel, NTSTATUS* status) {
  auto side = std::make_unique<ServerSide>(channel);
  const absl::Status offered = side->Offer();
  *status = offered.ok() ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER;
  if (!offered.ok()) return nullptr;
  return side;
}

vsp::ServerChannel* ServerChannelOf(const FerrybusChannel& channel) {
  return static_cast<ServerSide*>(channel.side.get())->channel();
}

}  // namespace ferrybus::kmcl
