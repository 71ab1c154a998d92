// SPDX-License-Identifier: MIT
#include "ferrybus/channel/server_connection_persist.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ferrybus/savestate/connection.pb.h"
#include "ferrybus/savestate/proto_limits.h"

namespace ferrybus {
namespace {

namespace proto = ::ferrybus::savestate::v1;

template <typename Enum>
struct EnumPair {
  Enum live;
  int saved;
};

// The live enums may be renumbered, the saved ones never.
constexpr EnumPair<ConnectionPhase> kPhases[] = {
    {ConnectionPhase::kDisconnected,
     proto::ConnectionState::PHASE_DISCONNECTED},
    {ConnectionPhase::kConnected, proto::ConnectionState::PHASE_CONNECTED},
    {ConnectionPhase::kResetting, proto::ConnectionState::PHASE_RESETTING},
};
constexpr EnumPair<AfterReset> kAfterResets[] = {
    {AfterReset::kNothing, proto::ConnectionState::AFTER_RESET_NOTHING},
    {AfterReset::kUnloadResponse,
     proto::ConnectionState::AFTER_RESET_UNLOAD_RESPONSE},
    {AfterReset::kVersionResponse,
     proto::ConnectionState::AFTER_RESET_VERSION_RESPONSE},
};
constexpr EnumPair<ServerChannelState> kChannelStates[] = {
    {ServerChannelState::kClosed, proto::OfferState::STATE_CLOSED},
    {ServerChannelState::kOpening, proto::OfferState::STATE_OPENING},
    {ServerChannelState::kOpeningThenClose,
     proto::OfferState::STATE_OPENING_THEN_CLOSE},
    {ServerChannelState::kOpen, proto::OfferState::STATE_OPEN},
    {ServerChannelState::kClosing, proto::OfferState::STATE_CLOSING},
    {ServerChannelState::kClosingThenOpen,
     proto::OfferState::STATE_CLOSING_THEN_OPEN},
    {ServerChannelState::kRescinded, proto::OfferState::STATE_RESCINDED},
};
constexpr EnumPair<GpadlState> kGpadlStates[] = {
    {GpadlState::kInProgress, proto::GpadlState::STATE_IN_PROGRESS},
    {GpadlState::kCreated, proto::GpadlState::STATE_CREATED},
    {GpadlState::kTearingDown, proto::GpadlState::STATE_TEARING_DOWN},
};

template <typename SavedEnum, typename Enum, size_t n>
SavedEnum ToSaved(const EnumPair<Enum> (&pairs)[n], Enum live) {
  for (const EnumPair<Enum>& pair : pairs) {
    if (pair.live == live) return static_cast<SavedEnum>(pair.saved);
  }
  return SavedEnum{};
}

// --- Save -------------------------------------------------------------------

template <typename Bytes>
std::string ToString(const Bytes& bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

void Save(const Contact& contact, proto::ContactState* out) {
  out->set_version(static_cast<uint32_t>(contact.version));
  out->set_supported(contact.supported);
  out->set_connection_state(contact.connection_state);
  out->set_features(contact.features);
  out->set_target_message_vp(contact.target_message_vp);
  out->set_parent_to_child_monitor_page(contact.parent_to_child_monitor_page);
  out->set_child_to_parent_monitor_page(contact.child_to_parent_monitor_page);
  out->set_client_id(ToString(contact.client_id.bytes));
}

void Save(const OpenRequest& open, proto::OpenRequestState* out) {
  out->set_open_id(open.open_id);
  out->set_ring_gpadl(static_cast<uint32_t>(open.ring_gpadl));
  out->set_downstream_page_offset(open.downstream_page_offset);
  out->set_target_vp(open.target_vp);
  out->set_user_data(ToString(open.user_data));
  out->set_connection_id(open.connection_id);
  out->set_event_flag(open.event_flag);
  out->set_flags(open.flags);
}

void Save(const MessageTarget& target, proto::MessageTargetState* out) {
  out->set_vp(target.vp);
  out->set_sint(target.sint);
}

void Save(const ReservedChannel& reserved, proto::ReservedState* out) {
  Save(reserved.target, out->mutable_target());
  if (reserved.close_target.has_value()) {
    Save(*reserved.close_target, out->mutable_close_target());
  }
}

void Save(const TlConnectRequest& request, proto::TlConnectState* out) {
  out->set_endpoint_id(ToString(request.endpoint_id.bytes));
  out->set_service_id(ToString(request.service_id.bytes));
  out->set_silo_id(ToString(request.silo_id.bytes));
}

void Save(const SavedOffer& offer, proto::OfferState* out) {
  out->set_id(static_cast<uint32_t>(offer.id));
  out->set_channel_id(static_cast<uint32_t>(offer.channel_id));
  out->set_state(
      ToSaved<proto::OfferState::State>(kChannelStates, offer.state));
  out->set_is_offered(offer.is_offered);
  out->set_is_rescinding(offer.is_rescinding);
  if (offer.open.has_value()) Save(*offer.open, out->mutable_open());
  if (offer.reopen.has_value()) Save(*offer.reopen, out->mutable_reopen());
  if (offer.reserved.has_value()) {
    Save(*offer.reserved, out->mutable_reserved());
  }
  const OfferParams& params = offer.params;
  out->set_interface_type(ToString(params.interface_type.bytes));
  out->set_interface_instance(ToString(params.interface_instance.bytes));
  out->set_sub_channel_index(params.sub_channel_index);
  out->set_flags(params.flags);
  out->set_mmio_megabytes(params.mmio_megabytes);
  out->set_mmio_megabytes_optional(params.mmio_megabytes_optional);
  out->set_monitor_id(params.monitor_id);
  out->set_user_data(ToString(params.user_data));
}

void Save(const SavedGpadl& gpadl, proto::GpadlState* out) {
  out->set_id(static_cast<uint32_t>(gpadl.id));
  out->set_channel_id(static_cast<uint32_t>(gpadl.channel_id));
  out->set_state(ToSaved<proto::GpadlState::State>(kGpadlStates, gpadl.state));
  out->set_byte_count(gpadl.byte_count);
  out->set_byte_offset(gpadl.byte_offset);
  out->set_pages(gpadl.pages.data(), gpadl.pages.size() * sizeof(uint64_t));
}

void Save(const OutgoingMessage& message, proto::OutgoingMessageState* out) {
  out->set_type(static_cast<uint32_t>(message.type));
  out->set_channel_id(static_cast<uint32_t>(message.channel_id));
  out->set_id(message.id);
  out->set_status(message.status);
  if (message.target.has_value()) Save(*message.target, out->mutable_target());
  if (message.type == MessageType::kTlConnectResult) {
    out->set_endpoint_id(ToString(message.endpoint_id.bytes));
    out->set_service_id(ToString(message.service_id.bytes));
  }
}

// --- Parse ------------------------------------------------------------------

// Fills the plain state; keeps the first thing that does not fit its field.
class Parser {
 public:
  ServerConnectionState Parse(const proto::ConnectionState& in);
  const absl::Status& status() const { return status_; }

 private:
  Contact Parse(const proto::ContactState& in);
  OpenRequest Parse(const proto::OpenRequestState& in);
  SavedOffer Parse(const proto::OfferState& in);
  SavedGpadl Parse(const proto::GpadlState& in);
  OutgoingMessage Parse(const proto::OutgoingMessageState& in);
  MessageTarget Parse(const proto::MessageTargetState& in);
  TlConnectRequest Parse(const proto::TlConnectState& in);

  void Refuse(const char* field, uint64_t value) {
    status_.Update(absl::InvalidArgumentError(
        absl::StrCat("saved connection: ", field, " cannot be ", value)));
  }

  template <typename Enum, size_t n>
  Enum FromSaved(const char* field, const EnumPair<Enum> (&pairs)[n],
                 int saved) {
    for (const EnumPair<Enum>& pair : pairs) {
      if (pair.saved == saved) return pair.live;
    }
    Refuse(field, static_cast<uint32_t>(saved));
    return Enum{};
  }

  template <typename Small>
  Small Narrow(const char* field, uint32_t value) {
    if (value > std::numeric_limits<Small>::max()) Refuse(field, value);
    return static_cast<Small>(value);
  }

  template <typename Bytes>
  Bytes Fixed(const char* field, const std::string& value) {
    Bytes bytes{};
    if (value.size() != bytes.size()) {
      Refuse(absl::StrCat("size of ", field).c_str(), value.size());
      return bytes;
    }
    std::memcpy(bytes.data(), value.data(), bytes.size());
    return bytes;
  }

  Guid ParseGuidField(const char* field, const std::string& value) {
    return Guid{Fixed<decltype(Guid::bytes)>(field, value)};
  }

  absl::Status status_;
};

Contact Parser::Parse(const proto::ContactState& in) {
  Contact contact;
  contact.version = ProtocolVersion{in.version()};
  contact.supported = in.supported();
  contact.connection_state =
      Narrow<uint8_t>("connection_state", in.connection_state());
  contact.features = in.features();
  contact.target_message_vp = in.target_message_vp();
  contact.parent_to_child_monitor_page = in.parent_to_child_monitor_page();
  contact.child_to_parent_monitor_page = in.child_to_parent_monitor_page();
  contact.client_id = ParseGuidField("client_id", in.client_id());
  return contact;
}

OpenRequest Parser::Parse(const proto::OpenRequestState& in) {
  return {.open_id = in.open_id(),
          .ring_gpadl = GpadlId{in.ring_gpadl()},
          .downstream_page_offset = in.downstream_page_offset(),
          .target_vp = in.target_vp(),
          .user_data = Fixed<decltype(OpenRequest::user_data)>("user_data",
                                                               in.user_data()),
          .connection_id = in.connection_id(),
          .event_flag = Narrow<uint16_t>("event_flag", in.event_flag()),
          .flags = Narrow<uint16_t>("open flags", in.flags())};
}

MessageTarget Parser::Parse(const proto::MessageTargetState& in) {
  return {.vp = in.vp(), .sint = Narrow<uint8_t>("SINT", in.sint())};
}

TlConnectRequest Parser::Parse(const proto::TlConnectState& in) {
  return {.endpoint_id = ParseGuidField("endpoint_id", in.endpoint_id()),
          .service_id = ParseGuidField("service_id", in.service_id()),
          .silo_id = ParseGuidField("silo_id", in.silo_id())};
}

SavedOffer Parser::Parse(const proto::OfferState& in) {
  SavedOffer offer;
  offer.id = OfferId{in.id()};
  offer.channel_id = ChannelId{in.channel_id()};
  offer.state = FromSaved("offer state", kChannelStates, in.state());
  offer.is_offered = in.is_offered();
  offer.is_rescinding = in.is_rescinding();
  if (in.has_open()) offer.open = Parse(in.open());
  if (in.has_reopen()) offer.reopen = Parse(in.reopen());
  if (in.has_reserved()) {
    ReservedChannel& reserved = offer.reserved.emplace();
    reserved.target = Parse(in.reserved().target());
    if (in.reserved().has_close_target()) {
      reserved.close_target = Parse(in.reserved().close_target());
    }
  }
  OfferParams& params = offer.params;
  params.interface_type = ParseGuidField("interface_type", in.interface_type());
  params.interface_instance =
      ParseGuidField("interface_instance", in.interface_instance());
  params.sub_channel_index =
      Narrow<uint16_t>("sub_channel_index", in.sub_channel_index());
  params.flags = Narrow<uint16_t>("flags", in.flags());
  params.mmio_megabytes =
      Narrow<uint16_t>("mmio_megabytes", in.mmio_megabytes());
  params.mmio_megabytes_optional =
      Narrow<uint16_t>("mmio_megabytes_optional", in.mmio_megabytes_optional());
  params.monitor_id = Narrow<uint8_t>("monitor_id", in.monitor_id());
  params.user_data =
      Fixed<decltype(params.user_data)>("user_data", in.user_data());
  return offer;
}

SavedGpadl Parser::Parse(const proto::GpadlState& in) {
  SavedGpadl gpadl;
  gpadl.id = GpadlId{in.id()};
  gpadl.channel_id = ChannelId{in.channel_id()};
  gpadl.state = FromSaved("GPADL state", kGpadlStates, in.state());
  gpadl.byte_count = in.byte_count();
  gpadl.byte_offset = in.byte_offset();
  if (in.pages().size() % sizeof(uint64_t) != 0) {
    Refuse("size of pages", in.pages().size());
  }
  gpadl.pages.resize(in.pages().size() / sizeof(uint64_t));
  if (!gpadl.pages.empty()) {
    std::memcpy(gpadl.pages.data(), in.pages().data(),
                gpadl.pages.size() * sizeof(uint64_t));
  }
  return gpadl;
}

OutgoingMessage Parser::Parse(const proto::OutgoingMessageState& in) {
  OutgoingMessage message{.type = MessageType{in.type()},
                          .channel_id = ChannelId{in.channel_id()},
                          .id = in.id(),
                          .status = in.status()};
  if (in.has_target()) message.target = Parse(in.target());
  if (message.type == MessageType::kTlConnectResult) {
    message.endpoint_id = ParseGuidField("endpoint_id", in.endpoint_id());
    message.service_id = ParseGuidField("service_id", in.service_id());
  }
  return message;
}

ServerConnectionState Parser::Parse(const proto::ConnectionState& in) {
  ServerConnectionState state;
  state.phase = FromSaved("phase", kPhases, in.phase());
  state.contact = Parse(in.contact());
  state.after_reset = FromSaved("after_reset", kAfterResets, in.after_reset());
  state.pending_contact = Parse(in.pending_contact());
  state.offers_requested = in.offers_requested();
  state.next_offer_id = in.next_offer_id();
  for (const proto::OfferState& offer : in.offers()) {
    state.offers.push_back(Parse(offer));
  }
  for (const proto::GpadlState& gpadl : in.gpadls()) {
    state.gpadls.push_back(Parse(gpadl));
  }
  for (const proto::OutgoingMessageState& message : in.outgoing()) {
    state.outgoing.push_back(Parse(message));
  }
  state.paused = in.paused();
  state.reset_while_disconnected = in.reset_while_disconnected();
  if (in.has_pending_modify()) {
    state.pending_modify = {in.pending_modify().parent_to_child(),
                            in.pending_modify().child_to_parent()};
  }
  for (const proto::TlConnectState& request : in.tl_connects()) {
    state.tl_connects.push_back(Parse(request));
  }
  return state;
}

}  // namespace

std::string SaveServerConnection(const ServerConnection& connection) {
  const ServerConnectionState state = connection.Snapshot();
  proto::ConnectionState out;
  out.set_phase(ToSaved<proto::ConnectionState::Phase>(kPhases, state.phase));
  Save(state.contact, out.mutable_contact());
  out.set_after_reset(ToSaved<proto::ConnectionState::AfterReset>(
      kAfterResets, state.after_reset));
  Save(state.pending_contact, out.mutable_pending_contact());
  out.set_offers_requested(state.offers_requested);
  out.set_next_offer_id(state.next_offer_id);
  for (const SavedOffer& offer : state.offers) Save(offer, out.add_offers());
  for (const SavedGpadl& gpadl : state.gpadls) Save(gpadl, out.add_gpadls());
  for (const OutgoingMessage& message : state.outgoing) {
    Save(message, out.add_outgoing());
  }
  out.set_paused(state.paused);
  out.set_reset_while_disconnected(state.reset_while_disconnected);
  if (state.pending_modify.has_value()) {
    out.mutable_pending_modify()->set_parent_to_child(
        state.pending_modify->parent_to_child);
    out.mutable_pending_modify()->set_child_to_parent(
        state.pending_modify->child_to_parent);
  }
  for (const TlConnectRequest& request : state.tl_connects) {
    Save(request, out.add_tl_connects());
  }
  return savestate::SerializeDeterministic(out);
}

absl::StatusOr<CheckedServerConnection> ParseServerConnection(
    absl::Span<const std::byte> bytes, const ServerConnectionOptions& options) {
  proto::ConnectionState saved;
  absl::Status parsed = savestate::ParseBounded(bytes, savestate::ProtoLimits(),
                                                &saved, "saved connection");
  if (!parsed.ok()) return parsed;
  Parser parser;
  ServerConnectionState state = parser.Parse(saved);
  if (!parser.status().ok()) return parser.status();
  return CheckServerConnectionState(std::move(state), options);
}

}  // namespace ferrybus
