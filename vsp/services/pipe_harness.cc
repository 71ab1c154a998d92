// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/services/pipe_harness.h"

#include <optional>
#include <utility>

#include "ferrybus/channel/check.h"
#include "ferrybus/channel/pipe_header.h"
#include "ferrybus/channel/ring_pair.h"

namespace ferrybus::vsp {

PipeHarness::PipeHarness(Device* device, const OfferParams& params,
                         uint32_t ring_data_pages)
    : params_(params) {
  bus_ = std::make_unique<Bus>(BusOptions(), guest_.memory.get(),
                               &guest_.doorbell);
  const auto offer = bus_->Offer(params_, device);
  FERRYBUS_CHECK(offer.ok(), "offer");
  offer_ = *offer;
  guest_.Connect(*bus_);
  Open(ring_data_pages);
}

// As TestGuest::Open(), but keeps what comes while it opens.
void PipeHarness::Open(uint32_t ring_data_pages) {
  TestGuest::Channel& channel = guest_.StartGpadl(1, ring_data_pages);
  Pump();
  if (channel.end.endpoint == nullptr) {
    channel.end.Create(EndpointSide::kGuest, EndpointLimits(),
                       guest_.memory.get());
  }
  channel.end.events.on_packet = [this](IncomingPacket packet) {
    payloads.emplace_back(packet.payload().begin(), packet.payload().end());
    packet.Complete();
  };
  channel.end.doorbell.on_ring = [this] { bus_->Signal(1); };
  auto rings =
      RingPair::Map(*guest_.memory, channel.pages, ring_data_pages + 1);
  FERRYBUS_CHECK(
      rings.ok() && channel.end.endpoint->Attach(*std::move(rings), 1).ok(),
      "attach");
  channel.end.endpoint->Start();
  OpenParams params;
  params.ring_gpadl = channel.gpadl;
  params.downstream_page_offset = ring_data_pages + 1;
  FERRYBUS_CHECK(guest_.connection.Open(channel.id, params).ok(), "open");
  Pump();
  FERRYBUS_CHECK(channel.open_status == 0, "open");
}

void PipeHarness::Pump() { guest_.Pump(*bus_); }

void PipeHarness::PumpWith(LinuxUtilGuest& driver) {
  Pump();
  while (!payloads.empty()) {
    const auto answer = driver.Handle(TakeMessage());
    if (answer.has_value()) FERRYBUS_CHECK(Send(*answer), "no room");
    Pump();
  }
}

bool PipeHarness::Send(absl::Span<const std::byte> message) {
  std::vector<std::byte> payload;
  BuildPipePayload(message, &payload);
  return SendRaw(payload);
}

bool PipeHarness::SendRaw(absl::Span<const std::byte> payload) {
  PacketEndpoint& endpoint = *guest_.channels[1].end.endpoint;
  OutgoingPacket packet;
  packet.payload = payload;
  const bool sent = endpoint.Send(packet) == SendStatus::kOk;
  endpoint.Flush();
  return sent;
}

std::vector<std::byte> PipeHarness::TakeMessage() {
  FERRYBUS_CHECK(!payloads.empty(), "no message");
  absl::Span<const std::byte> message;
  FERRYBUS_CHECK(ParsePipePayload(payloads.front(), &message), "pipe header");
  std::vector<std::byte> copy(message.begin(), message.end());
  payloads.pop_front();
  return copy;
}

void PipeHarness::Close() {
  guest_.Close(guest_.channels[1]);
  Pump();
  guest_.TearDown(guest_.channels[1]);
  Pump();
  payloads.clear();
}

absl::Status PipeHarness::MoveTo(Device* next) {
  bus_->Suspend();
  while (!bus_->IsQuiescent()) (void)bus_->Poll();
  bus_->Freeze();
  const auto saved = bus_->Save();
  if (!saved.ok()) return saved.status();
  bus_.reset();
  const DeviceOffer offer = {params_, next};
  auto restored =
      Bus::Restore(AsBytes(*saved), BusOptions(), guest_.memory.get(),
                   &guest_.doorbell, absl::MakeConstSpan(&offer, 1));
  if (!restored.ok()) return restored.status();
  bus_ = *std::move(restored);
  bus_->Start();
  return absl::OkStatus();
}

void PipeHarness::StopReading(bool stop) {
  PacketEndpoint& endpoint = *guest_.channels[1].end.endpoint;
  if (stop) {
    endpoint.Suspend();
  } else {
    endpoint.Start();
  }
}

const EndpointCounters PipeHarness::counters() const {
  return bus_->channel(offer_)->endpoint().counters();
}

std::string PipeHarness::fault() const {
  return bus_->channel(offer_)->endpoint().fault_reason();
}

}  // namespace ferrybus::vsp
