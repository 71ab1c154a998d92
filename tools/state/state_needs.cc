// SPDX-License-Identifier: MIT
//
// state_check.h: DescribeNeeds.

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ferrybus/channel/endpoint_state.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/channel/protocol_version.h"
#include "ferrybus/channel/server_connection_types.h"
#include "ferrybus/ringbuffer/wire.h"
#include "ferrybus/savestate/frame_layout.h"
#include "ferrybus/savestate/frame_report.h"
#include "ferrybus/tools/state/state_check.h"
#include "ferrybus/tools/state/state_sections.h"

namespace ferrybus::state_tool {
namespace {

using savestate::FrameReport;
using savestate::SectionReport;
using savestate::v1::ChannelState;
using savestate::v1::ConnectionState;
using savestate::v1::ContactState;
using savestate::v1::EndpointState;
using savestate::v1::OfferState;

// Unlike these, a device is needed once for each channel; as many are listed.
constexpr size_t kDevicesListedMax = 256;

// The least that a target must have.
class Target {
 public:
  void Take(const ConnectionState& connection);
  void Take(const EndpointState& endpoint, const OfferState* offer);
  Json ToJson() const;

 private:
  void Take(const ContactState& contact);
  void TakeVp(uint32_t vp) {
    if (vp != kNoInterruptVp) max_vp_ = std::max(max_vp_, vp);
  }
  void TakeAddress(uint64_t address) {
    ram_pages_ = std::max(ram_pages_,
                          address == 0 ? 0 : address / kGpadlPageSizeBytes + 1);
  }
  void TakeGpadls(const ConnectionState& connection);

  uint32_t version_ = 0;
  uint32_t features_ = 0;
  uint32_t max_vp_ = 0;
  uint64_t ram_pages_ = 0;
  // Name of the limit: what the file holds, what is allowed by default.
  std::map<std::string, std::pair<uint64_t, uint64_t>> limits_;
  Json devices_ = Json::array();
  size_t devices_rest_ = 0;

  void TakeLimit(const char* name, uint64_t found, uint64_t allowed) {
    uint64_t& most =
        limits_.emplace(name, std::pair(0, allowed)).first->second.first;
    most = std::max(most, found);
  }
};

void Target::Take(const ContactState& contact) {
  if (!contact.supported()) return;
  version_ = std::max(version_, contact.version());
  features_ |= contact.features();
  TakeVp(contact.target_message_vp());
  if ((contact.features() & kFeatureServerMonitorPages) != 0) return;
  TakeAddress(contact.parent_to_child_monitor_page());
  TakeAddress(contact.child_to_parent_monitor_page());
}

void Target::TakeGpadls(const ConnectionState& connection) {
  uint64_t pages = 0;
  uint64_t unfinished = 0;
  for (const auto& gpadl : connection.gpadls()) {
    // In the widest type: a file may say 2^32 - 1 for both.
    pages += (uint64_t{gpadl.byte_count()} + gpadl.byte_offset() +
              kGpadlPageSizeBytes - 1) /
             kGpadlPageSizeBytes;
    unfinished +=
        gpadl.state() == savestate::v1::GpadlState::STATE_IN_PROGRESS ? 1 : 0;
    const absl::Span<const std::byte> list = AsBytes(gpadl.pages());
    for (size_t at = 0; at + 8 <= list.size(); at += 8) {
      const uint64_t page = savestate::LoadU64(list.data() + at);
      ram_pages_ = std::max(ram_pages_, page + (page != UINT64_MAX ? 1 : 0));
    }
  }
  const ServerLimits limits;
  TakeLimit("ServerLimits::gpadls_max",
            static_cast<uint64_t>(connection.gpadls_size()), limits.gpadls_max);
  TakeLimit("ServerLimits::gpadls_in_progress_max", unfinished,
            limits.gpadls_in_progress_max);
  TakeLimit("ServerLimits::gpadl_pages_max", pages, limits.gpadl_pages_max);
}

void Target::Take(const ConnectionState& connection) {
  Take(connection.contact());
  Take(connection.pending_contact());
  uint64_t reserved = 0;
  for (const OfferState& offer : connection.offers()) {
    if (offer.has_open()) TakeVp(offer.open().target_vp());
    if (!offer.has_reserved()) continue;
    ++reserved;
    TakeVp(offer.reserved().target().vp());
    TakeVp(offer.reserved().close_target().vp());
  }
  for (const auto& message : connection.outgoing()) {
    TakeVp(message.target().vp());
  }
  TakeAddress(connection.pending_modify().parent_to_child());
  TakeAddress(connection.pending_modify().child_to_parent());
  TakeGpadls(connection);
  const ServerLimits limits;
  TakeLimit("ServerLimits::channels_max",
            static_cast<uint64_t>(connection.offers_size()),
            limits.channels_max);
  TakeLimit("ServerLimits::reserved_channels_max", reserved,
            limits.reserved_channels_max);
  TakeLimit("ServerLimits::tl_connects_max",
            static_cast<uint64_t>(connection.tl_connects_size()),
            limits.tl_connects_max);
}

void Target::Take(const EndpointState& endpoint, const OfferState* offer) {
  const EndpointLimits limits;
  TakeLimit("EndpointLimits::max_in_flight",
            static_cast<uint64_t>(endpoint.incoming_size()),
            limits.max_in_flight);
  const auto queued = static_cast<uint64_t>(endpoint.queued_size());
  TakeLimit("EndpointLimits::max_queued and max_in_flight together", queued,
            uint64_t{limits.max_queued} + limits.max_in_flight);
  uint64_t slots = 0;
  for (const auto& packet : endpoint.awaiting()) {
    slots = std::max(slots, packet.transaction_id() & 0xffffffff);
  }
  TakeLimit("EndpointLimits::max_awaiting", slots, limits.max_awaiting);
  uint64_t bytes = 0;
  for (const auto& packet : endpoint.incoming()) {
    bytes = std::max<uint64_t>(bytes, ringbuffer::kDescriptorBytes +
                                          packet.extension().size() +
                                          packet.payload().size());
  }
  TakeLimit("EndpointLimits::max_packet_bytes", bytes, limits.max_packet_bytes);
  if (offer == nullptr) return;
  if (devices_.size() == kDevicesListedMax) {
    ++devices_rest_;
    return;
  }
  devices_.push_back(
      {{"device", DeviceName(*offer)},
       {"interface_type", GuidText(offer->interface_type())},
       {"interface_instance", GuidText(offer->interface_instance())},
       {"sub_channel_index", offer->sub_channel_index()}});
}

Json Target::ToJson() const {
  Json limits = Json::array();
  for (const auto& [name, values] : limits_) {
    if (values.first <= values.second) continue;
    limits.push_back({{"limit", name},
                      {"needed", values.first},
                      {"default", values.second}});
  }
  return {
      {"protocol_version", ProtocolVersionToString(ProtocolVersion{version_})},
      {"features", Hex(features_)},
      {"highest_vp", max_vp_},
      {"ram_pages", ram_pages_},
      {"limits_above_default", std::move(limits)},
      {"devices",
       {{"count", devices_.size() + devices_rest_},
        {"listed", devices_},
        {"rest", devices_rest_}}}};
}

// One row for each name, version and kind, with how many there are.
Json DescribeVersions(const FrameReport& report, bool* is_known) {
  std::map<std::tuple<std::string, uint32_t, bool>, size_t> kinds;
  for (const SectionReport& row : report.sections) {
    const bool required = (row.flags & savestate::kSectionFlagRequired) != 0;
    ++kinds[{row.name, row.version, required}];
  }
  Json sections = Json::array();
  for (const auto& [kind, count] : kinds) {
    const auto& [name, version, required] = kind;
    const savestate::KnownSection* const known = FindKnown(name);
    const bool is_readable = IsReadable(name, version);
    if (!is_readable && (known != nullptr || required)) *is_known = false;
    sections.push_back(
        {{"section", name},
         {"count", count},
         {"version", version},
         {"required", required},
         {"this_build", known == nullptr
                            ? std::string("unknown")
                            : absl::StrCat("1 to ", known->max_version)},
         {"result", is_readable        ? "read"
                    : known != nullptr ? "refused: too new"
                    : required         ? "refused: unknown and required"
                                       : "skipped and reported"}});
  }
  return sections;
}

}  // namespace

Json DescribeNeeds(absl::Span<const std::byte> bytes) {
  const FrameReport report = savestate::DescribeHeader(bytes);
  bool is_known = report.has_header && report.magic_ok &&
                  report.frame_version == savestate::kFrameVersion;
  Json needs;
  needs["frame_version"] = report.frame_version;
  needs["frame_version_of_this_build"] = savestate::kFrameVersion;
  needs["sections"] = DescribeVersions(report, &is_known);
  needs["this_build_reads_it"] = is_known;
  needs["target"] = nullptr;
  if (report.sections.empty()) return needs;
  Target target;
  ConnectionState connection;
  const auto body_of = [&](const SectionReport& row) {
    return bytes.subspan(row.offset, row.length);
  };
  for (const SectionReport& row : report.sections) {
    if (row.name != kConnectionSection ||
        row.body != SectionReport::Body::kGood) {
      continue;
    }
    auto parsed = ParseSection<ConnectionState>(body_of(row), row.name, 0);
    if (parsed.ok()) connection = *std::move(parsed);
    break;
  }
  target.Take(connection);
  const OffersByChannel offers = OffersOf(connection);
  for (const SectionReport& row : report.sections) {
    if (row.name != kChannelSection || row.body != SectionReport::Body::kGood) {
      continue;
    }
    const auto parsed =
        ParseSection<ChannelState>(body_of(row), row.name, row.instance);
    if (!parsed.ok()) continue;
    target.Take(parsed->endpoint(), OfferOf(offers, row.instance));
  }
  needs["target"] = target.ToJson();
  return needs;
}

}  // namespace ferrybus::state_tool
