// SPDX-License-Identifier: MIT
//
// The states themselves; golden_bus.h says what becomes of them.

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "ferrybus/channel/check.h"
#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/channel/endpoint_test_util.h"
#include "ferrybus/channel/pipe_header.h"
#include "ferrybus/channel/protocols/vstor.h"
#include "ferrybus/channel/ring_pair.h"
#include "ferrybus/channel/server_connection_persist.h"
#include "ferrybus/savestate/frame.h"
#include "ferrybus/tests/golden/golden_bus.h"
#include "ferrybus/vsp/services/linux_util_guest.h"
#include "ferrybus/vsp/storage/fake_storage_guest.h"

namespace ferrybus::golden {
namespace {

using ::ferrybus::testing::NumberIn;
using ::ferrybus::testing::PageList;
using Kinds = std::vector<DeviceKind>;

constexpr DeviceKind kResume = DeviceKind::kResume;
// GPADLs of raw messages: four pages each, not used for anything else.
constexpr uint64_t kFirstPage = 0x20;

// -- Connections -------------------------------------------------------------

std::string Negotiated(World& world) {
  FERRYBUS_CHECK(world.guest.connection.Connect().ok(), "connect");
  world.guest.Pump(*world.bus);
  return world.Save();
}

// The answers to REQUEST_OFFERS are not taken yet.
std::string OffersRequested(World& world) {
  world.Post(ContactMessage(ProtocolVersion::kIron));
  world.DropOutgoing(*world.bus);
  world.Post(RequestOffers());
  return world.Save();
}

std::string Offered(World& world) {
  world.guest.Connect(*world.bus);
  return world.Save();
}

std::string GpadlHalfBuilt(World& world) {
  world.ConnectRaw(ProtocolVersion::kIron);
  world.Post(GpadlMessages(1, 7, 30, kFirstPage)[0]);
  world.Post(GpadlMessages(2, 8, 40, 2)[0]);
  return world.Save();
}

std::string TearingDown(World& world) {
  world.guest.Connect(*world.bus);
  vsp::TestGuest::Channel& channel = world.guest.Open(*world.bus, 1);
  // Waits for the end of the ring that is in it.
  world.Post(TeardownMessage(1, static_cast<uint32_t>(channel.gpadl)));
  return world.Save();
}

// A channel with packets that its device holds on to.
vsp::TestGuest::Channel& HeldOpen(World& world, uint32_t id) {
  vsp::TestGuest::Channel& channel = world.guest.Open(*world.bus, id);
  world.guest.Request(channel, 2);
  world.guest.Pump(*world.bus);
  world.devices.keeping[id - 1]->holds_after_close = true;
  return channel;
}

std::string Closing(World& world) {
  world.guest.Connect(*world.bus);
  const auto gpadl = HeldOpen(world, 1).gpadl;
  world.guest.Open(*world.bus, 2);
  world.Post(CloseMessage(1));
  world.Post(TeardownMessage(1, static_cast<uint32_t>(gpadl)));
  return world.SaveInTheMiddleOfAClose();
}

std::string ResettingTo(World& world, absl::Span<const std::byte> message) {
  world.guest.Connect(*world.bus);
  HeldOpen(world, 1);
  world.guest.Open(*world.bus, 2);
  world.Post(message);
  return world.SaveInTheMiddleOfAClose();
}

std::string ResettingToContact(World& world) {
  return ResettingTo(world, ContactMessage(ProtocolVersion::kWin10Rs5, 2));
}

std::string ResettingToUnload(World& world) {
  return ResettingTo(world, UnloadBytes());
}

// What comes behind the second PAUSE_RESPONSE waits for RESUME.
std::string Paused(World& world) {
  world.ConnectRaw(ProtocolVersion::kCopper, kFeaturePauseResume);
  world.Post(GpadlMessage(1, 7, 4, kFirstPage));
  world.Post(PauseBytes());
  world.Post(ResumeBytes());
  world.Post(GpadlMessage(1, 8, 4, kFirstPage + 4));
  world.Post(PauseBytes());
  FERRYBUS_CHECK(world.bus->Rescind(world.offers[1]).ok(), "rescind");
  return world.Save();
}

// One that outlived its connection, one whose opening is not answered yet.
std::string Reserved(World& world) {
  world.ConnectRaw(ProtocolVersion::kIron);
  world.Post(GpadlMessage(1, 7, 4, kFirstPage));
  world.Post(OpenReservedMessage(1, 7));
  world.Post(UnloadBytes());
  world.ConnectRaw(ProtocolVersion::kIron);
  world.Post(GpadlMessage(2, 8, 4, kFirstPage + 4));
  world.DropOutgoing(*world.bus);
  world.Post(OpenReservedMessage(2, 8));
  return world.Save();
}

std::string TlConnects(World& world) {
  world.ConnectRaw(ProtocolVersion::kIron);
  for (const int endpoint : {3, 1, 2}) {
    world.Post(TlConnectMessage(TestEndpoint(static_cast<uint8_t>(endpoint)),
                                TestService()));
  }
  FERRYBUS_CHECK(
      world.bus->RefuseTlConnect({TestEndpoint(1), TestService(), {}}).ok(),
      "refuse");
  return world.Save();
}

std::string Rescinded(World& world) {
  world.guest.Connect(*world.bus);
  HeldOpen(world, 2);
  FERRYBUS_CHECK(world.bus->Rescind(world.offers[0]).ok(), "rescind");
  FERRYBUS_CHECK(world.bus->Rescind(world.offers[1]).ok(), "rescind");
  return world.SaveInTheMiddleOfAClose();
}

// -- Connections of owners that answer later ---------------------------------

// The file of a connection without open channels, whose owner answers nothing.
template <typename Drive>
std::string SaveUnanswered(World& world, Drive drive) {
  ServerConnectionOptions options = world.options.connection;
  options.ram_page_count = world.guest.memory->page_count();
  TestHost host(options);
  for (const vsp::DeviceOffer& offer : world.devices.offers()) {
    FERRYBUS_CHECK(host.connection.AddOffer(offer.params).ok(), "offer");
  }
  drive(host);
  savestate::FrameWriter writer("ferrybus vsp::Bus");
  writer.AddSection("connection", 0, 1, savestate::SectionKind::kRequired,
                    SaveServerConnection(host.connection));
  return *writer.Finish();
}

void PostTo(TestHost& host, const Bytes& message) {
  FERRYBUS_CHECK(host.Handle(message).ok(), "message");
}

std::string PendingModify(World& world) {
  return SaveUnanswered(world, [](TestHost& host) {
    host.ConnectGuest(ProtocolVersion::kCopper, kFeatureModifyConnection);
    PostTo(host, ModifyConnectionBytes(0x4000, 0x5000));
  });
}

// Opening, opening and to be closed, closing, closing and to be opened.
std::string HalfOpen(World& world) {
  return SaveUnanswered(world, [](TestHost& host) {
    host.ConnectGuest();
    for (uint32_t i = 0; i < 4; ++i) {
      PostTo(host, GpadlMessage(i + 1, i + 1, 4, kFirstPage + 4 * i));
      PostTo(host, OpenMessage(i + 1, i + 1));
      if (i >= 2) {
        FERRYBUS_CHECK(host.connection.OpenCompleted(OfferId{i}, 0).ok(),
                       "open");
      }
      if (i >= 1) PostTo(host, CloseMessage(i + 1));
    }
    PostTo(host, OpenMessage(4, 4, 2, 78));
    host.Drain();
  });
}

// -- Packets -----------------------------------------------------------------

std::string Open(World& world) {
  world.guest.Connect(*world.bus);
  for (uint32_t id = 1; id <= 3; ++id) {
    world.guest.Request(world.guest.Open(*world.bus, id), 2);
    world.guest.Pump(*world.bus);
    world.devices.keeping[id - 1]->AnswerAll();
    world.guest.Pump(*world.bus);
  }
  return world.Save();
}

// A request with a list of pages beside its payload.
void SendWithPages(vsp::TestGuest::Channel& channel, std::string_view payload,
                   const std::vector<uint64_t>& pages) {
  const std::string list = PageList(pages);
  OutgoingPacket packet;
  packet.type = ringbuffer::PacketType::kDataUsingGpaDirect;
  packet.extension = ::ferrybus::testing::ToBytes(list);
  packet.payload = ::ferrybus::testing::ToBytes(payload);
  packet.wants_completion = true;
  packet.tag = 1000;
  FERRYBUS_CHECK(channel.end.endpoint->Send(packet) == SendStatus::kOk, "send");
  channel.end.endpoint->Flush();
}

// Packets at the device, given back by it, and in the ring.
std::string Incoming(World& world) {
  world.guest.Connect(*world.bus);
  vsp::TestGuest::Channel& channel = world.guest.Open(*world.bus, 1);
  world.devices.keeping[0]->on_packet = [](IncomingPacket& packet) {
    if (NumberIn(packet.payload()) >= 2) packet.Defer();
  };
  world.guest.Request(channel, 2);
  SendWithPages(channel, ::ferrybus::testing::Numbered(1),
                {kFirstPage, kFirstPage + 2});
  world.guest.Request(channel, 2);
  world.guest.Pump(*world.bus, 2);
  world.bus->Suspend();
  world.guest.Request(channel, 1);
  return world.Save();
}

std::string Reissue(World& world) {
  world.guest.Connect(*world.bus);
  for (uint32_t id = 1; id <= 2; ++id) {
    world.guest.Request(world.guest.Open(*world.bus, id), 3);
  }
  world.guest.Pump(*world.bus);
  return world.Save();
}

// The host's own packets: in the ring, behind a full ring, given up; and a
// completion that came too late for this owner to send.
std::string Outgoing(World& world) {
  world.guest.Connect(*world.bus);
  vsp::TestGuest::Channel& channel = world.guest.Open(*world.bus, 1);
  world.guest.Request(channel, 1);
  world.guest.Pump(*world.bus);
  channel.end.endpoint->Suspend();
  KeepingDevice& device = *world.devices.keeping[0];
  const std::string payload(900, 'q');
  for (uint64_t tag = 1; tag <= 6; ++tag) {
    OutgoingPacket packet = vsp::Packet(payload, tag);
    if (tag == 6) {
      packet.wants_completion = false;
      packet.wants_sent = true;
    }
    FERRYBUS_CHECK(device.channel->Send(packet) == SendStatus::kOk, "send");
  }
  device.channel->Flush();
  FERRYBUS_CHECK(device.channel->Cancel(2), "cancel");
  world.bus->Suspend();
  world.bus->Freeze();
  device.AnswerAll();
  return world.Save();
}

std::string Faulted(World& world) {
  world.guest.Connect(*world.bus);
  world.guest.Request(world.guest.Open(*world.bus, 2), 1);
  vsp::TestGuest::Channel& channel = world.guest.Open(*world.bus, 1);
  world.guest.Request(channel, 1);
  // No packet is of this type.
  world.guest.memory->Translate(channel.pages[1] * 4096, 1)[0] = std::byte{99};
  world.guest.Pump(*world.bus);
  return world.Save();
}

// -- Devices -----------------------------------------------------------------

std::string_view AsText(absl::Span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A disk with a read and a write that it has not ended.
std::string Disk(World& world) {
  using Guest = vsp::FakeStorageGuest;
  using vstor::Operation;
  world.guest.Connect(*world.bus);
  vsp::TestGuest::Channel& channel = world.guest.Open(*world.bus, 1);
  vstor::Packet version =
      Guest::MakeOperation(Operation::kQueryProtocolVersion);
  vstor::SetBody(vstor::ProtocolVersion{vstor::kVersionWin10, 0}, version);
  const auto text = [](const vstor::Packet& packet) {
    return std::string_view(reinterpret_cast<const char*>(&packet),
                            sizeof(packet));
  };
  for (const vstor::Packet& step :
       {Guest::MakeOperation(Operation::kBeginInitialization), version,
        Guest::MakeOperation(Operation::kQueryProperties),
        Guest::MakeOperation(Operation::kEndInitialization)}) {
    FERRYBUS_CHECK(channel.end.Request(text(step), 1) == SendStatus::kOk, "");
    world.guest.Pump(*world.bus);
  }
  FERRYBUS_CHECK(world.devices.disk->phase() == vsp::VstorPhase::kReady,
                 "ready");
  world.devices.backend->Hold(true);
  for (const uint8_t code : {uint8_t{0x28}, uint8_t{0x2a}}) {
    const uint8_t cdb[10] = {code, 0, 0, 0, 0, 8, 0, 0, 8, 0};
    SendWithPages(
        channel,
        text(Guest::MakeSrb(
            cdb, code == 0x28 ? vstor::kDataIn : vstor::kDataOut, 4096)),
        {kFirstPage + code % 4});
  }
  world.guest.Pump(*world.bus);
  return world.Save();
}

void SendDatagram(vsp::TestGuest::Channel& channel,
                  absl::Span<const std::byte> message) {
  std::vector<std::byte> payload;
  BuildPipePayload(message, &payload);
  FERRYBUS_CHECK(channel.end.Send(AsText(payload)) == SendStatus::kOk, "send");
  channel.end.endpoint->Flush();
}

// Bytes that were not read, one datagram in part; the guest has ended, and a
// datagram of ours and our end wait behind a full ring.
std::string Socket(World& world) {
  world.guest.Connect(*world.bus);
  vsp::TestGuest::Channel& channel = world.guest.Open(*world.bus, 1, 2);
  SocketStream& stream = world.devices.socket->stream();
  SendDatagram(channel, ::ferrybus::testing::ToBytes("read in part"));
  SendDatagram(channel, ::ferrybus::testing::ToBytes("not read"));
  SendDatagram(channel, {});
  world.guest.Pump(*world.bus);
  std::vector<std::byte> room(4);
  FERRYBUS_CHECK(stream.Read(absl::MakeSpan(room)) == 4, "read");
  channel.end.endpoint->Suspend();
  const std::string text(900, 's');
  while (stream.Write(::ferrybus::testing::ToBytes(text)) == text.size()) {
  }
  stream.ShutdownWrite();
  return world.Save();
}

// As TestGuest::Open(), with somebody who takes what comes while it opens.
void OpenWith(World& world, uint32_t id,
              std::function<void(IncomingPacket)> on_packet) {
  vsp::TestGuest::Channel& channel = world.guest.StartGpadl(id);
  world.guest.Pump(*world.bus);
  channel.end.Create(EndpointSide::kGuest, EndpointLimits(),
                     world.guest.memory.get());
  channel.end.events.on_packet = std::move(on_packet);
  channel.end.doorbell.on_ring = [&world, id] { world.bus->Signal(id); };
  auto rings = RingPair::Map(*world.guest.memory, channel.pages, 2);
  FERRYBUS_CHECK(
      rings.ok() && channel.end.endpoint->Attach(*std::move(rings), id).ok(),
      "attach");
  channel.end.endpoint->Start();
  OpenParams params;
  params.ring_gpadl = channel.gpadl;
  params.downstream_page_offset = 2;
  (void)world.guest.connection.Open(channel.id, params);
  world.guest.Pump(*world.bus);
}

// Heartbeat: one at the guest, one behind.  Key-value: a request at the guest.
// Shutdown: the negotiation is not answered.  Time: ready, nothing to say.
std::string Services(World& world) {
  world.guest.Connect(*world.bus);
  vsp::LinuxUtilGuest drivers[] = {
      vsp::LinuxUtilGuest(ic::MessageType::kHeartbeat),
      vsp::LinuxUtilGuest(ic::MessageType::kKeyValue),
      vsp::LinuxUtilGuest(ic::MessageType::kShutdown),
      vsp::LinuxUtilGuest(ic::MessageType::kTimeSync)};
  bool answers[] = {true, true, false, true};
  for (uint32_t id = 1; id <= 4; ++id) {
    OpenWith(world, id, [&, id](IncomingPacket packet) {
      absl::Span<const std::byte> message;
      FERRYBUS_CHECK(ParsePipePayload(packet.payload(), &message), "message");
      const auto answer = drivers[id - 1].Handle(message);
      packet.Complete();
      if (answers[id - 1] && answer.has_value()) {
        SendDatagram(world.guest.channels[id], *answer);
      }
    });
  }
  std::fill(std::begin(answers), std::end(answers), false);
  for (const uint64_t second : {0, 3, 6}) {
    world.devices.heartbeat->Tick(second * 1'000'000'000 + 1);
  }
  FERRYBUS_CHECK(
      world.devices.key_value->Get(ic::KvpPool::kExternal, u"key", 7).ok(),
      "get");
  world.guest.Pump(*world.bus);
  std::string saved = world.Save();
  for (uint32_t id = 1; id <= 4; ++id) {
    world.guest.channels[id].end.events.on_packet = nullptr;
  }
  return saved;
}

std::string Sealed(World& world) {
  const auto sealed =
      savestate::Seal(vsp::AsBytes(Incoming(world)), GoldenKey(), 42);
  FERRYBUS_CHECK(sealed.ok(), "seal");
  return *sealed;
}

}  // namespace

std::vector<GoldenBus> GoldenBuses() {
  const Kinds two = {kResume, kResume};
  return {
      {"disconnected", two, [](World& world) { return world.Save(); }},
      {"negotiated", two, Negotiated},
      {"offers_requested", two, OffersRequested},
      {"offered", two, Offered},
      {"gpadl_half_built", two, GpadlHalfBuilt},
      {"tearing_down", two, TearingDown},
      {"closing", two, Closing},
      {"resetting_to_contact", two, ResettingToContact},
      {"resetting_to_unload", two, ResettingToUnload},
      {"paused", two, Paused, {1}},
      {"reserved", two, Reserved},
      {"tl_connects", {kResume}, TlConnects},
      {"rescinded", {kResume, kResume, kResume}, Rescinded, {0, 1}},
      {"pending_modify", {kResume}, PendingModify},
      {"half_open", {kResume, kResume, kResume, kResume}, HalfOpen},
      {"open", {kResume, DeviceKind::kSubChannel, kResume}, Open},
      {"incoming", {kResume}, Incoming},
      {"reissue", {DeviceKind::kReissue, DeviceKind::kReissueBare}, Reissue},
      {"outgoing", {kResume}, Outgoing},
      {"faulted", two, Faulted},
      {"disk", {DeviceKind::kDisk}, Disk},
      {"socket", {DeviceKind::kSocket}, Socket},
      {"services",
       {DeviceKind::kHeartbeat, DeviceKind::kKeyValue, DeviceKind::kShutdown,
        DeviceKind::kTimeSync},
       Services},
      {"sealed", {kResume}, Sealed, {}, /*is_sealed=*/true},
  };
}

}  // namespace ferrybus::golden
