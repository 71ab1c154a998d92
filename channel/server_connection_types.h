// SPDX-License-Identifier: MIT
#ifndef FERRYBUS_CHANNEL_SERVER_CONNECTION_TYPES_H_
#define FERRYBUS_CHANNEL_SERVER_CONNECTION_TYPES_H_

// Plain values of the host side of a connection: what the owner configures,
// offers and is told.  The state machine is in server_connection.h.
//
// Trust: OpenRequest and Contact are what a guest said; a handler gets them
// only after the checks that their comments name, user data unchecked.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "ferrybus/channel/gpadl_table.h"
#include "ferrybus/channel/guid.h"
#include "ferrybus/channel/messages.h"
#include "ferrybus/channel/protocol_version.h"

namespace ferrybus {

// What an offer is called inside this process.  Unlike a ChannelId it is never
// used a second time on a connection.
enum class OfferId : uint32_t {};

// One channel that the host offers.  (type, instance, sub-channel index) is
// its identity: it must be unique, and finds the offer again after a restore.
struct OfferParams {
  Guid interface_type;
  Guid interface_instance;
  // 0 is the primary channel, which must be offered first.
  uint16_t sub_channel_index = 0;
  uint16_t flags = 0;  // kOffer...
  uint16_t mmio_megabytes = 0;
  uint16_t mmio_megabytes_optional = 0;
  uint8_t monitor_id = kNoMonitorId;  // or 0...127
  std::array<std::byte, kUserDataSizeBytes> user_data{};

  friend bool operator==(const OfferParams&, const OfferParams&) = default;

  bool HasIdentityOf(const OfferParams& other) const {
    return interface_type == other.interface_type &&
           interface_instance == other.interface_instance &&
           sub_channel_index == other.sub_channel_index;
  }
  // Of the same device, whichever channel `other` is.
  bool IsSubChannelOf(const OfferParams& other) const {
    return sub_channel_index != 0 && interface_type == other.interface_type &&
           interface_instance == other.interface_instance;
  }
};

// What the guest asked for in OPENCHANNEL.
struct OpenRequest {
  uint32_t open_id = 0;  // the guest's, returned unchanged
  GpadlId ring_gpadl{};
  uint32_t downstream_page_offset = 0;
  uint32_t target_vp = 0;  // kNoInterruptVp: the channel wants no interrupts
  std::array<std::byte, kUserDataSizeBytes> user_data{};
  // Chosen by the guest with feature 0x1, else 0: what it will signal, and the
  // bit by which it wants to be signalled.  OfferInfo has what is in force.
  uint32_t connection_id = 0;  // 24 bits
  uint16_t event_flag = 0;     // below kEventFlagCount
  uint16_t flags = 0;          // kOpenRedirectInterrupt, with feature 0x2

  friend bool operator==(const OpenRequest&, const OpenRequest&) = default;
};

// A channel that was opened by OPEN_RESERVED_CHANNEL, for use while the guest
// crashes: it outlives UNLOAD and INITIATE_CONTACT.
struct ReservedChannel {
  MessageTarget target;  // of the answer to the open
  // Of the answer to CLOSE_RESERVED_CHANNEL, while that is due.
  std::optional<MessageTarget> close_target;

  friend bool operator==(const ReservedChannel&,
                         const ReservedChannel&) = default;
};

// hv_sock: what the guest asked for in TL_CONNECT_REQUEST.  Endpoint and
// service name the request.
struct TlConnectRequest {
  Guid endpoint_id;  // chosen by the guest
  Guid service_id;
  Guid silo_id;  // from 5.2

  friend bool operator==(const TlConnectRequest&,
                         const TlConnectRequest&) = default;

  bool Is(const Guid& endpoint, const Guid& service) const {
    return endpoint_id == endpoint && service_id == service;
  }
};

// Feature flags that are granted unless the options say otherwise.
inline constexpr uint32_t kDefaultFeatures =
    kFeatureClientId | kFeatureModifyConnection | kFeaturePauseResume;

// What the guest asked for in INITIATE_CONTACT, and our answer.
struct Contact {
  ProtocolVersion version{};  // may be none that we know, if not supported
  bool supported = false;
  uint8_t connection_state = kConnectionSuccessful;
  uint32_t features = 0;  // granted
  // Where the guest wants its messages delivered.  0 if it may not choose.
  uint32_t target_message_vp = 0;
  uint64_t parent_to_child_monitor_page = 0;  // both 0: no monitor pages
  uint64_t child_to_parent_monitor_page = 0;
  Guid client_id;

  bool accepted() const {
    return supported && connection_state == kConnectionSuccessful;
  }
  MonitorPages monitor_pages() const {
    return {parent_to_child_monitor_page, child_to_parent_monitor_page};
  }
  void set_monitor_pages(const MonitorPages& pages) {
    parent_to_child_monitor_page = pages.parent_to_child;
    child_to_parent_monitor_page = pages.child_to_parent;
  }
  friend bool operator==(const Contact&, const Contact&) = default;
};

// Whether a guest may have these: none, or two pages of its RAM.
constexpr bool AreMonitorPages(const MonitorPages& pages,
                               uint64_t ram_page_count) {
  if (pages == MonitorPages{}) return true;
  for (uint64_t address : {pages.parent_to_child, pages.child_to_parent}) {
    if (address == 0 || address % kGpadlPageSizeBytes != 0 ||
        address / kGpadlPageSizeBytes >= ram_page_count) {
      return false;
    }
  }
  return true;
}

// States of one channel on the host.  docs/WIRE_FORMAT.md, "Channel states".
enum class ServerChannelState {
  kClosed,
  kOpening,           // the device was asked and has not answered
  kOpeningThenClose,  // as kOpening, and is to be closed when it has
  kOpen,
  kClosing,          // the device was asked to let go
  kClosingThenOpen,  // as kClosing, and the guest has sent OPEN already
  kRescinded,        // the guest was told and has not released the number
};

// The channel's device has, or is about to have, the ring.
constexpr bool IsActive(ServerChannelState state) {
  return state != ServerChannelState::kClosed &&
         state != ServerChannelState::kRescinded;
}

enum class ConnectionPhase {
  kDisconnected,
  kConnected,
  kResetting,  // waits until every device has let go of its channel
};

struct OfferInfo {
  ChannelId channel_id{};
  uint32_t connection_id = 0;  // for the guest's signals
  uint32_t event_flag = 0;     // for signals to the guest
  ServerChannelState state = ServerChannelState::kClosed;
  bool is_offered = false;              // to the guest, on this connection
  bool is_reserved = false;             // opened as a reserved channel
  uint32_t target_vp = kNoInterruptVp;  // of an active channel
};

// Caps on what a guest can make the host hold.
struct ServerLimits {
  size_t channels_max = kMaxChannelId;
  size_t gpadls_max = 4096;
  size_t gpadls_in_progress_max = 256;
  uint64_t gpadl_pages_max = uint64_t{1} << 20;
  uint32_t ring_pages_max = 8190;  // both rings of a channel together
  size_t reserved_channels_max = 16;
  size_t tl_connects_max = 16;  // not answered yet
  // Answers waiting for the guest; see OutgoingMessagesMax.
  size_t outgoing_messages_max = 4096;
};

struct ServerConnectionOptions {
  ServerLimits limits;
  // Versions above are refused; the guest then tries a lower one.
  ProtocolVersion max_version = ProtocolVersion::kCopper;
  // Highest virtual processor that exists.
  uint32_t max_vp = 0;
  // One past the highest page number of guest RAM.
  uint64_t ram_page_count = 0;
  // Feature flags to grant when the guest asks for them (from 6.0).  Not in
  // the default, since they need something of the owner:
  //  * kFeatureGuestSignalParameters: signals by OfferInfo::connection_id and
  //    event_flag, which the guest chooses.
  //  * kFeatureInterruptRedirection: OpenRequest::flags.
  //  * kFeatureConfidentialChannels: the guest's messages come by a path that
  //    the untrusted part of the host cannot write to.
  //  * kFeatureServerMonitorPages: server_monitor_pages.
  //  * kFeatureGpaPinning: pins what external data names.
  uint32_t features = kDefaultFeatures;
  // Pages of the host for a guest that asks for them and has none of its own.
  MonitorPages server_monitor_pages;
};

// How many messages can be waiting for the guest, with those that come by
// themselves and once for each channel (offer, rescind) not counted.  Never
// less than what can be due at once, so that a full queue always empties as
// the guest reads.
constexpr size_t OutgoingMessagesMax(const ServerLimits& limits) {
  const size_t due_max = 2 * limits.channels_max + limits.gpadls_max +
                         limits.reserved_channels_max + limits.tl_connects_max +
                         3;
  return limits.outgoing_messages_max > due_max ? limits.outgoing_messages_max
                                                : due_max;
}

struct ServerCounters {
  uint64_t messages_handled = 0;  // all, the next two included
  uint64_t messages_refused = 0;  // broke a rule
  uint64_t messages_ignored = 0;  // too late to matter, as the rules allow
  uint64_t resets = 0;            // contacts, unloads, disconnects
};

// The owner's answer to MODIFY_CONNECTION.
enum class ModifyConnectionAnswer {
  kAccept,
  kRefuse,
  kLater,  // by ModifyConnectionCompleted
};

// What is told to the owner of a ServerConnection, from inside one of its
// member functions.  The connection's state is consistent at each call, and
// the callee may call back, except HandleMessage and Disconnect.
class ServerEvents {
 public:
  virtual ~ServerEvents() = default;

  // A guest has connected.
  virtual void OnConnected(const Contact& contact) = 0;
  // The guest's connection has ended; all its channels are closed, but for
  // reserved ones.  Comes also between two connections.
  virtual void OnDisconnected() = 0;

  // The guest opens a channel.  `ring` holds both rings, of whole pages, and
  // stays as long as the channel is active.  Answer with OpenCompleted, now or
  // later.
  virtual void OnOpenRequested(OfferId offer, const OpenRequest& request,
                               const GpadlView& ring) = 0;

  // The channel is to end: the guest closed it, or went, or the offer is
  // rescinded.  Answer with CloseCompleted once ring and guest memory are no
  // longer touched.
  virtual void OnCloseRequested(OfferId offer) = 0;

  // The guest wants the interrupts of an open channel at another VP, which
  // exists.  False refuses.
  virtual bool OnModifyRequested(OfferId offer, uint32_t target_vp) = 0;

  // The guest tears down a GPADL that this channel's device has pinned.  It is
  // answered when the last pin is released.
  virtual void OnGpadlTeardownRequested(OfferId offer, GpadlId gpadl) = 0;

  // The guest moves its monitor pages, or takes them away.  They are pages of
  // guest RAM; contact() has the new ones once this is accepted.
  virtual ModifyConnectionAnswer OnModifyConnectionRequested(
      const MonitorPages& pages) {
    (void)pages;
    return ModifyConnectionAnswer::kAccept;
  }

  // The guest connects to a socket service.  True: it is answered, now or
  // later, by AddOffer with interface type `service_id`, instance
  // `endpoint_id` and kOfferTlnpiProvider, or by RefuseTlConnect.  False
  // refuses.  All requests end with OnDisconnected.
  virtual bool OnTlConnectRequested(const TlConnectRequest& request) {
    (void)request;
    return false;
  }

  // The guest takes no messages from now on; they wait until it resumes, or
  // until OnDisconnected.
  virtual void OnPaused() {}
  virtual void OnResumed() {}
};

// The number that the guest signals; it treats it as opaque.
constexpr uint32_t EventConnectionId(ChannelId channel_id) {
  return static_cast<uint32_t>(channel_id) | (uint32_t{kVmbusSint} << 12);
}

}  // namespace ferrybus

#endif  // FERRYBUS_CHANNEL_SERVER_CONNECTION_TYPES_H_
