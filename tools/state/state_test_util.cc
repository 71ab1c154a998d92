// SPDX-License-Identifier: MIT

#include "ferrybus/tools/state/state_test_util.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "ferrybus/channel/check.h"
#include "ferrybus/channel/protocols/device_classes.h"
#include "ferrybus/channel/protocols/hv_sock.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/savestate/proto_limits.h"
#include "ferrybus/tools/state/state_sections.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "ferrybus/vsp/services/integration_state_persist.h"
#include "ferrybus/vsp/socket/socket_state_persist.h"
#include "ferrybus/vsp/storage/storage_state_persist.h"

namespace ferrybus::state_tool {
namespace {

using savestate::Frame;
using savestate::FrameWriter;
using savestate::Section;
using vsp::LoggingDevice;

// Saves each packet as a disk does.
class DiskLikeDevice final : public LoggingDevice {
 public:
  DiskLikeDevice() {
    vsp::StorageDeviceState saved;
    saved.phase = vsp::VstorPhase::kReady;
    saved.version = 0x0602;
    saved.max_transfer_bytes = 1 << 20;
    saved.disk.size_bytes = 64 << 20;
    saved.disk.block_bytes = 512;
    saved.disk.serial = "disk\x1b[31m1";  // what a terminal must not get
    state = vsp::SerializeDeviceState(saved);
  }

  savestate::SizeAnswer SavePacket(const PacketInfo& packet,
                                   absl::Span<std::byte> out) override {
    const std::string blob = vsp::SerializePacketState(
        {packet.transaction_id % 2 == 1, vsp::SrbResult()});
    if (out.size() < blob.size()) {
      return savestate::SizeAnswer::TooSmall(blob.size());
    }
    std::memcpy(out.data(), blob.data(), blob.size());
    return savestate::SizeAnswer::Ok(blob.size());
  }
};

OfferParams OfferOfType(const Guid& type, uint8_t instance) {
  OfferParams params = vsp::TestParams(instance);
  params.interface_type = type;
  return params;
}

std::string SaveBus(uint64_t requests, uint32_t front_bytes_read) {
  vsp::TestGuest guest;
  DiskLikeDevice disk;
  LoggingDevice other;
  LoggingDevice socket;
  LoggingDevice service;
  other.state = "opaque \x01\x02";
  socket.state = vsp::SerializeSocketState(
      {.stream = {.front_bytes_read = front_bytes_read}});
  vsp::IntegrationState integration;
  integration.service = ic::MessageType::kHeartbeat;
  integration.phase = vsp::IntegrationPhase::kNegotiating;
  service.state = vsp::SerializeIntegrationState(integration);
  vsp::Bus bus(vsp::BusOptions(), guest.memory.get(), &guest.doorbell);
  OfferParams socket_offer = OfferOfType(ServiceOfVsockPort(22), 3);
  socket_offer.flags = kSocketOfferFlags;
  FERRYBUS_CHECK(
      bus.Offer(OfferOfType(kScsiInterface, 1), &disk).ok() &&
          bus.Offer(vsp::TestParams(2), &other).ok() &&
          bus.Offer(socket_offer, &socket).ok() &&
          bus.Offer(OfferOfType(kHeartbeatInterface, 4), &service).ok(),
      "offer");
  guest.Connect(bus);
  guest.Request(guest.Open(bus, 1), requests);
  guest.Open(bus, 2).end.endpoint->Suspend();
  (void)guest.Open(bus, 3);
  (void)guest.Open(bus, 4);
  guest.Pump(bus);
  const std::string payload(2000, 'q');
  for (int i = 0; i < 3; ++i) {
    FERRYBUS_CHECK(
        other.channel->Send(vsp::Packet(payload, 5)) == SendStatus::kOk,
        "send");
  }
  other.channel->Flush();
  (void)guest.StartGpadl(2, 30);
  (void)bus.HandleMessage(guest.connection.outgoing_front(), 1);
  bus.Suspend();
  bus.Freeze();
  absl::StatusOr<std::string> saved = bus.Save();
  FERRYBUS_CHECK(saved.ok(), "save");
  for (LoggingDevice* device :
       {static_cast<LoggingDevice*>(&disk), &other, &socket, &service}) {
    device->held.clear();
  }
  return *std::move(saved);
}

// Copies a frame; `edit` returns false to leave a section out.
std::string Copy(
    const std::string& file,
    const std::function<bool(const Section&, std::string&)>& edit,
    const std::function<void(FrameWriter&)>& add = [](FrameWriter&) {}) {
  const absl::StatusOr<Frame> frame = Frame::Parse(AsBytes(file));
  FERRYBUS_CHECK(frame.ok(), "parse");
  FrameWriter writer{std::string(frame->producer())};
  for (const Section& section : frame->sections()) {
    std::string body(reinterpret_cast<const char*>(section.body.data()),
                     section.body.size());
    if (!edit(section, body)) continue;
    writer.AddSection(std::string(section.name), section.instance,
                      section.version, section.kind, std::move(body));
  }
  add(writer);
  absl::StatusOr<std::string> copy = writer.Finish();
  FERRYBUS_CHECK(copy.ok(), "finish");
  return *std::move(copy);
}

template <typename Message>
std::string WithMessage(const std::string& file, std::string_view name,
                        uint64_t instance,
                        const std::function<void(Message&)>& change) {
  return Copy(file, [&](const Section& section, std::string& body) {
    if (section.name != name || section.instance != instance) return true;
    Message message;
    FERRYBUS_CHECK(message.ParseFromString(body), "message");
    change(message);
    body = savestate::SerializeDeterministic(message);
    return true;
  });
}

}  // namespace

std::string SavedBus(uint64_t requests) { return SaveBus(requests, 7); }

std::string OtherSavedBus() { return SaveBus(3, 8); }

std::string WithConnection(
    const std::string& file,
    const std::function<void(savestate::v1::ConnectionState&)>& change) {
  return WithMessage<savestate::v1::ConnectionState>(file, kConnectionSection,
                                                     0, change);
}

std::string WithChannel(
    const std::string& file, uint64_t channel,
    const std::function<void(savestate::v1::ChannelState&)>& change) {
  return WithMessage<savestate::v1::ChannelState>(file, kChannelSection,
                                                  channel, change);
}

std::string WithSection(const std::string& file, const std::string& name,
                        uint32_t version, bool is_required) {
  return Copy(
      file, [](const Section&, std::string&) { return true; },
      [&](FrameWriter& writer) {
        writer.AddSection(name, 9, version,
                          is_required ? savestate::SectionKind::kRequired
                                      : savestate::SectionKind::kOptional,
                          "body");
      });
}

std::string WithoutSection(const std::string& file, const std::string& name,
                           uint64_t instance) {
  return Copy(file, [&](const Section& section, std::string&) {
    return section.name != name || section.instance != instance;
  });
}

}  // namespace ferrybus::state_tool
