// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/bus_test_util.h"

#include <poll.h>

#include <algorithm>
#include <cstring>

#include "ferrybus/channel/check.h"
#include "ferrybus/channel/ring_pair.h"

namespace ferrybus::vsp {

using testing::Numbered;

OfferParams TestParams(uint8_t instance) {
  OfferParams params;
  params.interface_type.bytes[0] = 0x7e;
  params.interface_instance.bytes[0] = instance;
  return params;
}

absl::Span<const std::byte> AsBytes(const std::string& saved) {
  return testing::ToBytes(saved);
}

OutgoingPacket Packet(const std::string& payload, uint64_t tag) {
  OutgoingPacket packet;
  packet.payload = AsBytes(payload);
  packet.wants_completion = tag != 0;
  packet.tag = tag;
  return packet;
}

// -- LoggingDevice -----------------------------------------------------------

absl::Status LoggingDevice::OnOpened(ServerChannel& opened,
                                     absl::Span<const std::byte>) {
  log.push_back("opened");
  channel = &opened;
  if (on_opened) on_opened();
  return open_status;
}

void LoggingDevice::OnStarted() {
  log.push_back("started");
  if (on_started) on_started();
}

void LoggingDevice::OnClosed() {
  log.push_back("closed");
  channel = nullptr;
  if (!holds_after_close) held.clear();
}

void LoggingDevice::ProcessPacket(IncomingPacket packet) {
  if (on_packet) on_packet(packet);
  if (packet) held.push_back(std::move(packet));
}

void LoggingDevice::OnCompletion(uint64_t tag,
                                 absl::Span<const std::byte> reply) {
  completions.emplace_back(tag, testing::ToString(reply));
}

savestate::SizeAnswer LoggingDevice::SavePacket(const PacketInfo& packet,
                                                absl::Span<std::byte> out) {
  if (blob_bytes == 0) return savestate::SizeAnswer::Ok(0);
  if (out.size() < blob_bytes) {
    return savestate::SizeAnswer::TooSmall(blob_bytes);
  }
  const std::string number = Numbered(testing::NumberIn(packet.payload));
  std::memcpy(out.data(), number.data(), std::min(blob_bytes, number.size()));
  return savestate::SizeAnswer::Ok(blob_bytes);
}

absl::Status LoggingDevice::OnRestored(ServerChannel& restored,
                                       absl::Span<const std::byte> saved) {
  log.push_back("restored " + testing::ToString(saved));
  channel = &restored;
  return restore_status;
}

absl::Status LoggingDevice::RestorePacket(IncomingPacket packet,
                                          absl::Span<const std::byte> blob) {
  log.push_back("packet");
  if (blob.size() != blob_bytes) return absl::InvalidArgumentError("blob");
  held.push_back(std::move(packet));
  return absl::OkStatus();
}

void LoggingDevice::AnswerAll() {
  while (!held.empty()) {
    IncomingPacket packet = std::move(held.front());
    held.pop_front();
    packet.Complete(packet.payload());
  }
}

// -- TestGuest ---------------------------------------------------------------

static ClientConnectionOptions WithMonitorPages(const MonitorPages& pages) {
  ClientConnectionOptions options;
  options.parent_to_child_monitor_page = pages.parent_to_child;
  options.child_to_parent_monitor_page = pages.child_to_parent;
  return options;
}

TestGuest::TestGuest(uint64_t ram_pages, const MonitorPages& monitor_pages)
    : memory(*MemfdGuestMemory::Create(ram_pages * 4096)),
      connection(WithMonitorPages(monitor_pages), this) {}

TestGuest::~TestGuest() {
  for (auto& [id, channel] : channels) {
    if (channel.end.endpoint == nullptr) continue;
    PacketEndpoint::Retire(std::move(channel.end.endpoint));
  }
}

void TestGuest::Pump(Bus& bus, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    bool more = false;
    while (connection.has_outgoing() && bus.can_accept_message()) {
      (void)bus.HandleMessage(connection.outgoing_front(),
                              connection.message_connection());
      connection.PopOutgoing();
      more = true;
    }
    more |= bus.Poll();
    pollfd wake = {bus.wake_fd(), POLLIN, 0};
    more |= poll(&wake, 1, 0) == 1;
    while (bus.has_outgoing()) {
      uint32_t type = 0;
      std::memcpy(&type, bus.outgoing_front().data(), sizeof(type));
      types.push_back(type);
      (void)connection.HandleMessage(bus.outgoing_front());
      bus.PopOutgoing();
      more = true;
    }
    for (auto& [id, channel] : channels) {
      if (channel.open_status != 0) continue;
      const uint64_t rings = channel.end.doorbell.rings;
      more |= channel.end.endpoint->Poll(64);
      if (channel.end.doorbell.rings == rings) continue;
      bus.Signal(id);
      more = true;
    }
    if (!more) return;
  }
}

void TestGuest::Connect(Bus& bus) {
  FERRYBUS_CHECK(connection.Connect().ok(), "connect");
  Pump(bus);
  FERRYBUS_CHECK(connection.RequestOffers().ok(), "request offers");
  Pump(bus);
}

TestGuest::Channel& TestGuest::StartGpadl(uint32_t id, uint32_t data_pages) {
  Channel& channel = channels[id];
  channel.id = ChannelId{id};
  const uint32_t count = 2 * (data_pages + 1);
  // The pages before, if the host has given them back.
  if (!channel.is_torn_down || channel.pages.size() != count) {
    channel.pages.clear();
    for (uint32_t i = 0; i < count; ++i) channel.pages.push_back(next_page++);
  }
  channel.is_torn_down = false;
  channel.open_status = ~0u;
  FERRYBUS_CHECK(next_page <= memory->page_count(), "guest RAM is too small");
  const auto gpadl =
      connection.CreateGpadl(channel.id, channel.pages, count * 4096, 0);
  FERRYBUS_CHECK(gpadl.ok(), "gpadl");
  channel.gpadl = *gpadl;
  return channel;
}

TestGuest::Channel& TestGuest::Open(Bus& bus, uint32_t id,
                                    uint32_t data_pages) {
  Channel& channel = StartGpadl(id, data_pages);
  Pump(bus);
  channel.end.events.on_packet = [](IncomingPacket packet) {
    packet.Complete(packet.payload());
  };
  if (channel.end.endpoint == nullptr) {
    channel.end.Create(EndpointSide::kGuest, EndpointLimits(), memory.get());
  }
  channel.end.doorbell.on_ring = [&bus, id] { bus.Signal(id); };
  auto rings = RingPair::Map(*memory, channel.pages, data_pages + 1);
  FERRYBUS_CHECK(
      rings.ok() && channel.end.endpoint->Attach(*std::move(rings), id).ok(),
      "attach");
  channel.end.endpoint->Start();
  OpenParams params;
  params.ring_gpadl = channel.gpadl;
  params.downstream_page_offset = data_pages + 1;
  (void)connection.Open(channel.id, params);
  Pump(bus);
  return channel;
}

void TestGuest::Close(Channel& channel) {
  channel.end.endpoint->Detach();
  channel.open_status = ~0u;
  FERRYBUS_CHECK(connection.Close(channel.id).ok(), "close");
}

void TestGuest::TearDown(Channel& channel) {
  FERRYBUS_CHECK(connection.TeardownGpadl(channel.gpadl).ok(), "tear down");
}

void TestGuest::Request(Channel& channel, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t number = next_request++;
    FERRYBUS_CHECK(
        channel.end.Request(Numbered(number), number) == SendStatus::kOk,
        "request");
  }
  channel.end.endpoint->Flush();
}

size_t TestGuest::CountOf(MessageType type) const {
  return static_cast<size_t>(
      std::count(types.begin(), types.end(), TypeNumber(type)));
}

void TestGuest::OnOpenResult(ChannelId channel, uint32_t status) {
  channels[static_cast<uint32_t>(channel)].open_status = status;
}

void TestGuest::OnGpadlTorndown(ChannelId channel, GpadlId) {
  channels[static_cast<uint32_t>(channel)].is_torn_down = true;
}

}  // namespace ferrybus::vsp
