// SPDX-License-Identifier: MIT

#include "ferrybus/tools/state/describe.h"

#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/channel/guid.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/channel/protocol_version.h"
#include "ferrybus/ringbuffer/packet_ranges.h"

namespace ferrybus::state_tool {
namespace {

namespace proto = ::ferrybus::savestate::v1;

struct Name {
  uint64_t number;
  const char* text;
};

// A number of the file as a word, or as itself.
template <size_t n>
std::string NameOf(const Name (&names)[n], uint64_t number) {
  for (const Name& name : names) {
    if (name.number == number) return name.text;
  }
  return absl::StrCat("unknown (", number, ")");
}

constexpr Name kPhases[] = {
    {proto::ConnectionState::PHASE_DISCONNECTED, "disconnected"},
    {proto::ConnectionState::PHASE_CONNECTED, "connected"},
    {proto::ConnectionState::PHASE_RESETTING, "resetting"},
};
constexpr Name kAfterResets[] = {
    {proto::ConnectionState::AFTER_RESET_NOTHING, "nothing"},
    {proto::ConnectionState::AFTER_RESET_UNLOAD_RESPONSE, "unload response"},
    {proto::ConnectionState::AFTER_RESET_VERSION_RESPONSE, "version response"},
};
constexpr Name kOfferStates[] = {
    {proto::OfferState::STATE_CLOSED, "closed"},
    {proto::OfferState::STATE_OPENING, "opening"},
    {proto::OfferState::STATE_OPENING_THEN_CLOSE, "opening, then closing"},
    {proto::OfferState::STATE_OPEN, "open"},
    {proto::OfferState::STATE_CLOSING, "closing"},
    {proto::OfferState::STATE_CLOSING_THEN_OPEN, "closing, then opening"},
    {proto::OfferState::STATE_RESCINDED, "rescinded"},
};
constexpr Name kGpadlStates[] = {
    {proto::GpadlState::STATE_IN_PROGRESS, "in progress"},
    {proto::GpadlState::STATE_CREATED, "created"},
    {proto::GpadlState::STATE_TEARING_DOWN, "tearing down"},
};
constexpr Name kPacketTypes[] = {
    {static_cast<uint64_t>(ringbuffer::PacketType::kDataInBand), "in band"},
    {static_cast<uint64_t>(ringbuffer::PacketType::kDataUsingTransferPages),
     "transfer pages"},
    {static_cast<uint64_t>(ringbuffer::PacketType::kDataUsingGpaDirect),
     "GPA direct"},
    {static_cast<uint64_t>(ringbuffer::PacketType::kCompletion), "completion"},
};
// Those that a host sends.
constexpr Name kMessages[] = {
    {static_cast<uint64_t>(MessageType::kOfferChannel), "OFFERCHANNEL"},
    {static_cast<uint64_t>(MessageType::kRescindChannelOffer),
     "RESCIND_CHANNELOFFER"},
    {static_cast<uint64_t>(MessageType::kAllOffersDelivered),
     "ALLOFFERS_DELIVERED"},
    {static_cast<uint64_t>(MessageType::kOpenChannelResult),
     "OPENCHANNEL_RESULT"},
    {static_cast<uint64_t>(MessageType::kGpadlCreated), "GPADL_CREATED"},
    {static_cast<uint64_t>(MessageType::kGpadlTorndown), "GPADL_TORNDOWN"},
    {static_cast<uint64_t>(MessageType::kVersionResponse), "VERSION_RESPONSE"},
    {static_cast<uint64_t>(MessageType::kUnloadResponse), "UNLOAD_RESPONSE"},
    {static_cast<uint64_t>(MessageType::kCloseReservedResponse),
     "CLOSE_RESERVED_RESPONSE"},
    {static_cast<uint64_t>(MessageType::kTlConnectResult), "TL_CONNECT_RESULT"},
    {static_cast<uint64_t>(MessageType::kModifyChannelResponse),
     "MODIFYCHANNEL_RESPONSE"},
    {static_cast<uint64_t>(MessageType::kModifyConnectionResponse),
     "MODIFY_CONNECTION_RESPONSE"},
    {static_cast<uint64_t>(MessageType::kPauseResponse), "PAUSE_RESPONSE"},
};
constexpr Name kFeatures[] = {
    {kFeatureGuestSignalParameters, "guest signal parameters"},
    {kFeatureInterruptRedirection, "interrupt redirection"},
    {kFeatureModifyConnection, "modify connection"},
    {kFeatureClientId, "client id"},
    {kFeatureConfidentialChannels, "confidential channels"},
    {kFeaturePauseResume, "pause and resume"},
    {kFeatureServerMonitorPages, "server monitor pages"},
    {kFeatureGpaPinning, "GPA pinning"},
};

Json FeatureNames(uint32_t features) {
  Json names = Json::array();
  for (const Name& feature : kFeatures) {
    if ((features & feature.number) != 0) names.push_back(feature.text);
  }
  return names;
}

// Bytes that are somebody's content: counted; shown only for comparing.
Json Content(const std::string& bytes, const ModelOptions& options) {
  Json content = {{"bytes", bytes.size()}};
  if (options.has_contents) content["hex"] = HexBytes(bytes, bytes.size());
  return content;
}

Json Describe(const proto::ContactState& contact) {
  return {
      {"version", ProtocolVersionToString(ProtocolVersion{contact.version()})},
      {"supported", contact.supported()},
      {"connection_state", contact.connection_state()},
      {"features", Hex(contact.features())},
      {"feature_names", FeatureNames(contact.features())},
      {"target_message_vp", contact.target_message_vp()},
      {"monitor_pages",
       {Hex(contact.parent_to_child_monitor_page()),
        Hex(contact.child_to_parent_monitor_page())}},
      {"client_id", GuidText(contact.client_id())}};
}

Json Describe(const proto::OpenRequestState& open,
              const ModelOptions& options) {
  return {{"open_id", open.open_id()},
          {"ring_gpadl", Hex(open.ring_gpadl())},
          {"downstream_page_offset", open.downstream_page_offset()},
          {"target_vp", open.target_vp()},
          {"connection_id", open.connection_id()},
          {"event_flag", open.event_flag()},
          {"flags", Hex(open.flags())},
          {"user_data", Content(open.user_data(), options)}};
}

Json Describe(const proto::MessageTargetState& target) {
  return {{"vp", target.vp()}, {"sint", target.sint()}};
}

Json Describe(const proto::OfferState& offer, const ModelOptions& options) {
  Json described = {
      {"offer", offer.id()},
      {"channel", offer.channel_id()},
      {"state", NameOf(kOfferStates, static_cast<uint64_t>(offer.state()))},
      {"device", DeviceName(offer)},
      {"interface_type", GuidText(offer.interface_type())},
      {"interface_instance", GuidText(offer.interface_instance())},
      {"sub_channel_index", offer.sub_channel_index()},
      {"offered", offer.is_offered()},
      {"rescinding", offer.is_rescinding()},
      {"flags", Hex(offer.flags())},
      {"mmio_megabytes", offer.mmio_megabytes()},
      {"mmio_megabytes_optional", offer.mmio_megabytes_optional()},
      {"monitor_id", offer.monitor_id()},
      {"user_data", Content(offer.user_data(), options)}};
  if (offer.has_open()) described["open"] = Describe(offer.open(), options);
  if (offer.has_reopen()) {
    described["reopen"] = Describe(offer.reopen(), options);
  }
  if (offer.has_reserved()) {
    described["reserved"]["target"] = Describe(offer.reserved().target());
    if (offer.reserved().has_close_target()) {
      described["reserved"]["close_target"] =
          Describe(offer.reserved().close_target());
    }
  }
  return described;
}

Json Describe(const proto::GpadlState& gpadl, const ModelOptions& options) {
  Json described = {
      {"gpadl", Hex(gpadl.id())},
      {"channel", gpadl.channel_id()},
      {"state", NameOf(kGpadlStates, static_cast<uint64_t>(gpadl.state()))},
      {"byte_count", gpadl.byte_count()},
      {"byte_offset", gpadl.byte_offset()},
      {"pages", gpadl.pages().size() / sizeof(uint64_t)}};
  if (options.has_contents) {
    described["page_list"] = Content(gpadl.pages(), options);
  }
  return described;
}

Json Describe(const proto::OutgoingMessageState& message) {
  Json described = {{"message", NameOf(kMessages, message.type())},
                    {"channel", message.channel_id()},
                    {"id", Hex(message.id())},
                    {"status", Hex(message.status())}};
  if (message.has_target()) described["target"] = Describe(message.target());
  if (!message.endpoint_id().empty() || !message.service_id().empty()) {
    described["endpoint"] = GuidText(message.endpoint_id());
    described["service"] = GuidText(message.service_id());
  }
  return described;
}

Json Describe(const proto::TlConnectState& request) {
  return {{"endpoint", GuidText(request.endpoint_id())},
          {"service", GuidText(request.service_id())},
          {"silo", GuidText(request.silo_id())}};
}

// -- Channels ----------------------------------------------------------------

Json Describe(const proto::RingState& ring) {
  return {{"data_bytes", ring.data_bytes()},
          {"own_index", ring.own_index()},
          {"peer_index", ring.peer_index()}};
}

// Of guest memory that a GPA-direct packet names.
uint64_t ExternalBytes(uint32_t type, const std::string& extension) {
  const auto packet_type = static_cast<ringbuffer::PacketType>(type);
  const absl::Span<const std::byte> bytes(
      reinterpret_cast<const std::byte*>(extension.data()), extension.size());
  uint64_t total = 0;
  if (packet_type != ringbuffer::PacketType::kDataUsingGpaDirect ||
      ringbuffer::CheckRangeList(packet_type, bytes) !=
          ringbuffer::RangeResult::kOk) {
    return 0;
  }
  (void)ringbuffer::ForEachGpaRange(
      bytes, [&total](const ringbuffer::GpaRange& range) {
        total += range.byte_count;
        return true;
      });
  return total;
}

// What packets of every list have.
template <typename Packet>
Json DescribePacket(const Packet& packet, const ModelOptions& options) {
  return {{"transaction_id", packet.transaction_id()},
          {"type", NameOf(kPacketTypes, packet.type())},
          {"payload", Content(packet.payload(), options)},
          {"extension", Content(packet.extension(), options)},
          {"external_bytes", ExternalBytes(packet.type(), packet.extension())}};
}

Json Describe(const proto::IncomingPacketState& packet, DeviceKind kind,
              const ModelOptions& options) {
  Json described = DescribePacket(packet, options);
  described["completion_requested"] = packet.completion_requested();
  described["waiting"] = packet.is_waiting();
  described["device"] = DescribePacketBlob(kind, packet.device_blob(), options);
  return described;
}

Json Describe(const proto::QueuedPacketState& packet,
              const ModelOptions& options) {
  Json described = DescribePacket(packet, options);
  described["flags"] = Hex(packet.flags());
  described["wants_sent"] = packet.wants_sent();
  described["tag"] = packet.tag();
  return described;
}

Json Describe(const proto::AwaitingPacketState& packet,
              const ModelOptions& options) {
  return {{"transaction_id", packet.transaction_id()},
          {"tag", packet.tag()},
          {"cancelled", packet.is_cancelled()},
          {"device", DescribePacketBlob(DeviceKind::kUnknown,
                                        packet.device_blob(), options)}};
}

}  // namespace

std::string Escaped(std::string_view text) {
  std::string escaped;
  for (char c : text) {
    if (c >= 0x20 && c <= 0x7e && c != '\\') {
      escaped.push_back(c);
    } else {
      absl::StrAppend(&escaped, "\\x",
                      absl::Hex(static_cast<uint8_t>(c), absl::kZeroPad2));
    }
  }
  return escaped;
}

std::string Escaped(const absl::Status& status) {
  const absl::string_view message = status.message();
  return Escaped(std::string_view(message.data(), message.size()));
}

std::string Hex(uint64_t number) {
  return absl::StrCat("0x", absl::Hex(number));
}

std::string HexBytes(std::string_view bytes, size_t max) {
  const size_t shown = std::min(bytes.size(), max);
  return absl::StrCat(
      absl::BytesToHexString(absl::string_view(bytes.data(), shown)),
      shown < bytes.size() ? "..." : "");
}

std::string GuidText(const std::string& bytes) {
  Guid guid;
  if (bytes.size() != guid.bytes.size()) {
    return absl::StrCat("no GUID, ", bytes.size(),
                        " bytes: ", HexBytes(bytes, 16));
  }
  std::memcpy(guid.bytes.data(), bytes.data(), bytes.size());
  return guid.ToString();
}

Json DescribeConnection(const proto::ConnectionState& connection,
                        Budget& budget) {
  const ModelOptions& options = budget.options();
  const auto describe = [](const auto& each) { return Describe(each); };
  const auto describe_with = [&options](const auto& each) {
    return Describe(each, options);
  };
  Json described = {
      {"phase", NameOf(kPhases, static_cast<uint64_t>(connection.phase()))},
      {"contact", Describe(connection.contact())},
      {"after_reset",
       NameOf(kAfterResets, static_cast<uint64_t>(connection.after_reset()))},
      {"reset_while_disconnected", connection.reset_while_disconnected()},
      {"paused", connection.paused()},
      {"offers_requested", connection.offers_requested()},
      {"next_offer_id", connection.next_offer_id()},
      {"pending_contact", Describe(connection.pending_contact())}};
  if (connection.has_pending_modify()) {
    described["pending_modify"] = {
        Hex(connection.pending_modify().parent_to_child()),
        Hex(connection.pending_modify().child_to_parent())};
  }
  described["offers"] = budget.Listed(connection.offers(), describe_with);
  described["gpadls"] = budget.Listed(connection.gpadls(), describe_with);
  described["outgoing"] = budget.Listed(connection.outgoing(), describe);
  described["tl_connects"] = budget.Listed(connection.tl_connects(), describe);
  return described;
}

Json DescribeChannel(uint64_t channel_id, const proto::ChannelState& channel,
                     const proto::OfferState* offer, Budget& budget) {
  const ModelOptions& options = budget.options();
  const DeviceKind kind =
      offer == nullptr ? DeviceKind::kUnknown : KindOf(*offer);
  const proto::EndpointState& endpoint = channel.endpoint();
  Json described = {{"channel", channel_id}};
  if (offer != nullptr) {
    described["device"] = DeviceName(*offer);
    described["interface_type"] = GuidText(offer->interface_type());
    described["interface_instance"] = GuidText(offer->interface_instance());
    described["sub_channel_index"] = offer->sub_channel_index();
  }
  described["fault"] = Escaped(endpoint.fault_reason().substr(0, 512));
  described["incoming_ring"] = Describe(endpoint.incoming_ring());
  described["outgoing_ring"] = Describe(endpoint.outgoing_ring());
  described["incoming"] = budget.Listed(
      endpoint.incoming(), [&](const proto::IncomingPacketState& packet) {
        return Describe(packet, kind, options);
      });
  const auto describe = [&options](const auto& each) {
    return Describe(each, options);
  };
  described["queued"] = budget.Listed(endpoint.queued(), describe);
  described["awaiting"] = budget.Listed(endpoint.awaiting(), describe);
  described["device_state"] =
      DescribeDeviceState(kind, channel.device_state(), options);
  return described;
}

}  // namespace ferrybus::state_tool
