// SPDX-License-Identifier: MIT

#include "ferrybus/vsp/bus_report.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/endpoint_view.h"
#include "ferrybus/channel/server_connection_state.h"
#include "ferrybus/vsp/server_channel.h"

namespace ferrybus::vsp {
namespace {

using Json = nlohmann::ordered_json;

// -- Names -------------------------------------------------------------------

const char* NameOf(ConnectionPhase phase) {
  switch (phase) {
    case ConnectionPhase::kDisconnected:
      return "disconnected";
    case ConnectionPhase::kConnected:
      return "connected";
    case ConnectionPhase::kResetting:
      return "resetting";
  }
  return "unknown";
}

const char* NameOf(ServerChannelState state) {
  switch (state) {
    case ServerChannelState::kClosed:
      return "closed";
    case ServerChannelState::kOpening:
      return "opening";
    case ServerChannelState::kOpeningThenClose:
      return "opening, then closing";
    case ServerChannelState::kOpen:
      return "open";
    case ServerChannelState::kClosing:
      return "closing";
    case ServerChannelState::kClosingThenOpen:
      return "closing, then opening";
    case ServerChannelState::kRescinded:
      return "rescinded";
  }
  return "unknown";
}

const char* NameOf(GpadlState state) {
  switch (state) {
    case GpadlState::kInProgress:
      return "in progress";
    case GpadlState::kCreated:
      return "created";
    case GpadlState::kTearingDown:
      return "tearing down";
  }
  return "unknown";
}

const char* NameOf(ChannelLink link) {
  switch (link) {
    case ChannelLink::kDisabled:
      return "disabled";
    case ChannelLink::kEnabled:
      return "enabled";
    case ChannelLink::kOpen:
      return "open";
    case ChannelLink::kClosed:
      return "closed";
  }
  return "unknown";
}

const char* NameOf(EndpointRunState state) {
  switch (state) {
    case EndpointRunState::kDetached:
      return "detached";
    case EndpointRunState::kSuspended:
      return "suspended";
    case EndpointRunState::kActive:
      return "active";
    case EndpointRunState::kFrozen:
      return "frozen";
    case EndpointRunState::kFaulted:
      return "faulted";
  }
  return "unknown";
}

const char* NameOf(ringbuffer::PacketType type) {
  switch (type) {
    case ringbuffer::PacketType::kDataInBand:
      return "in band";
    case ringbuffer::PacketType::kDataUsingTransferPages:
      return "transfer pages";
    case ringbuffer::PacketType::kDataUsingGpaDirect:
      return "GPA direct";
    case ringbuffer::PacketType::kCompletion:
      return "completion";
  }
  return "unknown";
}

// Numbers that people know in hexadecimal.
std::string Hex(uint64_t number) {
  return absl::StrCat("0x", absl::Hex(number));
}

// -- Parts -------------------------------------------------------------------

// `{"count": of all, "listed": [the first `most`]}`.
template <typename List, typename Describe>
Json Listed(const List& list, size_t count, size_t most, Describe describe) {
  Json listed = Json::array();
  for (const auto& each : list) {
    if (listed.size() == most) break;
    listed.push_back(describe(each));
  }
  const size_t rest = count - std::min(count, listed.size());
  return {{"count", count}, {"listed", std::move(listed)}, {"rest", rest}};
}

Json Describe(const EndpointView::Ring& ring) {
  return {{"data_bytes", ring.data_bytes},
          {"own_index", ring.position.own_index},
          {"peer_index", ring.position.peer_index},
          {"fault", ringbuffer::RingFaultName(ring.fault)}};
}

Json Describe(const EndpointView::Incoming& packet) {
  return {{"type", NameOf(packet.type)},
          {"transaction_id", packet.transaction_id},
          {"payload_bytes", packet.payload_bytes},
          {"external_bytes", packet.external_bytes},
          {"completion_requested", packet.completion_requested},
          {"waiting", packet.is_waiting},
          {"orphaned", packet.is_orphaned}};
}

Json Describe(const EndpointView::Queued& packet) {
  return {{"type", NameOf(packet.type)},
          {"transaction_id", packet.transaction_id},
          {"payload_bytes", packet.payload_bytes}};
}

Json Describe(const EndpointView::Awaiting& packet) {
  return {{"transaction_id", packet.transaction_id},
          {"tag", packet.tag},
          {"cancelled", packet.is_cancelled}};
}

Json Describe(const EndpointCounters& counters) {
  return {{"packets_received", counters.packets_received},
          {"packets_sent", counters.packets_sent},
          {"bytes_received", counters.bytes_received},
          {"bytes_sent", counters.bytes_sent},
          {"completions_received", counters.completions_received},
          {"completions_unmatched", counters.completions_unmatched},
          {"doorbells_rung", counters.doorbells_rung}};
}

Json Describe(const SavedGpadl& gpadl) {
  return {{"gpadl", Hex(static_cast<uint32_t>(gpadl.id))},
          {"channel", static_cast<uint32_t>(gpadl.channel_id)},
          {"state", NameOf(gpadl.state)},
          {"byte_count", gpadl.byte_count},
          {"byte_offset", gpadl.byte_offset},
          {"pages", gpadl.pages.size()}};
}

Json Describe(const TlConnectRequest& request) {
  return {{"service", request.service_id.ToString()},
          {"endpoint", request.endpoint_id.ToString()}};
}

// For Listed().
const auto kDescribe = [](const auto& each) { return Describe(each); };

Json Describe(const ServerChannel& channel, const ReportBounds& bounds) {
  const EndpointView view = channel.endpoint().View(bounds.packets);
  return {{"link", NameOf(channel.link())},
          {"paused", channel.run() == ChannelRun::kPaused},
          {"run_state", NameOf(view.run_state)},
          {"fault", view.fault_reason},
          {"faults", channel.faults()},
          {"mapped_gpadls", channel.mapped_gpadls()},
          {"counters", Describe(view.load.counters)},
          {"incoming_ring", Describe(view.incoming_ring)},
          {"outgoing_ring", Describe(view.outgoing_ring)},
          {"incoming", Listed(view.incoming, view.load.outstanding,
                              bounds.packets, kDescribe)},
          {"queued",
           Listed(view.queued, view.load.queued, bounds.packets, kDescribe)},
          {"awaiting", Listed(view.awaiting, view.load.awaiting, bounds.packets,
                              kDescribe)}};
}

Json Describe(const SavedOffer& offer, const Bus& bus,
              const ReportBounds& bounds) {
  Json described = {
      {"offer", static_cast<uint32_t>(offer.id)},
      {"channel", static_cast<uint32_t>(offer.channel_id)},
      {"interface_type", offer.params.interface_type.ToString()},
      {"interface_instance", offer.params.interface_instance.ToString()},
      {"sub_channel_index", offer.params.sub_channel_index},
      {"flags", Hex(offer.params.flags)},
      {"state", NameOf(offer.state)},
      {"offered", offer.is_offered},
      {"rescinding", offer.is_rescinding},
      {"reserved", offer.reserved.has_value()}};
  if (offer.open.has_value()) {
    described["open"] = {
        {"ring_gpadl", Hex(static_cast<uint32_t>(offer.open->ring_gpadl))},
        {"downstream_page_offset", offer.open->downstream_page_offset},
        {"target_vp", offer.open->target_vp}};
  }
  const ServerChannel* const channel = bus.channel(offer.id);
  if (channel != nullptr) described["endpoint"] = Describe(*channel, bounds);
  return described;
}

Json Describe(const ServerConnection& connection,
              const ServerConnectionState& state) {
  const ServerCounters& counters = connection.counters();
  const Contact& contact = state.contact;
  return {{"phase", NameOf(state.phase)},
          {"version", Hex(static_cast<uint32_t>(contact.version))},
          {"features", Hex(contact.features)},
          {"client_id", contact.client_id.ToString()},
          {"monitor_pages",
           {Hex(contact.parent_to_child_monitor_page),
            Hex(contact.child_to_parent_monitor_page)}},
          {"paused", state.paused},
          {"offers_requested", state.offers_requested},
          {"outgoing_messages", state.outgoing.size()},
          {"messages_handled", counters.messages_handled},
          {"messages_refused", counters.messages_refused},
          {"messages_ignored", counters.messages_ignored},
          {"resets", counters.resets}};
}

}  // namespace

std::string BusReport(const Bus& bus, const ReportBounds& bounds) {
  const ServerConnectionState state = bus.connection().Snapshot();
  const InFlightCount in_flight = bus.in_flight();
  const Json report = {
      {"connection", Describe(bus.connection(), state)},
      {"in_flight",
       {{"incoming", in_flight.incoming},
        {"awaiting", in_flight.awaiting},
        {"queued", in_flight.queued}}},
      {"tl_connects", Listed(state.tl_connects, state.tl_connects.size(),
                             bounds.requests, kDescribe)},
      {"gpadls",
       Listed(state.gpadls, state.gpadls.size(), bounds.gpadls, kDescribe)},
      {"offers", Listed(state.offers, state.offers.size(), bounds.offers,
                        [&](const SavedOffer& offer) {
                          return Describe(offer, bus, bounds);
                        })}};
  // A fault's reason may be any bytes: what is not UTF-8 is replaced.
  return report.dump(bounds.indent, ' ', /*ensure_ascii=*/true,
                     Json::error_handler_t::replace);
}

}  // namespace ferrybus::vsp
