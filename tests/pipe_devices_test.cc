// SPDX-License-Identifier: MIT

// Services and sockets over two whole buses: offers, rings and pipes as a
// guest has them, and a host that is replaced in the middle.

#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "ferrybus/channel/endpoint_test_util.h"
#include "ferrybus/channel/protocols/device_classes.h"
#include "ferrybus/channel/protocols/hv_sock.h"
#include "ferrybus/vsc/bus.h"
#include "ferrybus/vsc/socket/socket_client.h"
#include "ferrybus/vsp/bus.h"
#include "ferrybus/vsp/services/heartbeat_service.h"
#include "ferrybus/vsp/services/kvp_service.h"
#include "ferrybus/vsp/services/linux_util_guest.h"
#include "ferrybus/vsp/services/shutdown_service.h"
#include "ferrybus/vsp/services/time_sync_service.h"
#include "ferrybus/vsp/socket/socket_device.h"
#include "gtest/gtest.h"

namespace ferrybus {
namespace {

using testing::ToBytes;

// Both buses in one thread, without a port between them.
class JoinedBuses {
 public:
  explicit JoinedBuses(vsp::BusObserver* observer = nullptr)
      : observer_(observer),
        memory_(*MemfdGuestMemory::Create(512 * 4096)),
        pages_(memory_.get()),
        host(NewHost()),
        guest(vsc::BusOptions(), memory_.get(), &pages_, &to_host_) {
    to_host_.on_ring = [this] { host->Signal(to_host_.last_channel); };
    to_guest_.on_ring = [this] { guest.Signal(to_guest_.last_channel); };
  }

  void Pump() {
    for (int i = 0; i < 200; ++i) {
      while (guest.has_outgoing()) {
        (void)host->HandleMessage(guest.outgoing_front(),
                                  guest.message_connection());
        guest.PopOutgoing();
      }
      const bool host_more = host->Poll();
      const uint64_t rings = to_guest_.rings + to_host_.rings;
      while (host->has_outgoing()) {
        (void)guest.HandleMessage(host->outgoing_front());
        host->PopOutgoing();
      }
      if (!guest.Poll() && !host_more && !guest.has_outgoing() &&
          rings == to_guest_.rings + to_host_.rings && i > 2) {
        return;
      }
    }
  }

  // The next owner of the host's end, with these devices.
  void Move(const std::vector<vsp::DeviceOffer>& devices) {
    host->Suspend();
    host->Freeze();
    const auto saved = host->Save();
    ASSERT_TRUE(saved.ok()) << saved.status();
    host.reset();
    auto restored =
        vsp::Bus::Restore(ToBytes(*saved), vsp::BusOptions(), memory_.get(),
                          &to_guest_, devices, observer_);
    ASSERT_TRUE(restored.ok()) << restored.status();
    host = *std::move(restored);
    host->Start();
  }

 private:
  std::unique_ptr<vsp::Bus> NewHost() {
    return std::make_unique<vsp::Bus>(vsp::BusOptions(), memory_.get(),
                                      &to_guest_, observer_);
  }

  vsp::BusObserver* const observer_;

  std::unique_ptr<MemfdGuestMemory> memory_;
  vsc::GuestPages pages_;
  testing::CountingDoorbell to_host_;
  testing::CountingDoorbell to_guest_;

 public:
  std::unique_ptr<vsp::Bus> host;
  vsc::Bus guest;
};

// -- Services ----------------------------------------------------------------

// A guest's driver around what a Linux driver answers.
class UtilDriver final : public vsc::Driver {
 public:
  explicit UtilDriver(ic::MessageType service) : linux_util(service) {}
  void OnOpened(vsc::ClientChannel& channel) override { channel_ = &channel; }
  void OnCompletion(uint64_t, absl::Span<const std::byte>) override {}
  void OnPacket(IncomingPacket packet) override {
    const auto answer = linux_util.Handle(packet.payload());
    packet.Complete();
    if (!answer.has_value()) return;
    vsc::Request request;
    request.payload = *answer;
    request.wants_completion = false;
    EXPECT_EQ(channel_->Send(request), vsc::SendResult::kOk);
  }
  void OnClosed() override { channel_ = nullptr; }

  vsp::LinuxUtilGuest linux_util;

 private:
  vsc::ClientChannel* channel_ = nullptr;
};

class Answers final : public vsp::KvpService::Events,
                      public vsp::ShutdownService::Events,
                      public vsp::TimeSource {
 public:
  void OnKvpDone(uint64_t, const vsp::KvpResult& result) override {
    kvp.push_back(result);
  }
  void OnShutdownAnswered(vsp::IntegrationOutcome outcome, uint32_t) override {
    shutdown = outcome;
  }
  vsp::HostTime Now() override { return {12345, 678}; }

  std::vector<vsp::KvpResult> kvp;
  std::optional<vsp::IntegrationOutcome> shutdown;
};

struct Services {
  Answers answers;
  vsp::HeartbeatService heartbeat;
  vsp::KvpService kvp{&answers};
  vsp::ShutdownService shutdown{&answers};
  vsp::TimeSyncService time{&answers};

  std::vector<vsp::DeviceOffer> Offers() {
    return {{heartbeat.Params(Guid{{1}}), &heartbeat},
            {kvp.Params(Guid{{2}}), &kvp},
            {shutdown.Params(Guid{{3}}), &shutdown},
            {time.Params(Guid{{4}}), &time}};
  }
};

TEST(PipeDevicesTest, AGuestLoadsAllServicesAndTheyMove) {
  JoinedBuses buses;
  Services services;
  for (const vsp::DeviceOffer& offer : services.Offers()) {
    ASSERT_TRUE(buses.host->Offer(offer.params, offer.device).ok());
  }
  UtilDriver heartbeat(ic::MessageType::kHeartbeat);
  UtilDriver kvp(ic::MessageType::kKeyValue);
  UtilDriver shutdown(ic::MessageType::kShutdown);
  UtilDriver time(ic::MessageType::kTimeSync);
  buses.guest.AddDriver(kHeartbeatInterface, &heartbeat);
  buses.guest.AddDriver(kKeyValueInterface, &kvp);
  buses.guest.AddDriver(kShutdownInterface, &shutdown);
  buses.guest.AddDriver(kTimeSyncInterface, &time);
  ASSERT_TRUE(buses.guest.Connect().ok());
  buses.Pump();
  EXPECT_TRUE(services.heartbeat.alive());
  EXPECT_EQ(services.shutdown.message_version(), (ic::Version{3, 2}));
  ASSERT_EQ(time.linux_util.times.size(), 1u);
  EXPECT_EQ(time.linux_util.times[0].reference_time, 678u);
  ASSERT_TRUE(
      services.kvp.Set(ic::KvpPool::kExternal, u"key", u"value", 1).ok());
  buses.Pump();
  ASSERT_EQ(services.answers.kvp.size(), 1u);
  EXPECT_EQ(kvp.linux_util.pools[ic::KvpPool::kExternal][0].second, u"value");

  ASSERT_TRUE(services.shutdown.Request({}).ok());
  ASSERT_TRUE(services.kvp.Get(ic::KvpPool::kExternal, u"key", 2).ok());
  Services next;
  buses.Move(next.Offers());
  buses.Pump();
  EXPECT_EQ(next.answers.shutdown, vsp::IntegrationOutcome::kOk);
  EXPECT_EQ(shutdown.linux_util.shutdowns, std::vector<uint32_t>{0});
  ASSERT_EQ(next.answers.kvp.size(), 1u);
  EXPECT_EQ(std::get<std::u16string>(next.answers.kvp[0].value), u"value");
  EXPECT_EQ(time.linux_util.times.back().flags, ic::kTimeSyncSet);
  EXPECT_TRUE(buses.guest.status().ok()) << buses.guest.status();
}

// -- Sockets -----------------------------------------------------------------

class NoEvents final : public SocketStream::Events {};

// Writes its own bytes, reads the other's, in amounts of any size.
class Talker {
 public:
  Talker(SocketStream* stream, uint64_t seed, std::string text)
      : stream_(stream), random_(seed), text_(std::move(text)) {}

  void Talk() {
    size_t amount = random_() % 9000;
    if (written_ < text_.size()) {
      written_ += stream_->Write(
          ToBytes(std::string_view(text_).substr(written_, amount)));
      if (written_ == text_.size()) stream_->ShutdownWrite();
    }
    std::vector<std::byte> room(random_() % 9000);
    room.resize(stream_->Read(absl::MakeSpan(room)));
    got += testing::ToString(room);
  }
  bool done() const { return written_ == text_.size() && stream_->is_at_end(); }
  void Use(SocketStream* stream) { stream_ = stream; }
  const std::string& text() const { return text_; }

  std::string got;

 private:
  SocketStream* stream_;
  std::mt19937_64 random_;
  const std::string text_;
  size_t written_ = 0;
};

std::string RandomText(std::mt19937_64& random, size_t bytes) {
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

// Two streams at once, both full most of the time, through moves of the host:
// each byte arrives once and in order, then both ends.
// promise:P2
TEST(PipeDevicesTest, SocketsCarryStreamsBothWaysThroughMoves) {
  std::mt19937_64 random(testing::AnnouncedSeed("//tests:pipe_devices_test"));
  const Guid service = ServiceOfVsockPort(1024);
  NoEvents none;
  JoinedBuses buses;
  auto device = std::make_unique<vsp::SocketDevice>(&none);
  const OfferParams params =
      vsp::SocketDevice::Params(service, Guid{{9}}, /*for_guest_accept=*/true);
  ASSERT_TRUE(buses.host->Offer(params, device.get()).ok());
  vsc::SocketClient client(&none);
  buses.guest.AddDriver(service, &client, vsc::SocketClient::Settings());
  ASSERT_TRUE(buses.guest.Connect().ok());
  buses.Pump();
  ASSERT_TRUE(client.stream().is_connected());

  Talker host(&device->stream(), random(), RandomText(random, 700'000));
  Talker guest(&client.stream(), random(), RandomText(random, 900'000));
  int moves = 0;
  for (int i = 0; i < 100'000 && !(host.done() && guest.done()); ++i) {
    if (random() % 2 == 0) host.Talk();
    if (random() % 2 == 0) guest.Talk();
    if (random() % 2 == 0) buses.Pump();
    ASSERT_LE(device->stream().unread_datagrams(), kSocketUnreadMax);
    ASSERT_LE(client.stream().unread_datagrams(), kSocketUnreadMax);
    if (random() % 50 == 0) {
      auto next = std::make_unique<vsp::SocketDevice>(&none);
      buses.Move({{params, next.get()}});
      device = std::move(next);
      host.Use(&device->stream());
      ++moves;
    }
  }
  EXPECT_GT(moves, 2);
  EXPECT_TRUE(host.got == guest.text()) << host.got.size();
  EXPECT_TRUE(guest.got == host.text()) << guest.got.size();
  EXPECT_TRUE(host.done() && guest.done());
  EXPECT_TRUE(buses.guest.status().ok()) << buses.guest.status();
}

// The host's side of connects: notes them, and accepts or refuses at once, or
// leaves them to the test.
class SocketHost final : public vsp::BusObserver {
 public:
  enum class Answer { kAccept, kRefuse, kLater };

  bool OnTlConnectRequested(const TlConnectRequest& request) override {
    requests.push_back(request);
    if (answer == Answer::kAccept) Accept();
    return answer != Answer::kRefuse;
  }
  void Accept() {
    const auto offer = buses->host->Offer(
        vsp::SocketDevice::Params(requests.back().service_id,
                                  requests.back().endpoint_id,
                                  /*for_guest_accept=*/false),
        &device);
    EXPECT_TRUE(offer.ok()) << offer.status();
  }

  Answer answer = Answer::kAccept;
  JoinedBuses* buses = nullptr;
  NoEvents none;
  vsp::SocketDevice device{&none};
  std::vector<TlConnectRequest> requests;
};

class ConnectEvents final : public SocketStream::Events {
 public:
  void OnConnected() override { ++connected; }
  void OnRefused() override { ++refused; }

  int connected = 0;
  int refused = 0;
};

class ConnectTest : public ::testing::Test {
 protected:
  ConnectTest() {
    host_.buses = &buses_;
    EXPECT_TRUE(buses_.guest.Connect().ok());
    buses_.Pump();
  }
  absl::Status Connect(const Guid& endpoint) {
    const absl::Status status = buses_.guest.ConnectSocket(
        kService, endpoint, &client_, vsc::SocketClient::Settings());
    buses_.Pump();
    return status;
  }
  void ExpectBytesFlow() {
    ASSERT_TRUE(client_.stream().is_connected());
    ASSERT_TRUE(host_.device.stream().is_connected());
    EXPECT_EQ(client_.stream().Write(ToBytes("to host")), 7u);
    EXPECT_EQ(host_.device.stream().Write(ToBytes("to guest")), 8u);
    buses_.Pump();
    EXPECT_EQ(ReadAll(host_.device.stream()), "to host");
    EXPECT_EQ(ReadAll(client_.stream()), "to guest");
  }
  static std::string ReadAll(SocketStream& stream) {
    std::vector<std::byte> room(100);
    room.resize(stream.Read(absl::MakeSpan(room)));
    return testing::ToString(room);
  }

  const Guid kService = ServiceOfVsockPort(7);
  SocketHost host_;
  JoinedBuses buses_{&host_};
  ConnectEvents events_;
  vsc::SocketClient client_{&events_};
};

TEST_F(ConnectTest, TheHostAccepts) {
  ASSERT_TRUE(Connect(Guid{{5}}).ok());
  ASSERT_EQ(host_.requests.size(), 1u);
  EXPECT_EQ(host_.requests[0].service_id, kService);
  EXPECT_EQ(events_.connected, 1);
  EXPECT_EQ(events_.refused, 0);
  ExpectBytesFlow();
}

TEST_F(ConnectTest, TheHostRefusesAndTheDriverIsFreeAgain) {
  host_.answer = SocketHost::Answer::kRefuse;
  ASSERT_TRUE(Connect(Guid{{5}}).ok());
  EXPECT_EQ(events_.refused, 1);
  EXPECT_EQ(events_.connected, 0);
  // Later counts the same.
  host_.answer = SocketHost::Answer::kLater;
  ASSERT_TRUE(Connect(Guid{{5}}).ok());
  EXPECT_EQ(events_.refused, 1);
  EXPECT_EQ(Connect(Guid{{5}}).code(), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(buses_.host->RefuseTlConnect(host_.requests.back()).ok());
  EXPECT_FALSE(buses_.host->RefuseTlConnect(host_.requests.back()).ok());
  buses_.Pump();
  EXPECT_EQ(events_.refused, 2);
  host_.answer = SocketHost::Answer::kAccept;
  ASSERT_TRUE(Connect(Guid{{5}}).ok());
  ExpectBytesFlow();
}

TEST_F(ConnectTest, AnUnansweredRequestIsToldToTheNextOwner) {
  host_.answer = SocketHost::Answer::kLater;
  ASSERT_TRUE(Connect(Guid{{5}}).ok());
  buses_.Move({});
  buses_.Pump();
  ASSERT_EQ(host_.requests.size(), 2u);
  EXPECT_EQ(host_.requests[1], host_.requests[0]);
  EXPECT_EQ(events_.connected + events_.refused, 0);
  host_.Accept();
  buses_.Pump();
  ExpectBytesFlow();
}

TEST_F(ConnectTest, TheNextOwnerMayAnswerAtOnce) {
  for (const auto answer :
       {SocketHost::Answer::kRefuse, SocketHost::Answer::kAccept}) {
    host_.answer = SocketHost::Answer::kLater;
    ASSERT_TRUE(Connect(Guid{{5}}).ok());
    host_.answer = answer;
    buses_.Move({});
    buses_.Pump();
  }
  EXPECT_EQ(events_.refused, 1);
  ExpectBytesFlow();
}

TEST_F(ConnectTest, ADriverMayGiveUpOrTheConnectionEnd) {
  host_.answer = SocketHost::Answer::kLater;
  ASSERT_TRUE(Connect(Guid{{5}}).ok());
  buses_.guest.RemoveDriver(&client_);
  // The answer comes, and is nobody's.
  host_.Accept();
  buses_.Pump();
  EXPECT_EQ(events_.connected + events_.refused, 0);
  ASSERT_TRUE(Connect(Guid{{6}}).ok());
  ASSERT_TRUE(buses_.guest.Unload().ok());
  buses_.Pump();
  EXPECT_EQ(events_.refused, 1);
  EXPECT_FALSE(buses_.host->RefuseTlConnect(host_.requests.back()).ok());
}

TEST_F(ConnectTest, AListenerDoesNotTakeTheConnectsOfOthers) {
  NoEvents none;
  vsc::SocketClient listener(&none);
  buses_.guest.AddDriver(kService, &listener, vsc::SocketClient::Settings());
  ASSERT_TRUE(Connect(Guid{{5}}).ok());
  EXPECT_FALSE(listener.stream().is_connected());
  ExpectBytesFlow();
}

TEST(PipeDevicesTest, NobodyListensWithoutAnObserver) {
  JoinedBuses buses;
  ASSERT_TRUE(buses.guest.Connect().ok());
  buses.Pump();
  ConnectEvents events;
  vsc::SocketClient client(&events);
  ASSERT_TRUE(buses.guest
                  .ConnectSocket(ServiceOfVsockPort(7), Guid{{5}}, &client,
                                 vsc::SocketClient::Settings())
                  .ok());
  buses.Pump();
  EXPECT_EQ(events.refused, 1);
}

TEST(PipeDevicesTest, ASocketEndsWithItsOffer) {
  NoEvents none;
  JoinedBuses buses;
  vsp::SocketDevice device(&none);
  const Guid service = ServiceOfVsockPort(5);
  const auto offer = buses.host->Offer(
      vsp::SocketDevice::Params(service, Guid{{1}}, true), &device);
  ASSERT_TRUE(offer.ok());
  vsc::SocketClient client(&none);
  buses.guest.AddDriver(service, &client, vsc::SocketClient::Settings());
  ASSERT_TRUE(buses.guest.Connect().ok());
  buses.Pump();
  ASSERT_TRUE(client.stream().is_connected());
  ASSERT_TRUE(buses.host->Rescind(*offer).ok());
  buses.Pump();
  EXPECT_FALSE(client.stream().is_connected());
  EXPECT_FALSE(device.stream().is_connected());
  EXPECT_EQ(client.stream().Write(ToBytes("x")), 0u);
  client.stream().ShutdownWrite();
}

}  // namespace
}  // namespace ferrybus
