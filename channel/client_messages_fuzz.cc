// SPDX-License-Identifier: MIT
//
// A hostile host against ClientConnection.  The input is a list of steps: raw
// messages of the host, messages with few free fields, and calls of the owner.
//
// Checked: queues and tables are within their bounds, the owner is told only
// of what it has asked for, and all that goes to the host is well-formed.

#include <cstddef>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "ferrybus/channel/check.h"
#include "ferrybus/channel/client_connection.h"
#include "ferrybus/channel/connection_test_util.h"
#include "ferrybus/channel/message_codec.h"

namespace ferrybus {
namespace {

constexpr ClientLimits kLimits = {.channels_max = 5,
                                  .gpadls_max = 6,
                                  .tl_connects_max = 3,
                                  .outgoing_messages_max = 16};

constexpr uint32_t kAskedFeatures =
    kFeatureClientId | kFeatureModifyConnection | kFeaturePauseResume;

class Owner : public ClientEvents {
 public:
  void OnVersion(const ClientVersion& version) override {
    FERRYBUS_CHECK((version.features & ~kAskedFeatures) == 0,
                   "features that were not asked for");
  }
  void OnOffer(const ClientOffer& offer) override {
    FERRYBUS_CHECK(offers.insert(offer.channel_id).second, "offered twice");
    FERRYBUS_CHECK(offers.size() <= kLimits.channels_max, "too many offers");
  }
  void OnAllOffersDelivered() override {}
  void OnRescind(ChannelId channel) override {
    FERRYBUS_CHECK(offers.contains(channel), "rescinded but not offered");
  }
  void OnOpenResult(ChannelId channel, uint32_t) override {
    FERRYBUS_CHECK(offers.contains(channel), "opened but not offered");
  }
  void OnGpadlCreated(ChannelId, GpadlId gpadl, uint32_t status) override {
    FERRYBUS_CHECK(creating.erase(gpadl) == 1, "created without being asked");
    if (status == kStatusSuccess) created.insert(gpadl);
  }
  void OnGpadlTorndown(ChannelId, GpadlId gpadl) override {
    FERRYBUS_CHECK(tearing_down.erase(gpadl) == 1, "torn down but not asked");
  }
  void OnModifyResponse(ChannelId channel, uint32_t) override {
    FERRYBUS_CHECK(offers.contains(channel), "modified but not offered");
  }
  void OnUnloaded() override { Forget(); }
  void OnReservedClosed(ChannelId channel) override {
    FERRYBUS_CHECK(closing_reserved.erase(channel) == 1,
                   "reserved channel closed without being asked");
  }
  void OnTlConnectResult(const Guid& endpoint_id, const Guid&,
                         uint32_t) override {
    FERRYBUS_CHECK(connects.erase(endpoint_id) == 1,
                   "connected without being asked");
  }
  void OnModifyConnectionResponse(uint8_t) override {
    FERRYBUS_CHECK(std::exchange(is_modifying, false),
                   "modified without being asked");
  }
  void OnPaused() override {
    FERRYBUS_CHECK(std::exchange(is_pausing, false),
                   "paused without being asked");
  }

  void Forget() {
    offers.clear();
    creating.clear();
    created.clear();
    tearing_down.clear();
    closing_reserved.clear();
    connects.clear();
    is_modifying = false;
    is_pausing = false;
  }

  std::set<ChannelId> offers;
  std::set<ChannelId> closing_reserved;
  std::set<Guid> connects;
  bool is_modifying = false;
  bool is_pausing = false;
  std::set<GpadlId> creating;
  std::set<GpadlId> created;
  std::set<GpadlId> tearing_down;
};

ClientConnectionOptions Options() {
  ClientConnectionOptions options;
  options.limits = kLimits;
  options.versions = {ProtocolVersion::kCopper, ProtocolVersion::kIron,
                      ProtocolVersion::kWin7};
  options.client_id = Guid{};
  options.features = kAskedFeatures;
  return options;
}

class Run {
 public:
  Run(const uint8_t* data, size_t size_bytes)
      : rest_(reinterpret_cast<const std::byte*>(data), size_bytes) {}

  void Steps() {
    while (!rest_.empty()) {
      Step();
      FERRYBUS_CHECK(owner_.creating.size() + owner_.created.size() +
                             owner_.tearing_down.size() <=
                         kLimits.gpadls_max,
                     "too many GPADLs");
    }
    TakeOutgoing();
  }

 private:
  uint8_t Byte() {
    if (rest_.empty()) return 0;
    const auto byte = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return byte;
  }

  void Step() {
    const uint8_t op = Byte();
    const ChannelId channel{static_cast<uint32_t>(op >> 5)};
    switch (op & 31) {
      case 0: {
        const size_t size_bytes = Byte();
        const auto message = rest_.subspan(0, size_bytes);
        rest_.remove_prefix(message.size());
        return Handle(message);
      }
      case 1:
        owner_.Forget();
        return client_.Connect().IgnoreError();
      case 2:
        return client_.RequestOffers().IgnoreError();
      case 3:
        return CreateGpadl(channel, 1 + Byte() % 60);
      case 4:
        return Teardown(GpadlId{0xe1e10u + Byte() % 16});
      case 5:
        return client_
            .Open(channel, {.ring_gpadl = GpadlId{0xe1e10u + Byte() % 16}})
            .IgnoreError();
      case 6:
        return client_.Close(channel).IgnoreError();
      case 7:
        return client_.ModifyChannel(channel, Byte()).IgnoreError();
      case 8:
        if (client_.ReleaseRelid(channel).ok()) owner_.offers.erase(channel);
        return;
      case 9:
        return client_.Unload().IgnoreError();
      case 10:
        return TakeOutgoing();
      default:
        return HandleLikely(op & 31, channel);
    }
  }

  // Mostly what a real host could send.
  void HandleLikely(int kind, ChannelId channel) {
    const uint8_t value = Byte();
    const GpadlId gpadl{0xe1e10u + value % 16};
    const uint32_t status = value >= 128 ? kStatusUnsuccessful : 0;
    switch (kind) {
      case 11:
        return HandleEncoded(EncodeVersionResponse(
            {.version_supported = static_cast<uint8_t>(value & 1),
             .version_or_connection_id = 1,
             .supported_features = value & 0x3cu},
            client_.version()));
      case 12: {
        OfferChannelMessage offer;
        offer.channel_id = channel;
        return HandleEncoded(EncodeOfferChannel(offer, client_.version()));
      }
      case 13:
        return HandleEncoded(
            EncodeMessage(RescindChannelOfferMessage{.channel_id = channel}));
      case 14:
        return HandleEncoded(EncodeMessage(
            OpenChannelResultMessage{.channel_id = channel,
                                     .open_id = static_cast<uint32_t>(channel),
                                     .status = status}));
      case 15:
        return HandleEncoded(EncodeMessage(GpadlCreatedMessage{
            .channel_id = channel, .gpadl_id = gpadl, .status = status}));
      case 16:
        return HandleEncoded(
            EncodeMessage(GpadlTorndownMessage{.gpadl_id = gpadl}));
      case 17:
        return HandleEncoded(EncodeMessage(UnloadResponseMessage{}));
      case 18:
        return HandleEncoded(EncodeMessage(ModifyChannelResponseMessage{
            .channel_id = channel, .status = status}));
      case 19:
        return HandleEncoded(
            EncodeMessage(CloseReservedResponseMessage{.channel_id = channel}));
      case 20:
        return HandleEncoded(EncodeMessage(
            TlConnectResultMessage{.endpoint_id = TestEndpoint(value & 3),
                                   .service_id = TestService(),
                                   .status = status}));
      case 21:
        return HandleEncoded(
            EncodeModifyConnectionResponse({.connection_state = value}));
      case 22:
        return HandleEncoded(EncodeMessage(PauseResponseMessage{}));
      case 23: {
        OfferChannelMessage offer;
        offer.channel_id = channel;
        offer.interface_type = TestService();
        offer.interface_instance = TestEndpoint(value & 3);
        offer.flags = kOfferTlnpiProvider;
        return HandleEncoded(EncodeOfferChannel(offer, client_.version()));
      }
      case 24:
        return Ask(value, channel);
      default:
        return HandleEncoded(EncodeMessage(AllOffersDeliveredMessage{}));
    }
  }

  // The owner's rarer wishes.
  void Ask(uint8_t value, ChannelId channel) {
    const Guid endpoint = TestEndpoint(value & 3);
    switch (value >> 2 & 7) {
      case 0:
        return client_
            .OpenReserved(channel,
                          {.ring_gpadl = GpadlId{0xe1e10u + (value & 3)},
                           .downstream_page_offset = 2,
                           .target = {}})
            .IgnoreError();
      case 1:
        if (client_.CloseReserved(channel, {}).ok()) {
          owner_.closing_reserved.insert(channel);
        }
        return;
      case 2:
        if (client_.TlConnect(endpoint, TestService()).ok()) {
          owner_.connects.insert(endpoint);
        }
        return;
      case 3:
        if (client_.AbandonTlConnect(endpoint, TestService()).ok()) {
          owner_.connects.erase(endpoint);
        }
        return;
      case 4:
        owner_.is_modifying =
            client_.ModifyConnection({}).ok() || owner_.is_modifying;
        return;
      case 5:
        owner_.is_pausing = client_.Pause().ok() || owner_.is_pausing;
        return;
      default:
        return client_.Resume().IgnoreError();
    }
  }

  void HandleEncoded(const EncodedMessage& message) { Handle(message.bytes()); }

  void Handle(absl::Span<const std::byte> message) {
    client_.HandleMessage(message).IgnoreError();
  }

  void CreateGpadl(ChannelId channel, uint32_t page_count) {
    const std::vector<uint64_t> pages(page_count, 5);
    const absl::StatusOr<GpadlId> gpadl =
        client_.CreateGpadl(channel, pages, page_count * 4096, 0);
    if (gpadl.ok()) owner_.creating.insert(*gpadl);
  }

  void Teardown(GpadlId gpadl) {
    if (!client_.TeardownGpadl(gpadl).ok()) return;
    FERRYBUS_CHECK(owner_.created.erase(gpadl) == 1, "torn down twice");
    owner_.tearing_down.insert(gpadl);
  }

  void TakeOutgoing() {
    size_t count = 0;
    for (; client_.has_outgoing(); client_.PopOutgoing()) {
      FERRYBUS_CHECK(DecodeGuestMessage(client_.outgoing_front(), {}).ok(),
                     "an outgoing message that a host would refuse");
      ++count;
    }
    FERRYBUS_CHECK(count <= kLimits.outgoing_messages_max,
                   "the outgoing queue is over its bound");
  }

  absl::Span<const std::byte> rest_;
  Owner owner_;
  ClientConnection client_{Options(), &owner_};
};

}  // namespace
}  // namespace ferrybus

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  ferrybus::Run(data, size_bytes).Steps();
  return 0;
}
