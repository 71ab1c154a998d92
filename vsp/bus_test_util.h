// SPDX-License-Identifier: MIT
//
// A guest and devices for the tests of vsp::Bus: the guest speaks messages
// and rings without a bus of its own, so that it can also misbehave.
//
// Ownership: TestGuest owns guest RAM, which outlives every host.
// Thread safety: none.

#ifndef FERRYBUS_VSP_BUS_TEST_UTIL_H_
#define FERRYBUS_VSP_BUS_TEST_UTIL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ferrybus/channel/client_connection.h"
#include "ferrybus/channel/endpoint_test_util.h"
#include "ferrybus/vsp/bus.h"

namespace ferrybus::vsp {

// Offers differ in their instance.
OfferParams TestParams(uint8_t instance);

// Writes down what it is told and keeps its packets.
class LoggingDevice : public Device {
 public:
  explicit LoggingDevice(IncomingPolicy policy = IncomingPolicy::kResume)
      : policy(policy) {}

  absl::Status OnOpened(ServerChannel& opened,
                        absl::Span<const std::byte> user_data) override;
  void OnStarted() override;
  void OnSuspend() override { log.push_back("suspend"); }
  void OnClosed() override;
  void ProcessPacket(IncomingPacket packet) override;
  void OnCompletion(uint64_t tag, absl::Span<const std::byte> reply) override;
  IncomingPolicy incoming_policy() const override { return policy; }
  absl::StatusOr<std::string> SaveDevice() override { return state; }
  savestate::SizeAnswer SavePacket(const PacketInfo& packet,
                                   absl::Span<std::byte> out) override;
  absl::Status OnRestored(ServerChannel& restored,
                          absl::Span<const std::byte> saved) override;
  absl::Status RestorePacket(IncomingPacket packet,
                             absl::Span<const std::byte> blob) override;

  // Completes each held packet with its own bytes.
  void AnswerAll();
  std::vector<std::string> TakeLog() { return std::exchange(log, {}); }

  IncomingPolicy policy;
  std::string state = "state";
  size_t blob_bytes = 8;
  absl::Status open_status;
  absl::Status restore_status;
  bool holds_after_close = false;
  std::function<void()> on_opened;
  std::function<void()> on_started;
  std::function<void(IncomingPacket&)> on_packet;
  std::vector<std::string> log;
  std::deque<IncomingPacket> held;
  std::vector<std::pair<uint64_t, std::string>> completions;
  ServerChannel* channel = nullptr;
};

class TestGuest final : private ClientEvents {
 public:
  struct Channel {
    ChannelId id{};
    std::vector<uint64_t> pages;
    GpadlId gpadl{};
    uint32_t open_status = ~0u;
    bool is_torn_down = false;
    testing::EndpointEnd end;
  };

  explicit TestGuest(uint64_t ram_pages = 256,
                     const MonitorPages& monitor_pages = {});
  ~TestGuest() override;

  // Carries messages and signals both ways until neither side has more.
  void Pump(Bus& bus, int rounds = 100);
  // Contact and REQUESTOFFERS.
  void Connect(Bus& bus);
  // Makes a ring of fresh pages and opens channel `id`.
  Channel& Open(Bus& bus, uint32_t id, uint32_t data_pages = 1);
  // The same in steps.
  Channel& StartGpadl(uint32_t id, uint32_t data_pages = 1);
  void Close(Channel& channel);
  void TearDown(Channel& channel);

  // Sends `count` numbered requests.
  void Request(Channel& channel, uint64_t count);
  uint64_t answers(const Channel& channel) const {
    return channel.end.events.completions.size();
  }
  // Types of the host's messages since the last call.
  std::vector<uint32_t> TakeTypes() { return std::exchange(types, {}); }
  size_t CountOf(MessageType type) const;

  // A handle that ends unanswered would fault a channel whose rings are gone.
  void ForgetChannels() { channels.clear(); }

  std::unique_ptr<MemfdGuestMemory> memory;
  ClientConnection connection;
  testing::CountingDoorbell doorbell;  // rung by the host
  std::map<uint32_t, Channel> channels;
  std::vector<uint32_t> types;
  std::vector<ChannelId> rescinded;
  uint64_t next_page = 1;
  uint64_t next_request = 0;

 private:
  // ClientEvents.
  void OnVersion(const ClientVersion&) override {}
  void OnOffer(const ClientOffer&) override {}
  void OnAllOffersDelivered() override {}
  void OnRescind(ChannelId channel) override { rescinded.push_back(channel); }
  void OnOpenResult(ChannelId channel, uint32_t status) override;
  void OnGpadlCreated(ChannelId, GpadlId, uint32_t) override {}
  void OnGpadlTorndown(ChannelId channel, GpadlId gpadl) override;
  void OnModifyResponse(ChannelId, uint32_t) override {}
  void OnUnloaded() override {}
};

// The types of messages, as TestGuest::TakeTypes gives them.
constexpr uint32_t TypeNumber(MessageType type) {
  return static_cast<uint32_t>(type);
}

absl::Span<const std::byte> AsBytes(const std::string& saved);

// A packet of a device's own; with a tag, it asks for a completion.  `payload`
// is borrowed.
OutgoingPacket Packet(const std::string& payload, uint64_t tag = 0);

}  // namespace ferrybus::vsp

#endif  // FERRYBUS_VSP_BUS_TEST_UTIL_H_
