// SPDX-License-Identifier: MIT
//
// Options under which the checks of a restore refuse only what contradicts
// itself or the protocol: every target that there could be, in one.
//
// Plain functions.  Trust: the connection may say anything.

#ifndef FERRYBUS_TOOLS_STATE_WIDE_LIMITS_H_
#define FERRYBUS_TOOLS_STATE_WIDE_LIMITS_H_

#include <cstdint>

#include "ferrybus/channel/endpoint_state.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/channel/protocol_version.h"
#include "ferrybus/channel/server_connection_types.h"
#include "ferrybus/savestate/connection.pb.h"

namespace ferrybus::state_tool {

// The fields of a section are fewer (ProtoLimits::fields_max); sums of two do
// not overflow.
inline constexpr uint32_t kWide = uint32_t{1} << 30;

inline ServerConnectionOptions WideConnectionOptions(
    const savestate::v1::ConnectionState& connection) {
  ServerConnectionOptions options;
  options.limits.gpadls_max = kWide;
  options.limits.gpadls_in_progress_max = kWide;
  options.limits.gpadl_pages_max = uint64_t{1} << 60;
  options.limits.ring_pages_max = kWide;
  options.limits.reserved_channels_max = kWide;
  options.limits.tl_connects_max = kWide;
  options.limits.outgoing_messages_max = kWide;
  options.max_version = kAllProtocolVersions.back();
  options.max_vp = kNoInterruptVp - 1;
  options.ram_page_count = UINT64_MAX;
  options.features = kAllFeatures;
  // A host has these where it likes.
  const bool is_agreed =
      (connection.contact().features() & kFeatureServerMonitorPages) != 0;
  const savestate::v1::ContactState& contact =
      is_agreed ? connection.contact() : connection.pending_contact();
  options.server_monitor_pages = {contact.parent_to_child_monitor_page(),
                                  contact.child_to_parent_monitor_page()};
  return options;
}

inline EndpointLimits WideEndpointLimits() {
  return {.max_in_flight = kWide,
          .max_awaiting = kWide,
          .max_queued = kWide,
          .max_packet_bytes = kWide,
          .max_bad_completions = kWide};
}

}  // namespace ferrybus::state_tool

#endif  // FERRYBUS_TOOLS_STATE_WIDE_LIMITS_H_
