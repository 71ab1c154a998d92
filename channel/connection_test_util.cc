// SPDX-License-Identifier: MIT
#include "ferrybus/channel/connection_test_util.h"

#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace ferrybus {

Bytes FromHex(std::string_view hex) {
  Bytes bytes;
  for (absl::string_view word : absl::StrSplit(
           absl::string_view(hex.data(), hex.size()), ' ', absl::SkipEmpty())) {
    size_t zeros = 0;
    if (word[0] == '+' && absl::SimpleAtoi(word.substr(1), &zeros)) {
      bytes.resize(bytes.size() + zeros);
      continue;
    }
    for (char c : absl::HexStringToBytes(word)) {
      bytes.push_back(static_cast<std::byte>(c));
    }
  }
  return bytes;
}

std::string ToHex(absl::Span<const std::byte> bytes) {
  return absl::BytesToHexString(absl::string_view(
      reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

uint32_t TypeOf(absl::Span<const std::byte> bytes) {
  uint32_t type = 0;
  if (bytes.size() >= sizeof(type)) {
    std::memcpy(&type, bytes.data(), sizeof(type));
  }
  return type;
}

Bytes ContactMessage(ProtocolVersion version, uint32_t target_message_vp,
                     uint32_t features) {
  InitiateContactMessage message;
  message.version = static_cast<uint32_t>(version);
  message.target_message_vp = target_message_vp;
  message.target_sint = kVmbusSint;
  message.feature_flags = features;
  return ToBytes(EncodeInitiateContact(message));
}

Bytes RequestOffers() { return ToBytes(EncodeMessage(RequestOffersMessage{})); }

Bytes UnloadBytes() { return ToBytes(EncodeMessage(UnloadMessage{})); }

Bytes OpenMessage(uint32_t channel, uint32_t gpadl,
                  uint32_t downstream_page_offset, uint32_t open_id,
                  uint32_t target_vp) {
  const OpenChannelMessage message{
      .channel_id = ChannelId{channel},
      .open_id = open_id,
      .ring_gpadl = GpadlId{gpadl},
      .target_vp = target_vp,
      .downstream_page_offset = downstream_page_offset};
  return ToBytes(EncodeOpenChannel(message, 0));
}

Bytes CloseMessage(uint32_t channel) {
  return ToBytes(
      EncodeMessage(CloseChannelMessage{.channel_id = ChannelId{channel}}));
}

Bytes ModifyMessage(uint32_t channel, uint32_t target_vp) {
  return ToBytes(EncodeMessage(ModifyChannelMessage{
      .channel_id = ChannelId{channel}, .target_vp = target_vp}));
}

Bytes ReleaseMessage(uint32_t channel) {
  return ToBytes(
      EncodeMessage(RelidReleasedMessage{.channel_id = ChannelId{channel}}));
}

Bytes TeardownMessage(uint32_t channel, uint32_t gpadl) {
  return ToBytes(EncodeMessage(GpadlTeardownMessage{
      .channel_id = ChannelId{channel}, .gpadl_id = GpadlId{gpadl}}));
}

Bytes OpenReservedMessage(uint32_t channel, uint32_t gpadl, uint32_t target_vp,
                          uint32_t target_sint) {
  return ToBytes(
      EncodeMessage(OpenReservedChannelMessage{.channel_id = ChannelId{channel},
                                               .target_vp = target_vp,
                                               .target_sint = target_sint,
                                               .ring_gpadl = GpadlId{gpadl},
                                               .downstream_page_offset = 2}));
}

Bytes CloseReservedMessage(uint32_t channel, uint32_t target_vp,
                           uint32_t target_sint) {
  return ToBytes(EncodeMessage(
      CloseReservedChannelMessage{.channel_id = ChannelId{channel},
                                  .target_vp = target_vp,
                                  .target_sint = target_sint}));
}

Bytes TlConnectMessage(const Guid& endpoint_id, const Guid& service_id) {
  // The longer form does at every version.
  return ToBytes(EncodeTlConnectRequest(
      {.endpoint_id = endpoint_id, .service_id = service_id, .silo_id = {}},
      ProtocolVersion::kIron));
}

Bytes ModifyConnectionBytes(uint64_t parent_to_child,
                            uint64_t child_to_parent) {
  return ToBytes(EncodeMessage(ModifyConnectionMessage{
      .parent_to_child_monitor_page = parent_to_child,
      .child_to_parent_monitor_page = child_to_parent}));
}

Bytes PauseBytes() { return ToBytes(EncodeMessage(PauseMessage{})); }

Bytes ResumeBytes() { return ToBytes(EncodeMessage(ResumeMessage{})); }

Guid TestEndpoint(uint8_t number) {
  Guid endpoint = GuidLiteral("11111111-2222-3333-4444-555555555555");
  endpoint.bytes[15] = number;
  return endpoint;
}

Guid TestService() {
  return GuidLiteral("00000400-facb-11e6-bd58-64006a7986d3");
}

OfferParams TestSocketOffer(uint8_t number) {
  OfferParams params;
  params.interface_type = TestService();
  params.interface_instance = TestEndpoint(number);
  params.flags = kOfferTlnpiProvider | kOfferNamedPipeMode |
                 kOfferEnumerateDeviceInterface;
  return params;
}

std::vector<Bytes> GpadlMessages(uint32_t channel, uint32_t gpadl,
                                 size_t page_count, uint64_t first_page) {
  std::vector<uint64_t> words = {page_count * kGpadlPageSizeBytes};
  for (size_t i = 0; i < page_count; ++i) words.push_back(first_page + i);
  auto rest = absl::MakeConstSpan(
      reinterpret_cast<const std::byte*>(words.data()), words.size() * 8);
  const GpadlHeaderMessage header{
      .channel_id = ChannelId{channel},
      .gpadl_id = GpadlId{gpadl},
      .range_buffer_size_bytes = static_cast<uint16_t>(rest.size()),
      .range_count = 1};
  std::vector<Bytes> messages;
  auto part = rest.subspan(0, 8 + 8 * kGpadlHeaderPagesMax);
  messages.push_back(ToBytes(EncodeGpadlHeader(header, part)));
  for (rest.remove_prefix(part.size()); !rest.empty();
       rest.remove_prefix(part.size())) {
    part = rest.subspan(0, 8 * kGpadlBodyPagesMax);
    messages.push_back(
        ToBytes(EncodeGpadlBody({.gpadl_id = GpadlId{gpadl}}, part)));
  }
  return messages;
}

Bytes GpadlMessage(uint32_t channel, uint32_t gpadl, size_t page_count,
                   uint64_t first_page) {
  return GpadlMessages(channel, gpadl, page_count, first_page).front();
}

ServerConnectionOptions TestServerOptions() {
  ServerConnectionOptions options;
  options.max_vp = kTestMaxVp;
  options.ram_page_count = kTestRamPages;
  return options;
}

OfferParams TestOffer(uint8_t instance, uint16_t sub_channel_index) {
  OfferParams params;
  params.interface_type = GuidLiteral("ba6163d9-04a1-4d29-b605-72e2ffb1dc7f");
  params.interface_instance =
      GuidLiteral("f8b3781a-1e82-4818-a1c3-63d806ec15bb");
  params.interface_instance.bytes[15] = instance;
  params.sub_channel_index = sub_channel_index;
  params.flags = kOfferEnumerateDeviceInterface;
  return params;
}

void RecordingEvents::OnConnected(const Contact& contact) {
  told_.push_back(
      absl::StrCat("connected ", ProtocolVersionToString(contact.version)));
}

void RecordingEvents::OnDisconnected() { told_.push_back("disconnected"); }

void RecordingEvents::OnOpenRequested(OfferId offer, const OpenRequest&,
                                      const GpadlView&) {
  told_.push_back(absl::StrCat("open ", static_cast<uint32_t>(offer)));
  if (answer_opens != nullptr) {
    answer_opens->OpenCompleted(offer, kStatusSuccess).IgnoreError();
  }
}

void RecordingEvents::OnCloseRequested(OfferId offer) {
  told_.push_back(absl::StrCat("close ", static_cast<uint32_t>(offer)));
  if (answer_closes != nullptr) {
    answer_closes->CloseCompleted(offer).IgnoreError();
  }
}

bool RecordingEvents::OnModifyRequested(OfferId offer, uint32_t target_vp) {
  told_.push_back(
      absl::StrCat("modify ", static_cast<uint32_t>(offer), " ", target_vp));
  return true;
}

void RecordingEvents::OnGpadlTeardownRequested(OfferId offer, GpadlId gpadl) {
  told_.push_back(absl::StrCat("teardown ", static_cast<uint32_t>(offer), " ",
                               absl::Hex(static_cast<uint32_t>(gpadl))));
}

ModifyConnectionAnswer RecordingEvents::OnModifyConnectionRequested(
    const MonitorPages& pages) {
  told_.push_back(absl::StrCat("monitor ", absl::Hex(pages.parent_to_child),
                               " ", absl::Hex(pages.child_to_parent)));
  return modify_answer;
}

bool RecordingEvents::OnTlConnectRequested(const TlConnectRequest& request) {
  told_.push_back(absl::StrCat("connect ", request.endpoint_id.bytes[15]));
  return takes_connects;
}

void RecordingEvents::OnPaused() { told_.push_back("paused"); }

void RecordingEvents::OnResumed() { told_.push_back("resumed"); }

std::vector<std::string> RecordingEvents::Take() {
  return std::exchange(told_, {});
}

std::vector<Bytes> Drain(ServerConnection& connection) {
  std::vector<Bytes> messages;
  while (connection.has_outgoing()) {
    const absl::Span<const std::byte> front = connection.outgoing_front();
    messages.emplace_back(front.begin(), front.end());
    connection.PopOutgoing();
  }
  return messages;
}

std::vector<Bytes> TestHost::Drain() { return ferrybus::Drain(connection); }

std::vector<uint32_t> TestHost::DrainTypes() {
  std::vector<uint32_t> types;
  for (const Bytes& message : Drain()) types.push_back(TypeOf(message));
  return types;
}

void TestHost::ConnectGuest(ProtocolVersion version, uint32_t features) {
  Handle(ContactMessage(version, 0, features)).IgnoreError();
  Handle(RequestOffers()).IgnoreError();
  Drain();
  events.Take();
}

void TestHost::OpenChannel(OfferId offer, uint32_t channel, uint32_t gpadl) {
  Handle(GpadlMessage(channel, gpadl)).IgnoreError();
  Handle(OpenMessage(channel, gpadl)).IgnoreError();
  connection.OpenCompleted(offer, kStatusSuccess).IgnoreError();
  Drain();
  events.Take();
}

}  // namespace ferrybus
