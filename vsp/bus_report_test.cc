// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/bus_report.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "ferrybus/channel/counters_page.h"
#include "ferrybus/vsp/bus_test_util.h"
#include "gtest/gtest.h"

namespace ferrybus::vsp {
namespace {

using Json = nlohmann::ordered_json;

Json Parsed(const Bus& bus) {
  Json report = Json::parse(BusReport(bus), nullptr, false);
  EXPECT_FALSE(report.is_discarded());
  return report;
}

class BusReportTest : public ::testing::Test {
 protected:
  BusReportTest() {
    EXPECT_TRUE(bus_.Offer(TestParams(1), &device_).ok());
    EXPECT_TRUE(bus_.Offer(TestParams(2), &other_).ok());
  }
  void TearDown() override {
    device_.held.clear();
    guest_.ForgetChannels();
  }

  TestGuest guest_;
  LoggingDevice device_;
  LoggingDevice other_;
  IncomingPacket kept_;
  Bus bus_{BusOptions(), guest_.memory.get(), &guest_.doorbell};
};

TEST_F(BusReportTest, ABusThatNobodyUses) {
  const Json report = Parsed(bus_);
  EXPECT_EQ(report["connection"]["phase"], "disconnected");
  EXPECT_EQ(report["offers"]["count"], 2);
  EXPECT_EQ(report["gpadls"]["count"], 0);
  const Json& offer = report["offers"]["listed"][0];
  EXPECT_EQ(offer["channel"], 1);
  EXPECT_EQ(offer["state"], "closed");
  EXPECT_EQ(offer["interface_instance"],
            TestParams(1).interface_instance.ToString());
  EXPECT_EQ(offer["endpoint"]["run_state"], "detached");
  EXPECT_EQ(offer["endpoint"]["incoming_ring"]["data_bytes"], 0);
}

TEST_F(BusReportTest, EverythingInFlightIsThere) {
  guest_.Connect(bus_);
  TestGuest::Channel& channel = guest_.Open(bus_, 1);
  guest_.Request(channel, 3);
  guest_.Pump(bus_);
  channel.end.events.on_packet = [this](IncomingPacket packet) {
    kept_ = std::move(packet);
  };
  ASSERT_EQ(device_.channel->Send(Packet("own", 77)), SendStatus::kOk);
  device_.channel->Flush();
  guest_.Pump(bus_);

  const Json report = Parsed(bus_);
  EXPECT_EQ(report["connection"]["phase"], "connected");
  EXPECT_EQ(report["in_flight"]["incoming"], 3);
  ASSERT_EQ(report["gpadls"]["count"], 1);
  EXPECT_EQ(report["gpadls"]["listed"][0]["pages"], 4);
  EXPECT_EQ(report["gpadls"]["listed"][0]["state"], "created");
  const Json& offer = report["offers"]["listed"][0];
  EXPECT_EQ(offer["state"], "open");
  EXPECT_EQ(offer["open"]["downstream_page_offset"], 2);
  EXPECT_EQ(offer["open"]["ring_gpadl"],
            report["gpadls"]["listed"][0]["gpadl"]);
  const Json& endpoint = offer["endpoint"];
  EXPECT_EQ(endpoint["run_state"], "active");
  EXPECT_EQ(endpoint["counters"]["packets_received"], 3);
  EXPECT_EQ(endpoint["counters"]["bytes_received"], 24);
  EXPECT_EQ(endpoint["counters"]["bytes_sent"], 3);
  EXPECT_EQ(endpoint["incoming_ring"]["data_bytes"], 4096);
  EXPECT_EQ(endpoint["incoming_ring"]["own_index"], 3 * 32);
  ASSERT_EQ(endpoint["incoming"]["count"], 3);
  EXPECT_EQ(endpoint["incoming"]["rest"], 0);
  EXPECT_EQ(endpoint["incoming"]["listed"][2]["payload_bytes"], 8);
  EXPECT_EQ(endpoint["incoming"]["listed"][2]["type"], "in band");
  EXPECT_EQ(endpoint["awaiting"]["listed"][0]["tag"], 77);
  kept_.Complete();
}

TEST_F(BusReportTest, ListsAreCutAndTheRestIsCounted) {
  guest_.Connect(bus_);
  guest_.Request(guest_.Open(bus_, 1), 100);
  guest_.Pump(bus_);
  const Json report = Parsed(bus_);
  const Json& incoming = report["offers"]["listed"][0]["endpoint"]["incoming"];
  EXPECT_EQ(incoming["count"], 100);
  EXPECT_EQ(incoming["listed"].size(), ReportBounds().packets);
  EXPECT_EQ(incoming["rest"], 100 - ReportBounds().packets);
  // The oldest.
  EXPECT_EQ(incoming["listed"][0]["transaction_id"], 1);
  const Json few = Json::parse(BusReport(bus_, {.offers = 1, .packets = 0}));
  EXPECT_EQ(few["offers"]["listed"].size(), 1u);
  EXPECT_EQ(few["offers"]["rest"], 1);
  EXPECT_TRUE(
      few["offers"]["listed"][0]["endpoint"]["incoming"]["listed"].empty());
}

TEST_F(BusReportTest, ItsLengthIsBounded) {
  for (int i = 3; i <= 1000; ++i) {
    OfferParams params = TestParams(static_cast<uint8_t>(i));
    params.interface_instance.bytes[1] = static_cast<uint8_t>(i / 256);
    ASSERT_TRUE(bus_.Offer(params, &other_).ok());
  }
  const std::string report = BusReport(bus_);
  EXPECT_LT(report.size(), 512u * 1024);
  EXPECT_EQ(Parsed(bus_)["offers"]["rest"], 1000 - ReportBounds().offers);
}

// What a guest chose cannot forge a key, a line, or what a terminal does.
TEST_F(BusReportTest, WhatAGuestSaysIsEscaped) {
  const std::string evil = "\"},\n\x1b[2J\xff\xc3\x28 \xe2\x80\xae\x7f\r\t";
  device_.on_packet = [&](IncomingPacket& packet) { packet.Fail(evil); };
  guest_.Connect(bus_);
  guest_.Request(guest_.Open(bus_, 1), 1);
  guest_.Pump(bus_);
  const std::string report = BusReport(bus_);
  EXPECT_TRUE(std::all_of(report.begin(), report.end(),
                          [](char c) { return c >= 0x20 && c < 0x7f; }));
  const Json endpoint = Parsed(bus_)["offers"]["listed"][0]["endpoint"];
  EXPECT_EQ(endpoint["run_state"], "faulted");
  EXPECT_EQ(endpoint["faults"], 1);
  EXPECT_NE(endpoint["fault"].get<std::string>().find("\"},\n"),
            std::string::npos);
}

// -- Every state that a guest can bring about --------------------------------

TEST_F(BusReportTest, AClosingIsSeenUntilTheLastPacketHasEnded) {
  device_.holds_after_close = true;
  guest_.Connect(bus_);
  TestGuest::Channel& channel = guest_.Open(bus_, 1);
  guest_.Request(channel, 1);
  guest_.Pump(bus_);
  guest_.Close(channel);
  guest_.TearDown(channel);
  guest_.Pump(bus_);
  Json report = Parsed(bus_);
  EXPECT_EQ(report["offers"]["listed"][0]["state"], "closing");
  const Json endpoint = report["offers"]["listed"][0]["endpoint"];
  EXPECT_EQ(endpoint["link"], "closed");
  EXPECT_EQ(endpoint["run_state"], "detached");
  EXPECT_EQ(endpoint["incoming"]["listed"][0]["orphaned"], true);
  EXPECT_EQ(report["gpadls"]["listed"][0]["state"], "tearing down");
  (void)guest_.Open(bus_, 1);
  EXPECT_EQ(Parsed(bus_)["offers"]["listed"][0]["state"],
            "closing, then opening");
  ASSERT_TRUE(guest_.connection.Unload().ok());
  guest_.Pump(bus_);
  EXPECT_EQ(Parsed(bus_)["connection"]["phase"], "resetting");
  device_.held.clear();
  guest_.Pump(bus_);
  EXPECT_EQ(Parsed(bus_)["connection"]["phase"], "disconnected");
}

TEST_F(BusReportTest, AnOpeningIsSeenFromWithin) {
  Json opening;
  Json then_closing;
  device_.on_opened = [&] {
    opening = Parsed(bus_);
    ASSERT_TRUE(bus_.Rescind(*bus_.FindOffer(device_)).ok());
    then_closing = Parsed(bus_);
  };
  guest_.Connect(bus_);
  (void)guest_.Open(bus_, 1);
  EXPECT_EQ(opening["offers"]["listed"][0]["state"], "opening");
  EXPECT_EQ(opening["offers"]["listed"][0]["rescinding"], false);
  const Json& offer = then_closing["offers"]["listed"][0];
  EXPECT_EQ(offer["state"], "opening, then closing");
  EXPECT_EQ(offer["rescinding"], true);
}

// The guest has its number still, but there is no channel behind it.
TEST_F(BusReportTest, ARescindedOfferHasNoEndpoint) {
  guest_.Connect(bus_);
  ASSERT_TRUE(bus_.Rescind(*bus_.FindOffer(device_)).ok());
  Json offer = Parsed(bus_)["offers"]["listed"][0];
  EXPECT_EQ(offer["state"], "rescinded");
  EXPECT_EQ(offer["endpoint"]["link"], "disabled");
  guest_.Pump(bus_);
  offer = Parsed(bus_)["offers"]["listed"][0];
  EXPECT_EQ(offer["state"], "rescinded");
  EXPECT_FALSE(offer.contains("endpoint"));
}

TEST_F(BusReportTest, ABufferIsInProgressUntilItsLastPart) {
  guest_.Connect(bus_);
  const std::vector<uint64_t> pages(100, 200);
  ASSERT_TRUE(
      guest_.connection.CreateGpadl(ChannelId{1}, pages, 409600, 0).ok());
  // The first of several messages.
  ASSERT_TRUE(bus_.HandleMessage(guest_.connection.outgoing_front(),
                                 guest_.connection.message_connection())
                  .ok());
  guest_.connection.PopOutgoing();
  EXPECT_EQ(Parsed(bus_)["gpadls"]["listed"][0]["state"], "in progress");
  guest_.Pump(bus_);
  EXPECT_EQ(Parsed(bus_)["gpadls"]["listed"][0]["state"], "created");
}

TEST_F(BusReportTest, EachKindOfPacketHasItsName) {
  guest_.Connect(bus_);
  TestGuest::Channel& channel = guest_.Open(bus_, 1);
  const std::string payload = "12345678";
  OutgoingPacket packet = Packet(payload, 1);
  const std::string pages = testing::PageList({200, 201});
  packet.type = ringbuffer::PacketType::kDataUsingGpaDirect;
  packet.extension = AsBytes(pages);
  ASSERT_EQ(channel.end.endpoint->Send(packet), SendStatus::kOk);
  channel.end.endpoint->Flush();
  guest_.Pump(bus_);
  Json endpoint = Parsed(bus_)["offers"]["listed"][0]["endpoint"];
  EXPECT_EQ(endpoint["incoming"]["listed"][0]["type"], "GPA direct");
  EXPECT_EQ(endpoint["incoming"]["listed"][0]["external_bytes"], 8192);
  // What waits behind a full ring: a packet of ours, then the answer.
  const std::string large(1992, 'x');
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(device_.channel->Send(Packet(large)), SendStatus::kOk);
  }
  device_.AnswerAll();
  endpoint = Parsed(bus_)["offers"]["listed"][0]["endpoint"];
  ASSERT_EQ(endpoint["queued"]["count"], 2);
  EXPECT_EQ(endpoint["queued"]["listed"][0]["type"], "in band");
  EXPECT_EQ(endpoint["queued"]["listed"][0]["payload_bytes"], 1992);
  EXPECT_EQ(endpoint["queued"]["listed"][1]["type"], "completion");
  EXPECT_EQ(Parsed(bus_)["in_flight"]["queued"], 2);
}

class AcceptingObserver final : public BusObserver {
 public:
  bool OnTlConnectRequested(const TlConnectRequest&) override { return true; }
};

TEST(BusReportSocketTest, ASocketThatNobodyAnsweredIsListed) {
  TestGuest guest;
  AcceptingObserver observer;
  Bus bus(BusOptions(), guest.memory.get(), &guest.doorbell, &observer);
  guest.Connect(bus);
  const Guid endpoint = TestParams(5).interface_instance;
  const Guid service = TestParams(6).interface_instance;
  ASSERT_TRUE(guest.connection.TlConnect(endpoint, service).ok());
  guest.Pump(bus);
  const Json connects = Parsed(bus)["tl_connects"];
  ASSERT_EQ(connects["count"], 1);
  EXPECT_EQ(connects["listed"][0]["endpoint"], endpoint.ToString());
  EXPECT_EQ(connects["listed"][0]["service"], service.ToString());
}

// The same traffic, and a bus that is looked at after every step or never.
std::string SavedAfterTraffic(bool is_inspected) {
  TestGuest guest;
  LoggingDevice device;
  const auto page = *CountersPage::Create();
  BusOptions options;
  if (is_inspected) options.counters = page.get();
  Bus bus(options, guest.memory.get(), &guest.doorbell);
  EXPECT_TRUE(bus.Offer(TestParams(1), &device).ok());
  const auto look = [&] {
    if (!is_inspected) return;
    EXPECT_FALSE(BusReport(bus).empty());
    bus.PublishCounters();
  };
  look();
  guest.Connect(bus);
  look();
  TestGuest::Channel& channel = guest.Open(bus, 1);
  device.on_packet = [&](IncomingPacket&) { look(); };
  for (int i = 0; i < 50; ++i) {
    guest.Request(channel, 7);
    look();
    guest.Pump(bus);
    look();
    if (i % 3 == 0) device.AnswerAll();
    EXPECT_EQ(device.channel->Send(Packet("own", i % 5)), SendStatus::kOk);
    look();
  }
  bus.Suspend();
  look();
  bus.Freeze();
  look();
  const auto saved = bus.Save();
  EXPECT_TRUE(saved.ok()) << saved.status();
  look();
  device.held.clear();
  guest.ForgetChannels();
  return saved.value_or("");
}

// bad:P8
TEST(BusReportEffectTest, LookingChangesNothing) {
  const std::string saved = SavedAfterTraffic(true);
  EXPECT_FALSE(saved.empty());
  EXPECT_TRUE(saved == SavedAfterTraffic(false));
}

}  // namespace
}  // namespace ferrybus::vsp
